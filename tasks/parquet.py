"""Rows of Parquet files, text that is not UTF-8 told apart."""

from __future__ import annotations

import importlib
from typing import Any


def batch_rows(batch: Any) -> list[dict[str, Any] | None]:
    """The rows of a pyarrow batch; None for one with text that is not UTF-8."""
    try:
        return batch.to_pylist()
    except UnicodeDecodeError:
        if batch.num_rows == 1:
            return [None]
        return [row for n in range(batch.num_rows) for row in batch_rows(batch.slice(n, 1))]


def arrow_errors() -> tuple[type[Exception], ...]:
    """What pyarrow raises for a file that is damaged."""
    return (importlib.import_module("pyarrow").ArrowException, OSError, ValueError)
