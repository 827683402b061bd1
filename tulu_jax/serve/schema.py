"""What clients send: OpenAI's fields as far as they have a meaning here, all others refused."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from tulu_jax.generate.steps import MAX_TOPS
from tulu_jax.serve.fields import Biases, Content, Ids, Only, Prompts, Stops, Text

MAX_N = 128
MOST_TOKENS = 10_000_000
COMPLETION_TOKENS = 16
"""Of a completion where the client does not say, as in OpenAI's interface."""


class Body(BaseModel):
    """A request's body: types are not converted, and no field is passed over."""

    model_config = ConfigDict(strict=True, extra="forbid")


class StreamOptions(Body):
    """What a stream has besides the answer."""

    include_usage: bool | None = Field(None, description="end with a chunk of token counts")
    include_obfuscation: Annotated[Any, Only(False)] = None


class Sampled(Body):
    """What both kinds of answers have."""

    model: str | None = Field(None, description="a name that /v1/models lists")
    temperature: float | None = Field(
        1.0, ge=0, le=2, allow_inf_nan=False, description="below 1e-5: the likeliest token"
    )
    top_p: float | None = Field(
        1.0, gt=0, le=1, allow_inf_nan=False, description="draw from this mass of likeliest tokens"
    )
    top_k: int | None = Field(0, ge=0, le=MOST_TOKENS, description="not OpenAI's; 0: all tokens")
    n: int | None = Field(1, ge=1, le=MAX_N, description="answers to each prompt")
    seed: int | None = Field(
        None, ge=-(2**63), lt=2**63, description="equal seeds give equal draws; none: a random one"
    )
    stop: Stops = Field(default_factory=list, description="texts that end an answer")
    logit_bias: Biases = Field(default_factory=dict, description="added to logits, by token id")
    stream: bool | None = Field(False, description="answer piece by piece, as server-sent events")
    stream_options: StreamOptions | None = None
    frequency_penalty: Annotated[Any, Only(0, 0.0)] = None
    presence_penalty: Annotated[Any, Only(0, 0.0)] = None
    user: str | None = Field(None, description="not looked at")
    safety_identifier: str | None = Field(None, description="not looked at")
    prompt_cache_key: str | None = Field(None, description="not looked at")

    @model_validator(mode="after")
    def check_stream_options(self) -> Any:
        """Refuses options of a stream where there is none."""
        if self.stream_options is not None and not self.stream:
            raise PydanticCustomError("wrong", "stream_options go with stream=true")
        return self

    @property
    def include_usage(self) -> bool:
        """Whether a stream is to end with token counts."""
        return bool(self.stream_options and self.stream_options.include_usage)


class CompletionBody(Sampled):
    """Of `/v1/completions`."""

    prompt: Prompts = Field(description="text, texts, token ids or lists of such")
    max_tokens: int | None = Field(COMPLETION_TOKENS, ge=0, le=MOST_TOKENS)
    echo: bool | None = Field(False, description="begin with the prompt")
    logprobs: int | None = Field(
        None, ge=0, le=MAX_TOPS, description="likeliest tokens to report at each place"
    )
    best_of: int | None = Field(None, description="only as n")
    suffix: Annotated[Any, Only("")] = None

    @model_validator(mode="after")
    def check_best_of(self) -> Any:
        """Refuses more candidates than answers."""
        if self.best_of is not None and self.best_of != (self.n or 1):
            raise PydanticCustomError("wrong", "best_of other than n is not supported here")
        return self


class MessageBody(Body):
    """One turn of a conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Content
    name: Annotated[Any, Only()] = None
    refusal: Annotated[Any, Only()] = None
    annotations: Annotated[Any, Only([])] = None
    audio: Annotated[Any, Only()] = None
    function_call: Annotated[Any, Only()] = None
    tool_calls: Annotated[Any, Only([])] = None


class ChatBody(Sampled):
    """Of `/v1/chat/completions`."""

    messages: list[MessageBody] = Field(min_length=1)
    max_tokens: int | None = Field(None, ge=1, le=MOST_TOKENS, description="none: all that fit")
    max_completion_tokens: int | None = Field(None, ge=1, le=MOST_TOKENS)
    logprobs: bool | None = Field(False, description="report log-probabilities")
    top_logprobs: int | None = Field(None, ge=0, le=MAX_TOPS, description="with logprobs=true")
    response_format: Annotated[Any, Only({"type": "text"})] = None
    modalities: Annotated[Any, Only(["text"])] = None
    tools: Annotated[Any, Only([])] = None
    tool_choice: Annotated[Any, Only("none", "auto")] = None
    parallel_tool_calls: bool | None = Field(None, description="not looked at: there are no tools")
    store: Annotated[Any, Only(False)] = None
    metadata: dict[str, str] | None = Field(None, description="not looked at")
    service_tier: Annotated[Any, Only("auto", "default")] = None

    @model_validator(mode="after")
    def check_pairs(self) -> Any:
        """Refuses fields that contradict each other or have no effect."""
        if self.top_logprobs is not None and not self.logprobs:
            raise PydanticCustomError("wrong", "top_logprobs goes with logprobs=true")
        both = (self.max_tokens, self.max_completion_tokens)
        if None not in both and both[0] != both[1]:
            raise PydanticCustomError("wrong", "max_tokens and max_completion_tokens differ")
        return self


class TokenizeBody(Body):
    """Of `/tokenize`."""

    model: str | None = None
    prompt: Text | None = None
    messages: list[MessageBody] | None = Field(None, min_length=1)
    add_special_tokens: bool | None = Field(True, description="BOS before a prompt")
    add_generation_prompt: bool | None = Field(True, description="after messages")
    return_token_strs: bool | None = False

    @model_validator(mode="after")
    def check_one(self) -> Any:
        """Refuses both of prompt and messages, or none."""
        if (self.prompt is None) == (self.messages is None):
            raise PydanticCustomError("wrong", "expected either prompt or messages")
        return self


class DetokenizeBody(Body):
    """Of `/detokenize`."""

    model: str | None = None
    tokens: Ids
