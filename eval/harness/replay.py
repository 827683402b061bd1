"""Answers that somebody has already: a file of JSON lines.

A line has `prompt`, or `prompt_sha256` (SHA-256, hex, of the prompt's UTF-8), and `output`; lines
of one prompt are its samples in order. Of multiple choice a line may have `choice_logprobs` in the
place of `output`: the log-probability of each choice.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eval.harness.asks import Answer, Ask, Choose, Generate
from eval.harness.backends import OnDone
from eval.harness.data import read_jsonl
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
        for number, row in enumerate(read_jsonl(path), 1):
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
        return Answer(
            row.get("output"),
            row.get("stop_reason"),
            logprobs=None if logprobs is None else tuple(logprobs),
        )


def _key(row: dict[str, Any], at: str) -> str:
    logprobs, output = row.get("choice_logprobs"), row.get("output")
    if not isinstance(output, str) and not isinstance(logprobs, list):
        raise DataError(
            "replayed line has no output", got=sorted(row)[:8], at=at,
            expected="output (text), or choice_logprobs (numbers)",
        )  # fmt: skip
    if isinstance(row.get("prompt_sha256"), str):
        return row["prompt_sha256"].lower()
    if not isinstance(row.get("prompt"), str):
        raise DataError(
            "replayed line has no prompt", got=sorted(row)[:8], at=at,
            expected="prompt (text), or prompt_sha256",
        )  # fmt: skip
    return sha256(row["prompt"].encode("utf-8", "surrogatepass"))
