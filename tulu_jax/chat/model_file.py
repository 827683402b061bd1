"""Reads the settings inside a SentencePiece `tokenizer.model` (a protocol buffer).

The `sentencepiece` package gives pieces and scores but not the settings that decide whether our
masks and the exported `tokenizer.json` are right. They are read here from the wire format directly:
the generated protobuf module would clash with other packages' copies of the same definition.

Source: google/sentencepiece `src/sentencepiece_model.proto`; protobuf's encoding guide.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tulu_jax.errors import TokenizerError
from tulu_jax.files import HEAD_BYTES, text_in

MODEL_TYPES = {1: "unigram", 2: "bpe", 3: "word", 4: "char"}

_PIECES, _TRAINER, _NORMALIZER = 1, 2, 3
_USER_DEFINED, _UNUSED = 4, 5


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """How a SentencePiece model was trained and how it treats text before segmenting it."""

    model_type: str
    byte_fallback: bool
    whitespace_as_suffix: bool
    rewrites_text: bool
    add_dummy_prefix: bool
    remove_extra_whitespaces: bool
    escape_whitespaces: bool
    num_pieces: int
    unusual_pieces: int
    """How many pieces are user-defined or unused."""


def read_settings(data: bytes, at: object) -> ModelSettings:
    """The settings of the model whose file content is `data`; `at` names the file.

    Raises:
        TokenizerError: the bytes are not a whole SentencePiece model.
    """
    text = text_in(data[:HEAD_BYTES])
    if text is not None:
        raise _corrupt(at, text)
    try:
        fields = list(_fields(data))
    except (IndexError, ValueError) as error:
        raise _corrupt(at, str(error)) from error
    parts = {number: value for number, value in fields if number in (_TRAINER, _NORMALIZER)}
    num_pieces = sum(number == _PIECES for number, _ in fields)
    if len(parts) < 2 or not num_pieces or not all(isinstance(p, bytes) for p in parts.values()):
        raise _corrupt(at, f"{num_pieces} pieces and {len(parts)} of 2 settings blocks")
    try:
        trainer = dict(_fields(_as_bytes(parts[_TRAINER])))
        normalizer = dict(_fields(_as_bytes(parts[_NORMALIZER])))
        pieces = [dict(_fields(_as_bytes(value))) for number, value in fields if number == _PIECES]
    except (IndexError, ValueError) as error:
        raise _corrupt(at, str(error)) from error
    unusual = sum(piece.get(3, 1) in (_USER_DEFINED, _UNUSED) for piece in pieces)
    return ModelSettings(
        model_type=MODEL_TYPES.get(_as_int(trainer.get(3, 1)), "unknown"),
        byte_fallback=bool(trainer.get(35, 0)),
        whitespace_as_suffix=bool(trainer.get(24, 0)),
        rewrites_text=bool(normalizer.get(2, b"")),
        add_dummy_prefix=bool(normalizer.get(3, 1)),
        remove_extra_whitespaces=bool(normalizer.get(4, 1)),
        escape_whitespaces=bool(normalizer.get(5, 1)),
        num_pieces=num_pieces,
        unusual_pieces=unusual,
    )


def _corrupt(at: object, found: str) -> TokenizerError:
    return TokenizerError(
        "tokenizer model is corrupt or cut off",
        got=found,
        at=at,
        expected="a SentencePiece model file",
        do="copy or download it again",
    )


def _as_int(value: int | bytes) -> int:
    return value if isinstance(value, int) else 0


def _as_bytes(value: int | bytes) -> bytes:
    return value if isinstance(value, bytes) else b""


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """The base-128 number that starts at byte `at`, and the position after it."""
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
        if shift > 63:
            raise ValueError(f"a number longer than 64 bits at byte {at}")


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The (field number, value) pairs of one protobuf message, in file order."""
    at, end = 0, len(data)
    while at < end:
        tag, at = _varint(data, at)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            value, at = _varint(data, at)
            yield number, value
            continue
        if wire == 2:
            size, at = _varint(data, at)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise ValueError(f"wire type {wire} at byte {at}")
        if at + size > end:
            raise ValueError(f"the file ends at byte {end}, inside a field of {size} bytes")
        yield number, data[at : at + size]
        at += size
