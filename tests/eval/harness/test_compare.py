"""Two results compared: SciPy as the oracle, and what is said about pairs that do not fit."""

import math

import numpy as np
import pytest
from scipy import stats

from eval.harness.compare import compare
from tests.eval.results import row, write_result
from tulu_jax.errors import DataError


def rows(values, **more):
    return [row(f"q{i}", value, **more) for i, value in enumerate(values)]


@pytest.fixture
def write(tmp_path):
    def make(name, written, **options):
        return write_result(tmp_path / name, written, **{"model": name, **options})

    return make


def draw(seed, count=80, share=0.4):
    return (np.random.default_rng(seed).random(count) < share).astype(int).tolist()


def test_right_and_wrong_by_mcnemar(write):
    a, b = draw(1), draw(2, share=0.7)
    (task,) = compare(write("a", rows(a)), write("b", rows(b))).tasks
    better = sum(y > x for x, y in zip(a, b, strict=True))
    worse = sum(y < x for x, y in zip(a, b, strict=True))
    oracle = stats.binomtest(better, better + worse, 0.5).pvalue
    assert (task.test, task.n) == ("mcnemar", 80)
    assert task.p == task.p_holm == pytest.approx(oracle, rel=1e-9)
    difference = np.subtract(b, a)
    assert task.difference == pytest.approx(100 * difference.mean(), rel=1e-9)
    assert task.stderr == pytest.approx(100 * stats.sem(difference), rel=1e-9)
    power = stats.norm.ppf(0.975) + stats.norm.ppf(0.8)
    assert task.detectable == pytest.approx(power * 100 * stats.sem(difference), rel=1e-9)
    assert (len(task.improved), len(task.worsened)) == (better, worse)
    assert task.improved[0] == f"q{difference.tolist().index(1)}"
    assert task.warnings == ()


def test_scores_by_the_bootstrap(write):
    generator = np.random.default_rng(5)
    a, noise = generator.random(50) / 2, generator.normal(0, 0.1, 50)
    b = a + noise + 0.03
    (task,) = compare(write("a", rows(a.tolist())), write("b", rows(b.tolist()))).tasks
    oracle = stats.bootstrap((b - a,), np.mean, n_resamples=10_000, batch=10_000,
                             rng=np.random.default_rng(0))  # fmt: skip
    centred = oracle.bootstrap_distribution - (b - a).mean()
    extreme = (np.abs(centred) >= abs((b - a).mean())).sum()
    assert task.test == "bootstrap"
    assert task.p == pytest.approx((1 + extreme) / 10_001, rel=1e-9)


def test_clusters_make_the_error_larger(write):
    def clustered(values):
        return [{**r, "cluster": f"c{i // 8}"} for i, r in enumerate(rows(values))]

    a, b = [0] * 80, [1] * 40 + [0] * 40
    (alone,) = compare(write("a", rows(a)), write("b", rows(b))).tasks
    (task,) = compare(write("a", clustered(a)), write("b", clustered(b))).tasks
    assert (alone.clusters, task.clusters) == (80, 10)
    means = np.reshape(np.subtract(b, a), (10, 8)).mean(axis=1)
    assert task.stderr == pytest.approx(100 * stats.sem(means), rel=1e-9)
    assert task.stderr > 2 * alone.stderr


def test_a_mean_of_groups_is_compared_as_one(write):
    """One group has four times the instances of the other, and must not weigh more."""
    groups = ["x"] * 16 + ["y"] * 4

    def grouped(values):
        return [{**r, "group": g} for r, g in zip(rows(values), groups, strict=True)]

    a, b = [1] * 8 + [0] * 8 + [1, 0, 0, 0], [1] * 4 + [0] * 12 + [1, 1, 1, 0]
    means = [[np.mean(v[:16]), np.mean(v[16:])] for v in (a, b)]
    folders = [write(n, grouped(v), value=float(np.mean(m)))
               for n, v, m in zip("ab", (a, b), means, strict=True)]  # fmt: skip
    (task,) = compare(*folders).tasks
    assert (task.mean_a, task.mean_b) == (37.5, 50.0)
    difference = np.subtract(b, a)
    errors = stats.sem(difference[:16]), stats.sem(difference[16:])
    assert task.difference == pytest.approx(12.5, rel=1e-9)
    assert task.stderr == pytest.approx(100 * math.hypot(*errors) / 2, rel=1e-9)
    assert task.warnings == ()


@pytest.mark.parametrize("macro", [True, False, None])
def test_run_json_says_whether_a_value_is_a_mean_of_groups(write, macro):
    """Groups of one size have the same mean either way, and not the same error."""
    groups, a, b = ["x"] * 8 + ["y"] * 8, [0] * 16, [1] * 6 + [0] * 2 + [1] + [0] * 7
    said = {} if macro is None else {"macro": macro}
    folders = [write(n, [{**r, "group": g} for r, g in zip(rows(v), groups, strict=True)], **said)
               for n, v in zip("ab", (a, b), strict=True)]  # fmt: skip
    (task,) = compare(*folders).tasks
    difference = np.subtract(b, a)
    errors = stats.sem(difference[:8]), stats.sem(difference[8:])
    expected = math.hypot(*errors) / 2 if macro else stats.sem(difference)
    assert task.stderr == pytest.approx(100 * expected, rel=1e-9)


def test_samples_of_a_problem_are_one_pair(write):
    def samples(rights):
        return [row(f"HumanEval/{i}#{s}", int(s < right), cluster=f"HumanEval/{i}")
                for i, right in enumerate(rights) for s in range(4)]  # fmt: skip

    a, b = [0, 1, 2, 4], [1, 1, 4, 3]
    (task,) = compare(write("a", samples(a), metric="pass@2"),
                      write("b", samples(b), metric="pass@2")).tasks  # fmt: skip
    chance = {right: 1 - stats.hypergeom.pmf(0, 4, right, 2) for right in range(5)}
    assert task.n == 4 and task.test == "bootstrap"
    assert task.mean_a == pytest.approx(100 * np.mean([chance[n] for n in a]), rel=1e-9)
    assert task.mean_b == pytest.approx(100 * np.mean([chance[n] for n in b]), rel=1e-9)
    assert (task.improved, task.worsened) == (("HumanEval/0", "HumanEval/2"), ())
    (task,) = compare(write("a", samples(a), metric="pass@9"),
                      write("b", samples(b), metric="pass@9")).tasks  # fmt: skip
    assert "a: pass@9 with 4 samples of a problem: compared by pass@4 there" in task.warnings


def test_lower_may_be_better(write):
    a, b = write("a", rows([0.2, 0.9])), write("b", rows([0.4, 0.1]), higher_is_better=False)
    (task,) = compare(a, b).tasks
    assert (task.improved, task.worsened) == (("q0",), ("q1",))
    a = write("a", rows([0.2, 0.9]), higher_is_better=False)
    (task,) = compare(a, b).tasks
    assert (task.improved, task.worsened) == (("q1",), ("q0",))


def test_suites_are_adjusted_by_holm(tmp_path, write):
    tasks = {"gsm_cot": (1, 0.4), "bbh_cot": (2, 0.55), "mmlu_0shot": (3, 0.8)}
    for task, (seed, share) in tasks.items():
        write_result(tmp_path / "a" / task, rows(draw(9)), task=task, model="base")
        write_result(tmp_path / "b" / task, rows(draw(seed, share=share)), task=task, model="tuned")
    write_result(tmp_path / "b" / "toxigen", rows([1]), task="toxigen")
    found = compare(tmp_path / "a", tmp_path / "b")
    assert [t.task for t in found.tasks] == ["bbh_cot", "gsm_cot", "mmlu_0shot"]
    by_hand, largest = {}, 0.0
    for rank, task in enumerate(sorted(found.tasks, key=lambda t: t.p)):
        largest = by_hand[task.task] = max(largest, min(1.0, (3 - rank) * task.p))
    assert {t.task: t.p_holm for t in found.tasks} == pytest.approx(by_hand, rel=1e-12)
    assert found.warnings == (f"not compared: toxigen - no result in {tmp_path / 'a'}",)


def test_what_does_not_fit_is_said(write):
    a = [row("q0", 1), row("q1", 0), row("q2", 1), row("q3", 0, error="timed out")]
    b = [row("q2", 0), row("q1", 1, prompt="Another?"), row("q9", 1)]
    (task,) = compare(write("a", a), write("b", b)).tasks
    assert (task.n, task.improved, task.worsened) == (2, ("q1",), ("q2",))
    assert task.warnings == (
        "a: 1 failed in the machinery, left out",
        "only the 2 instances that both have are compared: a has 3, b 3",
        "1 of 2 prompts differ, the first 'q1'",
        "a: exact_match of these instances is 50.0, in its run.json 66.7",
        "b: exact_match of these instances is 50.0, in its run.json 66.7",
    )


def test_other_ways_of_running_are_said(write):
    a = write("a", rows([1, 0]), quirks={"x": "paper", "y": "fixed"}, data_sha256="0")
    b = write("b", rows([1, 1]), quirks={"x": "fixed", "y": "fixed"}, compat="paper")
    (task,) = compare(a, b).tasks
    assert task.warnings == (
        "run with other --compat - A: fixed, B: paper",
        "run with other data - A: 0, B: None",
        "run with another quirk x - A: paper, B: fixed",
    )


def test_results_of_other_versions_are_said(write):
    a, b, old = (
        write(name, rows([1, 0]), **fields)
        for name, fields in (
            ("a", {"versions": {"tulu_jax": "0.1.0"}}), ("b", {"versions": {"tulu_jax": "0.2.0"}}),
            ("old", {}),
        )
    )  # fmt: skip
    (task,) = compare(a, b).tasks
    assert task.warnings == ("run by other versions of tulu-jax - A: 0.1.0, B: 0.2.0",)
    assert compare(a, old).tasks[0].warnings == ()


def test_other_settings_are_said_but_for_those_that_change_no_score(write):
    """Win rates by two judges differ by 50 points without a word."""
    mine = {"judge": "openai", "max_cost": 5, "temperature": 0.1, "reference_path": "/a/ref.json"}
    theirs = {**mine, "judge": "length", "max_cost": 9, "reference_path": "/b/ref.json", "new": 1}
    a, b = write("a", rows([1, 0]), settings=mine), write("b", rows([1, 1]), settings=theirs)
    (task,) = compare(a, b).tasks
    assert task.warnings == ("run with another setting judge - A: openai, B: length",)


def test_equal_results_have_no_effect_to_find(write):
    (task,) = compare(write("a", rows([1, 0, 1])), write("b", rows([1, 0, 1]))).tasks
    assert (task.difference, task.stderr, task.p) == (0, 0, 1)
    assert math.isnan(task.detectable) and task.as_json()["detectable"] is None


def test_what_cannot_be_compared(write):
    a, b = write("a", rows([1])), write("b", [row("z", 1)])
    with pytest.raises(DataError, match="nothing to compare - got gsm_cot: no instance has a score "
                       "in both - got 1 and 1 with scores"):  # fmt: skip
        compare(a, b)
    with pytest.raises(DataError, match="different tasks - got 'gsm_cot' and 'bbh_cot' at"):
        compare(a, write("c", rows([1]), task="bbh_cot"))
    message = r"do not measure the same - got exact_match \(share\) and f1 \(percent\) at"
    with pytest.raises(DataError, match=message):
        compare(a, write("d", rows([1]), metric="f1", unit="percent"))
