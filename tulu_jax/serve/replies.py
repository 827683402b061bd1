"""What clients get, as the API's description has it; answers are made without these models."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

Reason = Literal["stop", "length"]


class ErrorDetail(BaseModel):
    """What is wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorReply(BaseModel):
    """OpenAI's error object."""

    error: ErrorDetail


class Usage(BaseModel):
    """Counts of tokens."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class TextLogprobs(BaseModel):
    """Of each token of a completion, and of an echoed prompt."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class TextChoice(BaseModel):
    """One completion."""

    index: int
    text: str
    logprobs: TextLogprobs | None
    finish_reason: Reason
    stop_reason: str = Field(description="not OpenAI's: eos, stop:TEXT, length or room")


class CompletionReply(BaseModel):
    """Of `/v1/completions`."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[TextChoice]
    usage: Usage


class TokenLogprob(BaseModel):
    """A token and how likely it was."""

    token: str
    logprob: float
    bytes: list[int]


class ChosenLogprob(TokenLogprob):
    """A token of an answer, with those that were likeliest in its place."""

    top_logprobs: list[TokenLogprob]


class ChatLogprobs(BaseModel):
    """Of each token of an answer."""

    content: list[ChosenLogprob]
    refusal: None


class ChatMessage(BaseModel):
    """The answer."""

    role: Literal["assistant"]
    content: str
    refusal: None


class ChatChoice(BaseModel):
    """One answer."""

    index: int
    message: ChatMessage
    logprobs: ChatLogprobs | None
    finish_reason: Reason
    stop_reason: str = Field(description="not OpenAI's: eos, stop:TEXT, length or room")


class ChatReply(BaseModel):
    """Of `/v1/chat/completions`."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage


class ModelCard(BaseModel):
    """A model that is served."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    max_model_len: int = Field(description="not OpenAI's: tokens of prompt and answer together")


class ModelList(BaseModel):
    """Of `/v1/models`."""

    object: Literal["list"]
    data: list[ModelCard]


class TokenizeReply(BaseModel):
    """Of `/tokenize`."""

    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None


class DetokenizeReply(BaseModel):
    """Of `/detokenize`."""

    prompt: str


class TokenizerInfo(BaseModel):
    """Of `/tokenizer_info`."""

    tokenizer_class: str
    bos_token: str | None
    eos_token: str
    pad_token: str | None
    unk_token: str | None
    add_bos_token: bool
    model_max_length: int
    chat_template: str


class Health(BaseModel):
    """Of `/health`."""

    status: Literal["ok"]
