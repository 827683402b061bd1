"""The demo's tokenizer, which comes with the package: a SentencePiece model of 896 tokens."""

from __future__ import annotations

from pathlib import Path


def folder() -> str:
    """Where it lies, wherever the package is installed."""
    return str(Path(__file__).parent)
