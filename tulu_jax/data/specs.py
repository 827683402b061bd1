"""Datasets: one frozen `DatasetSpec` each, found by name.

The files in `tasks/` register their spec when imported; TFDS builders, SeqIO tasks, the tokenized
store and the command line are all made from it. To add a dataset is to add one such file.

`version` stands for all that decides a dataset's records but its raw files and options: a change
of code that changes a record needs a new one. `tests/tasks/test_versions.py` holds it to that.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tulu_jax.data.faults import Faults
from tulu_jax.download.sources import Source
from tulu_jax.errors import DataError
from tulu_jax.files import file_sha256

Conversation = dict[str, Any]
"""`{"dataset": str, "id": str, "messages": [{"role", "content"}, ...]}`. Answers of a user's own
data may have `train` too (`tulu_jax.chat.Message`)."""

TASK_PREFIX = "tulu_"
TASK_PACKAGES = ["tasks"]
"""Packages imported once, on the first look-up, so that their specs are registered."""

Resolver = Callable[[str], "DatasetSpec | None"]
_RESOLVERS: list[Resolver] = []


@dataclass(frozen=True, kw_only=True)
class DatasetSpec:
    """Everything the project knows about one dataset.

    `read(raw_dir, split_name=..., tokenizer=..., faults=..., **options)` yields conversations in
    file order; `raw_dir` is the folder that holds the files of `sources`, or None for an embedded
    dataset. With `needs_tokenizer` the conversations depend on the tokenizer, which is then given.
    `name` is what records and the raw folder are called; `task`, the SeqIO name, differs from
    `tulu_<name>` only where one dataset has tasks of several readings (Tülu 2).
    `expected_examples` maps a split to the number of conversations of the whole upstream data.
    `options` are the reading options and their defaults; they are part of a store's key.
    `own` says that the files are a user's: what is wrong with them, only they can mend.
    `describe(raw_dir, **options)` gives lines that say how such files are read, before they are.
    """

    name: str
    version: str
    description: str
    citation: str
    licence: str
    homepage: str
    read: Callable[..., Iterator[Conversation]]
    sources: tuple[Source, ...] = ()
    splits: tuple[str, ...] = ("train",)
    expected_examples: Mapping[str, int] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    needs_tokenizer: bool = False
    task: str = ""
    own: bool = False
    describe: Callable[..., list[str]] | None = None

    @property
    def task_name(self) -> str:
        """The SeqIO name: `task`, or else `tulu_<dataset>`."""
        if self.task:
            return self.task
        return self.name if self.name.startswith(TASK_PREFIX) else TASK_PREFIX + self.name

    @property
    def embedded(self) -> bool:
        """Whether the data comes from the code itself, with no raw file."""
        return not self.sources

    def resolve_options(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """The default options with `options` laid over them.

        Raises: DataError for an option the dataset does not have.
        """
        for key in options:
            if key not in self.options:
                raise unknown_name(f"option of dataset {self.name}", key, self.options)
        return {**self.options, **options}

    def check_split(self, split: str) -> str:
        """The split itself.

        Raises: DataError for one that the dataset does not have.
        """
        if split not in self.splits:
            raise DataError(
                f"dataset {self.name} has no such split",
                got=repr(split),
                expected=" or ".join(self.splits),
            )
        return split

    def conversations(
        self,
        folder: Path | None,
        split: str,
        *,
        tokenizer: Any = None,
        faults: Faults | None = None,
    ) -> Iterator[Conversation]:
        """The split's conversations in file order, read with the spec's options.

        `folder` is that of `locate_raw_dir`. Bad records go to `faults`; without it the first one
        is raised.

        Raises: DataError for a split that the dataset does not have; what `read` raises.
        """
        self.check_split(split)
        given = {"tokenizer": tokenizer} if self.needs_tokenizer else {}
        return self.read(folder, split_name=split, faults=faults, **given, **self.options)


_SPECS: dict[str, DatasetSpec] = {}


def register(spec: DatasetSpec) -> DatasetSpec:
    """The spec itself, from now on found by `get_spec`; a second one of that name is an error."""
    known = _SPECS.get(spec.task_name)
    if known is not None and known is not spec:
        raise DataError("a dataset of this name exists already", got=repr(spec.task_name))
    _SPECS[spec.task_name] = spec
    return spec


def all_specs() -> dict[str, DatasetSpec]:
    """Every registered dataset by task name, the packages of `TASK_PACKAGES` imported."""
    for package in TASK_PACKAGES:
        importlib.import_module(package)
    return dict(sorted(_SPECS.items()))


def add_resolver(resolver: Resolver) -> Resolver:
    """The resolver, from now on asked for the dataset of a name that is not registered.

    It answers None for a name that is none of its own. The files of a user's own are datasets in
    this way: their path is their name.
    """
    _RESOLVERS.append(resolver)
    return resolver


def find_spec(name: str) -> DatasetSpec | None:
    """The dataset called `name`, with or without the prefix `tulu_`, or that of a resolver."""
    specs = all_specs()
    asked = (resolver(name) for resolver in _RESOLVERS)
    return specs.get(name) or specs.get(TASK_PREFIX + name) or next(filter(None, asked), None)


def get_spec(name: str) -> DatasetSpec:
    """As `find_spec`.

    Raises: DataError naming the nearest datasets when there is none.
    """
    found = find_spec(name)
    if found is None:
        raise unknown_name("dataset", name, all_specs())
    return found


def unknown_name(what: str, name: str, known: Iterable[str]) -> DataError:
    """The error for a name that does not exist, with the names it may have meant."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else None
    return DataError(
        f"unknown {what}", got=repr(name), expected=", ".join(known) or "none", do=hint
    )


def locate_raw_dir(spec: DatasetSpec, raw_dir: str | Path | None) -> Path | None:
    """The folder that holds the dataset's files: `<raw_dir>/<name>` or `raw_dir` itself.

    Of a dataset whose files have absolute names it is the folder of the first, wherever `raw_dir`
    is. None for an embedded dataset, and when there is no `raw_dir`.

    Raises: DataError when neither holds all of them, with the files that are missing.
    """
    if spec.embedded:
        return None
    folders = _raw_folders(spec, raw_dir)
    for folder in folders:
        if all((folder / source.filename).exists() for source in spec.sources):
            return folder
    if not folders:
        return None
    folder = folders[0]
    missing = [s.filename for s in spec.sources if not (folder / s.filename).exists()]
    raise DataError(
        f"raw files of dataset {spec.name} are missing",
        got=f"no {', '.join(missing)}",
        at=folder,
        expected=f"the files as published at {spec.homepage}",
        do="put them there or name another folder with --raw_dir",
    )


def _raw_folders(spec: DatasetSpec, raw_dir: str | Path | None) -> list[Path]:
    """Where the dataset's files may lie, the likeliest first."""
    if all(Path(source.filename).is_absolute() for source in spec.sources):
        return [Path(spec.sources[0].filename).parent]
    return [] if raw_dir is None else [Path(raw_dir) / spec.name, Path(raw_dir)]


def obtain_raw_dir(spec: DatasetSpec, download_dir: str | Path, by_hand: str | Path) -> Path | None:
    """As `locate_raw_dir`, where nothing says where the files are: in `by_hand`, or else fetched.

    Raises: DataError when they cannot be had.
    """
    try:
        return locate_raw_dir(spec, by_hand)
    except DataError:  # nothing was put there
        from tulu_jax.download.run import fetch

        return fetch(spec, str(download_dir))


def short_name(task: str) -> str:
    """A task's name as tables show it, without the prefix that all have."""
    return task.removeprefix(TASK_PREFIX)


def how_read(spec: DatasetSpec, raw_dir: str | Path | None) -> list[str]:
    """Lines that say how a user's own files are read; none for other datasets.

    Raises: DataError for a file that cannot be read; ConfigError for its options.
    """
    folder = locate_raw_dir(spec, raw_dir) if spec.describe else None
    return spec.describe(folder, **spec.options) if spec.describe and folder else []


def raw_fingerprint(spec: DatasetSpec, folder: Path | None) -> str:
    """sha256 (hex) over names and contents of the raw files; `embedded` when there are none."""
    if folder is None:
        return "embedded" if spec.embedded else "download"
    digest = hashlib.sha256()
    for source in spec.sources:
        digest.update(os.fsencode(source.filename) + b"\0")
        for path in _files_at(folder / source.filename):
            digest.update(os.fsencode(path.relative_to(folder)) + b"\0")
            digest.update(file_sha256(path).encode())
    return digest.hexdigest()


def _files_at(path: Path) -> list[Path]:
    """The file itself, or every file below a folder, by name."""
    return sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
