"""From a request's body to what the engine is asked."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any, NamedTuple

from tulu_jax.chat import Message, encode_prompt
from tulu_jax.errors import TuluError
from tulu_jax.generate import Front, Request, Sampling
from tulu_jax.serve.faults import ApiError
from tulu_jax.serve.schema import (
    COMPLETION_TOKENS,
    ChatBody,
    CompletionBody,
    MessageBody,
    Sampled,
    TokenizeBody,
)
from tulu_jax.serve.tokens import TokenTexts

GREEDY_BELOW = 1e-5
"""Of temperatures: logits divided by less may overflow."""


class Work(NamedTuple):
    """What the engine is to do for one body, a request for each answer, in order."""

    requests: list[Request]
    prompt_texts: list[str]
    """What each answer begins with: the prompt where it is echoed."""
    num_prompt_tokens: int
    """Of all prompts, each counted once."""


def completion_work(body: CompletionBody, engine: Front, texts: TokenTexts) -> Work:
    """The requests of `/v1/completions`.

    Raises:
      ApiError: a prompt that the model cannot continue, or a setting out of range.
    """
    tokenizer = texts.tokenizer
    max_tokens = COMPLETION_TOKENS if body.max_tokens is None else body.max_tokens
    prompts = [
        [*tokenizer.start_ids, *tokenizer.encode_text(prompt)]
        if isinstance(prompt, str)
        else prompt
        for prompt in body.prompt
    ]
    shown = [""] * len(prompts)
    if body.echo:
        shown = [
            prompt if isinstance(prompt, str) else texts.decode(prompt) for prompt in body.prompt
        ]
    scored = (bool(body.echo) and body.logprobs is not None) or max_tokens == 0
    options = {
        "max_new_tokens": max_tokens,
        "tops": body.logprobs or 0,
        "prompt_tops": (body.logprobs or 0) if scored else None,
        "keep_stop": True,
    }
    return _work(body, prompts, shown, options, engine, "prompt")


def chat_work(body: ChatBody, engine: Front, texts: TokenTexts) -> Work:
    """The requests of `/v1/chat/completions`.

    Raises:
      ApiError: as above, or messages that do not fit the chat template.
    """
    prompt = conversation_tokens(body.messages, texts)
    wanted = body.max_completion_tokens or body.max_tokens
    options = {"max_new_tokens": wanted or engine.max_length, "tops": body.top_logprobs or 0}
    return _work(body, [prompt], [""], options, engine, "messages")


def conversation_tokens(messages: Sequence[MessageBody], texts: TokenTexts) -> list[int]:
    """The tokens up to where the assistant's next answer starts.

    Raises:
      ApiError: the conversation does not fit the chat template, or ends with an answer.
    """
    turns: list[Message] = [
        {
            "role": "system" if message.role == "developer" else message.role,
            "content": message.content,
        }
        for message in messages
    ]
    if (last := turns[-1]["role"]) != "user":
        message = f"conversation ends with a message of {last} - expected one of the user"
        raise ApiError(400, message, param="messages")
    try:
        return encode_prompt(turns, texts.tokenizer).tolist()
    except TuluError as error:
        raise ApiError(400, str(error), param="messages") from error


def tokenize(body: TokenizeBody, texts: TokenTexts) -> list[int]:
    """The tokens of a text or a conversation.

    A text that is a special token's name and nothing else is that token, and so a way to ask for
    its id; within a text such names are text.

    Raises:
      ApiError: the conversation does not fit the chat template.
    """
    tokenizer = texts.tokenizer
    if body.messages is not None:
        if body.add_generation_prompt is False:
            raise ApiError(400, "messages without the answer's opening are not supported here")
        return conversation_tokens(body.messages, texts)
    prompt = body.prompt or ""
    special = {tokenizer.piece(token): token for token in tokenizer.special_ids}
    if body.add_special_tokens is False:
        return [special[prompt]] if prompt in special else tokenizer.encode_text(prompt)
    return [*tokenizer.start_ids, *tokenizer.encode_text(prompt)]


def _work(
    body: Sampled,
    prompts: list[list[int]],
    shown: list[str],
    options: dict[str, Any],
    engine: Front,
    param: str,
) -> Work:
    """A request for each answer to each prompt, checked; the first fault is told."""
    n = body.n or 1
    temperature = 1.0 if body.temperature is None else body.temperature
    seed = secrets.randbits(32) if body.seed is None else body.seed % 2**32
    sampling = Sampling(
        0.0 if temperature < GREEDY_BELOW else temperature, body.top_p or 1.0, body.top_k or 0
    )
    requests = [
        Request(
            prompt,
            sampling=sampling,
            seed=seed,
            stream=index * n + sample,
            stop_strings=tuple(body.stop),
            logit_bias=body.logit_bias,
            **options,
        )
        for index, prompt in enumerate(prompts)
        for sample in range(n)
    ]
    try:
        for index, request in enumerate(requests[::n]):
            engine.check(request, param if len(prompts) == 1 else f"{param} {index}")
    except TuluError as error:
        at = "logit_bias" if "logit_bias" in str(error) else param
        code = "context_length_exceeded" if "no room" in str(error) else None
        raise ApiError(400, str(error), param=at, code=code) from error
    texts = [text for text in shown for _ in range(n)]
    return Work(requests, texts, sum(map(len, prompts)))
