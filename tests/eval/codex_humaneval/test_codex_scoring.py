"""From completions to pass@k."""

import itertools
import json
import math
import statistics
import textwrap

import pytest
from thorough import THOROUGH

from eval.codex_humaneval import scoring
from eval.codex_humaneval.problems import Problem, read_problems
from eval.harness.statistics import pass_at_k
from eval.sandbox import Outcome, SandboxError, run_programs
from tulu_jax.errors import DataError

PROMPT = (
    "from typing import List\n\ndef one(): return 1\n\ndef total(x: List[int]):\n    '''Sum.'''\n"
)
PROBLEM = Problem(
    "t/0",
    PROMPT,
    "    return sum(x)\n",
    "def check(c):\n    assert c([1, 2]) == 2 + one()\n",
    "total",
)
ALONE = "def total(x: List[int]):\n    return sum(x)\n"


def test_pass_at_k_is_the_share_of_draws_with_one_that_passes():
    for n in range(1, 8):
        for c in range(n + 1):
            samples = [True] * c + [False] * (n - c)
            for k in range(1, n + 1):
                draws = [any(draw) for draw in itertools.combinations(samples, k)]
                assert pass_at_k(c, n, k) == pytest.approx(statistics.fmean(draws))
    assert pass_at_k(0, 20, 10) == 0.0 and pass_at_k(11, 20, 10) == 1.0


def rows_of(**passed):
    return [{"task_id": t, "passed": p, "result": "x"} for t, ps in passed.items() for p in ps]


def test_metrics_are_means_over_problems_with_clustered_errors():
    rows = rows_of(a=[True, False], b=[False, False], c=[True, True])
    found = scoring.metrics(rows, [1, 2, 5])
    assert set(found) == {"pass@1", "pass@1_stderr", "pass@2", "pass@2_stderr"}
    assert found["pass@1"] == 0.5 and found["pass@2"] == pytest.approx(2 / 3)
    assert found["pass@1_stderr"] == pytest.approx(0.5 / math.sqrt(3))
    assert scoring.left_out(rows, [5, 1, 9]) == [5, 9]
    # Samples of one problem that agree count as one: twice as many say nothing more.
    assert scoring.metrics(rows * 2, [1]) == scoring.metrics(rows, [1])
    assert set(scoring.metrics(rows_of(a=[True]), [1])) == {"pass@1"}
    # the fewest samples decide
    assert "pass@2" not in scoring.metrics(rows_of(a=[True, True], b=[True]), [2])


def test_an_error_is_never_a_zero():
    rows = [*rows_of(a=[True]), {"task_id": "b", "passed": None, "result": "error: gone"}]
    with pytest.raises(
        SandboxError, match="nothing about them - got 1 of 2, the first: error: gone at b"
    ):
        scoring.metrics(rows, [1])
    with pytest.raises(DataError, match="no results to score"):
        scoring.metrics([], [1])


@pytest.mark.parametrize(
    ("completion", "form", "code"),
    [
        ("    return 3", "continuation", PROMPT + "    return 3"),
        ("```python\nx\n```", "continuation", PROMPT + "```python\nx\n```"),
        ("    return 3", "either", PROMPT + "    return 3"),
        (ALONE, "either", PROMPT + ALONE),
        ("    return 3\n```\nDone.", "either", PROMPT + "    return 3\n```\nDone."),
        (
            f"Here:\n```python\n{ALONE}```",
            "either",
            PROMPT[: PROMPT.index("def total")] + "\n" + ALONE,
        ),
        ("    return 3", "answer", PROMPT + "    return 3"),
        ("Sure.\n```python\n    return 3\n```\nDone ```x```", "answer", PROMPT + "    return 3\n"),
        ("```\n    return 3\n```\n```\n    return 4\n```", "answer", PROMPT + "    return 3\n"),
        ("```py\n    return 3", "answer", PROMPT + "    return 3"),
        (
            f"Here:\n```python\n{ALONE}```",
            "answer",
            PROMPT[: PROMPT.index("def total")] + "\n" + ALONE,
        ),
        (
            f"```bash\npip install numpy\n```\n```python\n{ALONE}```",
            "answer",
            PROMPT[: PROMPT.index("def total")] + "\n" + ALONE,
        ),
        (
            f"1. Code:\n   ```python\n{textwrap.indent(ALONE, '   ')}   ```",
            "answer",
            PROMPT[: PROMPT.index("def total")] + "\n" + ALONE,
        ),
        (ALONE, "answer", PROMPT[: PROMPT.index("def total")] + "\n" + ALONE),
        ("```\ndef totals(x):\n    pass\n```", "answer", PROMPT + "def totals(x):\n    pass\n"),
        ("  ```python\n    a = '``'\n  ```", "answer", PROMPT + "    a = '``'\n"),
    ],
)
def test_programs_of_completions(completion, form, code):
    program = scoring.build_program(PROBLEM, completion, form)
    assert program.code == code
    assert (program.test, program.entry_point, program.helpers) == (PROBLEM.test, "total", PROMPT)


def test_rows_are_the_references(bwrap):
    rows = scoring.prediction_rows([PROBLEM], {"t/0": ["    return sum(x)", "    return 0"]})
    assert list(rows[0]) == ["task_id", "prompt", "completion"]
    outcomes = scoring.run_rows(rows, [PROBLEM], mode="paper")
    found = scoring.result_rows(rows, outcomes)
    assert list(found[0]) == ["task_id", "prompt", "completion", "result", "passed"]
    assert [(row["result"], row["passed"]) for row in found] == [
        ("passed", True),
        ("failed: ", False),
    ]
    assert json.loads(json.dumps(found)) == found
    answer = [{"task_id": "t/0", "completion": f"```\n{ALONE}```"}]
    assert [o.passed for o in scoring.run_rows(answer, [PROBLEM], form="answer")] == [True]


def test_equal_programs_run_once(monkeypatch):
    ran = []

    def run(programs, **how):
        ran.extend(programs)
        return [Outcome("passed", "1" in p.code, 0.0, str(how)) for p in programs]

    monkeypatch.setattr(scoring, "run_programs", run)
    rows = scoring.prediction_rows([PROBLEM], {"t/0": ["1", "2", "1"]})
    outcomes = scoring.run_rows(rows, [PROBLEM], timeout_s=2.0)
    assert [outcome.passed for outcome in outcomes] == [True, True, True] or len(ran) == 2
    assert len(ran) == 2 and outcomes[0] is outcomes[2]
    assert outcomes[0].isolation == "{'timeout_s': 2.0}"


def test_completions_and_problems_must_fit():
    with pytest.raises(DataError, match="a problem has no completion - got t/0"):
        scoring.prediction_rows([PROBLEM], {"t/0": []})
    with pytest.raises(DataError, match="completions of an unknown problem - got x"):
        scoring.prediction_rows([PROBLEM], {"t/0": ["a"], "x": ["b"]})
    with pytest.raises(DataError, match="a completion of an unknown problem - got x"):
        scoring.run_rows([{"task_id": "x", "completion": ""}], [PROBLEM])


@pytest.mark.parametrize("mode", ["paper", "fixed"])
def test_canonical_solutions_pass(bwrap, shared, mode):
    problems = read_problems(shared / "eval_data" / "codex_humaneval" / "HumanEval.jsonl.gz")
    programs = [scoring.build_program(p, p.canonical_solution) for p in problems]
    outcomes = run_programs(programs, mode=mode)
    assert [
        (p.task_id, o.result) for p, o in zip(problems, outcomes, strict=True) if not o.passed
    ] == []
    assert len(outcomes) == 164


def test_the_examples_of_the_reference(bwrap, shared):
    """Six completions of which three pass: pass@1 is 0.4999999999999999 there."""
    folder = shared / "eval_data" / "codex_humaneval"
    problems = read_problems(folder / "example_problem.jsonl")
    rows = [
        json.loads(line) for line in (folder / "example_samples.jsonl").read_text().splitlines()
    ]
    outcomes = scoring.run_rows(rows, problems, mode="paper", timeout_s=1.0)
    assert [o.passed for o in outcomes] == [False, False, False, True, True, True]
    assert outcomes[1].result == "timed out"
    assert scoring.metrics(scoring.result_rows(rows, outcomes), [1]) == {
        "pass@1": 0.4999999999999999
    }


SLOW = {15, 83, 100, 130, 139}
"""Problems of HumanEval+ whose canonical solution or check takes many seconds."""
QUARTER = {*range(0, 164, 4)} - SLOW
"""Problems that are always tried; 32, which is corrected, is one of them."""


@pytest.mark.slow
def test_canonical_solutions_of_plus_pass(bwrap, shared):
    path = shared / "eval_data" / "humanevalplus" / "HumanEvalPlus-OriginFmt.jsonl.gz"
    every = read_problems(path)
    problems = every if THOROUGH else [every[number] for number in sorted(QUARTER)]
    programs = [scoring.build_program(p, p.canonical_solution) for p in problems]
    outcomes = run_programs(programs, timeout_s=60.0)
    assert [
        (p.task_id, o.result) for p, o in zip(problems, outcomes, strict=True) if not o.passed
    ] == []
    assert len(every) == 164 and len(outcomes) == len(problems) > 30


def test_plus_32_fails_for_all_where_it_is_left(bwrap, shared):
    path = shared / "eval_data" / "humanevalplus" / "HumanEvalPlus-OriginFmt.jsonl.gz"
    problem = read_problems(path, corrected=False)[32]
    programs = [scoring.build_program(problem, problem.canonical_solution)]
    for mode in ("paper", "fixed"):
        (outcome,) = run_programs(programs, mode=mode)
        assert (
            outcome.result.startswith("failed: ")
            and "after * must be an iterable" in outcome.result
        )
