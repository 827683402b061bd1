"""Files of the alpaca_eval package: outputs, annotations, leaderboards; and reduced annotations.

Source: tatsu-lab/alpaca_eval:src/alpaca_eval/main.py@cd543a14.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from eval.harness.data import OFFICIAL, OWN, Origin, read_text
from eval.judge.annotators import read_ranking
from eval.judge.counts import Count
from tulu_jax.errors import DataError
from tulu_jax.files import parse_json, write_whole

LEADERBOARD = (
    "win_rate", "standard_error", "n_wins", "n_wins_base", "n_draws", "n_total",
    "discrete_win_rate", "length_controlled_winrate", "mode", "avg_length",
)  # fmt: skip
"""Columns of leaderboard.csv, the model's name before them."""
MODE = "community"
"""How the package files a model that nobody verified."""
TAKE = "take the file anew from where it came"
WORDS = ("m", "M")
"""What AlpacaEval 2's judge says: the output shown first is better, or the second."""


@dataclasses.dataclass(frozen=True)
class Output:
    """A model's output to an instruction."""

    instruction: str
    output: str
    dataset: str | None = None
    generator: str | None = None


@dataclasses.dataclass(frozen=True)
class Annotation:
    """A stored judgement. Texts are None where only their counts were kept."""

    model: str | None
    preference: float | None
    reference: Count
    output: Count
    instruction: str | None = None
    texts: tuple[str, str] | None = None
    """Of the reference and of the model."""
    index: int | None = None
    """The instruction's place among AlpacaEval's."""
    first: tuple[float, ...] = ()
    """Of each reply that was kept and can be read, which output shown was better, 1 to 2."""


def read_rows(path: Path, origin: Origin = OFFICIAL) -> list[dict[str, Any]]:
    """The objects of a file: a JSON list of them, or one a line; gzip too.

    Raises:
      DataError: it is missing, damaged or empty, or holds anything else.
    """
    text = read_text(path, origin)
    if text.lstrip()[:1] == "[":
        parts = [(text, str(path))]
    else:
        lines = enumerate(text.split("\n"), 1)
        parts = [(line, f"{path} line {number}") for number, line in lines if line.strip()]
    rows = []
    for part, at in parts:
        try:
            found = parse_json(part)
        except ValueError as error:
            raise DataError("file is no JSON", got=error, at=at, do=TAKE) from error
        rows += found if isinstance(found, list) else [found]
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise DataError(
                "entry is no object", got=json.dumps(row)[:60], at=f"{path} entry {number}", do=TAKE
            )
    if not rows:
        raise DataError("file holds no entry", at=path, do=TAKE)
    return rows


def read_outputs(path: Path) -> list[Output]:
    """The outputs of a file, in order; an `input` stands behind its instruction.

    Raises:
      DataError: see `read_rows`; an entry without its texts, or an instruction that is there twice.
    """
    found: dict[str, Output] = {}
    for number, row in enumerate(read_rows(path), 1):
        at = f"{path} entry {number}"
        instruction, more = _text(row, "instruction", at), row.get("input") or ""
        if more:
            instruction = f"{instruction.strip()}\n\n{_text(row, 'input', at).strip()}"
        if instruction in found:
            raise DataError("instruction is there twice", got=repr(instruction[:60]), at=at)
        named = [row.get(name) for name in ("dataset", "generator")]
        dataset, generator = (name if isinstance(name, str) else None for name in named)
        found[instruction] = Output(instruction, _text(row, "output", at), dataset, generator)
    return list(found.values())


def read_annotations(path: Path) -> list[Annotation]:
    """Stored judgements: the package's annotations.json, or rows reduced to preference and counts.

    A reduced row has `model`, `index`, `preference` and, of `output_1` (the reference) and
    `output_2`, `..._chars`, `..._words` and `..._unique_words`.

    Raises:
      DataError: see `read_rows`; a field is missing or of another type.
    """
    return [
        _annotation(row, f"{path} entry {number}")
        for number, row in enumerate(read_rows(path, OWN), 1)
    ]


def _annotation(row: Mapping[str, Any], at: str) -> Annotation:
    preference = _preference(row, at)
    if "output_1_chars" in row:
        reference, output = (_count(row, f"output_{side}", at) for side in (1, 2))
        index = _whole(row, "index", at)
        return Annotation(_text(row, "model", at), preference, reference, output, index=index)
    texts = _text(row, "output_1", at), _text(row, "output_2", at)
    model = row.get("generator_2")
    return Annotation(
        model if isinstance(model, str) else None,
        preference,
        Count.of(texts[0]),
        Count.of(texts[1]),
        instruction=_text(row, "instruction", at),
        texts=texts,
        first=_first(row.get("raw_completion"), preference),
    )


def _first(raw: Any, preference: float | None) -> tuple[float, ...]:
    """Which output shown a judge's replies prefer; nothing where they were not kept.

    A reply is a text, or an endpoint's object: of a judge that weighs two words the likelier one,
    which says which side of the preference was shown first.
    """
    replies = raw if isinstance(raw, list) else [raw]
    found = [_choice(reply, preference) for reply in replies]
    return tuple(one for one in found if one is not None)


def _choice(reply: Any, preference: float | None) -> float | None:
    if isinstance(reply, dict):
        reply = reply.get("text")
    if not isinstance(reply, str):
        return None
    if (word := reply.strip()) in WORDS and preference:
        sure = abs(preference - 1.5)
        return 1.5 - sure if word == WORDS[0] else 1.5 + sure
    read = read_ranking(reply)
    return None if read is None else read[0]


def _preference(row: Mapping[str, Any], at: str) -> float | None:
    """1 to 2, 0 for a draw of old, or None."""
    value = row.get("preference")
    if "preference" in row and (value is None or (isinstance(value, float) and math.isnan(value))):
        return None
    number = math.nan
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= 2:
        number = float(value)
    if number == 0 or 1 <= number <= 2:
        return number
    raise DataError(
        "annotation has no preference", got=repr(value)[:40], at=at,
        expected="1 (the reference) to 2 (the model), 0 or 1.5 for a draw, or null",
    )  # fmt: skip


def _count(row: Mapping[str, Any], side: str, at: str) -> Count:
    chars, words, unique = (
        _whole(row, f"{side}_{name}", at) for name in ("chars", "words", "unique_words")
    )
    return Count(chars, words, unique)


def _whole(row: Mapping[str, Any], name: str, at: str) -> int:
    value = row.get(name)
    if type(value) is not int or value < 0:
        raise DataError(f"entry's {name!r} is no count", got=repr(value)[:40], at=at, do=TAKE)
    return value


def _text(row: Mapping[str, Any], name: str, at: str) -> str:
    value = row.get(name)
    if not isinstance(value, str):
        got = repr(value)[:40] if name in row else f"fields {', '.join(sorted(row)[:8])}"
        raise DataError(f"entry has no text {name!r}", got=got, at=at, do=TAKE)
    return value


def write_list(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes a list of objects as the package does; what is no number as null."""
    rows = [{name: _jsonable(value) for name, value in row.items()} for row in rows]
    write_whole(path, json.dumps(rows, indent=2) + "\n")


def _jsonable(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_leaderboard(path: Path, rows: Mapping[str, Mapping[str, Any]]) -> None:
    """Writes leaderboard.csv: a row a model, the best first."""
    names = [name for name in LEADERBOARD if any(name in row for row in rows.values())]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["", *names])
    for model in sorted(rows, key=lambda model: -rows[model]["win_rate"]):
        writer.writerow([model, *(rows[model].get(name, "") for name in names)])
    write_whole(path, text.getvalue())


def read_leaderboard(path: Path) -> dict[str, dict[str, str]]:
    """The rows of a leaderboard by model, cells as text.

    Raises:
      DataError: the file is missing or damaged, or has a model twice.
    """
    rows = csv.DictReader(io.StringIO(read_text(path, OWN), newline=""))
    first = (rows.fieldnames or [""])[0]
    if "win_rate" not in (rows.fieldnames or ()):
        raise DataError(
            "table is no leaderboard", got=rows.fieldnames, at=path, expected="a column win_rate"
        )
    found: dict[str, dict[str, str]] = {}
    for row in rows:
        if row[first] in found:
            raise DataError("model is there twice", got=repr(row[first]), at=path)
        found[row[first]] = {name: value or "" for name, value in row.items() if name}
    return found
