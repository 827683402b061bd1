"""Facts of every conversation, the large ones in temporary files rather than in memory."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from array import array
from pathlib import Path
from types import TracebackType

import numpy as np
from jaxtyping import UInt32

from tulu_jax.inspect.check.duplicates import PERMUTATIONS
from tulu_jax.inspect.check.examine import Examined
from tulu_jax.inspect.check.temporary import temporary_files


class Spool:
    """Rows of facts, one a conversation in the order they came. A context: it deletes its files.

    In memory a row takes 37 bytes; on disk 512 for its signature, and its id.
    """

    def __init__(self) -> None:
        """An empty spool in a new temporary folder.

        Raises: DataError when nothing can be written there; so do the other methods.
        """
        with temporary_files():
            self._open()

    def _open(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="tulu-check-"))
        self._signature_file = open(self._folder / "signatures", "wb")  # noqa: SIM115
        self._id_file = open(self._folder / "ids", "w+b")  # noqa: SIM115
        self._id_ends = array("Q", [0])
        self._columns = {name: array(code) for name, code in _COLUMNS.items()}

    def __enter__(self) -> Spool:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for file in (self._signature_file, self._id_file):
            with contextlib.suppress(OSError):  # what could not be written is not read any more
                file.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def __len__(self) -> int:
        """How many rows there are."""
        return len(self._id_ends) - 1

    def add(self, examined: Examined) -> None:
        """Appends the chunk's rows."""
        for name, column in self._columns.items():
            column.frombytes(np.ascontiguousarray(getattr(examined, name)).tobytes())
        encoded = [text.encode("utf-8", "replace") for text in examined.ids]
        with temporary_files():
            self._signature_file.write(examined.signatures.tobytes())
            self._id_file.write(b"".join(encoded))
        for text in encoded:
            self._id_ends.append(self._id_ends[-1] + len(text))

    def column(self, name: str) -> np.ndarray:
        """One fact of all rows: the field of that name of `Examined`."""
        dtype = bool if name == "signed" else _COLUMNS[name]
        return np.frombuffer(self._columns[name], dtype=dtype)

    def signatures(self) -> UInt32[np.ndarray, "rows 128"]:
        """All rows' signatures, read from the file as they are needed."""
        with temporary_files():
            self._signature_file.flush()
        if not len(self):
            return np.empty((0, PERMUTATIONS), np.uint32)
        path = self._folder / "signatures"
        return np.memmap(path, np.uint32, mode="r", shape=(len(self), PERMUTATIONS))

    def id(self, row: int) -> str:
        """The id of one row."""
        with temporary_files():
            self._id_file.flush()
        start, end = self._id_ends[row], self._id_ends[row + 1]
        self._id_file.seek(start)
        text = self._id_file.read(end - start).decode()
        self._id_file.seek(0, 2)
        return text


_COLUMNS = {
    "conversation_keys": "Q",
    "prompt_keys": "Q",
    "prompt_words": "I",
    "answer_words": "I",
    "signed": "B",
}
"""Facts kept in memory, with the type code that `array` and NumPy both know."""
