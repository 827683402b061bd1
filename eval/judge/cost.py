"""What judging costs: estimated before anything is asked, counted while it is.

Prices are in US dollars for a million tokens, as the endpoint's owner listed them (OpenAI, 2025);
those of other models, or of today, are given by the user.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from eval.harness.asks import Answer, Ask, Generate
from eval.harness.backends import Backend, OnDone
from tulu_jax.errors import ConfigError

MILLION = 1_000_000
PRICES = {
    "gpt-4-0314": (30.0, 60.0),
    "gpt-4-0613": (30.0, 60.0),
    "gpt-4": (30.0, 60.0),
    "gpt-4-1106-preview": (10.0, 30.0),
    "gpt-4-turbo": (10.0, 30.0),
    "gpt-4o": (2.5, 10.0),
    "gpt-4o-mini": (0.15, 0.6),
    "gpt-4.1": (2.0, 8.0),
    "gpt-4.1-mini": (0.4, 1.6),
    "gpt-3.5-turbo": (0.5, 1.5),
}
"""Of tokens read and written, by model."""
ASCII_PER_TOKEN, TOKENS_PER_OTHER = 3.5, 1.5
"""For an estimate that is rather too high: English has 4 to 5 letters a token, code fewer."""
TOKENS_PER_REQUEST = 12
"""What a chat format adds."""
LINES = 10
"""So often it is said how far judging is."""


@dataclasses.dataclass(frozen=True)
class Price:
    """Dollars for a million tokens read and written."""

    read: float
    written: float

    def of(self, read: float, written: float) -> float:
        """Dollars of so many tokens.

        >>> Price(30, 60).of(1000, 100)
        0.036
        """
        return (self.read * read + self.written * written) / MILLION


def price_of(model: str, read: float | None = None, written: float | None = None) -> Price | None:
    """The price of a model; None where it is not known.

    Args:
      model: as the endpoint calls it.
      read: dollars for a million tokens read, where the user says it.
      written: likewise of tokens written.
    """
    known = PRICES.get(model)
    if known is None and (read is None or written is None):
        return None
    listed = known or (0.0, 0.0)
    return Price(listed[0] if read is None else read, listed[1] if written is None else written)


def tokens_of(text: str) -> int:
    """About how many tokens a text has, rather too many.

    >>> tokens_of("What is the capital of France?"), tokens_of("")
    (9, 0)
    """
    letters = len(text.encode("ascii", "ignore"))
    return -int(-(letters / ASCII_PER_TOKEN + (len(text) - letters) * TOKENS_PER_OTHER) // 1)


def estimate(asks: Sequence[Ask], price: Price) -> float:
    """Dollars that asking costs at most, about: every reply is taken to be as long as it may be."""
    texts = [(ask.prompt.system or "", ask.prompt.text) for ask in asks]
    longest = max((ask.max_new_tokens for ask in asks if isinstance(ask, Generate)), default=1)
    return estimate_texts(texts, longest, price)


def estimate_texts(texts: Sequence[tuple[str, str]], longest: int, price: Price) -> float:
    """The same of messages of system and user, with replies of `longest` tokens each."""
    read = sum(TOKENS_PER_REQUEST + tokens_of(system) + tokens_of(user) for system, user in texts)
    return price.of(read, longest * len(texts))


class Metered:
    """A backend whose cost is estimated before it is asked and counted as it answers."""

    def __init__(
        self,
        backend: Backend,
        price: Price | None,
        *,
        max_cost: float | None = None,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Asks nothing yet.

        Args:
          backend: who answers.
          price: of its tokens, or None.
          max_cost: dollars that must not be exceeded.
          say: shows a line to the user.
        """
        self._backend, self._price, self._most, self._say = backend, price, max_cost, say
        self.fingerprint, self.can = backend.fingerprint, backend.can
        self.spent = 0.0
        """Dollars so far, by the endpoint's own counts; replies that were lost are not in it."""
        self._guessed = False

    def answer(self, asks: Sequence[Ask], on_done: OnDone) -> None:
        """See `Backend`.

        Raises:
          ConfigError: it would cost more than it may, or has; what was answered is kept.
        """
        if not asks:
            return
        self._check(asks)
        done = 0
        stopped = False

        def count(index: int, answer: Answer) -> None:
            nonlocal done, stopped
            on_done(index, answer)
            done += 1
            self._count(asks[index], answer)
            if done == len(asks) or done % max(1, len(asks) // LINES) == 0:
                self._say(f"judged {done:,} of {len(asks):,}{self._so_far()}")
            if self._most is not None and self.spent > self._most and not stopped:
                stopped = True
                raise ConfigError(
                    "judging has cost more than it may", got=f"${self.spent:.2f} for {done:,} of "
                    f"{len(asks):,}", at="--max_cost", expected=f"${self._most:.2f} at most",
                    do="raise it and run again: what is judged already is kept",
                )  # fmt: skip

        self._backend.answer(asks, count)

    def _count(self, ask: Ask, answer: Answer) -> None:
        """Adds what a reply cost; what it may have cost at most where nobody tells its tokens."""
        if self._price is None or answer.error is not None:
            return
        if answer.prompt_tokens is None or answer.output_tokens is None:
            self.spent += estimate([ask], self._price)
            self._guessed = True
        else:
            self.spent += self._price.of(answer.prompt_tokens, answer.output_tokens)

    def _so_far(self) -> str:
        about = " at most, about: the endpoint does not tell tokens" if self._guessed else ""
        return "" if self._price is None else f", ${self.spent:.2f} so far{about}"

    def _check(self, asks: Sequence[Ask]) -> None:
        if self._price is None:
            return
        most = estimate(asks, self._price)
        self._say(f"judging {len(asks):,} prompts costs ${most:.2f} at most, about")
        if self._most is not None and most > self._most:
            raise ConfigError(
                "judging may cost more than it should", got=f"about ${most:.2f} at most for "
                f"{len(asks):,} prompts", at="--max_cost", expected=f"${self._most:.2f} at most",
                do="raise it, judge fewer (--limit), or choose a cheaper judge (--judge_model)",
            )  # fmt: skip
