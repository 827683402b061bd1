"""Every benchmark and task by name, and the suites.

A benchmark is found by its file: adding one is `eval/<name>/run_eval.py`, see
docs/add_a_benchmark.md.
"""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from eval.harness.benchmark import Benchmark
from eval.harness.quirks import SHARED, Quirk
from tulu_jax.errors import ConfigError

SUITES: Mapping[str, Sequence[str]] = {
    "tulu1": (
        "mmlu_0shot", "mmlu_5shot", "gsm_direct", "gsm_cot", "bbh_direct", "bbh_cot",
        "tydiqa_goldp_1shot", "tydiqa_no_context_1shot", "codex_eval_temp_0.1",
        "codex_eval_temp_0.8",
    ),
    "tulu1_v2": (
        "mmlu_0shot", "gsm_cot", "bbh_cot", "tydiqa_goldp_1shot", "codex_eval_temp_0.8",
        "toxigen", "truthfulqa",
    ),
    "extra": ("gsm_chat", "humaneval_plus", "ifeval", "xstest"),
}  # fmt: skip
"""Tasks of the paper's first version, of its second, and those of today; AlpacaEval, whose judge
costs money, is in none."""

QUICK = "quick"
"""All tasks of the other suites, with few instances each."""
QUICK_LIMIT = 20


class Entry(NamedTuple):
    """A task: a benchmark with a choice of its options."""

    benchmark: Benchmark
    options: Any


@functools.cache
def benchmarks() -> dict[str, Benchmark]:
    """Every benchmark by name."""
    folder = Path(__file__).parent.parent
    found = {}
    for file in sorted(folder.glob("*/run_eval.py")):
        module = importlib.import_module(f"eval.{file.parent.name}.run_eval")
        for _, kind in inspect.getmembers(module, inspect.isclass):
            if issubclass(kind, Benchmark) and kind.__module__ == module.__name__:
                found[kind.name] = kind()
    return found


@functools.cache
def tasks() -> dict[str, Entry]:
    """Every task by name."""
    return {
        name: Entry(benchmark, benchmark.options(**options))
        for benchmark in benchmarks().values()
        for name, options in benchmark.tasks.items()
    }


def suites() -> dict[str, list[str]]:
    """The tasks of each suite, those that are there."""
    found = {
        name: [task for task in members if task in tasks()] for name, members in SUITES.items()
    }
    found[QUICK] = list(dict.fromkeys(task for members in found.values() for task in members))
    return found


def find_benchmark(name: str) -> Benchmark:
    """The benchmark of this name.

    Raises:
      ConfigError: there is none.
    """
    if name not in benchmarks():
        raise ConfigError("unknown benchmark", got=repr(name), expected=", ".join(benchmarks()))
    return benchmarks()[name]


def find_task(name: str) -> Entry:
    """The task of this name.

    Raises:
      ConfigError: there is none.
    """
    if name not in tasks():
        raise ConfigError(
            "unknown task", got=repr(name), expected=", ".join(tasks()), do="see tulu eval list"
        )
    return tasks()[name]


def all_quirks() -> dict[str, tuple[str, Quirk]]:
    """Every quirk by name, with the benchmark that it concerns (or `all`)."""
    found = {quirk.name: ("all", quirk) for quirk in SHARED}
    for benchmark in benchmarks().values():
        for quirk in benchmark.own_quirks:
            found.setdefault(quirk.name, (benchmark.name, quirk))
    return found
