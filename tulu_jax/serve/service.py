"""From a checked body to its answer: queue, engine, and the client that may go away."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from fastapi import Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.types import Receive, Scope, Send

from tulu_jax.chat import Tokenizer
from tulu_jax.generate import Completion
from tulu_jax.serve.answers import Answers
from tulu_jax.serve.faults import ApiError
from tulu_jax.serve.guard import Limits
from tulu_jax.serve.metrics import Metrics
from tulu_jax.serve.runner import Event, QueueFullError, Runner, StoppedError, Ticket
from tulu_jax.serve.tokens import TokenTexts
from tulu_jax.serve.work import Work

Result = TypeVar("Result")

CLIENT_GONE = 499
"""Status, for the counts, of an answer that nobody waits for any more (nginx's)."""

log = logging.getLogger(__name__)


class Service:
    """What all routes share."""

    def __init__(self, runner: Runner, tokenizer: Tokenizer, model: str, limits: Limits) -> None:
        """A service that is not started.

        Args:
          runner: with the engine.
          tokenizer: of the model.
          model: what clients call it.
          limits: on what one client takes.
        """
        self.runner, self.model, self.limits = runner, model, limits
        self.texts = TokenTexts(tokenizer)
        self.metrics = Metrics(runner)
        self.created = int(time.time())
        # One thread: a tokenizer remembers words, and nobody says that two may write at a time.
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="reader")

    def start(self) -> None:
        """Starts the engine's thread."""
        self.runner.start()

    def close(self) -> None:
        """Ends both threads."""
        self.runner.close()
        self._reader.shutdown()

    async def aside(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """Runs what reads texts in a thread of its own, so that long ones hold nobody up."""
        return await asyncio.get_running_loop().run_in_executor(self._reader, function, *arguments)

    def check_model(self, name: str | None) -> None:
        """Refuses another model's name.

        Raises:
          ApiError: it is not served here.
        """
        if name is not None and name != self.model:
            raise ApiError(
                404,
                f"no such model - got {name[:100]!r} - expected {self.model!r}",
                param="model",
                code="model_not_found",
            )

    async def respond(
        self, request: Request, work: Work, answers: Answers, *, stream: bool, usage: bool
    ) -> Response:
        """The answer, or the stream of it.

        Raises:
          ApiError: no room in the queue, or an engine that fails.
        """
        events: asyncio.Queue[Event] = asyncio.Queue()
        loop = asyncio.get_running_loop()
        ticket = self._submit(work, partial(_hand_over, loop, events), stream)
        if stream:
            return EventStream(self, ticket, events, answers, usage)
        try:
            async with asyncio.timeout(self.limits.request_seconds):
                completions = await _first(_collect(ticket, events), _until_gone(request))
        except TimeoutError:
            raise self.too_slow() from None
        finally:
            ticket.cancel()
        if completions is None:
            return Response(status_code=CLIENT_GONE)
        self.metrics.seconds.observe(time.monotonic() - ticket.start)
        return JSONResponse(answers.whole(completions))

    def _submit(self, work: Work, put: Callable[[Event], None], stream: bool) -> Ticket:
        count, room = len(work.requests), self.runner.slots + self.runner.max_queue
        if count > room:
            message = f"too many answers at a time - got {count} - expected at most {room}"
            raise ApiError(400, message, param="n")
        try:
            return self.runner.submit(work.requests, put, stream=stream)
        except QueueFullError as error:
            raise ApiError(
                429,
                "the server has no room for more requests; come again a little later",
                code="queue_full",
                headers={"retry-after": str(error.seconds)},
            ) from None
        except StoppedError as error:
            raise ApiError(503, str(error)) from None

    def too_slow(self) -> ApiError:
        """What is said when time is up."""
        message = f"no answer within {self.limits.request_seconds:g} s"
        return ApiError(503, message, code="timeout", headers={"retry-after": "10"})


def _hand_over(loop: asyncio.AbstractEventLoop, events: asyncio.Queue[Event], event: Event) -> None:
    """From the engine's thread to the client's task; at the very end there is no loop any more."""
    try:
        loop.call_soon_threadsafe(events.put_nowait, event)
    except RuntimeError:
        log.debug("an answer came after the server's end")


async def _collect(ticket: Ticket, events: asyncio.Queue[Event]) -> list[Completion]:
    found: dict[int, Completion] = {}
    while len(found) < len(ticket.requests):
        index, event = await events.get()
        if isinstance(event, StoppedError):
            raise ApiError(503, str(event))
        if isinstance(event, Completion):
            found[index] = event
    return [found[index] for index in range(len(found))]


async def _until_gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _first(wanted: Any, other: Any) -> Any:
    """The result of `wanted`, or None if `other` ends before."""
    tasks = [asyncio.ensure_future(one) for one in (wanted, other)]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return tasks[0].result() if tasks[0].done() else None
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class EventStream(StreamingResponse):
    """An answer as server-sent events; whatever ends it, its slots are free afterwards."""

    def __init__(
        self,
        service: Service,
        ticket: Ticket,
        events: asyncio.Queue[Event],
        answers: Answers,
        usage: bool,
    ) -> None:
        """A stream of a ticket's events."""
        self._service, self._ticket, self._events = service, ticket, events
        self._answers, self._usage = answers, usage
        headers = {"cache-control": "no-cache", "x-accel-buffering": "no"}
        super().__init__(self._lines(), headers=headers, media_type="text/event-stream")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends it, within the time that a request may take."""
        try:
            async with asyncio.timeout(self._service.limits.request_seconds + 1):
                await super().__call__(scope, receive, send)
        except TimeoutError:  # a reader who reads nothing: the connection is closed
            log.warning("a client did not read its stream in time")
        finally:
            self._ticket.cancel()

    async def _lines(self) -> AsyncIterator[str]:
        try:
            for index in range(len(self._ticket.requests)):
                if (choice := self._answers.opening(index)) is not None:
                    yield self._line(self._answers.chunk(choice))
            async for choice in self._choices():
                yield self._line(self._answers.chunk(choice))
            if self._usage:
                yield self._line({**self._answers.chunk(), "usage": self._answers.usage()})
            yield "data: [DONE]\n\n"
            self._service.metrics.seconds.observe(time.monotonic() - self._ticket.start)
        except ApiError as error:
            yield f"data: {json.dumps(error.body)}\n\n"

    async def _choices(self) -> AsyncIterator[dict[str, Any]]:
        """Each choice as it comes.

        Raises:
          ApiError: the engine failed, or time is up.
        """
        left, first = len(self._ticket.requests), True
        end = self._ticket.start + self._service.limits.request_seconds
        while left:
            try:
                async with asyncio.timeout(end - time.monotonic()):
                    index, event = await self._events.get()
            except TimeoutError:
                raise self._service.too_slow() from None
            if isinstance(event, StoppedError):
                raise ApiError(503, str(event))
            if isinstance(event, Completion):
                self._answers.count(index, event)
                left -= 1
                yield self._answers.ending(index, event)
                continue
            if first:
                waited = time.monotonic() - self._ticket.start
                self._service.metrics.first_seconds.observe(waited)
                first = False
            yield self._answers.piece(index, event)

    def _line(self, chunk: dict[str, Any]) -> str:
        if self._usage:
            chunk = {"usage": None, **chunk}
        return f"data: {json.dumps(chunk)}\n\n"
