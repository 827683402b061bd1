"""Pairs: the order they are shown in, and every way in which one ends."""

import random

import pytest

from eval.harness.asks import Answer
from eval.judge.annotators import ANNOTATORS
from eval.judge.pairs import TOO_LONG, Pair, Verdict, by_count, judge_pairs, swapped

ONE = ANNOTATORS["alpaca_eval_gpt4"]
FIVE = ANNOTATORS["alpaca_farm_greedy_gpt4"]


def pairs(count):
    return [Pair(str(n), f"Do {n}", f"reference {n}.", f"output {n}.") for n in range(count)]


def reply(first_is_better):
    one, two = (1, 2) if first_is_better else (2, 1)
    return f"[{{'model': 'model_1', 'rank': {one}}}, {{'model': 'model_2', 'rank': {two}}}]"


def prefers(wanted):
    """A judge that prefers the output which begins with a word, wherever it stands."""

    def ask(prompts):
        found = []
        for _, user in prompts:
            places = {side: user.index(f'"""{side}') for side in ("reference", "output")}
            found.append(Answer(reply(places[wanted] == min(places.values())), None, 90, 8))
        return found

    return ask


def test_the_order_is_the_packages_draw():
    for text in ("Do 1", "Why?", "caf\u00e9"):
        draw = random.Random(f"is_switched_outputs{text}0").choices([False, True], k=1)[0]
        assert swapped(text) == draw
    drawn = [swapped(f"Do {n}") for n in range(2000)]
    assert 900 < sum(drawn) < 1100
    assert [swapped(f"Do {n}", 1) for n in range(50)] != drawn[:50]
    assert swapped("lone \ud800") == swapped("lone \ufffd")


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize(("wanted", "preference"), [("reference", 1.0), ("output", 2.0)])
def test_who_is_better_does_not_hang_on_the_order(wanted, preference, both):
    found = judge_pairs(pairs(20), ONE, prefers(wanted), both_orders=both)
    assert {one.preference for one in found} == {preference}
    assert {one.kind for one in found} == {"judged"}
    assert {len(one.first) for one in found} == {2 if both else 1}
    assert found[0].tokens == ((180, 16) if both else (90, 8))
    if both:
        assert all({who for who, _ in one.first} == {"model", "reference"} for one in found)


def test_a_judge_that_takes_what_is_first_draws_in_both_orders():
    def ask(prompts):
        return [Answer(reply(True)) for _ in prompts]

    assert {one.preference for one in judge_pairs(pairs(9), ONE, ask, both_orders=True)} == {1.5}
    found = judge_pairs(pairs(40), ONE, ask)
    shown = [swapped(f"Do {n}") for n in range(40)]
    assert [one.preference for one in found] == [2.0 if model else 1.0 for model in shown]
    assert [one.first for one in found] == [
        (("model" if model else "reference", 1.0),) for model in shown
    ]


def test_equal_outputs_are_a_draw_and_not_asked():
    asked = []

    def ask(prompts):
        asked.extend(prompts)
        return [Answer(reply(True)) for _ in prompts]

    alike = Pair("x", "Say hello", "Hello!", "Hello!")
    found = judge_pairs([*pairs(1), alike], ONE, ask)
    assert found[1] == Verdict("same", 1.5) and len(asked) == 1


def test_every_end_without_a_verdict_has_its_name():
    answers = [
        Answer(reply(True)),
        Answer("I'm sorry, but I cannot compare these."),
        Answer("model_1, as it said so"),
        Answer(error="endpoint gave no text: I must not", refused=True),
        Answer(error="endpoint gave no answer in 6 tries: 500"),
        Answer(error=TOO_LONG),
        Answer(""),
    ]
    found = judge_pairs(pairs(7), ONE, lambda prompts: answers)
    kinds = ["judged", "refused", "unread", "refused", "failed", "too_long", "unread"]
    assert [one.kind for one in found] == kinds
    assert [one.preference is None for one in found] == [False, *[True] * 6]
    assert found[4].error == "endpoint gave no answer in 6 tries: 500"
    assert found[2].replies == ("model_1, as it said so",)


def test_a_pair_needs_both_orders_where_both_are_asked():
    answers = [Answer(reply(True)), Answer("?"), Answer(reply(True)), Answer(reply(False))]
    first, second = judge_pairs(pairs(2), ONE, lambda prompts: answers, both_orders=True)
    assert (first.kind, first.preference) == ("judged", 1.5)
    assert (second.kind, second.preference, len(second.first)) == ("unread", None, 1)


def test_pairs_that_share_a_prompt_share_its_fate_and_cost():
    asked = []

    def ask(prompts):
        asked.extend(prompts)
        return [Answer("\n".join(["Output (a)"] * 5), None, 500, 50), Answer("Output (a)")]

    found = judge_pairs(pairs(7), FIVE, ask)
    assert len(asked) == 2 and {one.kind for one in found[:5]} == {"judged"}
    assert {one.kind for one in found[5:]} == {"unread"} and found[0].tokens == (100, 10)
    wanted = [2.0 if swapped(f"Do {n}") else 1.0 for n in range(5)]
    assert [one.preference for one in found[:5]] == wanted


def test_a_judge_that_counts():
    found = by_count(pairs(3), [(3, 2), (2, 3), (4, 4)])
    assert [(one.kind, one.preference) for one in found] == [
        ("judged", 1.0), ("judged", 2.0), ("tie", 1.5),
    ]  # fmt: skip
    assert by_count([Pair("0", "i", "a", "a")], [(1, 1)]) == [Verdict("same", 1.5)]
