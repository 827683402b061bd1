"""The key of a prepared store: the name of its folder depends on all that its content does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from tulu_jax.chat import AddTokens, Tokenizer, load_tokenizer
from tulu_jax.data.mixtures import TaskOptions, mixture_specs
from tulu_jax.data.specs import DatasetSpec, locate_raw_dir, raw_fingerprint
from tulu_jax.files import json_sha256, sha256
from tulu_jax.places import Address, as_place, fetched_dir

ENCODER_VERSION = 1
"""A change of code that gives any conversation other tokens or another mask needs a new one."""


@dataclass(frozen=True, kw_only=True)
class PrepareOptions:
    """How tasks are prepared: `max_length` in tokens, folders, and processes that encode.

    `options` are reading options by task, laid over the tasks' own. `strict` stops at the first
    bad record instead of counting it. With `beam_runner` the encoding is done on Apache Beam, with
    `beam_options` such as `project=mine`. Neither changes a store.
    """

    tokenizer: str
    max_length: int
    data_dir: str
    encoding: str = "hf"
    chat_template: str = "tulu"
    add_tokens: AddTokens = ()
    raw_dir: str | None = None
    num_processes: int = 1
    options: TaskOptions = field(default_factory=dict)
    strict: bool = False
    beam_runner: str | None = None
    beam_options: tuple[str, ...] = ()

    @property
    def place(self) -> Address | None:
        """The folder of stores in a bucket; None where `data_dir` is of this machine."""
        place = as_place(self.data_dir) if self.data_dir else None
        return place if isinstance(place, Address) else None

    @property
    def local_dir(self) -> str:
        """The folder of this machine in which stores are made and read."""
        return self.data_dir if self.place is None else str(local_dir(self.place))

    def specs(self, mixture: str) -> list[DatasetSpec]:
        """The mixture's datasets, to be read with these options."""
        return mixture_specs(mixture, self.options)

    def load_tokenizer(self) -> Tokenizer:
        """The tokenizer these options name."""
        return load_tokenizer(
            self.tokenizer,
            self.encoding,
            template=self.chat_template,
            add_tokens=self.add_tokens,
        )


@dataclass(frozen=True, kw_only=True)
class StoreKey:
    """All that decides a store's content; equal keys mean equal stores.

    Code is in it by the numbers that are stated for it: `task_version` for what a dataset's reader
    makes of raw files, `template` for how conversations are written, `encoder` for the rest.
    """

    task: str
    split: str
    task_version: str
    encoder: int
    raw_files: str
    tokenizer: str
    encoding: str
    template: str
    max_length: int
    options: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def digest(self) -> str:
        """sha256 (hex) over all fields."""
        return json_sha256({**asdict(self), "options": dict(self.options)})

    def place(self, data_dir: Address) -> Address:
        """The same in a bucket."""
        return data_dir / self.task / f"{self.split}-{self.digest[:12]}"

    def folder(self, data_dir: str | Path) -> Path:
        """`<data_dir>/<task>/<split>-<first 12 digits of the digest>`."""
        return Path(data_dir) / self.task / f"{self.split}-{self.digest[:12]}"


def store_keys(
    spec: DatasetSpec, options: PrepareOptions, *, tokenizer: Tokenizer
) -> dict[str, StoreKey]:
    """The key of each of the dataset's splits."""
    raw_files = raw_fingerprint(spec, locate_raw_dir(spec, options.raw_dir))
    return {
        split: StoreKey(
            task=spec.task_name,
            split=split,
            task_version=spec.version,
            encoder=ENCODER_VERSION,
            raw_files=raw_files,
            tokenizer=tokenizer.fingerprint,
            encoding=options.encoding,
            template=tokenizer.template.version,
            max_length=options.max_length,
            options=dict(spec.options),
        )
        for split in spec.splits
    }


def local_dir(place: Address) -> Path:
    """The folder of this machine for the stores of a folder in a bucket."""
    return fetched_dir() / f"stores-{sha256(str(place))[:16]}"
