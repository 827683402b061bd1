"""The `tokenizer.json` of a SentencePiece tokenizer.

transformers builds its tokenizer from `tokenizer.json`; without one it converts `tokenizer.model`
on the spot, and version 5 then merges runs of spaces in the wrong order. So `tokenizer.json` is
written here from the SentencePiece model, and compared with it before it is trusted.
"""

from __future__ import annotations

import json

from tulu_jax.chat.export_parts import bos_in_front, special_tokens
from tulu_jax.chat.settings import Json
from tulu_jax.chat.spm import SentencePieceTokenizer
from tulu_jax.errors import TokenizerError

_SPACE = "▁"

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


def tokenizer_json(tokenizer: SentencePieceTokenizer) -> Json:
    """The content of `tokenizer.json`: the model's pieces and merges in the format of `tokenizers`.

    Raises:
        TokenizerError: the model is not a BPE model, has pieces that the format cannot hold, or
            would segment otherwise.
    """
    vocab = {tokenizer.model.id_to_piece(i): i for i in range(tokenizer.model.vocab_size())}
    _check_exportable(tokenizer, len(vocab))
    definition = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": special_tokens(tokenizer),
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Metaspace",
            "replacement": _SPACE,
            "prepend_scheme": "first",
            "split": False,
        },
        "post_processor": bos_in_front(tokenizer),
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
    _check_same(tokenizer, definition)
    return definition


def _merges(tokenizer: SentencePieceTokenizer) -> list[str]:
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


def _check_exportable(tokenizer: SentencePieceTokenizer, num_pieces: int) -> None:
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


def _check_same(tokenizer: SentencePieceTokenizer, definition: Json) -> None:
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
