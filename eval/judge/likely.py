"""Judges that say how likely a word comes next."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence

from eval.harness.asks import Answer, Choose, Prompt
from eval.harness.backends import Backend
from eval.harness.cache import AnswerCache, ask_kept
from tulu_jax.errors import DataError

Encode = Callable[[Sequence[str]], list[Prompt]]


class YesJudge:
    """How likely " yes" is after each prompt, 0 to 1; what was asked once is kept."""

    def __init__(
        self, backend: Backend, cache: AnswerCache, encode: Encode, yes: int | None
    ) -> None:
        """Asks a backend.

        Args:
          backend: the judge.
          cache: where its answers are kept.
          encode: prompts with the judge's own tokens.
          yes: the token of " yes"; None where the other side tokenizes.
        """
        self._backend, self._cache = backend, cache
        self._encode, self._choices = encode, () if yes is None else (yes,)

    def __call__(self, prompts: Sequence[str]) -> list[float | None]:
        """The probability after each prompt, in order; None where the judge said something else.

        Raises:
          DataError: the judge did not answer.
        """
        asks = [Choose(prompt, self._choices) for prompt in self._encode(prompts)]
        answers = ask_kept(asks, self._backend, self._cache)
        failed = [answer for answer in answers if answer.error is not None]
        if failed:
            raise DataError(
                "judge did not answer", got=f"{len(failed)} of {len(asks)}: {failed[0].error}",
                do="run it again: what is judged already is kept",
            )  # fmt: skip
        return [probability(answer) for answer in answers]


def probability(answer: Answer) -> float | None:
    """The probability of " yes" in a judge's answer; of one in words 1 where it is yes, 0 where no.

    None where it is neither: that says nothing, which is not a no.

    >>> probability(Answer(output=" Yes.")), probability(Answer(output="no"))
    (1.0, 0.0)
    >>> probability(Answer(output="I cannot say"))
    """
    if answer.logprobs is not None:
        return math.exp(answer.logprobs[0])
    said = re.match(r"[\W_]*(yes|no)\b", answer.output or "", re.IGNORECASE)
    return None if said is None else float(said[1].lower() == "yes")
