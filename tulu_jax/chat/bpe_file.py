"""Reads byte-level BPE tokenizers from `tokenizer.json`, or from `vocab.json` and `merges.txt`.

Both become one thing, the content of a `tokenizer.json`, and are checked alike: what would lose
text, change it, or blur where loss begins is refused. One change is let through, because Pythia
was trained with it: Unicode normalisation to NFC.

Source: the file format of huggingface/tokenizers; GPT-2's `encoder.py` (openai/gpt-2).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from tulu_jax.chat.settings import MERGES_NAME, VOCAB_NAME, Json, json_if_there
from tulu_jax.errors import TokenizerError
from tulu_jax.files import json_sha256

GPT2_SPLIT: Json = {
    "type": "ByteLevel",
    "add_prefix_space": False,
    "trim_offsets": False,
    "use_regex": True,
}
"""GPT-2's pre-tokenizer, also that of GPT-NeoX and OPT."""

UTF8_BYTES = frozenset(range(256)) - {0xC0, 0xC1, *range(0xF5, 0x100)}
"""The bytes that occur in text."""

LLAMA3_REGEX = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""How Llama 3's pre-tokenizer cuts text before it takes bytes."""


@cache
def byte_characters() -> dict[str, int]:
    """The character that stands for each byte in pieces, and that byte.

    Printable Latin-1 bytes stand for themselves, the others for characters from U+0100 on.

    >>> byte_characters()["A"], byte_characters()["Ġ"], byte_characters()["Ċ"]
    (65, 32, 10)
    """
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in plain]
    return {
        **{chr(byte): byte for byte in plain},
        **{chr(256 + place): byte for place, byte in enumerate(others)},
    }


def read_definition(file: Path) -> Json:
    """The content of a `tokenizer.json`, or of one made from `vocab.json` and `merges.txt`.

    Only what decides tokens is kept: normalizer, pre-tokenizer, model, added tokens and
    post-processor, in one spelling each.

    Raises:
        TokenizerError: a file is missing or corrupt, or the tokenizer is one of those refused.
    """
    content = _from_vocab(file) if file.name == VOCAB_NAME else json_if_there(file)
    model = content.get("model")
    if not isinstance(model, dict) or not isinstance(model.get("vocab"), dict | list):
        raise _corrupt(file, "no model with a vocabulary")
    kind = model.get("type", "BPE" if "merges" in model else "unknown")
    if kind != "BPE" or model.get("byte_fallback"):
        raise TokenizerError(
            "tokenizer model is not supported",
            got="BPE with byte fallback" if kind == "BPE" else kind,
            at=file,
            expected="byte-level BPE (GPT-2, GPT-NeoX, Llama 3)",
            do="for a SentencePiece tokenizer put its tokenizer.model beside it",
        )
    definition = {
        "normalizer": content.get("normalizer"),
        "pre_tokenizer": _split(content.get("pre_tokenizer")),
        "post_processor": content.get("post_processor"),
        "added_tokens": content.get("added_tokens") or [],
        "model": _model(model, file),
    }
    _check_steps(definition, file)
    _check_model(model, file)
    _check_added(definition["added_tokens"], file)
    return definition


def segmentation_digest(definition: Json) -> str:
    """A SHA-256 (hex) of what decides how ordinary text is segmented."""
    plain = sorted((t["id"], t["content"]) for t in definition["added_tokens"] if not t["special"])
    parts = [definition[name] for name in ("normalizer", "pre_tokenizer", "model")]
    return json_sha256([*parts, plain])


def _from_vocab(file: Path) -> Json:
    """The content of a `tokenizer.json` with the vocabulary and merges of GPT-2's two files."""
    merges_file = file.with_name(MERGES_NAME)
    if not merges_file.is_file():
        raise TokenizerError(
            f"folder holds {VOCAB_NAME} but no {MERGES_NAME}",
            at=file.parent,
            expected="both files of a GPT-2 tokenizer",
            do="download it too",
        )
    try:
        lines = merges_file.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise _corrupt(merges_file, str(error)) from error
    merges: list[list[str]] = []
    for number, line in enumerate(lines, 1):
        if not line.strip() or (number == 1 and line.startswith("#version")):
            continue
        pair = line.rstrip("\r").split(" ")
        if len(pair) != 2 or not all(pair):
            raise _corrupt(f"{merges_file}, line {number}", repr(line[:80]))
        merges.append(pair)
    model = {"type": "BPE", "vocab": json_if_there(file), "merges": merges}
    return {"pre_tokenizer": GPT2_SPLIT, "model": model}


def _model(model: Json, file: Path) -> Json:
    """The BPE model in one spelling: merges as pairs."""
    try:
        merges = [m.split(" ") if isinstance(m, str) else [*m] for m in model["merges"]]
        vocab = {str(piece): int(token) for piece, token in model["vocab"].items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _corrupt(file, f"{type(error).__name__} in vocabulary or merges") from error
    if len(set(vocab.values())) != len(vocab) or min(vocab.values(), default=-1) < 0:
        raise _corrupt(file, "a vocabulary with repeated or negative ids")
    return {
        "type": "BPE",
        "vocab": vocab,
        "merges": merges,
        "ignore_merges": bool(model.get("ignore_merges")),
    }


def _split(pre_tokenizer: Any) -> Any:
    """A pre-tokenizer in one spelling; offsets decide no token."""
    if not isinstance(pre_tokenizer, dict):
        return pre_tokenizer
    if pre_tokenizer.get("type") == "Sequence":
        steps = [_split(step) for step in pre_tokenizer.get("pretokenizers", [])]
        return {"type": "Sequence", "pretokenizers": steps}
    if pre_tokenizer.get("type") == "ByteLevel":
        return {
            "type": "ByteLevel",
            "add_prefix_space": bool(pre_tokenizer.get("add_prefix_space", True)),
            "trim_offsets": False,
            "use_regex": bool(pre_tokenizer.get("use_regex", True)),
        }
    return pre_tokenizer


def is_llama3_split(pre_tokenizer: Json) -> bool:
    """Whether text is cut by Llama 3's regular expression, and by nothing else."""
    step = {"type": "Split", "pattern": {"Regex": LLAMA3_REGEX}, "behavior": "Isolated"}
    last = {**GPT2_SPLIT, "use_regex": False}
    steps = [step | {"invert": False}, last]
    return pre_tokenizer == {"type": "Sequence", "pretokenizers": steps}


def _check_steps(definition: Json, file: Path) -> None:
    """Passes when nothing before the model changes text, NFC apart."""
    normalizer = definition["normalizer"]
    if normalizer not in (None, {"type": "NFC"}, {"type": "Sequence", "normalizers": []}):
        raise TokenizerError(
            "tokenizer rewrites text",
            got=json.dumps(normalizer, ensure_ascii=False)[:200],
            at=file,
            expected="no normalizer, or NFC",
            do="train or choose another tokenizer",
        )
    found = definition["pre_tokenizer"] or {}
    steps = found.get("pretokenizers", [found])
    last = steps[-1] if steps else {}
    if last.get("type") != "ByteLevel" or last["add_prefix_space"]:
        raise TokenizerError(
            "tokenizer does not take text as bytes"
            if last.get("type") != "ByteLevel"
            else "tokenizer puts a space before text",
            got=json.dumps(found, ensure_ascii=False)[:200],
            at=file,
            expected='a "ByteLevel" pre-tokenizer with "add_prefix_space": false',
            do="train or choose another tokenizer",
        )


def _check_model(model: Json, file: Path) -> None:
    """Passes when every byte of UTF-8 has a piece and merging is what it is in GPT-2."""
    odd = {
        name: model[name]
        for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix")
        if model.get(name)
    }
    if odd:
        raise TokenizerError(
            "tokenizer merges in an unusual way", got=odd, at=file, expected="GPT-2's BPE"
        )
    pieces = model["vocab"]
    lacking = [b for char, b in byte_characters().items() if b in UTF8_BYTES and char not in pieces]
    if lacking:
        raise TokenizerError(
            "tokenizer lacks bytes, so unknown characters would be lost",
            got=f"no piece for {len(lacking)} bytes, e.g. 0x{lacking[0]:02X}",
            at=file,
            expected="a piece for each byte that text can hold",
            do="train or choose another tokenizer",
        )


def _check_added(added: Any, file: Path) -> None:
    """Passes when added tokens are whole, and ordinary ones keep to their own place in text."""
    for token in added if isinstance(added, list) else [None]:
        if not isinstance(token, dict) or not isinstance(token.get("content"), str):
            raise _corrupt(file, "added tokens without content")
        token["special"] = bool(token.get("special"))
        reaches = token.get("lstrip") or token.get("rstrip") or "\n" in token["content"]
        if not isinstance(token.get("id"), int):
            raise _corrupt(file, "added tokens without id")
        if reaches and not token["special"]:
            raise TokenizerError(
                "tokenizer joins newlines to other text, so loss masks would be ambiguous",
                got=f"the added token {token['content']!r}",
                at=file,
                expected="a newline to be apart from added tokens",
            )


@contextmanager
def well_formed(file: Path) -> Iterator[None]:
    """Says in words that a part of the file is of another type than it has in every tokenizer.

    Raises: TokenizerError.
    """
    try:
        yield
    except TokenizerError:
        raise
    except (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise _corrupt(file, f"{type(error).__name__}: {error}"[:200]) from error


def _corrupt(at: object, found: str) -> TokenizerError:
    return TokenizerError(
        "tokenizer file is corrupt or cut off", got=found, at=at, do="copy or download it again"
    )
