"""The sums of a split's parts, and the checks that only the whole split allows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tulu_jax.chat import Tokenizer, preview
from tulu_jax.data.faults import Faults, kinds_text
from tulu_jax.data.parts import NOT_TO_BE_TRAINED, TOO_LONG, Part, load_part, part_path
from tulu_jax.data.store_format import decode_records, record_ends, token_dtype
from tulu_jax.errors import DataError, GuardError

LOSS_SHARE_ALARM = (0.02, 0.98)
"""Outside this range of loss tokens per token something is probably wrong."""


class Tally:
    """Adds up the parts of a split, in order; `place` is what messages call it.

    `counts` is what a store's meta data has: those of the parts, and at the end the faults.
    """

    def __init__(self, place: str, tokenizer: Tokenizer) -> None:
        """Nothing seen yet."""
        self.place = place
        self.counts: dict[str, Any] = {"read": 0, "truncated": 0, "dropped": {}, "answers": {}}
        self.parts = 0
        self.parts_found = 0
        self._tokenizer = tokenizer
        self._tokens = 0
        self._loss_tokens = 0
        self._first: Part | None = None
        self._hashes: list[np.ndarray] = []

    def add(self, part: Part) -> None:
        """Counts the next part."""
        self.parts += 1
        self.parts_found += part.found
        self._hashes.append(part.id_hashes)
        self._tokens += int(part.block.lengths.sum())
        self._loss_tokens += int(part.block.loss_tokens.sum())
        if self._first is None and len(part.block.lengths):
            self._first = part
        for name in ("read", "truncated"):
            self.counts[name] += part.counts[name]
        for name in ("dropped", "answers"):
            total = self.counts[name]
            for reason, count in part.counts.get(name, {}).items():
                total[reason] = total.get(reason, 0) + count

    def finish(self, faults: Faults, *, own: bool, folder: Path) -> None:
        """Takes the reader's faults into the counts and checks the whole; parts lie in `folder`.

        Raises: DataError for too many faults, two equal ids, or no conversation; GuardError for a
            dataset of which no token, or every token, would be trained.
        """
        self.counts.update(faults.as_json())
        del self.counts["records"]
        faults.check(self.place, own=own)
        self._check_ids(folder)
        self._check_loss()

    def _check_ids(self, folder: Path) -> None:
        """Passes when no two conversations have one id; only where two hashes are equal are the
        ids themselves read from the parts.
        """
        joined = np.concatenate(self._hashes) if self._hashes else np.zeros(0, np.uint64)
        values, counts = np.unique(joined, return_counts=True)
        suspects = np.flatnonzero(np.isin(joined, values[counts > 1]))
        starts = np.concatenate([[0], np.cumsum([len(some) for some in self._hashes])])
        of_part = np.searchsorted(starts, suspects, side="right") - 1
        seen: set[str] = set()
        for number in np.unique(of_part).tolist():
            part = load_part(part_path(folder, number))
            ids = part.ids if part else []
            for place in (suspects[of_part == number] - starts[number]).tolist():
                if ids[place] in seen:
                    raise DataError(
                        "two conversations have one id",
                        got=repr(ids[place]),
                        at=self.place,
                        do="look for rows that occur twice in the raw files",
                    )
                seen.add(ids[place])

    def _check_loss(self) -> None:
        counts = self.counts
        if not counts["read"]:
            raise DataError("dataset holds no conversation", at=self.place)
        if self._first is None:
            raise GuardError(
                "no token of the dataset carries loss",
                got=f"{counts['read']} conversations, all dropped: {kinds_text(counts['dropped'])}",
                at=self.place,
                expected="answers of the assistant within max_length",
                do=_mend_dropped(counts["dropped"]),
            )
        answers = counts["answers"]
        if answers.get("empty") and answers["empty"] == answers["trained"]:
            raise GuardError(
                "every answer of the dataset is empty",
                got=f"{answers['empty']:,} empty or blank answers",
                at=self.place,
                expected="text to train on",
                do="look at it with `tulu data inspect`: the answers may be in another field",
            )
        if self._loss_tokens == self._tokens:
            raise GuardError(
                "every token of the dataset carries loss",
                got=f"loss share 100 %, first row: {self._first_row()}",
                at=self.place,
                expected="prompts without loss",
                do="check the roles of its messages",
            )

    def _first_row(self) -> str:
        assert self._first is not None
        block, dtype = self._first.block, token_dtype(self._tokenizer.vocab_size)
        one = block.lengths[:1]
        words = block.records[: record_ends(one, dtype)[0]].tobytes()
        got = decode_records(np.frombuffer(words, dtype), one)
        return preview(got.tokens, got.loss_mask, self._tokenizer)


def _mend_dropped(reasons: Mapping[str, int]) -> str:
    """What to do about conversations that were all dropped, for these reasons."""
    todo = ["look at it with `tulu data inspect`"]
    if TOO_LONG in reasons:
        todo.append("raise max_length")
    if NOT_TO_BE_TRAINED in reasons:
        todo.append("take the flags (weight, train) from some answers")
    return ", or ".join(todo)


def loss_share_alarm(share: float) -> bool:
    """Whether a dataset's share of loss tokens is outside what real data has (2 % to 98 %)."""
    return not LOSS_SHARE_ALARM[0] <= share <= LOSS_SHARE_ALARM[1]
