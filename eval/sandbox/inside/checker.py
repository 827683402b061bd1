"""The checker's side: the test, whose candidate is a function that asks the other process."""

from __future__ import annotations

import builtins
import contextlib
import functools
import json
import os
from collections.abc import Callable
from typing import Any, NoReturn

from . import plain
from .paper import MOST_LETTERS

ENDED = "failed: the program ended before it answered"


class _Stop(BaseException):
    """The candidate cannot answer any more; no test may take that for an error it expects."""


class _Candidate:
    """The candidate's function, from here: each call is a message and its answer."""

    def __init__(self, peer: int) -> None:
        """Asks over the descriptor; `verdict` is what is said once no answer can come."""
        self._peer = peer
        self.verdict: str | None = None
        self.fault: str | None = None

    def started(self) -> None:
        """Returns when the candidate's program has run to its end. Raises: as `call`."""
        self._answer()

    def call(self, *positional: Any, **named: Any) -> Any:
        """What the candidate returns.

        Raises: an exception of the built-in type and the text of the one it raised; _Stop.
        """
        if self.verdict or self.fault:
            raise _Stop
        tree = plain.to_tree((positional, named))
        if plain.has_opaque(tree):
            self.fault = "the test gives the candidate what is no plain data"
            raise _Stop
        self._send(plain.dumps(tree))
        return self._answer()

    def _send(self, message: bytes) -> None:
        rest = memoryview(message)
        try:
            while rest:
                rest = rest[os.write(self._peer, rest) :]
        except OSError:
            self._stop(ENDED)

    def _answer(self) -> Any:
        try:
            kind, content = self._read()
        except (EOFError, OSError):
            self._stop(ENDED)
        except (ValueError, TypeError, RecursionError, MemoryError):
            self._stop("failed: the program's answer cannot be read")
        if kind == "timeout":
            self._stop("timed out")
        if kind == "raise":
            raise content
        return content

    def _read(self) -> tuple[str, Any]:
        answer = plain.read_message(lambda size: os.read(self._peer, size))
        if not isinstance(answer, dict) or len(answer) != 1:
            raise plain.Malformed("no answer")
        ((kind, content),) = answer.items()
        if kind == "raise":
            name, text, arguments = content
            return kind, _error(str(name), str(text), plain.from_tree(arguments))
        if kind not in ("return", "timeout"):
            raise plain.Malformed("an unknown answer")
        return kind, plain.from_tree(content)

    def _stop(self, verdict: str) -> NoReturn:
        self.verdict = verdict
        raise _Stop


def _error(name: str, text: str, arguments: Any) -> Exception:
    """An error of the built-in type of that name, with the text that the candidate's had."""
    kind = getattr(builtins, name, None)
    if isinstance(kind, type) and issubclass(kind, Exception):
        for given in (arguments, (text,)):
            with contextlib.suppress(TypeError):
                error = kind(*given)
                if str(error) == text:
                    return error
    return RuntimeError(text)


def prepare(job: dict[str, Any], own: list[int]) -> Callable[[], None]:
    """A function that runs the test, and sends what it gave to the verdict's descriptor."""
    return functools.partial(_run, job, *own)


def _run(job: dict[str, Any], verdict: int, peer: int) -> None:
    candidate = _Candidate(peer)
    try:
        candidate.started()
        test = _prepared(job, candidate)
        test(candidate.call)
        result = "passed"
    except _Unusable as error:
        result, candidate.fault = "", str(error)
    except BaseException as error:
        result = f"failed: {error}"[:MOST_LETTERS]
    said = {"nonce": job["nonce"], "result": candidate.verdict or result}
    if candidate.fault:
        said["fault"] = candidate.fault
    os.write(verdict, json.dumps(said).encode() + b"\n")


class _Unusable(Exception):
    """The problem itself cannot be checked: no fault of the candidate."""


def _prepared(job: dict[str, Any], candidate: _Candidate) -> Callable[[Any], None]:
    """The test's `check`, beside the functions of the prompt and the candidate by its name."""
    namespace: dict[str, Any] = {}
    try:
        try:
            helpers = compile(job["helpers"], "<prompt>", "exec")
        except SyntaxError:  # a prompt that ends with `def f():` and no docstring
            helpers = compile(job["helpers"] + "\n    pass\n", "<prompt>", "exec")
        exec(helpers, namespace)
        namespace[job["entry_point"]] = candidate.call
        exec(compile(job["test"], "<test>", "exec"), namespace)
    except Exception as error:
        raise _Unusable(f"prompt or test is no program: {type(error).__name__}: {error}") from error
    if not callable(namespace.get("check")):
        raise _Unusable("the test defines no check(candidate)")
    return namespace["check"]
