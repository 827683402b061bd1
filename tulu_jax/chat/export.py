"""The tokenizer files of a Hugging Face folder, made so that every reader gets our tokens."""

from __future__ import annotations

import json
from pathlib import Path

from tulu_jax.chat.bpe import BpeTokenizer
from tulu_jax.chat.bpe_export import bpe_files
from tulu_jax.chat.export_parts import special_token, special_tokens
from tulu_jax.chat.settings import (
    CONFIG_NAME,
    DEFINITION_NAME,
    SENTENCEPIECE_NAME,
    SPECIAL_NAME,
    TEMPLATE_NAME,
    Json,
)
from tulu_jax.chat.spm import SentencePieceTokenizer
from tulu_jax.chat.spm_export import tokenizer_json
from tulu_jax.chat.template import hf_template
from tulu_jax.chat.tokenizer import Tokenizer
from tulu_jax.errors import TokenizerError

_NO_LIMIT = 10**30


def save_tokenizer_files(tokenizer: Tokenizer, folder: str | Path) -> list[Path]:
    """Writes the tokenizer into a Hugging Face folder and returns the files written.

    They are `tokenizer.json`, `tokenizer_config.json`, `special_tokens_map.json`,
    `chat_template.jinja`, and `tokenizer.model` or `vocab.json` with `merges.txt` where the
    tokenizer was loaded from those. Loaded by transformers, text becomes the tokens of the encoding
    `hf`, and `apply_chat_template` gives those of `encode` and `encode_prompt`, with
    `{% generation %}` blocks where loss falls. One difference is left: transformers takes text that
    looks like a special token (`</s>`) for the token, where `encode` keeps it text. (Outside
    conversations there is another with SentencePiece: a text that itself starts with a space gets
    no word-start mark besides it.)

    Raises:
        TokenizerError: the model cannot be written as `tokenizer.json` without changing tokens, or
            the folder cannot be written to.
    """
    folder = Path(folder)
    template = hf_template(tokenizer.hf_opening, tokenizer.template)
    contents = {
        **_main_files(tokenizer),
        CONFIG_NAME: dump(_config(tokenizer, template)),
        SPECIAL_NAME: dump(_special_map(tokenizer)),
        TEMPLATE_NAME: template.encode(),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            (folder / name).write_bytes(content)
    except OSError as error:
        raise TokenizerError(
            "tokenizer files cannot be written",
            got=error.strerror,
            at=folder,
            expected="a folder that can be written to, with some MB of space",
        ) from error
    return [folder / name for name in contents]


def _main_files(tokenizer: Tokenizer) -> dict[str, bytes]:
    """The files that hold pieces and merges."""
    match tokenizer:
        case SentencePieceTokenizer():
            definition = dump(tokenizer_json(tokenizer))
            return {SENTENCEPIECE_NAME: tokenizer.model_bytes, DEFINITION_NAME: definition}
        case BpeTokenizer():
            return {name: content.encode() for name, content in bpe_files(tokenizer).items()}
    raise TypeError(f"unknown kind of tokenizer: {type(tokenizer).__name__}")


def _named(tokenizer: Tokenizer) -> dict[str, str]:
    """The special tokens by the names that transformers gives them."""
    return {name: tokenizer.piece(i) for name, i in tokenizer.named_ids.items()}


def _special_map(tokenizer: Tokenizer) -> Json:
    parts = {name: special_token(piece) for name, piece in _named(tokenizer).items()}
    return {name: {k: v for k, v in part.items() if k != "special"} for name, part in parts.items()}


def _config(tokenizer: Tokenizer, template: str) -> Json:
    """The content of `tokenizer_config.json`, the chat template inside it."""
    added = {token.pop("id"): token for token in special_tokens(tokenizer)}
    common = {
        "add_bos_token": bool(tokenizer.start_ids),
        "add_eos_token": False,
        "added_tokens_decoder": {str(token): parts for token, parts in added.items()},
        **_named(tokenizer),
        "clean_up_tokenization_spaces": False,
        "model_max_length": _NO_LIMIT,
        "chat_template": template,
    }
    if isinstance(tokenizer, BpeTokenizer):
        return {"tokenizer_class": "PreTrainedTokenizerFast", "add_prefix_space": False, **common}
    return {
        "tokenizer_class": "LlamaTokenizer",
        "add_prefix_space": True,
        "legacy": False,
        "sp_model_kwargs": {},
        "spaces_between_special_tokens": False,
        "use_default_system_prompt": False,
        **common,
    }


def dump(value: Json) -> bytes:
    """A value as an indented JSON file."""
    return (json.dumps(value, ensure_ascii=False, indent=2) + "\n").encode("utf-8")
