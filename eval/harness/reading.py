"""Results on disk, read back: what one setting scored, instance by instance.

A *result folder* is the `--save_dir` of one setting: `run.json` (what was run, and its value) and
`predictions.jsonl` (a line an instance). A *suite folder* holds result folders. Texts are not kept
in memory: `texts` reads them where they lie in the file.
"""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from eval.harness import statistics
from tulu_jax.errors import DataError
from tulu_jax.files import HEAD_BYTES, instead, kind_of, parse_json, read_json, sha256

RUN, PREDICTIONS = "run.json", "predictions.jsonl"
OWN_FILES = (RUN, PREDICTIONS, "metrics.json")
_PASS = re.compile(r"pass@(\d+)")
LARGEST = 1e12
"""No score is larger."""
AGAIN = "run `tulu eval` again with the same --save_dir: it goes on where it stopped"


@dataclass(frozen=True, slots=True)
class Instance:
    """One line of `predictions.jsonl` without its texts.

    `value` is its score, or None: its machinery failed (`error`), or nothing scored it. `binary`
    says that it was right or wrong, not something between.
    """

    id: str
    value: float | None
    binary: bool
    cluster: str | None
    group: str | None
    error: str | None
    prompt: str
    """The first 16 letters of the prompt's SHA-256."""
    start: int
    """Where its line begins in the file, in bytes."""

    @property
    def problem(self) -> str:
        """The id without the number of the sample: `HumanEval/0` of `HumanEval/0#3`."""
        stem, mark, number = self.id.rpartition("#")
        return stem if mark and number.isdecimal() else self.id


@dataclass(frozen=True, slots=True)
class Unit:
    """What is paired with another model's: a scored instance, or a problem with its samples.

    `value` is in the unit of the result; `binary` says that it is right or wrong.
    """

    id: str
    value: float
    binary: bool
    cluster: str
    group: str | None
    prompt: str
    instances: tuple[Instance, ...] = field(repr=False)


@dataclass(frozen=True)
class Result:
    """What one model scored in one setting. `value` and `stderr` are as run.json has them."""

    folder: Path
    task: str
    benchmark: str
    metric: str
    value: float | None
    stderr: float | None
    n: int
    unit: str
    higher_is_better: bool
    model: str
    fingerprint: str | None
    run: dict[str, Any] = field(repr=False)
    instances: tuple[Instance, ...] = field(repr=False)

    @property
    def scale(self) -> float:
        """What a value is multiplied with to be shown: shares are shown in per cent."""
        return 100.0 if self.unit == "share" else 1.0

    @property
    def scored(self) -> list[Instance]:
        """The instances that have a score."""
        return [one for one in self.instances if one.value is not None]

    @property
    def failed(self) -> list[Instance]:
        """Those whose machinery failed: no score of the model's."""
        return [one for one in self.instances if one.error is not None]

    @property
    def k(self) -> int | None:
        """The k of a metric pass@k; None of any other."""
        asked = _PASS.fullmatch(self.metric)
        return int(asked[1]) if asked else None

    @functools.cached_property
    def units(self) -> dict[str, Unit]:
        """What is paired, by id. Samples of one problem are one unit.

        Its value is the chance that one of k samples is right where the metric is pass@k, or of as
        many as there are where those are fewer; the mean of its samples otherwise.
        """
        problems: dict[str, list[Instance]] = {}
        for one in self.scored:
            problems.setdefault(one.problem, []).append(one)
        return {name: _unit(name, samples, self.k) for name, samples in problems.items()}

    def texts(self, instances: Sequence[Instance]) -> Iterator[dict[str, Any]]:
        """The whole lines of these instances.

        Raises: DataError where the file has changed since.
        """
        path = self.folder / PREDICTIONS
        with open(path, "rb") as stream:
            for one in instances:
                stream.seek(one.start)
                try:
                    row = parse_json(stream.readline())
                except ValueError:
                    row = None
                if not isinstance(row, dict) or row.get("id") != one.id:
                    raise DataError(
                        f"{PREDICTIONS} has changed while it was read", at=path, do="try again"
                    )
                yield row


def _unit(name: str, samples: list[Instance], k: int | None) -> Unit:
    first = samples[0]
    scores = [one.value for one in samples if one.value is not None]
    binary = all(one.binary for one in samples)
    if k is not None and binary:
        value = statistics.pass_at_k(int(sum(scores)), len(scores), min(k, len(scores)))
    else:
        value = math.fsum(scores) / len(scores)
    return Unit(
        id=name,
        value=value,
        binary=binary and len(samples) == 1,
        cluster=first.cluster or name,
        group=first.group,
        prompt=first.prompt,
        instances=tuple(samples),
    )


def read_result(folder: Path) -> Result:
    """The result that lies in a folder.

    Raises: DataError for files that are missing, cut off or not what they must be.
    """
    run = read_json(folder / RUN, DataError, expected="a result folder of `tulu eval`", do=AGAIN,
                    mend=AGAIN)  # fmt: skip
    at = folder / RUN
    model = _of(run, "model", dict, at)
    instances = tuple(_instances(folder / PREDICTIONS))
    result = Result(
        folder=folder,
        task=_of(run, "task", str, at),
        benchmark=_of(run, "benchmark", str, at),
        metric=_of(run, "metric", str, at),
        value=_number(run, "value", at),
        stderr=_number(run, "stderr", at),
        n=_of(run, "n", int, at),
        unit=_of(run, "unit", str, at),
        higher_is_better=_of(run, "higher_is_better", bool, at),
        model=_of(model, "name", str, f"{at}, model"),
        fingerprint=_label(model, "fingerprint", f"{at}, model"),
        run=run,
        instances=instances,
    )
    if len(instances) < result.n:
        raise DataError(
            f"{PREDICTIONS} has fewer instances than {RUN} counts",
            got=f"{len(instances):,}",
            at=folder,
            expected=f"{result.n:,}",
            do=AGAIN,
        )
    return result


def read_suite(folder: Path) -> tuple[list[Result], list[str]]:
    """The results in a result or suite folder, in order of name, and what was left out and why.

    Raises: DataError when there is none, or one cannot be read.
    """
    if (folder / RUN).is_file():
        return [read_result(folder)], []
    if not folder.is_dir():
        what = "is a file, not a folder" if folder.exists() else "is not there"
        raise DataError(f"the results' folder {what}", at=folder,
                        expected="a --save_dir of `tulu eval`")  # fmt: skip
    results, left_out = [], []
    for inner in sorted(path for path in folder.iterdir() if path.is_dir()):
        if (inner / RUN).is_file():
            results.append(read_result(inner))
        elif (inner / PREDICTIONS).is_file():
            left_out.append(f"{inner} is not finished ({RUN} is missing): left out - {AGAIN}")
    if not results:
        raise DataError("no results lie here", at=folder, got=left_out[0] if left_out else None,
                        expected=f"a folder with {RUN}, or folders with one", do=AGAIN)  # fmt: skip
    seen: dict[str, Path] = {}
    for result in results:
        if result.task in seen:
            raise DataError("two folders hold results of one task", got=repr(result.task),
                            at=f"{seen[result.task]} and {result.folder}",
                            do="name one of the folders alone")  # fmt: skip
        seen[result.task] = result.folder
    return results, left_out


def refuse_own_file(path: Path | None, flag: str) -> None:
    """Refuses a flag that names a file to write by the name of a result's own.

    Raises: DataError naming the file.
    """
    if path is not None and path.name in OWN_FILES:
        raise DataError(f"{flag} would replace a file of a result", at=path,
                        do="name another file")  # fmt: skip


_KINDS = {str: "text", int: "a whole number", bool: "true or false", dict: "an object"}


def _of(record: dict[str, Any], name: str, kind: type, at: object) -> Any:
    """The field of this type."""
    value = record.get(name)
    if kind is int:
        fits = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= LARGEST
    else:
        fits = isinstance(value, kind) and value != ""
    if not fits:
        got = repr(value)[:80] if name in record else "nothing"
        raise DataError(f"{RUN}: wrong field {name!r}", got=got, at=at, expected=_KINDS[kind],
                        do=AGAIN)  # fmt: skip
    return value


def _number(record: dict[str, Any], name: str, at: object) -> float | None:
    value = record.get(name)
    if value is None:
        return None
    if not _is_number(value):
        raise DataError(f"{RUN}: wrong field {name!r}", got=repr(value)[:80], at=at,
                        expected="a finite number or null", do=AGAIN)  # fmt: skip
    return float(value)


def _is_number(value: Any) -> bool:
    """Whether it is a number that can be reckoned with: no true, NaN or 1e300."""
    real = isinstance(value, int | float) and not isinstance(value, bool)
    return real and abs(value) <= LARGEST


def _instances(path: Path) -> Iterator[Instance]:
    """The instances of a file, in order."""
    try:
        stream = open(path, "rb")  # noqa: SIM115
    except FileNotFoundError as error:
        raise DataError(f"{PREDICTIONS} is missing", at=path.parent, do=AGAIN) from error
    except OSError as error:
        raise DataError(f"{PREDICTIONS} cannot be read", got=error.strerror, at=path) from error
    with stream:
        head = stream.read(HEAD_BYTES)
        kind = kind_of(head) if head else None
        if kind is not None:
            raise DataError(f"{PREDICTIONS} holds no JSON lines", got=kind, at=path,
                            do=instead(kind) or AGAIN)  # fmt: skip
        stream.seek(0)
        yield from _lines(stream, path)


def _lines(stream: IO[bytes], path: Path) -> Iterator[Instance]:
    seen: set[str] = set()
    start = 0
    for number, line in enumerate(stream, 1):
        if line.strip():
            one = _instance(line, start, f"{path}, line {number}")
            if one.id in seen:
                raise DataError(f"{PREDICTIONS} has an id twice", got=repr(one.id),
                                at=f"{path}, line {number}", do=AGAIN)  # fmt: skip
            seen.add(one.id)
            yield one
        start += len(line)


def _instance(line: bytes, start: int, at: str) -> Instance:
    try:
        row = parse_json(line)
    except ValueError as error:
        whole = line.endswith(b"\n")
        what = "holds a line that is no JSON" if whole else "is cut off in its last line"
        raise DataError(f"{PREDICTIONS} {what}", got=str(error)[:100], at=at, do=AGAIN) from error
    if not isinstance(row, dict):
        raise DataError(f"{PREDICTIONS} holds a line that is no object",
                        got=f"a JSON {type(row).__name__}", at=at, do=AGAIN)  # fmt: skip
    name = row.get("id")
    if not isinstance(name, str):
        raise DataError(f"{PREDICTIONS}: wrong field 'id'", got=repr(name)[:80], at=at,
                        expected="text", do=AGAIN)  # fmt: skip
    error = row.get("error")
    correct = row.get("correct")
    return Instance(
        id=name,
        value=None if error else _value(row, at),
        binary=isinstance(correct, bool),
        cluster=_label(row, "cluster", at),
        group=_label(row, "group", at),
        error=str(error) if error else None,
        prompt=_fingerprint(row.get("prompt")),
        start=start,
    )


def _value(row: dict[str, Any], at: str) -> float | None:
    """1 or 0 of `correct`, or `score`; None where neither is there."""
    correct, score = row.get("correct"), row.get("score")
    if isinstance(correct, bool):
        return float(correct)
    if correct is not None:
        raise DataError(f"{PREDICTIONS}: wrong field 'correct'", got=repr(correct)[:80], at=at,
                        expected="true, false or null", do=AGAIN)  # fmt: skip
    if score is None:
        return None
    if not _is_number(score):
        raise DataError(f"{PREDICTIONS}: wrong field 'score'", got=repr(score)[:80], at=at,
                        expected="a finite number or null", do=AGAIN)  # fmt: skip
    return float(score)


def _label(row: dict[str, Any], name: str, at: str) -> str | None:
    value = row.get(name)
    if value is not None and not isinstance(value, str):
        file = RUN if name == "fingerprint" else PREDICTIONS
        raise DataError(f"{file}: wrong field {name!r}", got=repr(value)[:80], at=at,
                        expected="text or null", do=AGAIN)  # fmt: skip
    return value


def _fingerprint(prompt: Any) -> str:
    """What tells one prompt from another; lone surrogates count as they are."""
    text = prompt if isinstance(prompt, str) else json.dumps(prompt)
    return sha256(text.encode("utf-8", "surrogatepass"))[:16]
