"""From what the engine gives to OpenAI's answers, whole ones and chunks of streams."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from tulu_jax.generate import Completion
from tulu_jax.generate.jobs import Piece
from tulu_jax.serve.faults import ApiError
from tulu_jax.serve.schema import ChatBody, CompletionBody
from tulu_jax.serve.tokens import Offsets, TokenTexts
from tulu_jax.serve.work import Work

Json = dict[str, Any]


def finish_reason(stop_reason: str) -> str:
    """`stop` or `length`, the words of OpenAI's interface."""
    return "length" if stop_reason in ("length", "room") else "stop"


def _checked(*arrays: Any) -> None:
    """Refuses log-probabilities that JSON cannot hold.

    Raises:
      ApiError: some are no finite numbers: the model's own numbers overflow.
    """
    if not all(np.isfinite(array).all() for array in arrays):
        raise ApiError(503, "the model's numbers overflow: its log-probabilities are no numbers")


class Answers:
    """The answers of one request, of either kind; sub-classes say how they are written."""

    kind = ""
    chunk_kind = ""
    prefix = ""

    def __init__(self, work: Work, texts: TokenTexts, model: str) -> None:
        """Nothing is answered."""
        self._work, self._texts = work, texts
        self._tokens = [0] * len(work.requests)
        self._head: Json = {
            "id": f"{self.prefix}-{secrets.token_hex(12)}",
            "created": int(time.time()),
            "model": model,
        }

    def whole(self, completions: Sequence[Completion]) -> Json:
        """The answer where the client does not stream."""
        choices = [self._whole_choice(*pair) for pair in enumerate(completions)]
        for index, completion in enumerate(completions):
            self.count(index, completion)
        return {**self._head, "object": self.kind, "choices": choices, "usage": self.usage()}

    def count(self, index: int, completion: Completion) -> None:
        """Notes the tokens of an answer that is done."""
        dropped = completion.stop_reason == "eos" and not self._work.requests[index].keep_stop
        self._tokens[index] = len(completion.tokens) + dropped

    def usage(self) -> Json:
        """Tokens so far."""
        made, read = sum(self._tokens), self._work.num_prompt_tokens
        return {"prompt_tokens": read, "completion_tokens": made, "total_tokens": read + made}

    def chunk(self, *choices: Json) -> Json:
        """A chunk of a stream."""
        return {**self._head, "object": self.chunk_kind, "choices": list(choices)}

    def opening(self, index: int) -> Json | None:
        """What a stream begins with, if anything."""
        raise NotImplementedError

    def piece(self, index: int, piece: Piece) -> Json:
        """The choice of a chunk that goes on with an answer."""
        raise NotImplementedError

    def ending(self, index: int, completion: Completion) -> Json:
        """The choice of the chunk that ends an answer."""
        raise NotImplementedError

    def _whole_choice(self, index: int, completion: Completion) -> Json:
        raise NotImplementedError


class TextAnswers(Answers):
    """Of `/v1/completions`."""

    kind = chunk_kind = "text_completion"
    prefix = "cmpl"

    def __init__(self, body: CompletionBody, work: Work, texts: TokenTexts, model: str) -> None:
        """Nothing is answered."""
        super().__init__(work, texts, model)
        self._wanted = body.logprobs is not None
        self._echo = bool(body.echo)
        self._begun: set[int] = set()
        self._offsets = [Offsets(texts, at_start=self._echo) for _ in work.requests]

    def opening(self, index: int) -> Json | None:
        """Nothing: an echoed prompt comes with the first piece, which has its scores."""
        return None

    def piece(self, index: int, piece: Piece) -> Json:
        """Text, after an echoed prompt in the first."""
        first = index not in self._begun
        self._begun.add(index)
        return self._choice(index, piece, piece.text, "", with_prompt=self._echo and first)

    def ending(self, index: int, completion: Completion) -> Json:
        """No text, and why it ended."""
        return self._choice(index, None, "", completion.stop_reason)

    def _whole_choice(self, index: int, completion: Completion) -> Json:
        reason = completion.stop_reason
        text = completion.text or ""
        return self._choice(index, completion, text, reason, with_prompt=self._echo)

    def _choice(
        self,
        index: int,
        found: Piece | Completion | None,
        text: str,
        reason: str,
        *,
        with_prompt: bool = False,
    ) -> Json:
        logprobs = None
        if self._wanted and found is not None:
            logprobs = self._logprobs(index, found, with_prompt)
        return {
            "index": index,
            "text": (self._work.prompt_texts[index] if with_prompt else "") + text,
            "logprobs": logprobs,
            "finish_reason": finish_reason(reason) if reason else None,
            "stop_reason": reason or None,
        }

    def _logprobs(self, index: int, found: Piece | Completion, with_prompt: bool) -> Json:
        tokens, rows = list(found.tokens), []
        if with_prompt:
            prompt = list(self._work.requests[index].prompt)
            scores = found.prompt
            assert scores is not None  # asked for with both echo and logprobs
            _checked(scores.logprobs)
            rows = [(None, None, None), *zip(scores.logprobs, *scores[2:], strict=True)]
            tokens = [*prompt, *tokens]
        _checked(found.logprobs)
        rows += zip(found.logprobs, *_tops(found), strict=True)
        pairs = zip(tokens, rows, strict=True)
        entries = [self._entry(token, *row) for token, row in pairs]
        return {
            "tokens": [self._texts.text_of(token) for token in tokens],
            "token_logprobs": [value for value, _ in entries],
            "top_logprobs": [tops for _, tops in entries],
            "text_offset": self._offsets[index].next(tokens),
        }

    def _entry(
        self, token: int, logprob: Any, top_tokens: Any, top_logprobs: Any
    ) -> tuple[float | None, Json | None]:
        """A token's log-probability and the likeliest ones' by text; of equal texts the likelier.

        Where the token is among the likeliest, both are the same number, to the last bit: clients
        see by that whether it was the greedy one.
        """
        if logprob is None:
            return None, None
        tops: dict[str, float] = {}
        value = float(logprob)
        for top, top_value in zip(top_tokens.tolist(), top_logprobs.tolist(), strict=True):
            tops.setdefault(self._texts.text_of(top), top_value)
            value = top_value if top == token else value
        tops.setdefault(self._texts.text_of(token), value)
        return value, tops


def _tops(found: Piece | Completion) -> tuple[Any, Any]:
    """The likeliest tokens of each place; none where none were asked for."""
    if found.top_tokens is None or found.top_logprobs is None:
        empty = np.zeros((len(found.tokens), 0))
        return empty.astype(np.int32), empty
    return found.top_tokens, found.top_logprobs


class ChatAnswers(Answers):
    """Of `/v1/chat/completions`."""

    kind, chunk_kind = "chat.completion", "chat.completion.chunk"
    prefix = "chatcmpl"

    def __init__(self, body: ChatBody, work: Work, texts: TokenTexts, model: str) -> None:
        """Nothing is answered."""
        super().__init__(work, texts, model)
        self._wanted = bool(body.logprobs)

    def opening(self, index: int) -> Json | None:
        """Who speaks."""
        return self._choice(index, {"delta": {"role": "assistant", "content": ""}}, None, "")

    def piece(self, index: int, piece: Piece) -> Json:
        """Text."""
        return self._choice(index, {"delta": {"content": piece.text}}, piece, "")

    def ending(self, index: int, completion: Completion) -> Json:
        """No text, and why it ended."""
        return self._choice(index, {"delta": {}}, None, completion.stop_reason)

    def _whole_choice(self, index: int, completion: Completion) -> Json:
        message = {"role": "assistant", "content": completion.text or "", "refusal": None}
        return self._choice(index, {"message": message}, completion, completion.stop_reason)

    def _choice(
        self, index: int, content: Json, found: Piece | Completion | None, reason: str
    ) -> Json:
        logprobs = None
        if self._wanted and found is not None:
            _checked(found.logprobs)
            rows = zip(found.tokens, found.logprobs, *_tops(found), strict=True)
            logprobs = {"content": [self._entry(*row) for row in rows], "refusal": None}
        return {
            "index": index,
            **content,
            "logprobs": logprobs,
            "finish_reason": finish_reason(reason) if reason else None,
            "stop_reason": reason or None,
        }

    def _entry(self, token: int, logprob: Any, top_tokens: Any, top_logprobs: Any) -> Json:
        tops = zip(top_tokens.tolist(), top_logprobs.tolist(), strict=True)
        return {
            **self._token(token, float(logprob)),
            "top_logprobs": [self._token(top, value) for top, value in tops],
        }

    def _token(self, token: int, logprob: float) -> Json:
        own = self._texts.bytes_of(token)
        text = own.decode("utf-8", "replace")
        return {"token": text, "logprob": logprob, "bytes": list(own)}
