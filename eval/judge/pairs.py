"""Pairs of outputs and what a judge says of them, whoever the judge is."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Sequence
from typing import Literal

from eval.harness.asks import Answer
from eval.judge.annotators import Annotator, plain
from eval.xstest.run_eval import REFUSAL, by_string_match

REFERENCE, DRAW, MODEL = 1.0, 1.5, 2.0
"""A preference: which output is better; numbers between say how sure that is."""

Kind = Literal["judged", "same", "tie", "refused", "unread", "too_long", "failed"]
"""How a pair ended: with a verdict; without asking, as both outputs are one; with a tie of a judge
that counts; and without a verdict, as the judge would not say, said something that is none, takes
no prompt of that length, or could not be asked."""


@dataclasses.dataclass(frozen=True)
class Pair:
    """An instruction with the reference's output and the model's."""

    id: str
    instruction: str
    reference: str
    output: str


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What a judge says of a pair."""

    kind: Kind
    preference: float | None = None
    """`REFERENCE` to `MODEL`; None without a verdict."""
    first: tuple[tuple[str | None, float], ...] = ()
    """For each order that was read: who was shown first, `reference` or `model` (None where a
    stored judgement does not tell), and which of the outputs shown was better, 1 the first to 2
    the second."""
    replies: tuple[str | None, ...] = ()
    tokens: tuple[int, int] = (0, 0)
    """Of prompts and replies, this pair's share."""
    error: str | None = None
    answered_by: tuple[str, ...] = ()
    """Names of models that the judge's endpoint gave, other than was asked for."""


WORST_FIRST = ("failed", "too_long", "refused", "unread", "judged")
TOO_LONG = "judge's prompt is longer than the judge takes"


def swapped(instruction: str, seed: int = 0) -> bool:
    """Whether the model's output is shown first; the package's own draw, of the same seed.

    Source: tatsu-lab/alpaca_eval:src/alpaca_eval/processors.py@cd543a14.
    """
    draw = random.Random(f"is_switched_outputs{plain(instruction)}{seed}")
    return draw.choices([False, True], k=1)[0]


@dataclasses.dataclass(frozen=True)
class _Shown:
    """A pair in one order."""

    pair: Pair
    model_first: bool

    @property
    def texts(self) -> tuple[str, str, str]:
        first, second = self.pair.reference, self.pair.output
        if self.model_first:
            first, second = second, first
        return self.pair.instruction, first, second


Ask = Callable[[Sequence[tuple[str, str]]], list[Answer]]
"""Answers of a judge to messages of system and user."""


def prompts_of(
    pairs: Sequence[Pair], annotator: Annotator, *, seed: int = 0, both_orders: bool = False
) -> tuple[list[list[_Shown]], list[tuple[str, str]]]:
    """What a judge is shown in each prompt, and the prompts; pairs of equal outputs are left out.

    Which pairs share a prompt depends on the pairs alone, never on what was judged already.
    """
    asked = [pair for pair in pairs if pair.reference != pair.output]
    orders = [[_Shown(pair, swapped(pair.instruction, seed)) for pair in asked]]
    if both_orders:
        orders.append([_Shown(one.pair, not one.model_first) for one in orders[0]])
    size = annotator.pairs
    batches = [order[at : at + size] for order in orders for at in range(0, len(order), size)]
    return batches, [annotator.ask([one.texts for one in batch]) for batch in batches]


def judge_pairs(
    pairs: Sequence[Pair],
    annotator: Annotator,
    ask: Ask,
    *,
    seed: int = 0,
    both_orders: bool = False,
    consistent: bool = True,
) -> list[Verdict]:
    """The verdict on every pair, in order.

    Args:
      pairs: with ids of their own.
      annotator: the prompt.
      ask: the judge.
      seed: of the order in which outputs are shown.
      both_orders: whether each pair is judged in both orders; the preference is their mean, and a
        pair of which one order has no verdict has none.
      consistent: see `Annotator.read`.
    """
    batches, prompts = prompts_of(pairs, annotator, seed=seed, both_orders=both_orders)
    found: dict[str, list[Verdict]] = {pair.id: [] for pair in pairs}
    for batch, answer in zip(batches, ask(prompts), strict=True):
        choices = annotator.read(answer, consistent=consistent)
        for place, shown in enumerate(batch):
            choice = None if choices is None else choices[place]
            found[shown.pair.id].append(_verdict(shown, answer, choice, len(batch)))
    return [_together(found[pair.id]) for pair in pairs]


def _verdict(shown: _Shown, answer: Answer, choice: float | None, sharing: int) -> Verdict:
    tokens = (answer.prompt_tokens or 0) // sharing, (answer.output_tokens or 0) // sharing
    names = () if answer.answered_by is None else (answer.answered_by,)
    said = Verdict("judged", None, (), (answer.output,), tokens, answered_by=names)
    if choice is not None:
        who = "model" if shown.model_first else "reference"
        preference = 3 - choice if shown.model_first else choice
        return dataclasses.replace(said, preference=preference, first=((who, choice),))
    if answer.error is not None:
        return dataclasses.replace(said, kind=_fault(answer), error=answer.error)
    if by_string_match(answer.output or "") == REFUSAL:
        return dataclasses.replace(said, kind="refused")
    return dataclasses.replace(said, kind="unread")


def _fault(answer: Answer) -> Kind:
    """What it is that there is no reply."""
    if answer.error == TOO_LONG:
        return "too_long"
    return "refused" if answer.refused else "failed"


def _together(orders: Sequence[Verdict]) -> Verdict:
    """One verdict of those in each order; the worst kind is that of the pair."""
    if not orders:
        return Verdict("same", DRAW)
    worst = min(orders, key=lambda one: WORST_FIRST.index(one.kind))
    preferences = [one.preference for one in orders if one.preference is not None]
    whole = len(preferences) == len(orders)
    return Verdict(
        worst.kind,
        sum(preferences) / len(preferences) if whole else None,
        tuple(first for one in orders for first in one.first),
        tuple(reply for one in orders for reply in one.replies),
        (sum(one.tokens[0] for one in orders), sum(one.tokens[1] for one in orders)),
        next((one.error for one in orders if one.error is not None), None),
        tuple(name for one in orders for name in one.answered_by),
    )


def by_count(pairs: Sequence[Pair], counts: Sequence[tuple[int, int]]) -> list[Verdict]:
    """Verdicts of a judge that prefers the output of which it counts more.

    Source: the paper's appendix H, which counts unique tokens.

    Args:
      pairs: what is judged.
      counts: of each pair's reference and output.
    """
    found = []
    for pair, (reference, output) in zip(pairs, counts, strict=True):
        if pair.reference == pair.output:
            found.append(Verdict("same", DRAW))
        elif reference == output:
            found.append(Verdict("tie", DRAW))
        else:
            found.append(Verdict("judged", MODEL if output > reference else REFERENCE))
    return found
