"""Finds a tokenizer's files and loads the kind they are of."""

from __future__ import annotations

from pathlib import Path
from typing import cast, get_args

from tulu_jax.chat.bpe import load_bpe
from tulu_jax.chat.settings import (
    DEFINITION_NAME,
    MERGES_NAME,
    SENTENCEPIECE_NAME,
    VOCAB_NAME,
    find_main,
)
from tulu_jax.chat.spm import load_sentencepiece
from tulu_jax.chat.tokenizer import Encoding, Tokenizer
from tulu_jax.errors import TokenizerError

EXPECTED = f"{SENTENCEPIECE_NAME}, {DEFINITION_NAME}, or {VOCAB_NAME} with {MERGES_NAME}"


def load_tokenizer(path: str | Path, encoding: str = "hf") -> Tokenizer:
    """The tokenizer in a folder, of one of the files below, or of a run folder.

    What the folder holds decides the kind, the first of: `tokenizer.model` (SentencePiece: LLaMA),
    `tokenizer.json` (byte-level BPE: Pythia, Llama 3), `vocab.json` with `merges.txt` (GPT-2's
    byte-level BPE: OPT; with encoding `paper` they come before `tokenizer.json`).
    `tokenizer_config.json` or `special_tokens_map.json` beside them may name the special tokens and
    add a padding token.

    Raises:
        TokenizerError: nothing there, a corrupt file, an unusable model, or special tokens that are
            missing or clash (`load_sentencepiece`, `load_bpe`).
    """
    if encoding not in get_args(Encoding):
        raise TokenizerError("unknown encoding", got=repr(encoding), expected="'hf' or 'paper'")
    known = cast(Encoding, encoding)
    file = _find(Path(path))
    if file.suffix != ".json":
        return load_sentencepiece(file, known)
    slow = file.with_name(VOCAB_NAME)
    return load_bpe(slow if known == "paper" and slow.is_file() else file, known)


def _find(path: Path) -> Path:
    """The main file of the tokenizer at `path`."""
    file = find_main(path)
    if file is not None:
        return file
    if not path.exists():
        raise TokenizerError(
            "tokenizer folder does not exist", got=str(path), expected=f"a folder with {EXPECTED}"
        )
    found = ", ".join(sorted(p.name for p in path.iterdir())[:8]) or "an empty folder"
    raise TokenizerError("folder holds no tokenizer", got=found, at=path, expected=EXPECTED)
