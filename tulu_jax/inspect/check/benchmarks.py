"""The evaluation sets as texts: what a model is asked, and what it should answer.

Each benchmark has a folder of its own below the evaluation data, named and filled as the paper's
evaluation code has it.
"""

from __future__ import annotations

import csv
import gzip
import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tulu_jax.errors import DataError
from tulu_jax.files import kind_of_file


class BenchmarkItem(NamedTuple):
    """One question of a benchmark. `answer` is empty where there is no reference."""

    benchmark: str
    id: str
    prompt: str
    answer: str


Texts = Iterator[tuple[str, str, str]]
"""Id, prompt and answer of each item."""


def read_benchmarks(folder: str | Path) -> list[BenchmarkItem]:
    """Every item of every benchmark that has a folder in `folder`, prompts of one text once.

    Raises: DataError when there is none, or a file is missing or not in its format.
    """
    root = Path(folder)
    items: dict[tuple[str, str], BenchmarkItem] = {}
    for name, read in READERS.items():
        if not (root / name).is_dir():
            continue
        found = _items(name, read, root / name)
        if not found:
            raise DataError(
                "benchmark without an item",
                at=root / name,
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
            expected=f"a folder with folders such as {', '.join(READERS)}",
        )
    return list(items.values())


def _items(name: str, read: Callable[[Path], Texts], folder: Path) -> list[BenchmarkItem]:
    """The items of one benchmark, in their order.

    Raises: DataError.
    """
    try:
        found = [BenchmarkItem(name, *texts) for texts in read(folder)]
    except DataError:
        raise
    except (EOFError, OSError, zlib.error) as error:
        raise DataError(
            "evaluation data cannot be read",
            got=f"{type(error).__name__}: {getattr(error, 'strerror', None) or error}",
            at=getattr(error, "filename", None) or folder,
            do="make it readable, or fetch it again if it is cut off",
        ) from error
    except (KeyError, TypeError, IndexError, ValueError, AttributeError, csv.Error) as error:
        raise _malformed(folder, _text(error)) from error
    for item in found:
        if not all(isinstance(text, str) for text in item):
            wrong = next(repr(text) for text in item if not isinstance(text, str))
            raise _malformed(folder, f"{wrong[:60]} in place of text")
    return found


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


def _mmlu(folder: Path) -> Texts:
    for path in _files(folder / "test", "*_test.csv"):
        _check_kind(path)
        with open(path, encoding="utf-8-sig", newline="") as stream:
            for number, (question, *options, letter) in enumerate(csv.reader(stream)):
                prompt = "\n".join([question, *options])
                yield f"{path.stem}:{number}", prompt, options["ABCD".index(letter)]


def _gsm(folder: Path) -> Texts:
    for at, row in _json_lines(_file(folder, "test.jsonl")):
        yield at, row["question"], row["answer"].split("####")[-1].strip()


def _bbh(folder: Path) -> Texts:
    for path in _files(folder / "bbh", "*.json"):
        for number, example in enumerate(_json(path)["examples"]):
            yield f"{path.stem}:{number}", example["input"], example["target"]


def _humaneval(folder: Path) -> Texts:
    for _, row in _json_lines(_file(folder, "HumanEval.jsonl", "HumanEval.jsonl.gz")):
        yield row["task_id"], row["prompt"], row["canonical_solution"]


def _tydiqa(folder: Path) -> Texts:
    for path in _files(folder, "tydiqa-goldp-v*-dev.json"):
        for article in _json(path)["data"]:
            for paragraph in article["paragraphs"]:
                for qa in paragraph["qas"]:
                    prompt = f"{paragraph['context']}\n{qa['question']}"
                    yield qa["id"], prompt, qa["answers"][0]["text"]


def _truthfulqa(folder: Path) -> Texts:
    path = _file(folder, "TruthfulQA.csv")
    _check_kind(path)
    with open(path, encoding="utf-8-sig", newline="") as stream:
        for number, row in enumerate(csv.DictReader(stream)):
            yield str(number), row["Question"], row["Best Answer"]


def _toxigen(folder: Path) -> Texts:
    """The statements of which the prompts are lists; one prompt shares most with others."""
    for path in _files(folder, "hate_*.txt"):
        _check_kind(path)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines()):
            for statement in line.split("\\n"):
                if text := statement.strip().lstrip("- "):
                    yield f"{path.stem}:{number}", text, ""


def _alpaca(folder: Path) -> Texts:
    names = ("alpaca_farm_evaluation", "text_davinci_003_model_outputs", "davinci_003_outputs")
    for number, row in enumerate(_json(_file(folder, *(f"{name}.json" for name in names)))):
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


READERS: dict[str, Callable[[Path], Texts]] = {
    "mmlu": _mmlu,
    "gsm": _gsm,
    "bbh": _bbh,
    "tydiqa": _tydiqa,
    "codex_humaneval": _humaneval,
    "truthfulqa": _truthfulqa,
    "toxigen": _toxigen,
    "alpaca_farm": _alpaca,
    "creative_tasks": _creative,
    "human_eval": _human_eval,
}
"""The benchmarks by folder. MMLU without `dev`, GSM without `train`: these are not asked."""


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
    """Line number and object of each line that is not blank; gzip by the file's name."""
    if path.suffix != ".gz":
        _check_kind(path)
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8-sig") as stream:
        for number, line in enumerate(stream, 1):
            if line.strip():
                try:
                    yield f"line {number}", json.loads(line)
                except (ValueError, RecursionError) as error:
                    raise _malformed(f"{path}, line {number}", _text(error)) from error
