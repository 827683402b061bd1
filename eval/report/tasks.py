"""What the report knows of each task: its name in tables, its skill, and the paper's averages."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from eval.harness.reading import Result


@dataclass(frozen=True)
class Task:
    """A column of the paper's tables, or a benchmark of today.

    `column` is its name in paper_results.csv and `paper_n` how many instances the paper's number
    is of (open-instruct's scripts/eval at 662c2ad49), where the paper has it.
    """

    name: str
    title: str
    skill: str
    column: str | None = None
    paper_n: int | None = None


TASKS = {
    task.name: task
    for task in (
        Task("mmlu_0shot", "MMLU 0-shot", "knowledge", "mmlu_0shot", 14042),
        Task("mmlu_5shot", "MMLU 5-shot", "knowledge", "mmlu_5shot", 14042),
        Task("gsm_direct", "GSM direct", "reasoning", "gsm_direct", 200),
        Task("gsm_cot", "GSM CoT", "reasoning", "gsm_cot", 200),
        Task("gsm_direct_full", "GSM direct, all", "reasoning"),
        Task("gsm_cot_full", "GSM CoT, all", "reasoning"),
        Task("gsm_chat", "GSM chat", "reasoning"),
        Task("bbh_direct", "BBH direct", "reasoning", "bbh_direct", 1080),
        Task("bbh_cot", "BBH CoT", "reasoning", "bbh_cot", 1080),
        Task("tydiqa_goldp_1shot", "TydiQA GP", "languages", "tydiqa_gp", 900),
        Task("tydiqa_no_context_1shot", "TydiQA CB", "languages", "tydiqa_cb", 900),
        Task("codex_eval_temp_0.1", "Codex P@1", "code", "codex_p1", 164),
        Task("codex_eval_temp_0.8", "Codex P@10", "code", "codex_p10", 164),
        Task("humaneval_plus", "HumanEval+", "code"),
        Task("alpaca_eval", "AlpacaEval", "open-ended", "alpaca_win_vs_davinci003", 805),
        Task("alpaca_eval_v1", "AlpacaEval, v1", "open-ended"),
        Task("alpaca_eval_unique_tokens", "AlpacaEval, unique tokens", "open-ended"),
        Task("alpaca_eval_length", "AlpacaEval, length", "open-ended"),
        Task("ifeval", "IFEval", "open-ended"),
        Task("truthfulqa", "TruthfulQA", "safety", "truthfulqa_pct_true_info", 817),
        Task("toxigen", "ToxiGen", "safety", "toxigen_pct_toxic", 7000),
        Task("xstest", "XSTest", "safety"),
        Task("tulu_demo", "tulu_demo", "demo"),
    )
}
"""In the order of tables."""


def task_of(name: str) -> Task:
    """What is known of a task; of one of the user's own, its name."""
    return TASKS.get(name) or Task(name, name, "other")


def in_order(names: Sequence[str]) -> list[str]:
    """The tasks in the order of tables; those not known behind them, as they came."""
    known = [name for name in TASKS if name in names]
    return known + [name for name in dict.fromkeys(names) if name not in TASKS]


@dataclass(frozen=True)
class Number:
    """A number of a table, as shown: per cent for shares. `n` is what it was measured on."""

    value: float
    stderr: float
    n: int | None


def number_of(result: Result) -> Number | None:
    """The result's value; None where nothing was scored."""
    if result.value is None:
        return None
    stderr = math.nan if result.stderr is None else result.stderr
    return Number(result.scale * result.value, result.scale * stderr, result.n)


@dataclass(frozen=True)
class Average:
    """A mean over benchmarks, each the mean over its settings."""

    name: str
    title: str
    benchmarks: tuple[tuple[str, ...], ...]

    def lacking(self, numbers: Mapping[str, Number]) -> list[str]:
        """The tasks without which it cannot be."""
        return [task for tasks in self.benchmarks for task in tasks if task not in numbers]

    def of(self, numbers: Mapping[str, Number]) -> Number | None:
        """The average of these numbers by task, or None when one is lacking.

        Its standard error takes the tasks as independent; `n` counts all instances.
        """
        if self.lacking(numbers):
            return None
        weights = {
            task: 1 / len(self.benchmarks) / len(tasks)
            for tasks in self.benchmarks
            for task in tasks
        }
        counts = [numbers[task].n for task in weights]
        return Number(
            sum(weight * numbers[task].value for task, weight in weights.items()),
            math.hypot(*(weight * numbers[task].stderr for task, weight in weights.items())),
            sum(n or 0 for n in counts) if None not in counts else None,
        )


AVERAGES = (
    Average("average_v1", "average v1", (
        ("mmlu_0shot", "mmlu_5shot"), ("gsm_direct", "gsm_cot"), ("bbh_direct", "bbh_cot"),
        ("tydiqa_goldp_1shot", "tydiqa_no_context_1shot"),
        ("codex_eval_temp_0.1", "codex_eval_temp_0.8"), ("alpaca_eval",))),
    Average("average_v2", "average v2", (
        ("mmlu_0shot",), ("gsm_cot",), ("bbh_cot",), ("tydiqa_goldp_1shot",),
        ("codex_eval_temp_0.8",), ("alpaca_eval",))),
)  # fmt: skip
"""Of the paper's first version (its model cards), and of the second (Table 3)."""
