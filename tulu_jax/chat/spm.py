"""SentencePiece tokenizers: LLaMA's, and any other trained with settings that keep all text.

Loading checks everything that would otherwise make masks or text silently wrong later.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tulu_jax.axes import TokenIds
from tulu_jax.chat.added import AddTokens, tokens_to_add
from tulu_jax.chat.config_rules import check_ids
from tulu_jax.chat.model_file import ModelSettings, read_settings
from tulu_jax.chat.segments import ChatTemplate
from tulu_jax.chat.settings import (
    CONFIG_NAME,
    Json,
    check_kind,
    read_config,
    token_text,
)
from tulu_jax.chat.spm_added import added_behind, check_more_special
from tulu_jax.chat.tokenizer import Encoding, Tokenizer, check_special_text
from tulu_jax.chat.words import WordCache, at_spaces, whole
from tulu_jax.errors import TokenizerError
from tulu_jax.files import real_path, sha256

if TYPE_CHECKING:
    import sentencepiece

Find = Callable[[str], int | None]
"""The id of a piece, or None."""


@dataclass(frozen=True, eq=False, kw_only=True)
class SentencePieceTokenizer(Tokenizer):
    """A tokenizer whose main file is `tokenizer.model`."""

    settings: ModelSettings
    model: sentencepiece.SentencePieceProcessor = field(repr=False)
    model_bytes: bytes = field(repr=False)
    added: tuple[str, ...] = ()
    """Special tokens behind the model's last piece, by id; padding that is the last not counted."""

    unk_id: int

    @property
    def num_pieces(self) -> int:
        """How many pieces the model has, with those that were added."""
        return self.model.vocab_size() + len(self.added)

    @property
    def segmentation(self) -> str:
        """The SHA-256 (hex) of the model file."""
        return sha256(self.model_bytes)

    def hf_opening_of(self, template: ChatTemplate) -> str:
        """BOS, and a space that stands for the word-start mark before a text's first word.

        Hugging Face tokenizers leave that mark out after a special token, and so do our tokens
        in every chat template but Tülu's.
        """
        if template.name == "tulu":
            return "''" if self.bos_id is None else "bos_token + ' '"
        return "bos_token"

    @cached_property
    def special_ids(self) -> frozenset[int]:
        """The ids that stand for no text: BOS, EOS, unknown, padding, other control pieces."""
        size = self.model.vocab_size()
        control = (i for i in range(size) if self.model.is_control(i))
        added = range(size, self.num_pieces)
        return frozenset([*control, *added, *self.named_ids.values(), *self.template_ids.values()])

    def token_id(self, piece: str) -> int | None:
        """The id of a piece, or None where there is no such piece."""
        if piece == self.pad_piece:
            return self.pad_id
        if piece in self.added:
            return self.model.vocab_size() + self.added.index(piece)
        return _piece_id(self.model, piece)

    @cached_property
    def piece_bytes(self) -> np.ndarray:
        """How many bytes of text each id stands for; 0 for special ones."""
        sizes = np.zeros(self.vocab_size, np.int32)
        for i in range(self.model.vocab_size()):
            if i not in self.special_ids:
                piece = self.model.id_to_piece(i)
                sizes[i] = 1 if self.model.is_byte(i) else self.text_bytes(piece)
        return sizes

    def token_bytes(self, token: int) -> bytes:
        """The bytes that a token stands for, or a special one's name."""
        piece = self.piece(token)
        if token in self.special_ids:
            return piece.encode()
        if token < self.model.vocab_size() and self.model.is_byte(token):
            return bytes([int(piece[1:-1], 16)])
        return piece.replace("▁", " ").encode()

    def text_bytes(self, text: str) -> int:
        """How many bytes a text has; the mark U+2581 and the space are one here."""
        return len(text.replace("▁", " ").encode())

    def opening(self, text: str) -> str:
        """The text behind the space that SentencePiece puts before a text's first word."""
        return " " + text if text and self.settings.add_dummy_prefix else text

    def encode_after_newline(self, texts: Sequence[str], *, threads: int = 1) -> list[TokenIds]:
        """The token ids of texts that follow a newline (and so get no word-start mark in front)."""
        return self._words(texts, threads)

    @cached_property
    def newline_ids(self) -> list[int]:
        """The ids of a text that is one newline: the word-start mark, if any, and the newline."""
        return self.model.encode("\n")

    @cached_property
    def _words(self) -> WordCache:
        """Words apart have the tokens they have together if BPE can merge nothing across them."""
        pieces = map(self.model.id_to_piece, range(self.model.vocab_size()))
        apart = self.settings.model_type == "bpe" and not any(
            re.search("[^▁]▁", piece) for piece in pieces
        )
        return WordCache(at_spaces if apart else whole, self._encode_words)

    def _encode_words(self, words: list[str], threads: int) -> list[list[int]]:
        skip = len(self.newline_ids)
        encoded = self.model.encode(["\n" + word for word in words], num_threads=threads)
        return [ids[skip:] for ids in encoded]

    def _piece(self, token: int) -> str:
        size = self.model.vocab_size()
        return self.model.id_to_piece(token) if token < size else self.added[token - size]

    def _decode_run(self, ids: list[int], at_start: bool) -> str:
        if at_start:
            return self.model.decode(ids)
        return self.model.decode(self.newline_ids + ids)[1:]


def load_sentencepiece(
    file: Path, encoding: Encoding, template: ChatTemplate, add_tokens: AddTokens = ()
) -> SentencePieceTokenizer:
    """The tokenizer of a model file and the Hugging Face settings beside it.

    Raises:
        TokenizerError: a corrupt file, an unusable model (see `_check_model`), special tokens
            that are missing or clash, or tokens to add that are there.
    """
    data, settings, model = _read_model(file)
    config = read_config(file)
    added = added_behind(config, model.vocab_size(), template, file.parent)

    def find(piece: str) -> int | None:
        own = _piece_id(model, piece)
        return model.vocab_size() + added.index(piece) if own is None and piece in added else own

    check_more_special(config, find, file.parent)
    bos, eos, unk = (_special_id(model, config, name, find, file) for name in ("bos", "eos", "unk"))
    adds_bos = config.get("add_bos_token") is not False
    pad, pad_piece = _pad(model, config, find, file)
    if pad is not None and pad_piece is not None and pad < 0:
        pad = model.vocab_size() + len(added)
        added.append(pad_piece)
    added += tokens_to_add(add_tokens, template, lambda piece: find(piece) is not None, file)
    pad_is_last = pad is not None and pad == model.vocab_size() + len(added) - 1
    tokenizer = SentencePieceTokenizer(
        path=real_path(file.parent) / file.name,
        encoding=encoding,
        template=template,
        bos_id=bos if adds_bos or template.name != "tulu" else None,
        adds_bos=adds_bos,
        eos_id=eos,
        unk_id=unk,
        pad_id=pad,
        pad_piece=pad_piece,
        settings=settings,
        model=model,
        model_bytes=data,
        added=tuple(added[:-1] if added and pad_is_last else added),
    )
    check_special_text(tokenizer)
    check_ids(config, tokenizer)
    return tokenizer


def _read_model(
    file: Path,
) -> tuple[bytes, ModelSettings, sentencepiece.SentencePieceProcessor]:
    """A model file's content, its settings, and the model they make."""
    import sentencepiece  # not before: configs name the chat room's types where it is not installed

    check_kind(file)
    data = file.read_bytes()
    settings = read_settings(data, file)
    try:
        model = sentencepiece.SentencePieceProcessor(model_proto=data)
    except (RuntimeError, OSError) as error:
        raise TokenizerError(
            "tokenizer model is corrupt", got=str(error)[:200], at=file, do="copy it again"
        ) from error
    _check_model(model, settings, file)
    return data, settings, model


def _check_model(
    model: sentencepiece.SentencePieceProcessor, settings: ModelSettings, at: Path
) -> None:
    """Passes when text loses nothing and its lines can be tokenized apart."""

    def refuse(what: str, got: object, expected: str) -> TokenizerError:
        return TokenizerError(
            what, got=got, at=at, expected=expected, do="train or choose another tokenizer"
        )

    if settings.rewrites_text or settings.remove_extra_whitespaces:
        how = "a normalisation table" if settings.rewrites_text else "remove_extra_whitespaces"
        raise refuse("tokenizer rewrites text", how, "identity normalisation, all spaces kept")
    if settings.whitespace_as_suffix or not settings.escape_whitespaces:
        raise refuse("tokenizer treats spaces unusually", settings, "spaces as prefixes of words")
    if not settings.byte_fallback:
        raise refuse(
            "tokenizer has no byte fallback, so unknown characters would be lost",
            "byte_fallback=false",
            "byte_fallback=true",
        )
    pieces = [model.id_to_piece(i) for i in range(model.vocab_size())]
    mixed = [piece for piece in pieces if "\n" in piece and piece != "\n"]
    if mixed:
        raise refuse(
            "tokenizer joins newlines to other text, so loss masks would be ambiguous",
            f"{len(mixed)} such pieces, e.g. {mixed[0]!r}",
            "a newline to be a token of its own",
        )


def _special_id(
    model: sentencepiece.SentencePieceProcessor, config: Json, name: str, find: Find, at: Path
) -> int:
    """The id of BOS, EOS or the unknown token: the one the config names, else the model's own."""
    named = token_text(config.get(f"{name}_token"))
    token = getattr(model, f"{name}_id")() if named is None else find(named)
    if token is None or token < 0:
        raise TokenizerError(
            f"tokenizer has no {name} token",
            got="none" if named is None else f"{named!r}, which is not a piece of the model",
            at=at,
            expected="a piece of the model",
        )
    return token


def _pad(
    model: sentencepiece.SentencePieceProcessor, config: Json, find: Find, at: Path
) -> tuple[int | None, str | None]:
    """The padding token's id and piece; the id is -1 for one that is yet to be added."""
    named = token_text(config.get("pad_token"))
    if named is None:
        own = model.pad_id()
        return (None, None) if own < 0 else (own, model.id_to_piece(own))
    if not named:
        raise TokenizerError("pad_token is empty", at=at.parent / CONFIG_NAME, expected="a token")
    own = find(named)
    return (-1 if own is None else own), named


def _piece_id(model: sentencepiece.SentencePieceProcessor, piece: str) -> int | None:
    """The id of a piece, or None where SentencePiece would answer "unknown"."""
    token = model.piece_to_id(piece)
    return token if model.id_to_piece(token) == piece else None
