"""The application: routes of OpenAI's interface, and those for tokens, health and metrics."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from tulu_jax import __version__
from tulu_jax.chat import Tokenizer, hf_template
from tulu_jax.files import parse_json
from tulu_jax.serve import replies
from tulu_jax.serve.answers import ChatAnswers, TextAnswers
from tulu_jax.serve.faults import (
    ApiError,
    on_api_error,
    on_invalid_body,
    on_own_fault,
)
from tulu_jax.serve.guard import Guard
from tulu_jax.serve.schema import ChatBody, CompletionBody, DetokenizeBody, TokenizeBody
from tulu_jax.serve.service import Service
from tulu_jax.serve.work import chat_work, completion_work, tokenize

_FAULTS = {
    400: "the body is not as described, or the model cannot do it",
    401: "no valid key",
    404: "no such model",
    408: "the body took too long",
    413: "the body is too large",
    429: "the queue is full; retry-after says when to come again",
    503: "time is up, or the server ends",
}
FAULTS: dict[int | str, dict[str, Any]] = {
    status: {"model": replies.ErrorReply, "description": text} for status, text in _FAULTS.items()
}
STREAMS: dict[int | str, dict[str, Any]] = {
    **FAULTS,
    200: {"content": {"text/event-stream": {}}},
}


class _StrictRequest(Request):
    """A request whose JSON says what is wrong with it, a field that is there twice too."""

    async def json(self) -> Any:
        try:
            return parse_json(await self.body())
        except ValueError as error:
            message = f"body is no JSON - {error}"
            raise ApiError(400, message[:300]) from error


class _StrictRoute(APIRoute):
    """A route that reads its body so."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler, with the other request."""
        handle = super().get_route_handler()

        async def strict(request: Request) -> Response:
            return await handle(_StrictRequest(request.scope, request.receive))

        return strict


def make_app(service: Service, keys: Sequence[str] = ()) -> ASGIApp:
    """The application of a service.

    Args:
      service: which starts and ends with it.
      keys: of which a client must send one; with none, all are let in.
    """

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        service.start()
        yield
        service.close()

    app = FastAPI(
        title="tulu serve",
        version=__version__,
        lifespan=life,
        exception_handlers={
            HTTPException: on_api_error,
            RequestValidationError: on_invalid_body,
            Exception: on_own_fault,
        },
        docs_url=None,
        redoc_url=None,
    )

    app.include_router(_answers(service))
    app.include_router(_tokens(service))
    app.include_router(_about(service))
    return Guard(app, keys, service.limits, service.metrics.count_request)


def _answers(service: Service) -> APIRouter:
    """Routes that have the model write."""
    router = APIRouter(route_class=_StrictRoute)
    engine, texts = service.runner.engine, service.texts

    @router.post("/v1/completions", response_model=replies.CompletionReply, responses=STREAMS)
    async def completions(request: Request, body: CompletionBody) -> Response:
        """Goes on with one prompt or several."""
        service.check_model(body.model)
        work = await service.aside(completion_work, body, engine, texts)
        answers = TextAnswers(body, work, texts, service.model)
        return await service.respond(
            request, work, answers, stream=bool(body.stream), usage=body.include_usage
        )

    @router.post("/v1/chat/completions", response_model=replies.ChatReply, responses=STREAMS)
    async def chat_completions(request: Request, body: ChatBody) -> Response:
        """Answers the last message of a conversation."""
        service.check_model(body.model)
        work = await service.aside(chat_work, body, engine, texts)
        answers = ChatAnswers(body, work, texts, service.model)
        return await service.respond(
            request, work, answers, stream=bool(body.stream), usage=body.include_usage
        )

    return router


def _tokens(service: Service) -> APIRouter:
    """Routes about tokens, which vLLM's server and the clients made for it have too."""
    router = APIRouter(route_class=_StrictRoute)
    texts, tokenizer = service.texts, service.texts.tokenizer
    max_length = service.runner.engine.max_length

    @router.post("/tokenize", response_model=replies.TokenizeReply, responses=FAULTS)
    async def tokens_of(body: TokenizeBody) -> Response:
        """The tokens of a text or a conversation."""
        service.check_model(body.model)
        tokens = await service.aside(tokenize, body, texts)
        shown = [texts.text_of(token) for token in tokens] if body.return_token_strs else None
        return JSONResponse(
            {
                "count": len(tokens),
                "max_model_len": max_length,
                "tokens": tokens,
                "token_strs": shown,
            }
        )

    @router.post("/detokenize", response_model=replies.DetokenizeReply, responses=FAULTS)
    async def text_of(body: DetokenizeBody) -> Response:
        """The text of tokens, special ones by their names."""
        service.check_model(body.model)
        size = tokenizer.vocab_size
        if max(body.tokens, default=0) >= size:
            raise ApiError(
                400,
                f"no such token id - got {max(body.tokens)} - expected 0 to {size - 1}",
                param="tokens",
            )
        text = await service.aside(lambda: texts.decode(body.tokens, skip_special=False))
        return JSONResponse({"prompt": text})

    @router.get("/tokenizer_info", response_model=replies.TokenizerInfo, responses=FAULTS)
    async def tokenizer_info() -> Response:
        """What clients that render conversations themselves need."""
        named = tokenizer.named_ids
        pieces = {
            name: tokenizer.piece(named[name]) if name in named else None
            for name in ("bos_token", "eos_token", "pad_token", "unk_token")
        }
        return JSONResponse(
            {
                "tokenizer_class": "PreTrainedTokenizerFast",
                **pieces,
                "add_bos_token": bool(tokenizer.start_ids),
                "model_max_length": max_length,
                "chat_template": _plain_template(tokenizer),
            }
        )

    return router


def _plain_template(tokenizer: Tokenizer) -> str:
    """The chat template without the tags that transformers alone knows, as clients use jinja2."""
    template = hf_template(tokenizer.hf_opening, tokenizer.template)
    return re.sub(r"{%(-?) (end)?generation (-?)%}", r"{#\1 \3#}", template)


def _about(service: Service) -> APIRouter:
    """Routes about the server."""
    router = APIRouter(route_class=_StrictRoute)
    card = {
        "id": service.model,
        "object": "model",
        "created": service.created,
        "owned_by": "tulu-jax",
        "max_model_len": service.runner.engine.max_length,
    }

    @router.get("/v1/models", response_model=replies.ModelList, responses=FAULTS)
    async def models() -> Response:
        """The model that is served."""
        return JSONResponse({"object": "list", "data": [card]})

    @router.get("/v1/models/{name:path}", response_model=replies.ModelCard, responses=FAULTS)
    async def model(name: str) -> Response:
        """The model, by its name."""
        service.check_model(name)
        return JSONResponse(card)

    @router.get("/health", response_model=replies.Health, responses={503: FAULTS[503]})
    async def health() -> Response:
        """Whether the engine runs; needs no key."""
        if not service.runner.alive:
            raise ApiError(503, "the engine does not run")
        return JSONResponse({"status": "ok"})

    @router.get("/metrics", response_class=Response, responses={
        200: {"content": {"text/plain": {"schema": {"type": "string"}}}},
        **FAULTS,
    })  # fmt: skip
    async def metrics() -> Response:
        """Numbers for Prometheus."""
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4")

    return router
