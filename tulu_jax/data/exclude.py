"""The examples that exclude files leave out of training."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from tulu_jax.console import one_line
from tulu_jax.data.exclude_file import Checked, read_exclude_file
from tulu_jax.data.store import Store
from tulu_jax.errors import DataError
from tulu_jax.files import file_sha256, user_paths

_NAMED = 3
"""Ids that a message shows."""


class Selection(NamedTuple):
    """The numbers of a store's examples that are kept, and how many are not, by reason."""

    kept: Int[np.ndarray, "kept"]
    excluded: dict[str, int]


TaskSplit = tuple[str, str]
"""A task and a split; the empty split stands for all."""


@dataclass(frozen=True, eq=False)
class Exclusion:
    """The examples that exclude files name. Without files nothing is left out.

    `files` has the checksum (sha256, hex) of each; `listed` the reason of each id, by task and
    split; `checked` what was looked at; `tasks` the tasks that each file is about.
    """

    files: Mapping[Path, str] = field(default_factory=dict)
    listed: Mapping[TaskSplit, Mapping[str, str]] = field(default_factory=dict)
    checked: Mapping[TaskSplit, Checked] = field(default_factory=dict)
    tasks: Mapping[Path, frozenset[str]] = field(default_factory=dict)

    def reasons(self, task: str, split: str) -> dict[str, str]:
        """Why each id of this split is left out."""
        return {**self.listed.get((task, ""), {}), **self.listed.get((task, split), {})}

    def select(self, store: Store) -> Selection:
        """Which of the store's examples are kept."""
        reasons = self.reasons(store.name, _split(store))
        if not reasons:
            return Selection(np.arange(len(store)), {})
        found = [reasons.get(name) for name in store.ids]
        kept = np.flatnonzero(np.array([reason is None for reason in found], dtype=bool))
        counts = Counter(reason for reason in found if reason is not None)
        return Selection(kept, dict(sorted(counts.items())))

    def keep(self, store: Store) -> Int[np.ndarray, "kept"]:
        """The numbers of the store's examples that are kept.

        Raises: DataError when none is.
        """
        kept, excluded = self.select(store)
        if not len(kept) and len(store):
            raise DataError(
                "every example is excluded",
                got=excluded_text(excluded),
                at=f"{store.name} {_split(store)}",
                expected="at least one that is left",
                do="leave the task out of the mixture, or exclude less",
            )
        return kept

    def record(self, stores: Sequence[Store]) -> dict[str, Any]:
        """What is left out of these stores, in JSON values; empty where nothing is.

        `sha256` is over the tasks, splits and ids that are left out, so it is the same wherever
        the files lie and in whatever order they name them.
        """
        digest = hashlib.sha256()
        examples = {}
        for store in sorted(stores, key=_place):
            reasons = self.reasons(*_place(store))
            ids = sorted(reasons.keys() & set(store.ids)) if reasons else []
            if ids:
                examples[" ".join(_place(store))] = len(ids)
                digest.update(json.dumps([*_place(store), ids]).encode())
        return {"sha256": digest.hexdigest(), "examples": examples} if examples else {}

    def files_record(self) -> list[dict[str, str]]:
        """The files with their checksums, in JSON values."""
        return [{"path": str(path), "sha256": digest} for path, digest in self.files.items()]

    def check_tasks(self, names: Iterable[str]) -> None:
        """Passes when each file is about at least one of these tasks.

        Raises: DataError naming the file that is not.
        """
        known = set(names)
        for path, tasks in self.tasks.items():
            if not tasks & known:
                raise DataError(
                    "exclude file is of other tasks than these",
                    got=", ".join(sorted(tasks)) or "no task",
                    at=path,
                    expected=" or ".join(sorted(known)),
                    do="name the exclude file of these tasks, or none",
                )

    def check_fits(self, stores: Sequence[Store]) -> list[str]:
        """Sentences on what the files name that the stores do not have; `stores` are of all splits.

        Raises: DataError when a file is of other tasks, or none of a task's ids is found.
        """
        by_task: dict[str, list[Store]] = {}
        for store in stores:
            by_task.setdefault(store.name, []).append(store)
        self.check_tasks(by_task)
        notes = []
        other: Counter[str] = Counter()
        for (task, split), reasons in self.listed.items():
            mine = [s for s in by_task.get(task, []) if split in ("", _split(s))]
            if mine:
                notes += self._missing(task, split, reasons.keys(), mine)
            else:
                other[f"{task} {split}".strip()] += len(reasons)
        if other:
            named = ", ".join(f"{name} ({count:,})" for name, count in sorted(other.items()))
            notes.append(f"exclude: ids of what is not read here are of no account: {named}")
        unchecked = sorted(by_task.keys() - frozenset().union(*self.tasks.values()))
        if self.files and unchecked:
            notes.append(f"exclude: no file is about {', '.join(unchecked)}: all of it is kept")
        return notes + [note for store in stores for note in self._other_data(store)]

    def _missing(
        self, task: str, split: str, ids: Iterable[str], stores: list[Store]
    ) -> Iterator[str]:
        """A sentence on the ids that no store has.

        Preparing drops conversations without a trained token, and stores do not keep their ids.
        """
        wanted = set(ids)
        missing = sorted(wanted - {name for store in stores for name in store.ids})
        if not missing:
            return
        dropped = sum(sum(store.meta["counts"]["dropped"].values()) for store in stores)
        shown = _some(missing) + (", ..." if len(missing) > _NAMED else "")
        name = f"{task} {split}".strip()
        if len(missing) == len(wanted) and len(missing) > dropped:
            raise DataError(
                "none of the ids to exclude is in the store",
                got=f"{len(missing):,} ids, such as {shown}",
                at=name,
                expected=f"ids such as {_some(stores[0].ids)}",
                do="check the data that is trained, with the same reading options",
            )
        yield (
            f"exclude: {name} has no example of {len(missing):,} of {len(wanted):,} ids "
            f"({dropped:,} conversations were dropped when it was prepared): {shown}"
        )

    def _other_data(self, store: Store) -> Iterator[str]:
        """A sentence when the file was made from other data than the store was."""
        known = self.checked.get(_place(store))
        if known is None:
            return
        read = store.meta["counts"]["read"]
        raw_files = store.meta.get("raw_files", "download")
        if known.conversations not in (None, read):
            got = f"{known.conversations:,} conversations, the store was made from {read:,}"
        elif known.raw_files is not None and raw_files not in (known.raw_files, "download"):
            got = "other raw files than the store (or the same in another place)"
        else:
            return
        yield (
            f"exclude: the file on {' '.join(_place(store))} was made from {got}: its ids may "
            "name other examples now. Run `tulu data check --write_exclude` again"
        )


def _some(ids: Sequence[str]) -> str:
    return ", ".join(map(one_line, ids[:_NAMED]))


def _split(store: Store) -> str:
    return store.meta.get("split", "train")


def _place(store: Store) -> TaskSplit:
    return store.name, _split(store)


def excluded_text(excluded: Mapping[str, int]) -> str:
    """How many are left out, in words.

    >>> excluded_text({"contaminated": 3, "duplicate": 4})
    'excluded 7 (contaminated 3, duplicate 4)'
    """
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in sorted(excluded.items()))
    return f"excluded {sum(excluded.values()):,}" + (f" ({reasons})" if reasons else "")


def read_exclusion(named: str | Sequence[str] | None) -> Exclusion:
    """The examples that the named exclude files (`user_paths`) leave out.

    Raises: DataError for a file that cannot be read, is no exclude file, or is named twice.
    """
    paths = [] if named is None else user_paths(named, name="exclude")
    if len(set(paths)) != len(paths):
        raise DataError("an exclude file is named twice", got=", ".join(map(str, paths)))
    listed: dict[TaskSplit, dict[str, str]] = {}
    checked: dict[TaskSplit, Checked] = {}
    tasks = {}
    for path in paths:
        found = read_exclude_file(path)
        tasks[path] = found.tasks
        checked.update({(task, found.split): facts for task, facts in found.about.items()})
        for line in found.lines:
            listed.setdefault((line.task, line.split), {}).setdefault(line.id, line.reason)
    return Exclusion({path: file_sha256(path) for path in paths}, listed, checked, tasks)
