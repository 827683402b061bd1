"""An OpenAI-compatible endpoint that answers: retried with jitter, limited, never twice.

Every answer goes to the caller as soon as it is there, who keeps it; so an interruption loses
nothing. What an endpoint refuses for good is an error of that instance alone.
"""

from __future__ import annotations

import os
import queue
import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import requests

from eval.harness.asks import Answer, Ask, Choose, Generate
from eval.harness.backends import OnDone
from tulu_jax.errors import ConfigError
from tulu_jax.files import json_sha256

OPENAI = "https://api.openai.com/v1"
KEY = "OPENAI_API_KEY"
TRIES = 6
FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 60.0
TIMEOUT_S = (10.0, 600.0)
"""To connect, and between two bytes of an answer."""
PASSING = frozenset((408, 409, 425, 429, 500, 502, 503, 504, 529))
"""Statuses after which the same request may succeed."""
TOKEN_OF_CHOICE = 8
"""Tokens that a chat endpoint may spend on a letter."""


def address(base_url: str | None) -> str:
    """The endpoint's address: the one given, `OPENAI_BASE_URL`, or OpenAI's own.

    Raises:
      ConfigError: it is no http address.
    """
    found = (base_url or os.environ.get("OPENAI_BASE_URL") or OPENAI).rstrip("/")
    if not found.startswith(("http://", "https://")):
        raise ConfigError(
            "endpoint is no address", got=found, at="--base_url", expected="http:// or https://"
        )
    return found


class Passing(Exception):
    """A failure that may pass; `wait_s` is how long the endpoint asks to wait."""

    def __init__(self, text: str, wait_s: float | None = None) -> None:
        """Why, and how long."""
        super().__init__(text)
        self.wait_s = wait_s


class EndpointBackend:
    """Asks an endpoint, several requests at once."""

    can = frozenset({"generate", "choose"})

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        api: str = "chat",
        concurrency: int = 8,
        requests_per_minute: int | None = None,
        seed: int = 0,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Reads the key from the environment; nothing is sent yet.

        Args:
          model: as the endpoint calls it.
          base_url: see `address`.
          api: `chat` (messages) or `completions` (the exact prompt).
          concurrency: requests at once.
          requests_per_minute: most requests that are begun in a minute.
          seed: of samples.
          sleep: how to wait.
        """
        self._model, self._api, self._seed = model, api, seed
        self._base = address(base_url)
        self._concurrency = concurrency
        self._sleep = sleep
        self._pace = Pace(requests_per_minute, sleep)
        self._jitter = random.Random()
        self._session = requests.Session()
        if key := os.environ.get(KEY):
            self._session.headers["Authorization"] = f"Bearer {key}"
        self.fingerprint = json_sha256(["endpoint", self._base, model, api, seed])

    def answer(self, asks: Sequence[Ask], on_done: OnDone) -> None:
        """See `Backend`; answers come back to this thread as they arrive.

        Raises:
          ConfigError: the endpoint does not know the key or the model, or is not there.
        """
        done: queue.Queue[tuple[int, Answer | Exception]] = queue.Queue()
        left = iter(range(len(asks)))
        lock = threading.Lock()
        ended = threading.Event()

        def work() -> None:
            while not ended.is_set():
                with lock:
                    index = next(left, None)
                if index is None:
                    return
                try:
                    done.put((index, self._ask(asks[index], ended)))
                except Exception as error:  # it is raised where the caller waits
                    done.put((index, error))

        with ThreadPoolExecutor(self._concurrency) as pool:
            try:
                for _ in range(min(self._concurrency, len(asks))):
                    pool.submit(work)
                for _ in range(len(asks)):
                    index, found = done.get()
                    if isinstance(found, Exception):
                        raise found
                    on_done(index, found)
            finally:
                ended.set()

    def _ask(self, ask: Ask, ended: threading.Event) -> Answer:
        said = ""
        for attempt in range(TRIES):
            self._pace.wait()
            try:
                return self._once(ask)
            except Passing as error:
                said = str(error)
                wait = min(FIRST_WAIT_S * 2**attempt, LONGEST_WAIT_S)
                wait = max(wait * self._jitter.uniform(0.5, 1.0), error.wait_s or 0.0)
            if ended.is_set() or attempt == TRIES - 1:
                break
            self._sleep(min(wait, LONGEST_WAIT_S))
        return Answer(error=f"endpoint gave no answer in {TRIES} tries: {said}")

    def _once(self, ask: Ask) -> Answer:
        path = "/chat/completions" if self._api == "chat" else "/completions"
        try:
            reply = self._session.post(self._base + path, json=self._body(ask), timeout=TIMEOUT_S)
        except requests.RequestException as error:
            raise Passing(f"{type(error).__name__}: {error}") from error
        if reply.status_code in PASSING:
            raise Passing(_reason(reply), _retry_after(reply))
        if reply.status_code in (401, 403, 404):
            raise ConfigError(
                "endpoint refuses", got=_reason(reply), at=self._base,
                expected=f"a key in {KEY}, and a model called {self._model!r}",
                do="see --base_url and --engine",
            )  # fmt: skip
        if reply.status_code != 200:
            return Answer(error=f"endpoint refuses: {_reason(reply)}")
        return _read(reply, self._api)

    def _body(self, ask: Ask) -> dict[str, Any]:
        body: dict[str, Any] = {"model": self._model}
        if self._api == "chat":
            body["messages"] = [{"role": "user", "content": ask.prompt.text}]
        else:
            body["prompt"] = ask.prompt.text
        if isinstance(ask, Choose):
            return body | {"temperature": 0, "max_tokens": TOKEN_OF_CHOICE}
        assert isinstance(ask, Generate)
        body |= {"temperature": ask.temperature, "max_tokens": ask.max_new_tokens}
        if ask.stops:
            body["stop"] = list(ask.stops)
        if ask.temperature > 0:
            body |= {"top_p": ask.top_p, "seed": self._seed + ask.sample}
        return body


class Pace:
    """At most so many requests a minute, over all threads."""

    def __init__(self, per_minute: int | None, sleep: Callable[[float], None]) -> None:
        """None sets no limit."""
        self._gap = 60.0 / per_minute if per_minute else 0.0
        self._next = 0.0
        self._lock = threading.Lock()
        self._sleep = sleep

    def wait(self) -> None:
        """Returns when the next request may begin."""
        if not self._gap:
            return
        with self._lock:
            now = time.monotonic()
            start = max(now, self._next)
            self._next = start + self._gap
        if start > now:
            self._sleep(start - now)


def _read(reply: requests.Response, api: str) -> Answer:
    """The answer in a reply; one that is cut off or no JSON may be whole the next time."""
    try:
        fields = reply.json()
        choice = fields["choices"][0]
        text = choice["message"]["content"] if api == "chat" else choice["text"]
        reason = choice.get("finish_reason")
        usage = fields.get("usage") or {}
        if text is None:
            refusal = (choice.get("message") or {}).get("refusal") or reason
            return Answer(error=f"endpoint gave no text: {refusal}")
        if not isinstance(text, str):
            raise TypeError(f"text is {type(text).__name__}")
        return Answer(
            text,
            {"stop": "eos"}.get(reason, reason),
            usage.get("prompt_tokens"),
            usage.get("completion_tokens"),
        )
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise Passing(f"reply is not what it should be: {type(error).__name__}: {error}") from error


def _reason(reply: requests.Response) -> str:
    """Status and the endpoint's own words."""
    try:
        words = reply.json()["error"]["message"]
    except (ValueError, KeyError, TypeError):
        words = reply.text[:200]
    return f"{reply.status_code} {words}".strip()


def _retry_after(reply: requests.Response) -> float | None:
    try:
        return float(reply.headers.get("Retry-After", ""))
    except ValueError:
        return None
