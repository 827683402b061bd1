"""The files of a byte-level BPE tokenizer."""

from __future__ import annotations

import json

from tulu_jax.chat.bpe import BpeTokenizer
from tulu_jax.chat.bpe_file import GPT2_SPLIT
from tulu_jax.chat.export_parts import bos_in_front, special_tokens
from tulu_jax.chat.settings import DEFINITION_NAME, MERGES_NAME, VOCAB_NAME


def bpe_files(tokenizer: BpeTokenizer) -> dict[str, str]:
    """The content of `tokenizer.json`, and of GPT-2's two files where it was loaded from those."""
    own = tokenizer.definition
    ordinary = [token for token in own["added_tokens"] if not token["special"]]
    definition = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": sorted([*ordinary, *special_tokens(tokenizer)], key=lambda t: t["id"]),
        "normalizer": own["normalizer"],
        "pre_tokenizer": own["pre_tokenizer"],
        "post_processor": bos_in_front(tokenizer),
        "decoder": GPT2_SPLIT,
        "model": own["model"],
    }
    files = {DEFINITION_NAME: json.dumps(definition, ensure_ascii=False, indent=1) + "\n"}
    if tokenizer.path.name == VOCAB_NAME:
        files[VOCAB_NAME] = json.dumps(own["model"]["vocab"], ensure_ascii=False)
        merges = "".join(f"{left} {right}\n" for left, right in own["model"]["merges"])
        files[MERGES_NAME] = "#version: 0.2\n" + merges
    return files
