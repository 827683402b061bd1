"""The evaluation sets as texts: what a model is asked, and what it should answer.

The benchmarks of `tulu eval` read their own files; the command line brings their readers here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from tulu_jax.errors import DataError
from tulu_jax.files import kind_of_file


class BenchmarkItem(NamedTuple):
    """One question of a benchmark. `answer` is empty where there is no reference."""

    benchmark: str
    id: str
    prompt: str
    answer: str


Texts = Iterable[tuple[str, str, str]]
"""Id, prompt and answer of each item."""


class Source(NamedTuple):
    """A benchmark's file or folder below the evaluation data, and what reads it."""

    path: str
    read: Callable[[Path], Texts]


def read_benchmarks(folder: str | Path, sources: Mapping[str, Source]) -> list[BenchmarkItem]:
    """Every item of every benchmark that has a folder in `folder`, prompts of one text once.

    Raises: DataError when there is none, or a file is missing or not in its format.
    """
    root = Path(folder)
    items: dict[tuple[str, str], BenchmarkItem] = {}
    for name, source in sources.items():
        own = root / PurePath(source.path).parts[0]
        if not own.is_dir():
            continue
        found = [BenchmarkItem(name, *texts) for texts in source.read(root / source.path)]
        if not found:
            raise DataError(
                "benchmark without an item",
                at=own,
                expected="its questions",
                do="take the folder away to leave the benchmark out",
            )
        for item in found:
            items.setdefault((name, item.prompt), item)
    if not items:
        there = "no such folder" if not root.exists() else None if root.is_dir() else "a file"
        raise DataError(
            "no evaluation data",
            got=there,
            at=root,
            expected=f"a folder with folders such as {', '.join(sources)}",
        )
    return list(items.values())


def _alpaca(folder: Path) -> Texts:
    names = (
        "alpaca_farm_evaluation", "text_davinci_003_model_outputs", "davinci_003_outputs",
        "alpaca_eval",
    )  # fmt: skip
    path = _file(folder, *(f"{name}.json" for name in names))
    for number, row in enumerate(_json(path)):
        yield str(number), _instruction(row["instruction"], row.get("input")), row["output"]


def _human_eval(folder: Path) -> Texts:
    for path in _files(folder, "*instances*.jsonl"):
        for _, row in _json_lines(path):
            yield row["id"], row["prompt"], ""


def _creative(folder: Path) -> Texts:
    for path in _files(folder, "*_test.jsonl"):
        for at, row in _json_lines(path):
            if "instances" in row:
                first = row["instances"][0]
                prompt = _instruction(row["instruction"], first["input"])
                yield row["id"], prompt, first["output"]
            else:
                yield f"{path.stem}:{row.get('question_id', at)}", row["text"], ""


def _checked(read: Callable[[Path], Texts]) -> Callable[[Path], Texts]:
    """The reader, whose errors are DataErrors."""

    def items(folder: Path) -> Texts:
        try:
            found = list(read(folder))
        except DataError:
            raise
        except OSError as error:
            raise DataError(
                "evaluation data cannot be read",
                got=f"{type(error).__name__}: {error.strerror or error}",
                at=error.filename or folder,
                do="make it readable",
            ) from error
        except (KeyError, TypeError, IndexError, ValueError, AttributeError) as error:
            raise _malformed(folder, _text(error)) from error
        for item in found:
            if not all(isinstance(text, str) for text in item):
                wrong = next(repr(text) for text in item if not isinstance(text, str))
                raise _malformed(folder, f"{wrong[:60]} in place of text")
        return found

    return items


OTHERS: dict[str, Source] = {
    "alpaca_farm": Source("alpaca_farm", _checked(_alpaca)),
    "creative_tasks": Source("creative_tasks", _checked(_creative)),
    "human_eval": Source("human_eval", _checked(_human_eval)),
}
"""Those that `tulu eval` does not read."""


def _text(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _malformed(at: object, got: str) -> DataError:
    return DataError(
        "evaluation data is not in the benchmark's format",
        got=got,
        at=at,
        expected="the files as the benchmark's authors published them",
        do="put those there, or take the folder away to leave the benchmark out",
    )


def _instruction(instruction: str, more: str | None) -> str:
    return f"{instruction}\n\n{more}" if more else instruction


def _files(folder: Path, pattern: str) -> list[Path]:
    found = sorted(folder.glob(pattern))
    if not found:
        raise DataError("evaluation file is missing", got=f"no {pattern}", at=folder)
    return found


def _file(folder: Path, *names: str) -> Path:
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise DataError("evaluation file is missing", got=f"no {' or '.join(names)}", at=folder)


def _check_kind(path: Path) -> None:
    """Passes for a file that may be what it is called.

    Raises: DataError for another kind, such as a Git LFS pointer or a web page.
    """
    kind = kind_of_file(path)
    if kind not in (None, "an empty file"):
        raise _malformed(path, str(kind))


def _json(path: Path) -> Any:
    _check_kind(path)
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise _malformed(path, _text(error)) from error


def _json_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Line number and object of each line that is not blank."""
    _check_kind(path)
    with open(path, encoding="utf-8-sig") as stream:
        for number, line in enumerate(stream, 1):
            if line.strip():
                try:
                    yield f"line {number}", json.loads(line)
                except (ValueError, RecursionError) as error:
                    raise _malformed(f"{path}, line {number}", _text(error)) from error
