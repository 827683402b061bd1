"""From completions to pass@k: the program of each, whether it passes, and what that says.

Sources: Chen et al. 2021 (arXiv 2107.03374) §2.1 for pass@k; open-instruct
`eval/codex_humaneval/evaluation.py` for the files and their fields.
"""

from __future__ import annotations

import math
import re
import statistics
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from eval.codex_humaneval.problems import Problem, before_entry_point
from eval.harness.statistics import pass_at_k
from eval.sandbox import Outcome, Program, SandboxError, run_programs
from tulu_jax.errors import DataError

PREDICTIONS = "codex_eval_predictions.jsonl"
RESULTS = "codex_eval_predictions.jsonl_results.jsonl"
Form = Literal["continuation", "answer", "either"]
_FENCE = re.compile(r"^[ \t]*```[^\n`]*\n(.*?)(?:^[ \t]*```|\Z)", re.DOTALL | re.MULTILINE)
Row = dict[str, Any]


def block_of(answer: str, entry_point: str) -> str:
    r"""The first fenced block that defines the function, else the first; without any, the answer.

    A block that the answer's end cuts off is taken as far as it goes; one that is indented, as in a
    list, as if it were not.

    >>> block_of("Sure:\n```python\nx = 1\n```\nThat is it.", "f")
    'x = 1\n'
    >>> block_of("```sh\npip install x\n```\n```python\ndef f():\n    pass\n```", "f")
    'def f():\n    pass\n'
    >>> block_of("    return 1", "f")
    '    return 1'
    """
    blocks = _FENCE.findall(answer) or [answer]
    for block in blocks:
        if _defines(found := textwrap.dedent(block), entry_point):
            return found
    return blocks[0]


def _defines(code: str, entry_point: str) -> bool:
    return bool(re.search(rf"^(async[ \t]+)?def[ \t]+{entry_point}\b", code, re.MULTILINE))


def build_program(problem: Problem, completion: str, form: Form = "continuation") -> Program:
    """The program that a completion makes of a problem.

    Args:
      problem: the problem.
      completion: what the model wrote.
      form: `continuation` of the prompt, to which it is appended as it is; or the `answer` of a
        chat model, of which one fenced block counts (`block_of`). Where that defines the function
        itself, it is run in place of the prompt's function, after the imports and helpers that
        stand before it in the prompt; otherwise it is appended to the prompt. `either` is an
        answer where a fenced block defines the function: after the prompt it is no program.
    """
    code = problem.prompt + completion
    fenced = _FENCE.search(completion) and _defines(
        block_of(completion, problem.entry_point), problem.entry_point
    )
    if form == "answer" or (form == "either" and fenced):
        block = block_of(completion, problem.entry_point)
        code = problem.prompt + block
        if _defines(block, problem.entry_point):
            code = f"{before_entry_point(problem)}\n{block}"
    return Program(code, problem.test, problem.entry_point, problem.prompt)


def prediction_rows(
    problems: Sequence[Problem], completions: Mapping[str, Sequence[str]]
) -> list[Row]:
    """The rows of the reference's predictions: every completion of each problem, in order.

    Raises: DataError when a problem has no completion, or there are some of no problem.
    """
    unknown = set(completions) - {problem.task_id for problem in problems}
    if unknown:
        raise DataError("completions of an unknown problem", got=sorted(unknown)[0])
    for problem in problems:
        if not completions.get(problem.task_id):
            raise DataError("a problem has no completion", got=problem.task_id)
    return [
        {"task_id": problem.task_id, "prompt": problem.prompt, "completion": completion}
        for problem in problems
        for completion in completions[problem.task_id]
    ]


def result_rows(rows: Sequence[Row], outcomes: Sequence[Outcome]) -> list[Row]:
    """The rows of the reference's results: the predictions with `result` and `passed`."""
    return [
        {**row, "result": outcome.result, "passed": outcome.passed}
        for row, outcome in zip(rows, outcomes, strict=True)
    ]


def metrics(rows: Sequence[Row], ks: Sequence[int]) -> dict[str, float]:
    """`pass@k` and its standard error `pass@k_stderr` for each k that no problem has too few for.

    The standard error is that of the mean over problems, each of which is a cluster of samples;
    with one problem there is none.

    Raises:
      SandboxError: a row says nothing about its program, because the machinery failed.
      DataError: no rows.
    """
    faults = [row for row in rows if row["passed"] is None]
    if faults:
        raise SandboxError(
            "programs could not be run, which says nothing about them",
            got=f"{len(faults)} of {len(rows)}, the first: {faults[0]['result']}",
            at=faults[0]["task_id"],
            do="run them again",
        )
    if not rows:
        raise DataError("no results to score")
    passed: dict[str, list[bool]] = {}
    for row in rows:
        passed.setdefault(row["task_id"], []).append(row["passed"])
    found: dict[str, float] = {}
    for k in sorted(set(ks)):
        if k > min(map(len, passed.values())):
            continue
        each = [pass_at_k(sum(one), len(one), k) for one in passed.values()]
        found[f"pass@{k}"] = statistics.fmean(each)
        if len(each) > 1:
            found[f"pass@{k}_stderr"] = statistics.stdev(each) / math.sqrt(len(each))
    return found


def left_out(rows: Sequence[Row], ks: Sequence[int]) -> list[int]:
    """The ks for which some problem has too few samples."""
    samples: dict[str, int] = {}
    for row in rows:
        samples[row["task_id"]] = samples.get(row["task_id"], 0) + 1
    return [k for k in sorted(set(ks)) if k > min(samples.values(), default=0)]


def run_rows(
    rows: Sequence[Row], problems: Sequence[Problem], *, form: Form = "continuation", **how: Any
) -> list[Outcome]:
    """What came of each row's completion, in order; equal programs are run once.

    Args:
      rows: with `task_id` and `completion`.
      problems: those of the task ids.
      form: as `build_program` takes it.
      how: as `eval.sandbox.run_programs` takes it; `progress` is called once a distinct program.

    Raises: DataError; SandboxError, as `run_programs`.
    """
    by_id = {problem.task_id: problem for problem in problems}
    programs: dict[Program, int] = {}
    places = []
    for row in rows:
        problem = by_id.get(row["task_id"])
        if problem is None:
            raise DataError("a completion of an unknown problem", got=row["task_id"])
        program = build_program(problem, row["completion"], form)
        places.append(programs.setdefault(program, len(programs)))
    outcomes = run_programs(list(programs), **how)
    return [outcomes[place] for place in places]
