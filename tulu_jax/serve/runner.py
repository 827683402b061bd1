"""The one thread that runs the engine, and the queue in front of it."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial

from tulu_jax.generate import Completion, Front, Request
from tulu_jax.generate.jobs import Job, Piece

READ_AT_MOST = 16
"""Pieces of prompts that are read between two dispatches while somebody reads an answer as it is
made; about as many as rows that get free ask for. Otherwise free rows are filled first."""
RATE_SECONDS = 10.0
"""Tokens a second are those of so long."""

log = logging.getLogger(__name__)


class QueueFullError(Exception):
    """There is no room in the queue; `seconds` is about how long until there is."""

    def __init__(self, seconds: int) -> None:
        """Notes when to come again."""
        super().__init__(f"the queue is full; come again in {seconds} s")
        self.seconds = seconds


class StoppedError(Exception):
    """The engine failed, or the server ends, before the answer was there."""


Event = tuple[int, Piece | Completion | StoppedError]
"""Which of a ticket's requests, and what there is of it; -1 with an error that ends all."""


class Ticket:
    """Requests of one client that are answered together."""

    def __init__(
        self, requests: Sequence[Request], put: Callable[[Event], None], stream: bool
    ) -> None:
        """Nothing is begun."""
        self.requests, self.put, self.stream = requests, put, stream
        self.jobs: list[Job] = []
        self.left = len(requests)
        self.cancelled = False
        self.start = time.monotonic()

    def cancel(self) -> None:
        """Takes its requests out of queue and slots, from any thread."""
        self.cancelled = True
        for job in list(self.jobs):
            job.cancelled = True


class Runner:
    """Hands requests of many threads to the engine, which one thread runs."""

    def __init__(self, engine: Front, max_queue: int) -> None:
        """A runner that is not started.

        Args:
          engine: which nobody else uses from now on.
          max_queue: requests that wait besides those in slots, at most.
        """
        self.engine, self.slots, self.max_queue = engine, engine.slots, max_queue
        self.failures = 0
        self._changed = threading.Condition()
        self._inbox: list[Ticket] = []
        self._live: set[Ticket] = set()
        self._pending = 0
        self._mean_seconds = 1.0
        self._stopping = False
        self._marks: deque[tuple[float, int]] = deque([(time.monotonic(), 0)])
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether requests are being worked on."""
        return self._thread.is_alive() and not self._stopping

    @property
    def pending(self) -> int:
        """Requests that are not done, those in slots among them."""
        return self._pending

    @property
    def busy_slots(self) -> int:
        """Slots that have a request."""
        return self.engine.num_running

    def tokens_per_second(self) -> float:
        """Tokens made in the last seconds, a second."""
        now, tokens = time.monotonic(), self.engine.stats.decoded_tokens
        then, before = next(
            (mark for mark in list(self._marks) if mark[0] > now - RATE_SECONDS), (now, tokens)
        )
        return (tokens - before) / max(now - then, 1e-3) if tokens > before else 0.0

    def submit(
        self, requests: Sequence[Request], put: Callable[[Event], None], *, stream: bool
    ) -> Ticket:
        """Puts checked requests into the queue.

        Args:
          requests: of one client, which come and go together.
          put: called in the engine's thread with whatever there is of them.
          stream: whether pieces of answers are wanted.

        Raises:
          QueueFullError: there is no room; none is taken.
          StoppedError: the server is about to end.
        """
        ticket = Ticket(requests, put, stream)
        with self._changed:
            if not self.alive:
                raise StoppedError("the server is ending")
            if self._pending + len(requests) > self.slots + self.max_queue:
                raise QueueFullError(self._wait_seconds())
            self._pending += len(requests)
            self._inbox.append(ticket)
            self._changed.notify()
        return ticket

    def _wait_seconds(self) -> int:
        """About when the queue is half empty, from how long requests took of late."""
        rounds = self._pending / self.slots / 2
        return int(min(60, max(1, rounds * self._mean_seconds)))

    def close(self) -> None:
        """Ends the thread after the dispatch it is in; what is not done gets an error."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not (self._inbox or self._stopping or self.engine.busy):
                    self._changed.wait()
                inbox, self._inbox = self._inbox, []
            for ticket in inbox:
                self._begin(ticket)
            if self._stopping:
                self._end_all("the server is ending")
                return
            try:
                watched = any(ticket.stream for ticket in self._live)
                self.engine.turn(read_at_most=READ_AT_MOST if watched else None)
                self._mark()
            except Exception:
                self.failures += 1
                log.exception("the engine failed; what it was doing is lost")
                self._end_all("the engine failed; the server's log says why")

    def _begin(self, ticket: Ticket) -> None:
        self._live.add(ticket)
        for index, request in enumerate(ticket.requests):
            on_piece = partial(self._tell, ticket, index) if ticket.stream else None
            job = self.engine.submit(request, partial(self._done, ticket, index), on_piece)
            ticket.jobs.append(job)
            if ticket.cancelled:  # maybe while this loop runs
                job.cancelled = True

    def _tell(self, ticket: Ticket, index: int, found: Piece | Completion | StoppedError) -> None:
        if not ticket.cancelled:
            ticket.put((index, found))

    def _done(self, ticket: Ticket, index: int, completion: Completion) -> None:
        self._forget(ticket, 1)
        self._mean_seconds += 0.1 * (time.monotonic() - ticket.start - self._mean_seconds)
        self._tell(ticket, index, completion)

    def _forget(self, ticket: Ticket, count: int) -> None:
        ticket.left -= count
        with self._changed:
            self._pending -= count
        if not ticket.left:
            self._live.discard(ticket)

    def _end_all(self, reason: str) -> None:
        self.engine.abandon()
        for ticket in list(self._live):
            self._forget(ticket, ticket.left)
            self._tell(ticket, -1, StoppedError(reason))

    def _mark(self) -> None:
        now = time.monotonic()
        if now > self._marks[-1][0] + RATE_SECONDS / 20:
            self._marks.append((now, self.engine.stats.decoded_tokens))
        while len(self._marks) > 1 and self._marks[0][0] < now - 2 * RATE_SECONDS:
            self._marks.popleft()
