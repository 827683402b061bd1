"""What judging costs: estimated, limited and counted."""

import doctest

import pytest

from eval.harness.asks import Answer, Choose, Generate, Prompt
from eval.judge import cost
from eval.judge.cost import Metered, Price, estimate, price_of, tokens_of
from tulu_jax.errors import ConfigError


def test_examples_hold():
    assert doctest.testmod(cost).failed == 0


def test_prices_are_the_users_first():
    assert price_of("gpt-4-0613") == Price(30, 60)
    assert price_of("gpt-4-0613", read=1.0) == Price(1.0, 60)
    assert price_of("mine", 0.0, 0.0) == Price(0.0, 0.0)
    assert price_of("mine") is price_of("mine", read=1.0) is None


@pytest.mark.parametrize("text", ["What is it? " * 50, "def f(x):\n    return x\n" * 30, "水" * 40])
def test_an_estimate_is_rather_too_high(text):
    assert tokens_of(text) >= len(text) / 4.5
    asks = [Generate(Prompt(text, system="s"), 100), Choose(Prompt(text))]
    assert estimate(asks, Price(1e6, 0)) > 2 * tokens_of(text)
    assert estimate(asks[:1], Price(0, 1e6)) == 100 and estimate(asks[1:], Price(0, 1e6)) == 1


class Fake:
    """A judge whose answers have ten tokens each."""

    fingerprint, can = "fake", frozenset({"generate"})

    def __init__(self):
        self.asked = 0

    def answer(self, asks, on_done):
        for index in range(len(asks)):
            self.asked += 1
            on_done(index, Answer("x", None, 90, 10))


def metered(**options):
    fake, said, done = Fake(), [], []
    meter = Metered(fake, say=said.append, **options)
    asks = [Generate(Prompt(f"text {n}"), 10) for n in range(40)]
    return fake, meter, said, lambda: meter.answer(asks, lambda i, a: done.append(i)), done


def test_it_is_told_before_and_meanwhile():
    _, meter, said, ask, done = metered(price=Price(10_000, 10_000))
    ask()
    assert meter.spent == pytest.approx(40.0) and len(done) == 40 and meter.can == Fake.can
    assert said[0].startswith("judging 40 prompts costs $") and said[0].endswith(" at most, about")
    assert (
        said[1] == "judged 4 of 40, $4.00 so far" and said[-1] == "judged 40 of 40, $40.00 so far"
    )
    assert len(said) == 11


def test_an_endpoint_that_tells_no_tokens_is_taken_to_be_dear(monkeypatch):
    """Else nothing is ever spent, and --max_cost stops nothing."""
    quiet = lambda self, asks, on_done: [on_done(i, Answer("x")) for i in range(len(asks))]  # noqa: E731
    monkeypatch.setattr(Fake, "answer", quiet)
    _, meter, said, ask, _ = metered(price=Price(0, 10_000))
    ask()
    assert meter.spent == pytest.approx(40 * 10 * 10_000 / 1e6)
    assert said[-1].endswith("$4.00 so far at most, about: the endpoint does not tell tokens")


def test_without_a_price_it_is_counted_all_the_same():
    _, meter, said, ask, _ = metered(price=None)
    ask()
    assert meter.spent == 0 and said[-1] == "judged 40 of 40" and len(said) == 10


def test_what_would_cost_too_much_is_not_asked():
    fake, _, _, ask, _ = metered(price=Price(10_000, 10_000), max_cost=0.5)
    with pytest.raises(ConfigError, match=r"may cost more than it should - got about \$.* at most"):
        ask()
    assert fake.asked == 0


def test_what_has_cost_too_much_is_not_asked_further_and_what_was_answered_is_kept(monkeypatch):
    monkeypatch.setattr(cost, "estimate", lambda asks, price: 0.0)
    fake, _, _, ask, done = metered(price=Price(10_000, 10_000), max_cost=7.5)
    with pytest.raises(ConfigError, match=r"has cost more than it may - got \$8.00 for 8 of 40"):
        ask()
    assert fake.asked == 8 and done == list(range(8))


def test_nothing_to_ask_costs_nothing():
    meter = Metered(Fake(), Price(1, 1), max_cost=0.0)
    meter.answer([], lambda *_: None)
    assert meter.spent == 0.0
