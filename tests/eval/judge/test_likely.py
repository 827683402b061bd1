"""Judges: asked once, kept, and never taken for a 0."""

import math

import pytest

from eval.harness.asks import Answer, Prompt
from eval.harness.cache import AnswerCache
from eval.judge.likely import YesJudge, probability
from tulu_jax.errors import DataError


class Fake:
    """A backend that says yes to prompts with an A, and gives up on those with an X."""

    fingerprint = "judge"
    can = frozenset({"choose"})

    def __init__(self):
        self.asked = []

    def answer(self, asks, on_done):
        for index, ask in enumerate(asks):
            self.asked.append(ask.prompt.text)
            if "X" in ask.prompt.text:
                on_done(index, Answer(error="gone"))
            else:
                on_done(
                    index, Answer(logprobs=(math.log(0.75 if "A" in ask.prompt.text else 0.25),))
                )


def encode(texts):
    return [Prompt(text, tuple(text.encode())) for text in texts]


def test_prompts_are_judged_in_order_and_asked_once(tmp_path):
    fake = Fake()
    with AnswerCache(tmp_path / "a") as cache:
        judge = YesJudge(fake, cache, encode, yes=7)
        assert judge(["A", "b", "A"]) == pytest.approx([0.75, 0.25, 0.75])
        assert judge(["b", "Ac"]) == pytest.approx([0.25, 0.75])
    assert fake.asked == ["A", "b", "Ac"]


def test_a_judge_that_fails_is_an_error_and_what_it_said_is_kept(tmp_path):
    fake = Fake()
    with AnswerCache(tmp_path / "a") as cache:
        judge = YesJudge(fake, cache, encode, yes=7)
        with pytest.raises(DataError, match="judge did not answer - got 1 of 2: gone"):
            judge(["A", "X"])
        assert judge(["A"]) == pytest.approx([0.75])
    assert fake.asked == ["A", "X"]


@pytest.mark.parametrize(
    ("output", "value"),
    [
        (" yes", 1.0),
        ("Yes.", 1.0),
        ("**yes**", 1.0),
        ("no", 0.0),
        ("No, it", 0.0),
        ("", None),
        (None, None),
        ("True", None),
        ("I cannot say yes", None),
        ("Nobody", None),
    ],
)
def test_an_answer_in_words(output, value):
    assert probability(Answer(output=output)) == value
