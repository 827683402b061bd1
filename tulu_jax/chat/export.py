"""The tokenizer files of a Hugging Face folder, made so that every reader gets our tokens.

transformers builds its tokenizer from `tokenizer.json`; without one it converts `tokenizer.model`
on the spot, and version 5 then merges runs of spaces in the wrong order. So `tokenizer.json` is
written here from the SentencePiece model, and compared with it before it is trusted.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tulu_jax.chat.template import CHAT_TEMPLATE
from tulu_jax.chat.tokenizer import CONFIG_NAME, MODEL_NAME, Tokenizer
from tulu_jax.errors import TokenizerError

Json = dict[str, Any]

_SPACE = "▁"
_NO_LIMIT = 10**30

PROBES = (
    "Hello there, world! It's 3.14 or 1,000,000.",
    "def f(x):\n    for y in x:\n\tif y:\n            return {'a': [1, 2]}\r\n\r\n",
    "naïve café – “quoted” …",
    "中文 العربية हिन्दी 日本語 한국어 \u200b🐫👩‍👩‍👧 e\u0301 \x00\x7f\ufeff",
    "word ▁ ▁▁  a ▁b, and spaces at the end   ",
    "\n\n\n<|user|>\n<|assistant|>\n",
    *("x" + " " * n + "y" for n in range(1, 40)),
    *("\n" + " " * n for n in range(1, 40)),
)
"""Texts on which an exported tokenizer must agree with its SentencePiece model."""


def save_tokenizer_files(tokenizer: Tokenizer, folder: str | Path) -> list[Path]:
    """Writes the tokenizer into a Hugging Face folder and returns the files written.

    They are `tokenizer.model`, `tokenizer.json`, `tokenizer_config.json`, `special_tokens_map.json`
    and `chat_template.jinja`. Loaded by transformers, text becomes the tokens of the encoding `hf`,
    and `apply_chat_template` gives those of `encode` and `encode_prompt`, with `{% generation %}`
    blocks where loss falls. One difference is left: transformers takes text that looks like a
    special token (`</s>`) for the token, where `encode` keeps it text. (Outside conversations there
    is another: a text that itself starts with a space gets no word-start mark besides it.)

    Raises:
        TokenizerError: the model cannot be written as `tokenizer.json` without changing tokens, or
            the folder cannot be written to.
    """
    definition = tokenizer_json(tokenizer)
    _check_same(tokenizer, definition)
    folder = Path(folder)
    contents = {
        MODEL_NAME: tokenizer.model_bytes,
        "tokenizer.json": _dump(definition),
        CONFIG_NAME: _dump(_config(tokenizer)),
        "special_tokens_map.json": _dump(_special_map(tokenizer)),
        "chat_template.jinja": CHAT_TEMPLATE.encode(),
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


def tokenizer_json(tokenizer: Tokenizer) -> Json:
    """The content of `tokenizer.json`: the model's pieces and merges in the format of `tokenizers`.

    Raises:
        TokenizerError: the model is not a BPE model, or has pieces that the format cannot hold.
    """
    vocab = {tokenizer.model.id_to_piece(i): i for i in range(tokenizer.model.vocab_size())}
    _check_exportable(tokenizer, len(vocab))
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": i, **_added(piece)} for i, piece in _specials(tokenizer)],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Metaspace",
            "replacement": _SPACE,
            "prepend_scheme": "first",
            "split": False,
        },
        "post_processor": _bos_in_front(tokenizer),
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": _SPACE}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0},
            ],
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": tokenizer.piece(tokenizer.unk_id),
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": vocab,
            "merges": _merges(tokenizer),
        },
    }


def _bos_in_front(tokenizer: Tokenizer) -> Json:
    """The rule that puts BOS before each text, for those who tokenize with special tokens."""
    bos = tokenizer.piece(tokenizer.bos_id)
    first = [{"SpecialToken": {"id": bos, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    second = [{"SpecialToken": {"id": bos, "type_id": 1}}, {"Sequence": {"id": "B", "type_id": 1}}]
    return {
        "type": "TemplateProcessing",
        "single": first,
        "pair": [*first, *second],
        "special_tokens": {bos: {"id": bos, "ids": [tokenizer.bos_id], "tokens": [bos]}},
    }


def _merges(tokenizer: Tokenizer) -> list[str]:
    """Every way to join two pieces into a third ("left right"), as SentencePiece ranks them.

    SentencePiece joins the pair whose result scores best, and of equals the leftmost. A merge list
    ranks pairs instead, so results of equal score need an order that comes to the same: the longest
    first, and of one result the longest left part. LLaMA's 15 runs of spaces share one score, and
    this order eats such a run from the left as SentencePiece does.
    """
    model = tokenizer.model
    scores = {
        model.id_to_piece(i): model.get_score(i)
        for i in range(model.vocab_size())
        if not (model.is_control(i) or model.is_unknown(i) or model.is_byte(i))
    }
    longer = [piece for piece in scores if len(piece) > 1]
    longer.sort(key=lambda piece: (-scores[piece], -len(piece)))
    return [
        f"{piece[:cut]} {piece[cut:]}"
        for piece in longer
        for cut in range(len(piece) - 1, 0, -1)
        if piece[:cut] in scores and piece[cut:] in scores
    ]


def _specials(tokenizer: Tokenizer) -> list[tuple[int, str]]:
    """The special tokens (id, piece), by id."""
    return [(i, tokenizer.piece(i)) for i in sorted(tokenizer.special_ids)]


def _added(piece: str) -> Json:
    """A special token as Hugging Face files describe it: nothing around it is stripped."""
    return {
        "content": piece,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": True,
    }


def _named(tokenizer: Tokenizer) -> dict[str, str]:
    """The special tokens by the names that transformers gives them."""
    ids = {
        "bos_token": tokenizer.bos_id,
        "eos_token": tokenizer.eos_id,
        "unk_token": tokenizer.unk_id,
        "pad_token": tokenizer.pad_id,
    }
    return {name: tokenizer.piece(i) for name, i in ids.items() if i is not None}


def _special_map(tokenizer: Tokenizer) -> Json:
    parts = {name: _added(piece) for name, piece in _named(tokenizer).items()}
    return {name: {k: v for k, v in part.items() if k != "special"} for name, part in parts.items()}


def _config(tokenizer: Tokenizer) -> Json:
    """The content of `tokenizer_config.json`, the chat template inside it."""
    return {
        "tokenizer_class": "LlamaTokenizer",
        "add_bos_token": True,
        "add_eos_token": False,
        "add_prefix_space": True,
        "legacy": False,
        "added_tokens_decoder": {str(i): _added(piece) for i, piece in _specials(tokenizer)},
        **_named(tokenizer),
        "clean_up_tokenization_spaces": False,
        "model_max_length": _NO_LIMIT,
        "sp_model_kwargs": {},
        "spaces_between_special_tokens": False,
        "use_default_system_prompt": False,
        "chat_template": CHAT_TEMPLATE,
    }


def _dump(value: Json) -> bytes:
    return (json.dumps(value, ensure_ascii=False, indent=2) + "\n").encode("utf-8")


def _check_exportable(tokenizer: Tokenizer, num_pieces: int) -> None:
    """Passes when `tokenizer.json` can hold the model."""
    model, settings = tokenizer.model, tokenizer.settings
    if settings.model_type != "bpe" or not settings.add_dummy_prefix:
        found = f"a {settings.model_type} model, add_dummy_prefix={settings.add_dummy_prefix}"
        raise TokenizerError(
            "tokenizer cannot be exported to tokenizer.json",
            got=found,
            at=tokenizer.path,
            expected="a BPE model with add_dummy_prefix",
            do="train the tokenizer with model_type='bpe'",
        )
    odd = settings.unusual_pieces
    if odd or num_pieces != model.vocab_size():
        raise TokenizerError(
            "tokenizer cannot be exported to tokenizer.json",
            got=f"{odd} user-defined or unused, {model.vocab_size() - num_pieces} repeated pieces",
            at=tokenizer.path,
            expected="none",
            do="train the tokenizer without user_defined_symbols",
        )


def _check_same(tokenizer: Tokenizer, definition: Json) -> None:
    """Passes when the exported tokenizer segments the probes as SentencePiece does."""
    from tokenizers import Tokenizer as Exported

    exported = Exported.from_str(json.dumps(definition))
    for text in PROBES:
        ours = tokenizer.encode_text(text)
        theirs = exported.encode(text, add_special_tokens=False).ids
        if ours != theirs:
            raise TokenizerError(
                "exported tokenizer.json does not segment as tokenizer.model does",
                got=theirs[:20],
                at=f"{tokenizer.path}, text {text[:40]!r}",
                expected=ours[:20],
            )
