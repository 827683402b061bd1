"""The evaluation sets that `tulu data check` looks for, read as `tulu eval` reads them."""

from __future__ import annotations

from pathlib import Path

from tulu_jax.inspect.check.benchmarks import OTHERS, BenchmarkItem, Source, read_benchmarks


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
    return found | {name: other for name, other in OTHERS.items() if name not in found}
