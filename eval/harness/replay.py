"""Answers that somebody has already: a file of JSON lines, or a list in JSON.

A line has `prompt`, or `prompt_sha256` (SHA-256, hex, of the prompt's UTF-8), and `output`; lines
of one prompt are its samples in order. The alpaca_eval package's `instruction` is a prompt too, and
`output_2` of its annotations an output. Of multiple choice a line may have `choice_logprobs` in the
place of `output`: the log-probability of each choice.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eval.harness.asks import Answer, Ask, Choose, Generate
from eval.harness.backends import OnDone
from eval.harness.data import OWN, read_json, read_jsonl, read_text
from tulu_jax.errors import DataError
from tulu_jax.files import file_sha256, sha256


class ReplayBackend:
    """Answers from a file; a prompt that it does not hold is an error of that instance."""

    can = frozenset({"generate", "choose", "weigh"})

    def __init__(self, path: Path) -> None:
        """Reads the file.

        Raises:
          DataError: it is missing or damaged, or a line says neither what was asked nor answered.
        """
        self._path = path
        self._lines: dict[str, list[dict[str, Any]]] = {}
        for number, row in enumerate(_rows(path), 1):
            key = _key(row, f"{path} row {number}")
            self._lines.setdefault(key, []).append(row)
        self.fingerprint = file_sha256(path)

    def answer(self, asks: Sequence[Ask], on_done: OnDone) -> None:
        """See `Backend`."""
        for index, ask in enumerate(asks):
            on_done(index, self._find(ask))

    def _find(self, ask: Ask) -> Answer:
        rows = self._lines.get(sha256(ask.prompt.text.encode("utf-8", "surrogatepass")), [])
        if not isinstance(ask, Choose):  # which an output answers too
            name = "output" if isinstance(ask, Generate) else "choice_logprobs"
            rows = [row for row in rows if row.get(name) is not None]
        sample = ask.sample if isinstance(ask, Generate) else 0
        if sample >= len(rows):
            had = f"{len(rows)} outputs of this prompt" if rows else "no such prompt"
            return Answer(error=f"not in {self._path.name}: {had}, sample {sample} is asked for")
        row = rows[sample]
        logprobs = row.get("choice_logprobs")
        found = Answer(
            row.get("output"),
            row.get("stop_reason"),
            logprobs=None if logprobs is None else tuple(logprobs),
        )
        return ask.cut(found) if isinstance(ask, Generate) else found


def _rows(path: Path) -> list[dict[str, Any]]:
    """The objects of a file, by our names of their fields."""
    if not read_text(path, OWN).lstrip().startswith("["):
        return [_ours(row) for row in read_jsonl(path, origin=OWN)]
    rows = read_json(path, OWN)
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise DataError(
                "replayed entry is no object", got=str(row)[:60], at=f"{path} row {number}"
            )
    return [_ours(row) for row in rows]


def _ours(row: dict[str, Any]) -> dict[str, Any]:
    """The row with a prompt and an output where it is one of the alpaca_eval package's."""
    instruction, more = row.get("instruction"), row.get("input")
    if not isinstance(instruction, str) or "prompt" in row or "prompt_sha256" in row:
        return row
    if isinstance(more, str) and more:
        instruction = f"{instruction.strip()}\n\n{more.strip()}"
    return {"output": row.get("output_2"), **row, "prompt": instruction}


def _key(row: dict[str, Any], at: str) -> str:
    logprobs, output = row.get("choice_logprobs"), row.get("output")
    if not isinstance(output, str) and not isinstance(logprobs, list):
        raise DataError(
            "replayed line has no output", got=sorted(row)[:8], at=at,
            expected="output (text), or choice_logprobs (numbers)",
        )  # fmt: skip
    if logprobs is not None and not _are_numbers(logprobs):
        raise DataError(
            "replayed log-probabilities are no numbers", got=str(logprobs)[:60], at=at,
            expected="a list of numbers, one a choice",
        )  # fmt: skip
    if isinstance(row.get("prompt_sha256"), str):
        return row["prompt_sha256"].lower()
    if not isinstance(row.get("prompt"), str):
        raise DataError(
            "replayed line has no prompt", got=sorted(row)[:8], at=at,
            expected="prompt (text), or prompt_sha256",
        )  # fmt: skip
    return sha256(row["prompt"].encode("utf-8", "surrogatepass"))


def _are_numbers(values: Any) -> bool:
    return isinstance(values, list) and all(
        isinstance(one, int | float) and not isinstance(one, bool) for one in values
    )
