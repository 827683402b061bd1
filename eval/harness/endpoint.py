"""An OpenAI-compatible endpoint that answers: retried with jitter, limited, never twice.

Every answer goes to the caller as soon as it is there, who keeps it; so an interruption loses
nothing. What an endpoint refuses for good is an error of that instance alone.
"""

from __future__ import annotations

import dataclasses
import os
import queue
import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter

from eval.harness.asks import Answer, Ask, Choose, Generate
from eval.harness.backends import OnDone
from tulu_jax.errors import ConfigError
from tulu_jax.files import json_sha256

OPENAI = "https://api.openai.com/v1"
KEY = "OPENAI_API_KEY"
TRIES = 6
FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 60.0
LONGEST_ASKED_S = 600.0
"""Most that an endpoint may ask to wait; it is asked again then."""
TIMEOUT_S = (10.0, 600.0)
"""To connect, and between two bytes of an answer."""
PASSING = frozenset((408, 409, 425, 429, 500, 502, 503, 504, 529))
"""Statuses after which the same request may succeed."""
NO_CREDIT = "insufficient_quota"
"""Comes with 429, as what passes does, and does not pass."""
FILTERED = frozenset(("content_filter", "content_policy_violation"))
"""Codes of a refusal that asking again does not change."""
TOKEN_OF_CHOICE = 8
"""Tokens that a chat endpoint may spend on a letter."""
MOST_STOPS = 4
"""So many are sent, as OpenAI's interface takes no more; at the others answers are cut here."""
TOP_LOGPROBS = 5
"""So many of the likeliest tokens are asked for where words are to be weighed."""
NEVER = -9999.0
"""The log-probability of a word that is not among them, as OpenAI writes it."""


def address(base_url: str | None) -> str:
    """The endpoint's address: the one given, `OPENAI_BASE_URL`, or OpenAI's own.

    Raises:
      ConfigError: it is no http address, or holds a password, which results would show.
    """
    found = (base_url or os.environ.get("OPENAI_BASE_URL") or OPENAI).rstrip("/")
    if not found.startswith(("http://", "https://")):
        raise ConfigError(
            "endpoint is no address", got=found, at="--base_url", expected="http:// or https://"
        )
    if "@" in urlsplit(found).netloc:
        raise ConfigError(
            "endpoint's address holds a password", at="--base_url",
            do=f"leave out all up to the @, and put the key in {KEY}",
        )  # fmt: skip
    return found


def key_of_environment() -> str | None:
    """The endpoint's key, or None.

    Raises:
      ConfigError: it has characters that no key has; it is not shown.
    """
    key = os.environ.get(KEY, "").strip()
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigError(
            "key of the endpoint is no key", got="blanks, line ends or other than ASCII in it",
            at=KEY, do="set it anew",
        )  # fmt: skip
    return key or None


class Passing(Exception):
    """A failure that may pass; `wait_s` is how long the endpoint asks to wait."""

    def __init__(self, text: str, wait_s: float | None = None) -> None:
        """Why, and how long."""
        super().__init__(text)
        self.wait_s = wait_s


class Unheard(Passing):
    """No reply came."""


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
        sleep: Callable[[float], Any] | None = None,
    ) -> None:
        """Reads the key from the environment; nothing is sent yet.

        Args:
          model: as the endpoint calls it.
          base_url: see `address`.
          api: `chat` (messages) or `completions` (the exact prompt).
          concurrency: requests at once.
          requests_per_minute: most requests that are begun in a minute.
          seed: of samples.
          sleep: how to wait; by default until the time is over or the run is.

        Raises:
          ConfigError: see `address` and `key_of_environment`.
        """
        self._model, self._api, self._seed = model, api, seed
        self._base, self._key = address(base_url), key_of_environment()
        self._concurrency = concurrency
        self._sleep = sleep
        self._pace = Pace(requests_per_minute)
        self._jitter = random.Random()
        self._heard = False
        self._session = requests.Session()
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, HTTPAdapter(pool_maxsize=concurrency))
        if self._key is not None:  # as `auth`, so that no .netrc takes its place
            self._session.auth = self._authorize
        self.fingerprint = json_sha256(["endpoint", self._base, model, api, seed])

    def _authorize(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._key}"
        return request

    def answer(self, asks: Sequence[Ask], on_done: OnDone) -> None:
        """See `Backend`; answers come back to this thread as they arrive.

        Where it ends early, answers that were on their way come to `on_done` too.

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
                    ended.set()

        try:
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
        except (ConfigError, KeyboardInterrupt):
            while not done.empty():
                index, found = done.get()
                if isinstance(found, Answer) and found.error is None:
                    on_done(index, found)
            raise

    def _ask(self, ask: Ask, ended: threading.Event) -> Answer:
        sleep, tries = self._sleep or ended.wait, 0
        while True:
            self._pace.wait(sleep)
            if ended.is_set():
                return Answer(error="not asked: the run ended")
            tries += 1
            try:
                return self._once(ask)
            except Passing as error:
                failure = error
            if ended.is_set() or tries == TRIES:
                break
            wait = min(FIRST_WAIT_S * 2 ** (tries - 1), LONGEST_WAIT_S)
            wait = max(wait * self._jitter.uniform(0.5, 1.0), failure.wait_s or 0.0)
            sleep(min(wait, LONGEST_ASKED_S))
        if isinstance(failure, Unheard) and not self._heard:
            raise ConfigError(
                "endpoint does not answer", got=failure, at=self._base,
                expected=f"a reply to one of {tries} requests", do="see --base_url",
            )  # fmt: skip
        return Answer(error=f"endpoint gave no answer in {tries} tries: {failure}")

    def _once(self, ask: Ask) -> Answer:
        path = "/chat/completions" if self._api == "chat" else "/completions"
        address, body = self._base + path, self._body(ask)
        try:
            reply = self._session.post(address, json=body, timeout=TIMEOUT_S, allow_redirects=False)
        except requests.RequestException as error:
            raise Unheard(self._secret(f"{type(error).__name__}: {error}")) from error
        self._heard = True
        status, code = _status(reply)
        words = self._secret(_reason(reply, status))
        if code == NO_CREDIT or status == 402:
            raise ConfigError(
                "endpoint's credit is used up", got=words, at=address,
                do="pay, then run it again: what was answered is kept",
            )  # fmt: skip
        if 300 <= status < 400:
            raise ConfigError(
                "endpoint is at another address", got=reply.headers.get("Location", "none"),
                at=address, do="name that one: --base_url",
            )  # fmt: skip
        if status in PASSING:
            raise Passing(words, _retry_after(reply))
        if status in (401, 403, 404):
            raise ConfigError(
                "endpoint refuses", got=words, at=address,
                expected=f"a key in {KEY}, and a model called {self._model!r}",
                do="see --base_url, which mostly ends in /v1, and --engine",
            )  # fmt: skip
        if status != 200:
            return Answer(error=f"endpoint refuses: {words}", refused=code in FILTERED)
        found = _read(reply, self._api, ask.words if isinstance(ask, Choose) else ())
        found = ask.cut(found) if isinstance(ask, Generate) else found
        if found.answered_by == self._model:
            found = dataclasses.replace(found, answered_by=None)
        return dataclasses.replace(found, error=found.error and self._secret(found.error))

    def _secret(self, text: str) -> str:
        """The text without the key: some endpoints repeat what they refuse."""
        return text if self._key is None else text.replace(self._key, "***")

    def _body(self, ask: Ask) -> dict[str, Any]:
        body: dict[str, Any] = {"model": self._model}
        if self._api == "chat":
            system = ask.prompt.system
            before = [] if system is None else [{"role": "system", "content": system}]
            body["messages"] = [*before, {"role": "user", "content": ask.prompt.text}]
        else:
            body["prompt"] = "\n\n".join(filter(None, [ask.prompt.system, ask.prompt.text]))
        if isinstance(ask, Choose):
            if ask.words and self._api == "chat":
                told = {"logprobs": True, "top_logprobs": TOP_LOGPROBS}
                return body | {"temperature": 0, "max_tokens": 1, **told}
            return body | {"temperature": 0, "max_tokens": TOKEN_OF_CHOICE}
        assert isinstance(ask, Generate)
        body |= {"temperature": ask.temperature, "max_tokens": ask.max_new_tokens}
        if ask.stops:
            body["stop"] = list(ask.stops[:MOST_STOPS])
        if ask.temperature > 0:
            body |= {"top_p": ask.top_p, "seed": self._seed + ask.sample}
        return body


class Pace:
    """At most so many requests a minute, over all threads."""

    def __init__(self, per_minute: int | None) -> None:
        """None sets no limit."""
        self._gap = 60.0 / per_minute if per_minute else 0.0
        self._next = 0.0
        self._lock = threading.Lock()

    def wait(self, sleep: Callable[[float], Any]) -> None:
        """Returns when the next request may begin; `sleep` waits so many seconds."""
        if not self._gap:
            return
        with self._lock:
            now = time.monotonic()
            start = max(now, self._next)
            self._next = start + self._gap
        if start > now:
            sleep(start - now)


def _read(reply: requests.Response, api: str, words: Sequence[str] = ()) -> Answer:
    """The answer in a reply; one that is cut off or no JSON may be whole the next time."""
    try:
        fields = reply.json()
        choice = fields["choices"][0]
        text = choice["message"]["content"] if api == "chat" else choice["text"]
        reason = choice.get("finish_reason")
        usage = fields.get("usage") or {}
        if isinstance(text, list):  # as parts: those of thoughts are no answer
            text = "".join(part["text"] for part in text if part["type"] == "text")
        if text is None or (text == "" and reason == "content_filter"):
            refusal = (choice.get("message") or {}).get("refusal")
            refused = bool(refusal) or reason == "content_filter"
            return Answer(error=f"endpoint gave no text: {refusal or reason}", refused=refused)
        if not isinstance(reason, str | None):
            raise TypeError(f"finish_reason is {type(reason).__name__}")
        if not isinstance(text, str):
            raise TypeError(f"text is {type(text).__name__}")
        return Answer(
            text,
            "eos" if reason == "stop" else reason,
            _count(usage.get("prompt_tokens")),
            _count(usage.get("completion_tokens")),
            _likely(choice, words),
            answered_by=_name(fields.get("model")),
        )
    except (LookupError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise Passing(f"reply is not what it should be: {type(error).__name__}: {error}") from error


def _likely(choice: dict[str, Any], words: Sequence[str]) -> tuple[float, ...] | None:
    """The log-probability of each word as the first token; None where none of them is told."""
    told = choice.get("logprobs")
    if not words or not told:
        return None
    top = {one["token"]: float(one["logprob"]) for one in told["content"][0]["top_logprobs"]}
    if not any(word in top for word in words):
        return None
    return tuple(top.get(word, NEVER) for word in words)


def _name(value: Any) -> str | None:
    """The model's name as an endpoint tells it; None where it does not."""
    return value[:200] if isinstance(value, str) and value else None


def _count(value: Any) -> int | None:
    """Tokens as an endpoint counts them; None where it says no number."""
    return value if type(value) is int else None


def _error(reply: requests.Response) -> dict[str, Any]:
    """The error object of a reply; an empty one where there is none."""
    try:
        found = reply.json()["error"]
    except (ValueError, KeyError, TypeError, RecursionError):
        found = None
    return found if isinstance(found, dict) else {}


def _status(reply: requests.Response) -> tuple[int, str | None]:
    """The status, and the error's code in words; some say 200 and put both into the body."""
    error, status = _error(reply), reply.status_code
    code = error.get("code") or error.get("type")
    if status == 200 and error:
        status = code if type(code) is int and 400 <= code < 600 else 502
    return status, code if isinstance(code, str) else None


def _reason(reply: requests.Response, status: int) -> str:
    """Status and the endpoint's own words."""
    words = _error(reply).get("message") or reply.text[:200]
    return f"{status} {words}".strip()


def _retry_after(reply: requests.Response) -> float | None:
    """Seconds that the endpoint asks to wait: a number, or the time when it may be asked again."""
    said = reply.headers.get("Retry-After", "")
    try:
        return float(said)
    except ValueError:
        pass
    try:
        return (parsedate_to_datetime(said) - datetime.now(UTC)).total_seconds()
    except (ValueError, TypeError):
        return None
