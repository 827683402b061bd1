"""Temporary files of a check, and what is said when there is no room for them."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator

from tulu_jax.errors import DataError


@contextlib.contextmanager
def temporary_files() -> Iterator[None]:
    """Turns what the operating system says about temporary files into words.

    Raises: DataError.
    """
    try:
        yield
    except OSError as error:
        raise DataError(
            "a check cannot keep its temporary files",
            got=error.strerror or str(error),
            at=tempfile.gettempdir(),
            do="free some space, or set TMPDIR to a folder with more",
        ) from error
