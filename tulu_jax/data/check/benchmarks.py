"""The evaluation sets as texts: what a model is asked, and what it should answer.

Each benchmark has a folder of its own below the evaluation data, named and filled as the paper's
evaluation code has it.
"""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tulu_jax.errors import DataError


class EvalItem(NamedTuple):
    """One question of a benchmark. `answer` is empty where there is no reference."""

    benchmark: str
    id: str
    prompt: str
    answer: str


Texts = Iterator[tuple[str, str, str]]
"""Id, prompt and answer of each item."""


def read_benchmarks(folder: str | Path) -> list[EvalItem]:
    """Every item of every benchmark that has a folder in `folder`, prompts of one text once.

    Raises: DataError when there is none, or a file is missing or not in its format.
    """
    root = Path(folder)
    items: dict[tuple[str, str], EvalItem] = {}
    for name, read in READERS.items():
        if not (root / name).is_dir():
            continue
        before = len(items)
        try:
            for key, prompt, answer in read(root / name):
                items.setdefault((name, prompt), EvalItem(name, key, prompt, answer))
        except (KeyError, TypeError, IndexError, ValueError, csv.Error, EOFError, OSError) as error:
            if isinstance(error, DataError):
                raise
            raise _malformed(root / name, error) from error
        if len(items) == before:
            raise DataError("benchmark without an item", at=root / name)
    if not items:
        raise DataError(
            "no evaluation data", at=root, expected=f"folders such as {', '.join(READERS)}"
        )
    return list(items.values())


def _malformed(at: object, error: Exception) -> DataError:
    return DataError(
        "evaluation data is not in the benchmark's format",
        got=f"{type(error).__name__}: {error}",
        at=at,
        do="download it again",
    )


def _mmlu(folder: Path) -> Texts:
    for path in _files(folder / "test", "*_test.csv"):
        with open(path, encoding="utf-8", newline="") as stream:
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
    with open(_file(folder, "TruthfulQA.csv"), encoding="utf-8", newline="") as stream:
        for number, row in enumerate(csv.DictReader(stream)):
            yield str(number), row["Question"], row["Best Answer"]


def _toxigen(folder: Path) -> Texts:
    """The statements of which the prompts are lists; one prompt shares most with others."""
    for path in _files(folder, "hate_*.txt"):
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


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise _malformed(path, error) from error


def _json_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Line number and object of each line that is not blank; gzip by the file's name."""
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as stream:
        for number, line in enumerate(stream, 1):
            if line.strip():
                try:
                    yield f"line {number}", json.loads(line)
                except ValueError as error:
                    raise _malformed(f"{path}, line {number}", error) from error
