"""The evaluation sets as texts: what a model is asked, and what it should answer.

The benchmarks of `tulu eval` read their own files; the command line brings their readers here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path, PurePath
from typing import NamedTuple

from tulu_jax.errors import DataError


class BenchmarkItem(NamedTuple):
    """One question of a benchmark. `answer` is empty where there is no reference."""

    benchmark: str
    id: str
    prompt: str
    answer: str


Texts = Iterable[tuple[str, str, str]]
"""Id, prompt and answer of each item."""


class Source(NamedTuple):
    """A benchmark's file or folder below the evaluation data, and what reads it."""

    path: str
    read: Callable[[Path], Texts]


def read_benchmarks(folder: str | Path, sources: Mapping[str, Source]) -> list[BenchmarkItem]:
    """Every item of every benchmark that has a folder in `folder`, prompts of one text once.

    Raises: DataError when there is none, or a file is missing or not in its format.
    """
    root = Path(folder)
    items: dict[tuple[str, str], BenchmarkItem] = {}
    for name, source in sources.items():
        own = root / PurePath(source.path).parts[0]
        if not own.is_dir():
            continue
        found = [BenchmarkItem(name, *texts) for texts in source.read(root / source.path)]
        if not found:
            raise DataError(
                "benchmark without an item",
                at=own,
                expected="its questions",
                do="take the folder away to leave the benchmark out",
            )
        for item in found:
            items.setdefault((name, item.prompt), item)
    if not items:
        there = "no such folder" if not root.exists() else None if root.is_dir() else "a file"
        raise DataError(
            "no evaluation data",
            got=there,
            at=root,
            expected=f"a folder with folders such as {', '.join(sources)}",
        )
    return list(items.values())
