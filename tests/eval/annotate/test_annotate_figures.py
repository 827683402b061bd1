"""The paper's figures from its released sheet, and what each of them means."""

import doctest
import json
import math

import numpy as np
import pytest

from eval.annotate import figures
from eval.annotate.figures import compute, describe, latest
from eval.annotate.records import PREFERENCES, Annotation
from eval.annotate.sheet import read_sheet


def said(instance, who, preference, accepted=(True, True), models=("m", "n"), time=0.0):
    return Annotation(instance, models, accepted, preference, who, time)


def test_docstring_examples():
    assert doctest.testmod(figures).failed == 0


@pytest.mark.parametrize(("n", "far"), [(1, 0.025), (10, 0.6915), (332, 0.98895)])
def test_what_all_say_is_not_certain(n, far):
    """Source: Clopper and Pearson 1934. One answer of one person was 100 %, from 100 to 100 %."""
    every, none = figures.share([1.0] * n), figures.share([0.0] * n)
    assert (every.value, every.high, none.value, none.low) == (1, 1, 0, 0)
    assert every.low == pytest.approx(far, abs=5e-5) == 1 - none.high


def test_of_two_answers_at_one_time_the_later_row_counts():
    """Sheets of whole minutes: who corrects an answer at once was counted with the first one."""
    twice = [said("x", "ann", "a-is-better", time=5.0), said("x", "ann", "tie", time=5.0)]
    assert latest(twice) == twice[1:] and latest(twice[::-1]) == twice[:1]
    assert compute(twice).pairs[0].wins["tie"].value == 1 and compute(twice).repeated == 1


@pytest.fixture(scope="module")
def released(shared):
    path = shared / "eval_data" / "human_eval" / "eval_annotations_tulu_1.xlsx"
    found, blank = read_sheet(path)
    return compute(found, blank=blank), found


def test_the_released_sheet_gives_the_papers_figures(released, shared):
    expected = json.loads(
        (shared / "eval_data" / "fixtures" / "human_eval_expected.json").read_text()
    )
    found, _ = released
    assert found.blank == 152
    by_name = {frozenset(pair.models): pair for pair in found.pairs}
    assert len(by_name) == 3
    for name, wanted in expected["pairs"].items():
        pair = by_name[frozenset(name.split(" vs "))]
        assert pair.models == tuple(name.split(" vs "))
        assert pair.n == wanted["n"] == 332
        near = pytest.approx
        assert {m: s.value for m, s in pair.acceptance.items()} == near(
            wanted["acceptance"], abs=5e-5
        )
        assert {m: s.value for m, s in pair.wins.items()} == near(wanted["win"], abs=5e-5)
        agreement = pair.agreement
        assert agreement.n == wanted["double_annotated"]
        assert agreement.acceptance.value == near(wanted["acceptance_agreement"], abs=5e-5)
        assert agreement.comparison.value == near(wanted["comparison_agreement"], abs=5e-5)
        assert agreement.relaxed.value == near(wanted["relaxed_agreement"], abs=5e-5)
        steps = [step.value for step in pair.steps]
        for step, kind in ((0, "clear"), (1, "slight")):
            if kind in wanted:
                given = {pair.models[0]: steps[step], pair.models[1]: steps[4 - step]}
                assert given == near(wanted[kind], abs=5e-5)
    pooled = expected["pooled_double_annotated"]
    assert found.agreement.n == pooled["n"]
    assert found.agreement.acceptance.value == pytest.approx(
        pooled["acceptance_agreement"], abs=5e-5
    )
    assert found.agreement.relaxed.value == pytest.approx(pooled["relaxed_agreement"], abs=5e-5)


def test_the_papers_numbers_as_they_are_printed(released):
    text = "\n".join(describe(released[0]))
    acceptance = {
        line.split()[1]: float(line.split()[2])
        for block in text.split("\n\n")[1:2]
        for line in block.splitlines()
        if "acceptable " in line and "%" in line
    }
    assert acceptance == {"tulu_65B": 79.2, "chatgpt": 90.1}
    assert "wins        tulu_65B                  27.7 %" in text
    assert "tie                                   33.1 %" in text
    assert "wins        chatgpt                   39.2 %" in text


def test_intervals_hold_their_value_and_narrow_with_n(released):
    pair = released[0].pairs[0]
    for share in (*pair.acceptance.values(), *pair.wins.values(), *pair.steps):
        assert share.low <= share.value <= share.high
        normal = 1.96 * math.sqrt(share.value * (1 - share.value) / share.n)
        assert share.high - share.low == pytest.approx(2 * normal, rel=0.15)


def test_of_one_evaluator_the_latest_answer_counts():
    rows = [said("x", "eve", "a-is-better", time=1.0), said("x", "eve", "b-is-better", time=3.0),
            said("x", "bob", "tie", time=2.0)]  # fmt: skip
    assert [one.evaluator for one in latest(rows)] == ["bob", "eve"]
    found = compute(rows)
    assert found.repeated == 1 and found.annotations == 2
    assert found.pairs[0].wins["tie"].value == 1.0  # bob was first then


def test_names_that_contain_one_another_are_told_apart():
    pair = ("tulu_7B", "tulu_7B_human")
    found = compute([said(str(i), "eve", "b-is-better", models=pair) for i in range(4)]).pairs[0]
    assert found.wins["tulu_7B"].value == 0.0
    assert found.wins["tulu_7B_human"].value == 1.0


def test_completions_in_either_order_count_alike():
    straight = [said("x", "eve", "a-is-slightly-better", (True, False)), said("y", "eve", "tie")]
    turned = [said("x", "eve", "b-is-slightly-better", (False, True), ("n", "m")), straight[1]]
    assert compute(straight).as_json() == compute(turned).as_json()


def test_agreement_counts_half_where_one_said_tie():
    rows = [said("x", "a", "tie"), said("x", "b", "a-is-better"),
            said("y", "a", "a-is-better"), said("y", "b", "a-is-slightly-better"),
            said("z", "a", "b-is-better"), said("z", "b", "a-is-better"),
            said("z", "c", "b-is-better")]  # fmt: skip
    found = compute(rows).agreement
    assert found.n == 3
    assert found.comparison.value == pytest.approx(1 / 3)
    assert found.relaxed.value == pytest.approx(0.5)


def test_kappa_against_its_formula():
    rng = np.random.default_rng(0)
    labels = [tuple(rng.choice(["m", "tie", "n"], 2, p=[0.5, 0.2, 0.3])) for _ in range(300)]
    table = np.array([[labels.count((a, b)) for b in ("m", "tie", "n")] for a in ("m", "tie", "n")])
    share = table / table.sum()
    chance = share.sum(0) @ share.sum(1)
    wanted = (np.trace(share) - chance) / (1 - chance)
    assert figures.cohen_kappa(labels) == pytest.approx(wanted)
    assert math.isnan(figures.cohen_kappa([("m", "m")] * 3))
    assert math.isnan(figures.cohen_kappa([]))


def test_alpha_against_coincidences_by_hand():
    rows = []
    values = {"x": (0, 0, 1), "y": (1, 1), "z": (0, 1), "w": (0, 0)}
    for instance, given in values.items():
        for who, value in enumerate(given):
            rows.append(said(instance, f"p{who}", "tie", (bool(value), True)))
    labels = [(bool(v), True) for given in values.values() for v in given]
    assert len(labels) == 9
    # Units: four of the first model (as above), four of the second, where all say yes.
    units = [*values.values(), *[(1,) * len(given) for given in values.values()]]
    pairs = np.zeros((2, 2))
    for unit in units:
        for i, a in enumerate(unit):
            for j, b in enumerate(unit):
                pairs[a, b] += (i != j) / (len(unit) - 1)
    marginal, total = pairs.sum(0), pairs.sum()
    wanted = 1 - (total - 1) * pairs[0, 1] / (marginal[0] * marginal[1])
    assert compute(rows).agreement.acceptance_alpha == pytest.approx(wanted)


def test_what_cannot_be_told_is_null_in_json():
    found = compute([said("x", "eve", "tie")]).as_json()
    agreement = found["pairs"][0]["agreement"]
    assert agreement["n"] == 0 and agreement["acceptance"]["value"] is None
    assert agreement["preference_alpha"] is None
    json.dumps(found, allow_nan=False)
    assert "agreement   no instance was annotated twice" in "\n".join(
        describe(compute([said("x", "eve", "tie")]))
    )


@pytest.mark.parametrize("place", range(5))
def test_margins(place):
    one = said("x", "eve", PREFERENCES[place])
    assert one.margin("m") == 2 - place == -one.margin("n")
    assert one.winner == ("m", "m", None, "n", "n")[place]
