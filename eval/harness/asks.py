"""What a benchmark asks of a model, and what it gets."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from tulu_jax.files import json_sha256


@dataclasses.dataclass(frozen=True)
class Prompt:
    """The exact text that is asked, and its tokens where a model of ours reads it."""

    text: str
    ids: tuple[int, ...] | None = None
    """BOS included; None where the other side tokenizes."""
    system: str | None = None
    """A system message before it, for a chat endpoint; among the tokens where there are any."""

    @property
    def content(self) -> Any:
        """What tells this prompt from others: the tokens, or the text."""
        if self.ids is not None:
            return list(self.ids)
        return self.text if self.system is None else [self.system, self.text]


@dataclasses.dataclass(frozen=True)
class Generate:
    """A continuation of the prompt."""

    prompt: Prompt
    max_new_tokens: int
    stops: tuple[str, ...] = ()
    """Texts that end it; it ends before them."""
    stop_tokens: tuple[tuple[int, ...], ...] = ()
    """Token sequences that end it likewise (quirk `stop_by_tokens`)."""
    temperature: float = 0.0
    """0 takes the likeliest token."""
    top_p: float = 1.0
    sample: int = 0
    """Which of the independent draws this is; each has its own stream of random numbers."""

    def key(self, model: str) -> str:
        """A SHA-256 (hex) of all that decides the answer."""
        parts = [model, "generate", self.prompt.content, self.max_new_tokens, sorted(self.stops)]
        parts += [sorted(map(list, self.stop_tokens))]
        if self.temperature > 0:
            parts += [self.temperature, self.top_p, self.sample]
        return json_sha256(parts)

    def cut(self, answer: Answer) -> Answer:
        r"""The answer up to the first stop in it, for who answers may not have obeyed all of them.

        >>> Generate(Prompt("1+1="), 9, ("\n",)).cut(Answer("2\n2+2=4", "length")).to_json()
        {'output': '2', 'stop_reason': 'stop:\n'}
        """
        text = answer.output or ""
        found = [(at, stop) for stop in self.stops if (at := text.find(stop)) >= 0]
        if not found:
            return answer
        at, stop = min(found)
        return dataclasses.replace(answer, output=text[:at], stop_reason=f"stop:{stop}")


@dataclasses.dataclass(frozen=True)
class Choose:
    """How likely each of some next tokens is after the prompt."""

    prompt: Prompt
    choices: tuple[int, ...] = ()
    """Token ids; none where the other side tokenizes, which then answers in words."""
    words: tuple[str, ...] = ()
    """The words that these tokens are, where an endpoint is to tell how likely each is."""

    def key(self, model: str) -> str:
        """A SHA-256 (hex) of all that decides the answer."""
        words = [list(self.words)] if self.words and not self.choices else []
        parts = [model, "choose", self.prompt.content, list(self.choices), *words]
        return json_sha256(parts)


@dataclasses.dataclass(frozen=True)
class Weigh:
    """How likely each of some continuations is: the sum of its tokens' log-probabilities."""

    prompt: Prompt
    """What results show; what is weighed are the pairs."""
    pairs: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]
    """Token ids before each continuation, and of it; an empty one has weight 0."""

    def key(self, model: str) -> str:
        """A SHA-256 (hex) of all that decides the answer."""
        content = [[list(before), list(after)] for before, after in self.pairs]
        return json_sha256([model, "weigh", content or self.prompt.text])


Ask = Generate | Choose | Weigh


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a model gave; `error` says why it gave nothing."""

    output: str | None = None
    stop_reason: str | None = None
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    logprobs: tuple[float, ...] | None = None
    """Of each choice, or the sum over each continuation."""
    capped: bool = False
    """Whether the model's length left less room than was asked for."""
    error: str | None = None
    refused: bool = False
    """Whether the error is that it would not answer, and asking again would change nothing."""
    answered_by: str | None = None
    """The model that an endpoint says it was, where that is another name than was asked for."""

    def to_json(self) -> dict[str, Any]:
        """The fields that say something."""
        found = dataclasses.asdict(self)
        return {name: value for name, value in found.items() if value not in (None, False)}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Answer:
        """The answer that `to_json` gave these fields of."""
        logprobs = fields.get("logprobs")
        fields = {**fields, "logprobs": None if logprobs is None else tuple(logprobs)}
        return cls(**fields)

    @property
    def sound(self) -> Answer:
        """The answer; an error where its log-probabilities cannot be compared.

        The largest of numbers that are not numbers is the first of them: a model of NaN would
        answer A to everything.

        >>> Answer(logprobs=(math.nan, -1.0)).sound.error
        'log-probabilities cannot be compared: nan, -1.0: see the weights and --dtype'
        """
        logs = self.logprobs or (0.0,)
        if any(math.isnan(x) for x in logs) or not math.isfinite(max(logs)):
            shown = ", ".join(map(str, logs[:4]))
            words = f"log-probabilities cannot be compared: {shown}: see the weights and --dtype"
            return Answer(error=words)
        return self


@dataclasses.dataclass(frozen=True)
class Instance:
    """One question of a benchmark."""

    id: str
    ask: Ask
    gold: Any
    """What is right."""
    data: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Fields of the question that are kept with the answer, enough to grade it again."""
    group: str | None = None
    """Subject, language or task that it belongs to."""
    cluster: str | None = None
    """What makes instances depend on each other: they share a passage, a problem, a subject."""
