"""How `tulu data stats` and `check` read a mixture's conversations from raw files."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tulu_jax.errors import DataError
from tulu_jax.files import advice, write_whole

if TYPE_CHECKING:
    from rich.progress import Progress

    from tulu_jax.chat import Tokenizer
    from tulu_jax.data.faults import Faults
    from tulu_jax.data.keys import PrepareOptions
    from tulu_jax.data.specs import Conversation, DatasetSpec
    from tulu_jax.data.store import Store


def raw_conversations(
    spec: DatasetSpec,
    raw_dir: str | None,
    *,
    tokenizer: Tokenizer | None,
    faults: Faults,
    split: str = "train",
    instead: str = "",
    checked: bool = True,
) -> Iterator[Conversation]:
    """One split's conversations, read from the raw files without TFDS; bad records go to `faults`.

    `instead` is what else a command without --raw_dir may be given.

    Raises: DataError without --raw_dir, for a split or files that are missing, for a dataset that
        is split by token counts when there is no tokenizer, and if `checked` when more than 1 % of
        the records are bad.
    """
    from tulu_jax.data.specs import locate_raw_dir

    spec.check_split(split)
    folder = locate_raw_dir(spec, raw_dir)
    if folder is None and not spec.embedded:
        raise DataError(
            f"dataset {spec.name} is read from its raw files",
            do=f"name their folder with --raw_dir (`tulu data download` fetches them){instead}",
        )
    if spec.needs_tokenizer and tokenizer is None:
        raise DataError(
            f"dataset {spec.name} is split by token counts", do="name a tokenizer with --tokenizer"
        )

    def read() -> Iterator[Conversation]:
        yield from spec.conversations(folder, split, tokenizer=tokenizer, faults=faults)
        if checked:
            faults.check(spec.name, own=spec.own)

    return read()


def find_stores(
    specs: Iterable[DatasetSpec], options: PrepareOptions, tokenizer: Tokenizer
) -> dict[str, dict[str, Store | None]]:
    """The stores by task and split; None where there is none for these options."""
    from tulu_jax.data.keys import store_keys
    from tulu_jax.data.prepare import find_store

    return {
        spec.task_name: {
            split: find_store(key, options)
            for split, key in store_keys(spec, options, tokenizer=tokenizer).items()
        }
        for spec in specs
    }


def reading_progress() -> Progress:
    """Bars with the number of conversations read; shown on the error stream if it is a terminal."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn

    from tulu_jax.console import plain_console, task_name

    columns: tuple[Any, ...] = (task_name(), BarColumn(), MofNCompleteColumn())
    console = plain_console(stderr=True)
    return Progress(
        *columns,
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


def write_json(path: str, content: object) -> None:
    """Writes a file with the content as JSON, readable by people.

    Raises: DataError when the file cannot be written.
    """
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
    try:
        write_whole(Path(path), text + "\n")
    except OSError as error:
        got = error.strerror or str(error)
        raise DataError("cannot write the JSON file", got=got, at=path, do=advice(error)) from error
