"""Hard-coded: 14 questions about the model itself with the answers it shall give (Tülu 2)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tasks.convert import convert_rows
from tasks.raw_files import as_text
from tasks.templates import single_turn
from tulu_jax.data.faults import Faults
from tulu_jax.data.specs import Conversation, DatasetSpec, Source, register
from tulu_jax.errors import DataError

FILE = "hard_coded_examples.xlsx"
COLUMNS = ("Prompt", "Output")


def read(
    raw_dir: Path, *, repeat: int = 1, faults: Faults | None = None, **_: Any
) -> Iterator[Conversation]:
    """The rows of the first sheet below its header, the whole sheet `repeat` times over.

    Ids repeat with their rows. Empty rows are passed over.

    Raises: DataError when openpyxl is missing, or the file, or one of the two columns.
    """
    for _repetition in range(repeat):
        yield from convert_rows(_rows(Path(raw_dir) / FILE), _convert, faults)


def _convert(index: int, row: dict[str, Any], *, at: str) -> Iterator[Conversation]:
    prompt, completion = (as_text(row[name], f"column {name!r}", at=at) for name in COLUMNS)
    yield single_turn("hard_coded", index, prompt=prompt, completion=completion)


def _rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    table = _read_sheet(path)
    header = list(table[0]) if table else []
    for name in COLUMNS:
        if name not in header:
            names = ", ".join(str(cell) for cell in header[:10] if cell is not None)
            raise DataError(f"spreadsheet has no column {name!r}", got=names or "none", at=path)
    for number, cells in enumerate(table[1:], start=2):
        row = dict(zip(header, cells, strict=False))
        if any(cell is not None for cell in cells):
            yield f"{path}, line {number}", {name: row.get(name) for name in COLUMNS}


def _read_sheet(path: Path) -> list[tuple[Any, ...]]:
    """The cells of the first sheet, row by row."""
    try:
        import openpyxl
    except ImportError as error:
        raise DataError(
            "reading a spreadsheet needs the package openpyxl", at=path, do="pip install openpyxl"
        ) from error
    if not path.is_file():
        raise DataError("cannot read raw file", got="No such file", at=path)
    try:
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
        rows = list(book.worksheets[0].iter_rows(values_only=True))
        book.close()
    except Exception as error:  # a broken file makes the package raise anything
        got = f"{type(error).__name__}: {error}"
        raise DataError("not a spreadsheet", got=got, at=path, expected=".xlsx") from error
    return rows


SPEC = register(
    DatasetSpec(
        name="hard_coded",
        version="1.0.0",
        description="Questions such as who made the model, with fixed answers.",
        citation="""@misc{ivison2023camels,
  title = {Camels in a Changing Climate: Enhancing LM Adaptation with Tulu 2},
  author = {Hamish Ivison and Yizhong Wang and Valentina Pyatkin and Nathan Lambert and
            Matthew Peters and Pradeep Dasigi and Joel Jang and David Wadden and Noah A. Smith and
            Iz Beltagy and Hannaneh Hajishirzi},
  year = {2023},
  eprint = {2311.10702},
  archivePrefix = {arXiv},
}""",
        licence="unstated; by the authors of Tülu 2",
        homepage="https://huggingface.co/datasets/hamishivi/tulu_mix_store",
        sources=(
            Source(
                f"https://huggingface.co/datasets/hamishivi/tulu_mix_store/resolve/main/{FILE}",
                FILE,
            ),
        ),
        expected_examples={"train": 14},
        options={"repeat": 1},
        read=read,
    )
)

TULU_V2 = register(
    dataclasses.replace(
        SPEC,
        task="tulu_v2_hard_coded",
        expected_examples={"train": 140},
        options={"repeat": 10},
    )
)
