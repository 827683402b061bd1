"""The candidate's side: it runs the program, answers calls of its function, and knows no test."""

from __future__ import annotations

import builtins
import contextlib
import os
from collections.abc import Callable
from typing import Any

from . import plain
from .limits import OutOfTime, TimeLimit
from .paper import MOST_LETTERS


def prepare(job: dict[str, Any], own: list[int]) -> Callable[[], None]:
    """A function that runs the program, then answers calls over the descriptor until it is closed.

    An answer is `{"return": value}`, `{"raise": [type, text, args]}` or `{"timeout": true}`; the
    first one tells of the program itself. Time counts while the program runs.
    """
    peer, limit = own[0], TimeLimit(job["timeout_s"])
    read, write, dumps = os.read, os.write, plain.dumps

    def answer(tree: Any) -> None:
        content = memoryview(dumps(tree))
        while content:
            content = content[write(peer, content) :]

    def attempt(function: Any, *arguments: Any) -> Any:
        try:
            tree = {"return": limit.run(function, *arguments)}
            answer({"timeout": True} if limit.left <= 0 else tree)
        except OutOfTime:
            answer({"timeout": True})
        except (BrokenPipeError, ConnectionResetError):
            raise
        except BaseException as error:
            answer({"raise": _told(error)})

    def define() -> None:
        exec(job["code"], namespace)
        if job["entry_point"] not in namespace:
            raise NameError(f"name '{job['entry_point']}' is not defined")

    def call(tree: Any) -> Any:
        positional, named = plain.from_tree(tree)
        return plain.to_tree(namespace[job["entry_point"]](*positional, **named))

    namespace: dict[str, Any] = {}

    def serve() -> None:
        attempt(define)
        with contextlib.suppress(EOFError, OSError):
            while True:
                attempt(call, plain.read_message(lambda size: read(peer, size)))

    return serve


def _told(error: BaseException) -> list[Any]:
    """The name of the built-in type that the error is one of, its text, and its arguments."""
    names = (kind.__name__ for kind in type(error).__mro__)
    name = next(name for name in names if isinstance(error, getattr(builtins, name, ())))
    try:
        text = str(error)
        arguments = plain.to_tree(error.args)
    except BaseException:
        text, arguments = "an error whose text is an error", []
    return [name, text[:MOST_LETTERS], arguments if len(text) < MOST_LETTERS else []]
