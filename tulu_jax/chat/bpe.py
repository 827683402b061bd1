"""Byte-level BPE tokenizers: GPT-NeoX (Pythia), GPT-2 (OPT), Llama 3.

No text is unknown to them, and none needs a mark at its start. Two cuts of a conversation's text
are relied on: before EOS, and between a lone newline and the text after it. Loading tries the
second on text of every kind.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tulu_jax.axes import TokenIds
from tulu_jax.chat.added import AddTokens
from tulu_jax.chat.bpe_file import (
    GPT2_SPLIT,
    byte_characters,
    is_llama3_split,
    read_definition,
    segmentation_digest,
    well_formed,
)
from tulu_jax.chat.bpe_special import add_special, read_special, with_named_bos
from tulu_jax.chat.config_rules import check_ids
from tulu_jax.chat.segments import ChatTemplate
from tulu_jax.chat.settings import VOCAB_NAME, Json, read_config
from tulu_jax.chat.tokenizer import Encoding, Tokenizer, check_special_text
from tulu_jax.chat.words import WordCache, after_black, before_blanks, whole
from tulu_jax.errors import TokenizerError
from tulu_jax.files import real_path

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend


@dataclass(frozen=True, eq=False, kw_only=True)
class BpeTokenizer(Tokenizer):
    """A tokenizer whose main file is `tokenizer.json`, or `vocab.json` with `merges.txt`."""

    definition: Json = field(repr=False)
    """What decides tokens, in the form of a `tokenizer.json` (see `bpe_file`)."""

    @property
    def num_pieces(self) -> int:
        """One more than the last id, an added padding token behind all others not counted."""
        return len(self._pieces)

    @cached_property
    def segmentation(self) -> str:
        """The SHA-256 (hex) of model, pre-tokenizer, normalizer and ordinary added tokens."""
        return segmentation_digest(self.definition)

    @cached_property
    def special_ids(self) -> frozenset[int]:
        """The ids that stand for no text: BOS, EOS, unknown, padding, other special tokens."""
        added = (t["id"] for t in self.definition["added_tokens"] if t["special"])
        return frozenset([*added, *self.named_ids.values(), *self.template_ids.values()])

    def token_id(self, piece: str) -> int | None:
        """The id of a piece, or None where there is no such piece."""
        return self.pad_id if piece == self.pad_piece else self._ids.get(piece)

    @cached_property
    def piece_bytes(self) -> np.ndarray:
        """How many bytes of text each id stands for; 0 for special ones."""
        sizes = np.zeros(self.vocab_size, np.int32)
        for token, own in enumerate(self._bytes):
            sizes[token] = 0 if token in self.special_ids else len(own)
        return sizes

    def token_bytes(self, token: int) -> bytes:
        """The bytes that a token stands for, or a special one's name."""
        special = token in self.special_ids
        return self.piece(token).encode() if special else self._bytes[token]

    def text_bytes(self, text: str) -> int:
        """How many bytes a text has once it is normalised."""
        if self.definition["normalizer"] and not text.isascii():
            text = self._backend.normalizer.normalize_str(text)
        return len(text.encode())

    def opening(self, text: str) -> str:
        """The text itself."""
        return text

    def encode_after_newline(self, texts: Sequence[str], *, threads: int = 1) -> list[TokenIds]:
        """The token ids of texts; special strings stay text."""
        return self._words(texts, threads)

    @cached_property
    def _words(self) -> WordCache:
        """Words are cut as the pre-tokenizer allows, unless an added token may reach across."""
        split, added = self.definition["pre_tokenizer"], self.definition["added_tokens"]
        cut = before_blanks if is_llama3_split(split) else whole
        cut = after_black if split == GPT2_SPLIT else cut
        kept = all(token["special"] or token["content"].isspace() for token in added)
        return WordCache(cut if kept else whole, self._encode_words)

    def _encode_words(self, words: list[str], threads: int) -> list[list[int]]:
        """Each word's ids, by one thread, or by as many as the library likes."""
        if threads == 1:
            return [self._backend.encode(word, add_special_tokens=False).ids for word in words]
        encoded = self._backend.encode_batch_fast(words, add_special_tokens=False)
        return [one.ids for one in encoded]

    @cached_property
    def _backend(self) -> Backend:
        return make_backend(self.definition, self.path)

    @cached_property
    def _pieces(self) -> list[str]:
        """The piece of every id; an empty one where an id is not used."""
        pieces = {token: piece for piece, token in self.definition["model"]["vocab"].items()}
        pieces |= {token["id"]: token["content"] for token in self.definition["added_tokens"]}
        return [pieces.get(i, "") for i in range(max(pieces) + 1)]

    @cached_property
    def _ids(self) -> dict[str, int]:
        """The id of every piece."""
        return {piece: token for token, piece in enumerate(self._pieces) if piece}

    @cached_property
    def _bytes(self) -> list[bytes]:
        """The bytes that each piece stands for."""
        plain = {t["content"] for t in self.definition["added_tokens"]}
        return [piece.encode() if piece in plain else _bytes_of(piece) for piece in self._pieces]

    def _piece(self, token: int) -> str:
        return self._pieces[token]

    def _decode_run(self, ids: list[int], at_start: bool) -> str:
        return b"".join(self._bytes[i] for i in ids).decode("utf-8", "replace")

    def __getstate__(self) -> dict[str, Any]:
        """All but the library's own object, whose copies forget that special text stays text."""
        derived = ("_backend", "_words")
        return {name: value for name, value in vars(self).items() if name not in derived}


def load_bpe(
    file: Path, encoding: Encoding, template: ChatTemplate, add_tokens: AddTokens = ()
) -> BpeTokenizer:
    """The tokenizer of a `tokenizer.json` or `vocab.json` and the settings beside it.

    Raises:
        TokenizerError: see `read_definition`, `read_special`, `add_special` and `_check_cuts`; or
            the encoding `paper` is asked of a tokenizer that the paper's runs used in another way.
    """
    if encoding == "paper" and file.name != VOCAB_NAME:
        raise TokenizerError(
            "encoding 'paper' is of the slow tokenizers of LLaMA and OPT",
            got=file.name,
            at=file.parent,
            expected="tokenizer.model, or vocab.json with merges.txt",
            do="use encoding 'hf', which for Pythia is what the paper's runs used",
        )
    with well_formed(file):
        definition = read_definition(file)  # first: which settings are right depends on the kind
        return _load(file, encoding, template, add_tokens, definition, read_config(file))


def _load(
    file: Path,
    encoding: Encoding,
    template: ChatTemplate,
    add_tokens: AddTokens,
    definition: Json,
    config: Json,
) -> BpeTokenizer:
    special = read_special(definition, config, file)
    adds_bos = special.bos_id is not None
    if template.name != "tulu" and not adds_bos:
        special = with_named_bos(definition, special, config)
    add_special(definition, special, template, add_tokens, file)
    tokenizer = BpeTokenizer(
        path=real_path(file.parent) / file.name,
        encoding=encoding,
        template=template,
        adds_bos=adds_bos,
        definition=definition,
        **special._asdict(),
    )
    _check_cuts(tokenizer)
    check_ids(config, tokenizer)
    return tokenizer


def make_backend(definition: Json, file: Path) -> Backend:
    """The library's tokenizer of a definition, for which the text of special tokens is text.

    Raises:
        TokenizerError: the library refuses the definition, or numbers its tokens otherwise.
    """
    from tokenizers import Tokenizer as Library

    try:
        backend = Library.from_str(json.dumps({**definition, "post_processor": None}))
    except Exception as error:  # the library raises nothing more precise
        raise TokenizerError(
            "tokenizer file is corrupt or cut off",
            got=str(error)[:200],
            at=file,
            do="copy or download it again",
        ) from error
    for piece, token in ((t["content"], t["id"]) for t in definition["added_tokens"]):
        if backend.token_to_id(piece) != token:
            raise TokenizerError(
                "added token has another id than the file says",
                got=f"{piece!r} as {backend.token_to_id(piece)}",
                at=file,
                expected=token,
            )
    backend.encode_special_tokens = True
    return backend


def _bytes_of(piece: str) -> bytes:
    """The bytes that the characters of a piece stand for."""
    known = byte_characters()
    if all(char in known for char in piece):
        return bytes(known[char] for char in piece)
    return piece.encode()


@cache
def probes() -> tuple[str, ...]:
    """Beginnings of texts: a character of each Unicode category, and what has a rule of its own."""
    kinds: dict[str, str] = {}
    for code in range(0x20, 0x3000):
        char = chr(code)
        if not char.isspace():
            kinds.setdefault(unicodedata.category(char), char)
    return (*kinds.values(), "'s", "1234", "<|user|>", "中文", "🐫", "\u0301e", "...\n\n  x", "")


def _check_cuts(tokenizer: BpeTokenizer) -> None:
    """Passes when text after a lone newline has its own tokens, and special text stays text."""
    texts = (piece.decode("utf-8", "replace") for piece in tokenizer._bytes if b"\n" in piece)
    mixed = [text for text in texts if text.rpartition("\n")[2].strip()]
    apart = (content for content in probes() if not _is_apart(content, tokenizer))
    joined = mixed[0] if mixed else next(apart, None)
    if joined is not None:
        raise TokenizerError(
            "tokenizer joins newlines to the text after them, so loss masks would be ambiguous",
            got=repr(joined),
            at=tokenizer.path,
            expected="a newline and the text after it to be tokens apart",
            do="train or choose another tokenizer",
        )
    check_special_text(tokenizer)


def _is_apart(content: str, tokenizer: BpeTokenizer) -> bool:
    """Whether the library gives a conversation's parts the tokens they have together."""

    def tokens(text: str) -> list[int]:
        return tokenizer._backend.encode(text, add_special_tokens=False).ids

    first, rest = f"<|user|>\n{content}\n<|assistant|>\n", content + "."
    together = tokens("\n" + first + rest)
    return together == tokens("\n") + tokens(first) + tokens(rest)
