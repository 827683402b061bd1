"""OpenOrca: FLAN questions under a system prompt, answered by GPT-4 with explanations.

Source: paper-era open-instruct, `open_instruct/reformat_datasets.py@94055552c`,
`convert_open_orca_data`. Its option to add answers of GPT-3.5 was never used and is left out.
"""

from __future__ import annotations

import importlib
import json
import random
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

from tasks.convert import convert_rows
from tasks.name_filter import without_names
from tasks.parquet import arrow_errors, batch_rows
from tasks.raw_files import text_field
from tasks.record_ids import DistinctIds
from tasks.templates import SEED
from tulu_jax.data.faults import Faults
from tulu_jax.data.specs import Conversation, DatasetSpec, Source, register
from tulu_jax.errors import ConfigError, DataError

FILE = "1M-GPT4-Augmented.parquet"
COLUMNS = ("id", "system_prompt", "question", "response")

_BATCH = 1024
_MEMORY_BYTES = 64 << 20
"""Chosen rows up to this size are kept in memory, more of them in a temporary file."""


def read(
    raw_dir: Path,
    *,
    num_gpt4: int | None = 100_000,
    filter_names: bool = False,
    faults: Faults | None = None,
    **_: Any,
) -> Iterator[Conversation]:
    """The first `num_gpt4` rows (None: all) of the file shuffled by the dataset's own stream.

    Ids are `open_orca_<id field>`. The first message is the system prompt, also when it is empty.
    Memory does not grow with the text: the file is read once, and chosen rows wait for their turn
    on disk.

    Raises: ConfigError for `num_gpt4` below 1; DataError for a file that is missing, or is not
        Parquet with the columns `COLUMNS`.
    """
    if num_gpt4 is not None and num_gpt4 < 1:
        raise ConfigError("num_gpt4 is too small", got=num_gpt4, expected="1 or more, or None")
    distinct = DistinctIds()

    def convert(_: int, row: dict[str, Any] | None, *, at: str) -> Iterator[Conversation]:
        if row is None:
            raise DataError("text is not UTF-8", at=at)
        name, *texts = (text_field(row, column, at=at) for column in COLUMNS)
        roles = ("system", "user", "assistant")
        yield {
            "dataset": "open_orca",
            "id": distinct(f"open_orca_{name}"),
            "messages": [
                {"role": role, "content": text} for role, text in zip(roles, texts, strict=True)
            ],
        }

    rows = _shuffled_rows(Path(raw_dir) / FILE, num_gpt4)
    return without_names(convert_rows(rows, convert, faults), faults, wanted=filter_names)


def _shuffled_rows(path: Path, count: int | None) -> Iterator[tuple[str, dict[str, Any] | None]]:
    """The first `count` rows of the shuffled file, each with its place (`file, row n` from 1)."""
    parquet = _open(path)
    try:
        order = list(range(_num_rows(parquet.metadata, path)))
        random.Random(SEED).shuffle(order)
        order = order[:count]
        with tempfile.SpooledTemporaryFile(_MEMORY_BYTES) as spool:
            where = _spool(parquet, set(order), spool, path)
            for index in order:
                spool.seek(where[index])
                yield f"{path}, row {index + 1}", json.loads(spool.readline())
    finally:
        parquet.close()


def _num_rows(metadata: Any, path: Path) -> int:
    """How many rows the file says it has."""
    groups = sum(metadata.row_group(n).num_rows for n in range(metadata.num_row_groups))
    if groups != metadata.num_rows:
        raise _damaged(f"{groups:,} rows in its groups, {metadata.num_rows:,} in all", path)
    return groups


def _spool(parquet: Any, wanted: set[int], spool: IO[bytes], path: Path) -> dict[int, int]:
    """Writes the wanted rows, one JSON line each, and says where each of them starts."""
    where: dict[int, int] = {}
    seen = 0
    try:
        for batch in parquet.iter_batches(_BATCH, columns=list(COLUMNS)):
            chosen = [n for n in range(batch.num_rows) if seen + n in wanted]
            rows = batch_rows(batch.take(chosen)) if chosen else []
            for n, row in zip(chosen, rows, strict=True):
                where[seen + n] = spool.tell()
                spool.write(json.dumps(row, default=_no_text).encode() + b"\n")
            seen += batch.num_rows
    except arrow_errors() as error:
        raise _damaged(error, path) from error
    if len(where) < len(wanted):
        raise _damaged(f"only {seen:,} of {parquet.metadata.num_rows:,} rows", path)
    return where


def _no_text(value: object) -> dict[str, str]:
    """What stands for a value that JSON cannot hold, and which is no text either."""
    return {"type": type(value).__name__}


def _open(path: Path) -> Any:
    """The Parquet file, once it is known to have the columns."""
    pyarrow_parquet = _pyarrow("pyarrow.parquet")
    try:
        parquet = pyarrow_parquet.ParquetFile(path)
    except FileNotFoundError as error:
        raise DataError("cannot read raw file", got=error.strerror, at=path) from error
    except arrow_errors() as error:
        raise _damaged(error, path) from error
    missing = [name for name in COLUMNS if name not in parquet.schema_arrow.names]
    if missing:
        parquet.close()
        raise DataError(
            f"raw file lacks columns: {', '.join(missing)}",
            got=", ".join(parquet.schema_arrow.names)[:200],
            at=path,
        )
    return parquet


def _pyarrow(module: str) -> Any:
    """A module of pyarrow, loaded only when there is Parquet to read."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise DataError(
            "open_orca comes as Parquet, which is read with pyarrow",
            got=error,
            do="pip install pyarrow",
        ) from error


def _damaged(error: object, path: Path) -> DataError:
    return DataError(
        "Parquet file cannot be read", got=str(error)[:200], at=path, do="download the file again"
    )


SPEC = register(
    DatasetSpec(
        name="open_orca",
        version="1.0.0",
        description="Questions of the FLAN collection, answered by GPT-4 with explanations.",
        citation="""@misc{OpenOrca,
  title = {OpenOrca: An Open Dataset of GPT Augmented FLAN Reasoning Traces},
  author = {Wing Lian and Bleys Goodson and Eugene Pentland and Austin Cook and Chanvichet Vong
            and "Teknium"},
  year = {2023},
  url = {https://huggingface.co/datasets/Open-Orca/OpenOrca},
}""",
        licence="MIT",
        homepage="https://huggingface.co/datasets/Open-Orca/OpenOrca",
        sources=(
            Source(f"https://huggingface.co/datasets/Open-Orca/OpenOrca/resolve/main/{FILE}", FILE),
        ),
        expected_examples={"train": 100_000},
        options={"num_gpt4": 100_000, "filter_names": False},
        read=read,
    )
)

TULU_V2 = register(
    replace(
        SPEC,
        task="tulu_v2_open_orca",
        expected_examples={"train": 30_000},
        options={"num_gpt4": 30_000, "filter_names": True},
    )
)
