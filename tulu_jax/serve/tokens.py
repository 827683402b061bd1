"""How tokens are shown to clients: as text, as bytes, and at which place of the text."""

from __future__ import annotations

import codecs
from collections.abc import Sequence

from tulu_jax.chat import Tokenizer


class TokenTexts:
    """The texts of a tokenizer's tokens, each looked up once."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Nothing is looked up yet."""
        self.tokenizer = tokenizer
        self._size = tokenizer.vocab_size
        self._bytes: dict[int, bytes] = {}

    def bytes_of(self, token: int) -> bytes:
        """The bytes of a token; a special one's name, or its number where it has no text at all."""
        found = self._bytes.get(token)
        if found is None:
            known = token < self._size
            found = self.tokenizer.token_bytes(token) if known else b"<token %d>" % token
            self._bytes[token] = found
        return found

    def text_of(self, token: int) -> str:
        r"""A token's text; where it is a part of a character, `bytes:\xe7`, as OpenAI has it."""
        own = self.bytes_of(token)
        try:
            return own.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in own)

    def is_text(self, token: int) -> bool:
        """Whether a token stands for text, and is not a special one."""
        return token < self._size and token not in self.tokenizer.special_ids

    def decode(self, tokens: Sequence[int], *, skip_special: bool = True) -> str:
        """The text of tokens that begin a text; those that stand for none are left out."""
        known = [token for token in tokens if token < self._size]
        return self.tokenizer.decode(known, skip_special)


class Offsets:
    """Where the tokens of one text begin in it, in characters, handed over in any portions."""

    def __init__(self, texts: TokenTexts, *, at_start: bool) -> None:
        """At the start of a text SentencePiece puts a space that the text does not show."""
        self._texts = texts
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._skip = len(texts.tokenizer.opening("x")) - 1 if at_start else 0
        self._at = 0

    def next(self, tokens: Sequence[int]) -> list[int]:
        """The places of the next tokens."""
        places = []
        for token in tokens:
            places.append(self._at)
            if self._texts.is_text(token):
                length = len(self._decoder.decode(self._texts.bytes_of(token)))
                shown = max(0, length - self._skip)
                self._skip -= length - shown
                self._at += shown
        return places
