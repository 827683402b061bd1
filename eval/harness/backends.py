"""Who answers: a model in our engine. Endpoints and replayed files lie beside it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from eval.harness.asks import Answer, Ask, Choose, Generate, Prompt, Weigh
from tulu_jax.files import sha256

if TYPE_CHECKING:
    from tulu_jax.generate import Completion, Front, Request

OnDone = Callable[[int, Answer], None]

SCORED_AT_ONCE = 16
"""So many prompts are scored between two moments at which answers are kept."""


class Backend(Protocol):
    """Whoever answers."""

    fingerprint: str
    """A SHA-256 (hex) of the model and of what else decides its answers."""
    can: frozenset[str]
    """Of `generate`, `choose` and `weigh`."""

    def answer(self, asks: Sequence[Ask], on_done: OnDone) -> None:
        """Answers all; `on_done` is called with the index and the answer of each as it comes."""
        ...


class EngineBackend:
    """A model of ours."""

    can = frozenset({"generate", "choose", "weigh"})

    def __init__(self, engine: Front, fingerprint: str, *, seed: int = 0) -> None:
        """Uses an engine that has a tokenizer.

        Args:
          engine: the model.
          fingerprint: of its weights, dtype and tokenizer.
          seed: of samples.
        """
        self.engine = engine
        self.fingerprint = fingerprint
        self._seed = seed

    def answer(self, asks: Sequence[Ask], on_done: OnDone) -> None:
        """See `Backend`; scores first, as prompts that follow each other share their beginning."""
        scored = [index for index, ask in enumerate(asks) if not isinstance(ask, Generate)]
        for start in range(0, len(scored), SCORED_AT_ONCE):
            indices = scored[start : start + SCORED_AT_ONCE]
            for index, answer in zip(indices, self._score([asks[i] for i in indices]), strict=True):
                on_done(index, answer)
        generated = [index for index, ask in enumerate(asks) if isinstance(ask, Generate)]
        requests = [self._request(asks[index]) for index in generated]
        self.engine.run(
            requests,
            [f"instance {index}" for index in generated],
            on_done=lambda place, done: on_done(
                generated[place], self._completed(asks[generated[place]], done)
            ),
        )

    def _request(self, ask: Ask) -> Request:
        from tulu_jax.generate import Request, Sampling

        assert isinstance(ask, Generate) and ask.prompt.ids is not None
        single = tuple(ids[0] for ids in ask.stop_tokens if len(ids) == 1)
        return Request(
            list(ask.prompt.ids),
            ask.max_new_tokens,
            Sampling(temperature=ask.temperature, top_p=ask.top_p),
            seed=self._seed,
            stream=stream_of(ask),
            stop_ids=(*self.engine.stop_ids, *single) if single else None,
            stop_strings=ask.stops,
        )

    def _completed(self, ask: Ask, done: Completion) -> Answer:
        from tulu_jax.generate.jobs import text_after

        assert isinstance(ask, Generate) and ask.prompt.ids is not None
        tokens, text, reason = done.tokens, done.text, done.stop_reason
        longer = [ids for ids in ask.stop_tokens if len(ids) > 1]
        end = min((at for ids in longer if (at := find(tokens, ids)) is not None), default=None)
        if end is not None:
            assert self.engine.tokenizer is not None
            tokens, reason = tokens[:end], "stop:tokens"
            text = text_after(tokens, self.engine.tokenizer)
        return Answer(text, reason, len(ask.prompt.ids), len(tokens), capped=done.capped)

    def _score(self, asks: Sequence[Ask]) -> list[Answer]:
        pairs, sizes = [], []
        for ask in asks:
            mine = _pairs(ask)
            sizes.append(len(mine))
            pairs += [pair for pair in mine if pair[1]]
        found = iter(self.engine.score(pairs))
        answers = []
        for ask, size in zip(asks, sizes, strict=True):
            totals = [next(found).total if after else 0.0 for _, after in _pairs(ask)]
            assert len(totals) == size
            count = len(ask.prompt.ids or ())
            answers.append(Answer(prompt_tokens=count or None, logprobs=tuple(totals)))
        return answers


def _pairs(ask: Ask) -> list[tuple[list[int], list[int]]]:
    if isinstance(ask, Choose):
        assert ask.prompt.ids is not None
        return [(list(ask.prompt.ids), [choice]) for choice in ask.choices]
    assert isinstance(ask, Weigh)
    return [(list(before), list(after)) for before, after in ask.pairs]


def stream_of(ask: Generate) -> int:
    """The stream of random numbers of a sample: its own, whatever is asked beside it."""
    if ask.temperature == 0:
        return 0
    return int(sha256(f"{ask.sample} {ask.prompt.content}")[:7], 16)


def find(tokens: Sequence[int], wanted: Sequence[int]) -> int | None:
    """Where a run of tokens first begins, or None.

    >>> find([5, 7, 8, 7, 8], (7, 8))
    1
    """
    size = len(wanted)
    return next(
        (at for at in range(len(tokens) - size + 1) if tuple(tokens[at : at + size]) == (*wanted,)),
        None,
    )


def fit(ask: Ask, max_length: int) -> tuple[Ask, int]:
    """The ask with as much of its prompt as a model takes, and how many tokens were cut off.

    What is cut off is the beginning, but for BOS: the first token stays.

    Args:
      ask: of any kind; without tokens it stays as it is.
      max_length: tokens of the model's longest sequence; one of them is left for the answer.
    """
    if isinstance(ask, Weigh):
        pairs = [_fit_pair(*pair, max_length) for pair in ask.pairs]
        cut = max((cut for _, _, cut in pairs), default=0)
        kept = tuple((before, after) for before, after, _ in pairs)
        return (dataclasses.replace(ask, pairs=kept) if cut else ask), cut
    ids = ask.prompt.ids
    cut = 0 if ids is None else len(ids) - (max_length - 1)
    if cut <= 0 or ids is None:
        return ask, 0
    return dataclasses.replace(ask, prompt=Prompt(ask.prompt.text, _shortened(ids, cut))), cut


def _fit_pair(
    before: tuple[int, ...], after: tuple[int, ...], max_length: int
) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    cut = max(0, len(before) + len(after) - 1 - max_length)
    return (_shortened(before, cut) if cut else before), after, cut


def _shortened(ids: tuple[int, ...], cut: int) -> tuple[int, ...]:
    return (ids[0], *ids[1 + cut :])


def probabilities(logprobs: Sequence[float]) -> tuple[list[float], list[float]]:
    """Probabilities of choices: over the whole vocabulary, and over the choices alone.

    >>> whole, among = probabilities([-1.0, -2.0])
    >>> [round(p, 3) for p in whole], [round(p, 3) for p in among]
    ([0.368, 0.135], [0.731, 0.269])
    """
    logs = np.asarray(logprobs, np.float64)
    shifted = np.exp(logs - logs.max())
    return np.exp(logs).tolist(), (shifted / shifted.sum()).tolist()
