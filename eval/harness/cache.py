"""Answers that are kept: a file of JSON lines that only grows, keyed by what was asked.

A line is on the disk as soon as its answer is there. A process that is killed while it writes
leaves half a line at most, which the next one cuts off; what came before is never asked again.
"""

from __future__ import annotations

import errno
import io
import json
import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from eval.harness.asks import Answer, Ask
from tulu_jax.errors import ConfigError, DataError
from tulu_jax.files import advice, parse_json
from tulu_jax.processes import try_lock

if TYPE_CHECKING:
    from eval.harness.backends import Backend


def ask_kept(
    asks: Sequence[Ask],
    backend: Backend,
    cache: AnswerCache,
    on_answer: Callable[[Answer], None] = lambda _: None,
    *,
    keep_refusals: bool = False,
) -> list[Answer]:
    """The answer to every ask, in order; what the cache has is not asked, and equal asks only once.

    Args:
      asks: what is asked.
      backend: who answers.
      cache: where answers are kept.
      on_answer: called with each as it comes, those that were kept first.
      keep_refusals: whether one that the other side refuses is not asked again either.
    """
    keys = [ask.key(backend.fingerprint) for ask in asks]
    wanted: dict[str, Ask] = {}
    for key, ask in zip(keys, asks, strict=True):
        if (known := cache.get(key)) is None:
            wanted.setdefault(key, ask)
        else:
            on_answer(known)
    new, alike = list(wanted), Counter(keys)
    failed: dict[str, Answer] = {}

    def keep(index: int, answer: Answer) -> None:
        answer = answer.sound
        cache.put(new[index], answer, keep_refusals=keep_refusals)
        if answer.error is not None:
            failed[new[index]] = answer
        for _ in range(alike[new[index]]):
            on_answer(answer)

    backend.answer(list(wanted.values()), keep)
    return [cache.get(key) or failed[key] for key in keys]


class AnswerCache:
    """The answers in a file, by key; a context manager that holds the file for this process."""

    def __init__(self, path: Path | None, known: Sequence[Path] = ()) -> None:
        """The cache in this file, which is made where there is none.

        Args:
          path: the file; None keeps answers in this process's memory only.
          known: files of other caches, which are read and stay as they are; lines there that are
            no answers, as in another file of the name, are passed over.
        """
        self.path, self._known = path, known
        self._answers: dict[str, Answer] = {}
        self._file: io.FileIO | None = None

    def __enter__(self) -> AnswerCache:
        """Reads what is there.

        Raises:
          ConfigError: another process writes it, or the folder cannot be written.
          DataError: a line is damaged.
        """
        if self.path is None:
            return self
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(self.path, "a+b", buffering=0)
        except OSError as error:
            raise ConfigError(
                "results cannot be written", got=error.strerror or error, at=self.path,
                do="choose another --save_dir",
            ) from error  # fmt: skip
        if try_lock(self._file.fileno()) is False:
            self._file.close()
            raise ConfigError(
                "another process is writing these results", at=self.path,
                do="wait for it, or choose another --save_dir",
            )  # fmt: skip
        try:
            for other in self._known:
                self._read_lines(other.read_bytes() if other.is_file() else b"", other, mine=False)
            self._read_all(self._file, self.path)
        except BaseException:
            self._file.close()
            raise
        return self

    def _read_all(self, file: io.FileIO, path: Path) -> None:
        file.seek(0)
        file.truncate(self._read_lines(file.read(), path))

    def _read_lines(self, data: bytes, path: Path, *, mine: bool = True) -> int:
        """Reads whole lines; how many bytes they are."""
        whole = data.rfind(b"\n") + 1
        for number, line in enumerate(data[:whole].split(b"\n")[:-1], 1):
            try:
                self._read(line, f"{path} line {number}")
            except DataError:
                if mine:
                    raise
        return whole

    def _read(self, line: bytes, at: str) -> None:
        try:
            fields = parse_json(line)
            answer = Answer.from_json(fields["answer"])
            if answer.sound is answer:  # older versions kept what cannot be compared
                self._answers[fields["key"]] = answer
        except (ValueError, TypeError, KeyError) as error:
            raise DataError(
                "kept answer is damaged",
                got=f"{type(error).__name__}: {error}",
                at=at,
                do="remove this line; its question will be asked again",
            ) from error

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def __len__(self) -> int:
        return len(self._answers)

    def get(self, key: str) -> Answer | None:
        """The answer to what has this key, if it was asked."""
        return self._answers.get(key)

    def put(self, key: str, answer: Answer, *, keep_refusals: bool = False) -> None:
        """Keeps an answer, for good unless it is an error.

        Args:
          key: of what was asked.
          answer: to it.
          keep_refusals: whether a refusal is kept although it is an error.

        Raises:
          DataError: the disk is full, or the like.
        """
        if answer.error is not None and not (keep_refusals and answer.refused):
            return
        self._answers[key] = answer
        if self.path is None:
            return
        assert self._file is not None, "the cache is not open"
        line = (json.dumps({"key": key, "answer": answer.to_json()}) + "\n").encode()
        try:
            if self._file.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise DataError(
                "answer cannot be kept", got=error.strerror or error, at=self.path,
                do=advice(error) or "make room; what is kept already is not asked again",
            ) from error  # fmt: skip
