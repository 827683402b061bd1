"""Log-probabilities of given texts, through the engine's rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tulu_jax.errors import DataError
from tulu_jax.generate.requests import Prompt, Score, check_ids
from tulu_jax.generate.row_table import RowTable
from tulu_jax.generate.worker import Worker


def checked_pair(
    prompt: Prompt, answer: Prompt, at: str, *, vocab_size: int, max_length: int
) -> tuple[np.ndarray, np.ndarray]:
    """The ids of a prompt and of a continuation that can be scored after it.

    Raises:
      DataError: one is empty, has ids outside the vocabulary or does not fit the length.
    """
    ids, continuation = np.asarray(prompt), np.asarray(answer)
    check_ids(ids, at, vocab_size)
    check_ids(continuation, at, vocab_size, "continuation")
    # The last token of the continuation is not run through the model.
    if ids.size + continuation.size - 1 > max_length:
        raise DataError(
            "prompt and continuation are longer than the model's sequences",
            got=f"{ids.size} + {continuation.size} tokens",
            at=at,
            expected=f"at most max_length={max_length} + 1",
            do="shorten the prompt",
        )
    return ids.astype(np.int32), continuation.astype(np.int32)


class Scorer:
    """Scores continuations of prompts; each prompt is read once, on top of what rows share."""

    def __init__(
        self,
        worker: Worker,
        table: RowTable,
        max_length: int,
        wait_for_row: Callable[[], None],
    ) -> None:
        """Uses the engine's rows; `wait_for_row` returns once one is free."""
        self._worker, self._table, self._max_length = worker, table, max_length
        self._wait_for_row = wait_for_row

    def score(self, pairs: Sequence[tuple[Prompt, Prompt]]) -> list[Score]:
        """`Engine.score`."""
        prompts: dict[bytes, np.ndarray] = {}
        places: dict[bytes, list[int]] = {}
        answers: list[np.ndarray] = []
        for index, (prompt, answer) in enumerate(pairs):
            ids, continuation = checked_pair(
                prompt, answer, f"pair {index}",
                vocab_size=self._worker.config.vocab_size, max_length=self._max_length,
            )  # fmt: skip
            prompts[ids.tobytes()] = ids
            places.setdefault(ids.tobytes(), []).append(index)
            answers.append(continuation)
        found: dict[int, Score] = {}
        for key, ids in prompts.items():
            indices = places[key]
            scores = self._score_one(ids, [answers[index] for index in indices])
            found |= dict(zip(indices, scores, strict=True))
        return [found[index] for index in range(len(pairs))]

    def _score_one(self, prompt: np.ndarray, answers: list[np.ndarray]) -> list[Score]:
        """Scores of one prompt's continuations.

        Whole pieces are shared with other prompts; the last piece, of at least one token, gives the
        first tokens' log-probabilities. A longer continuation is one more pass after the prompt.
        """
        worker = self._worker
        last = (prompt.size - 1) // worker.piece * worker.piece
        self._wait_for_row()
        found = self._table.take(prompt[:last])
        try:
            worker.take_over(found, prompt[:last])
            for start in range(found.num_tokens, last, worker.piece):
                worker.read(found.row, prompt[:last], start)
            self._table.hold(found.row, prompt[:last])  # not before: an interrupted row holds less
            choices = np.array([answer[0] for answer in answers], np.int32)
            first, likeliest = worker.weigh(found.row, prompt, last, choices)
            return [
                self._follow(found.row, prompt, answer, first[index], bool(likeliest[index]))
                for index, answer in enumerate(answers)
            ]
        finally:
            self._give_back(found.row)

    def _give_back(self, row: int) -> None:
        """The row is free again, and the cache whole, after an interruption too."""
        self._table.release(row)
        if self._worker.restore():
            self._table.forget()

    def _follow(
        self, row: int, prompt: np.ndarray, answer: np.ndarray, first: Any, likeliest: bool
    ) -> Score:
        """The score of a continuation, whose first token's log-probability is known."""
        parts = [np.array([first], np.float32)]
        for start in range(0, answer.size - 1, self._worker.piece):
            found = self._worker.score(row, answer[:-1], answer[1:], start, offset=prompt.size)
            parts.append(found.logprobs)
            likeliest = likeliest and bool(found.greedy.all())
        return Score(np.concatenate(parts), likeliest)
