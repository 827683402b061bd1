"""The evaluation sets that `tulu data check` looks for, read as `tulu eval` reads them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tulu_jax.errors import DataError
from tulu_jax.inspect.check.benchmarks import BenchmarkItem, Source, read_benchmarks

Texts = Iterator[tuple[str, str, str]]


def read_eval_data(folder: str | Path) -> list[BenchmarkItem]:
    """Every item of every benchmark that has a folder in `folder`.

    Raises: DataError as `read_benchmarks`.
    """
    return read_benchmarks(folder, sources())


def sources() -> dict[str, Source]:
    """The readers of all benchmarks, in the order of the suites; a benchmark's own come first."""
    from eval.harness.benchmark import Benchmark
    from eval.harness.registry import benchmarks, suites, tasks

    names = [tasks()[task].benchmark.name for members in suites().values() for task in members]
    found = {
        name: Source(benchmarks()[name].data, benchmarks()[name].items)
        for name in dict.fromkeys([*names, *benchmarks()])
        if type(benchmarks()[name]).items is not Benchmark.items
    }
    return found | UNSCORED


def _human_eval(folder: Path) -> Texts:
    """The prompts of the paper's human evaluation, from the file of its instances."""
    from eval.harness.data import check_texts, read_jsonl

    for path in _files(folder, "*instances*.jsonl"):
        for number, row in enumerate(read_jsonl(path), 1):
            check_texts(row, ("id", "prompt"), f"{path} row {number}")
            yield row["id"], row["prompt"], ""


def _creative_tasks(folder: Path) -> Texts:
    """Self-Instruct's user-oriented tasks and Vicuna's questions, as open-instruct has them."""
    from eval.harness.data import check_texts, list_in, read_jsonl

    for path in _files(folder, "*_test.jsonl"):
        for number, row in enumerate(read_jsonl(path), 1):
            at = f"{path} row {number}"
            if "instances" not in row:
                check_texts(row, ("text",), at)
                yield f"{path.stem}:{row.get('question_id', f'line {number}')}", row["text"], ""
                continue
            check_texts(row, ("id", "instruction"), at)
            for one in list_in(row, "instances", at)[:1]:
                check_texts(one, ("input", "output"), f"{at}, first instance")
                more = f"\n\n{one['input']}" if one["input"] else ""
                yield row["id"], row["instruction"] + more, one["output"]


def _files(folder: Path, pattern: str) -> list[Path]:
    found = sorted(folder.glob(pattern))
    if not found:
        raise DataError("evaluation file is missing", got=f"no {pattern}", at=folder)
    return found


UNSCORED = {
    "creative_tasks": Source("creative_tasks", _creative_tasks),
    "human_eval": Source("human_eval", _human_eval),
}
"""Those that people judge, and `tulu eval` does not score."""
