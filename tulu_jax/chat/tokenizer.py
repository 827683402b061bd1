"""What every tokenizer offers, whatever its kind."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np

from tulu_jax.axes import TokenIds
from tulu_jax.chat.segments import ChatTemplate, Segment
from tulu_jax.chat.templates import TEMPLATES
from tulu_jax.errors import TokenizerError
from tulu_jax.files import json_sha256

Encoding = Literal["hf", "paper"]
"""`hf`: the tokenizer's own segmentation, what transformers gives for an exported checkpoint.
`paper`: token for token what the slow tokenizers (LLaMA, OPT) of the paper's runs gave."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Tokenizer(ABC):
    """A loaded tokenizer; make it with `load_tokenizer`. Equal fingerprints mean equal tokens.

    `path` is its main file. `bos_id` is the token put in front of every conversation, None where
    the tokenizer puts none there (Pythia); it may be EOS itself (OPT). `unk_id` is None where no
    text is unknown. `pad_id` is None when there is no padding token; one that is not a piece is
    added behind the last piece and counts in `vocab_size` (LLaMA: `<pad>`, 32000 of 32001).
    `template` is the chat template that conversations are encoded with. `adds_bos` says whether
    plain text gets BOS in front; in conversations other templates than Tülu's write it always.
    """

    path: Path
    encoding: Encoding
    bos_id: int | None
    eos_id: int
    unk_id: int | None
    pad_id: int | None
    pad_piece: str | None
    template: ChatTemplate = TEMPLATES["tulu"]
    adds_bos: bool = True

    @property
    @abstractmethod
    def num_pieces(self) -> int:
        """How many token ids there are, an added padding token not counted."""

    @property
    @abstractmethod
    def segmentation(self) -> str:
        """A SHA-256 (hex) of what decides how text is segmented."""

    @property
    def hf_opening(self) -> str:
        """What stands before a conversation's text in Hugging Face's template (Jinja)."""
        return self.hf_opening_of(self.template)

    def hf_opening_of(self, template: ChatTemplate) -> str:
        """The same for another template: BOS, or nothing."""
        return "''" if self.bos_id is None else "bos_token"

    @cached_property
    @abstractmethod
    def special_ids(self) -> frozenset[int]:
        """The ids that stand for no text: BOS, EOS, unknown, padding, other control pieces."""

    @abstractmethod
    def token_id(self, piece: str) -> int | None:
        """The id of a piece, or None where there is no such piece."""

    @cached_property
    @abstractmethod
    def piece_bytes(self) -> np.ndarray:
        """How many bytes of text each id stands for; 0 for special ones."""

    @abstractmethod
    def token_bytes(self, token: int) -> bytes:
        """The bytes that an ordinary token stands for within a text, its space in front included.

        Of a special token, those of its name.
        """

    @abstractmethod
    def text_bytes(self, text: str) -> int:
        """How many bytes a text has as its tokens spell it."""

    @abstractmethod
    def opening(self, text: str) -> str:
        """What, after a newline, has the tokens that `text` has where a new text begins."""

    @abstractmethod
    def encode_after_newline(self, texts: Sequence[str], *, threads: int = 1) -> list[TokenIds]:
        """The token ids of texts that follow a newline (or for which that makes no difference)."""

    @abstractmethod
    def _piece(self, token: int) -> str:
        """The piece of an id that is known to be one of `num_pieces`."""

    @abstractmethod
    def _decode_run(self, ids: list[int], at_start: bool) -> str:
        """The text of ids, none of them special, that begin a text or continue one."""

    @property
    def vocab_size(self) -> int:
        """How many token ids there are, an added padding token included."""
        return self.num_pieces + (self.pad_id is not None and self.pad_id >= self.num_pieces)

    @property
    def start_ids(self) -> list[int]:
        """What every plain text, and every conversation in Tülu's format, starts with."""
        return [] if self.bos_id is None or not self.adds_bos else [self.bos_id]

    @property
    def bos_in_front(self) -> int | None:
        """The BOS that every conversation starts with; None where there is none."""
        return None if self.template.bos == "none" else self.bos_id

    @property
    def bos_once(self) -> bool:
        """Whether BOS stands for nothing else later in a conversation than its start."""
        ambiguous = self.encoding == "paper" or self.bos_id == self.eos_id
        return not ambiguous and self.template.bos == "start"

    def fitting(self, vocab_size: int) -> Self:
        """The same tokenizer, as a model of `vocab_size` embeddings can use it.

        Where its added padding token alone is too many, that is left out; else nothing changes.
        Padding is told by segment 0 and no text becomes that token, so encodings stay the same.
        """
        if self.pad_id == self.num_pieces == vocab_size:
            return replace(self, pad_id=None, pad_piece=None)
        return self

    @cached_property
    def fingerprint(self) -> str:
        """A SHA-256 (hex) of all that decides which tokens a conversation becomes.

        That is the segmentation, the special tokens, the encoding and the template; not the path,
        nor settings that change no token. So an exported copy has its original's fingerprint.
        """
        parts: dict[str, Any] = {
            "model": self.segmentation,
            "special": [self.bos_id, self.eos_id, self.unk_id, self.pad_id, self.pad_piece],
            "encoding": self.encoding,
            "template": self.template.version,
        }
        if self.template.tokens:
            parts["markers"] = [self.token_id(piece) for piece in self.template.tokens]
        return json_sha256(parts)

    @cached_property
    def template_ids(self) -> dict[str, int]:
        """The special tokens that the chat template writes, besides BOS and EOS.

        Raises:
            TokenizerError: the tokenizer lacks one.
        """
        ids = {piece: self.token_id(piece) for piece in self.template.tokens}
        lacking = [piece for piece, token in ids.items() if token is None]
        if lacking:
            raise TokenizerError(
                f"chat template {self.template.name!r} needs tokens that the tokenizer lacks",
                got="no " + ", ".join(lacking),
                at=self.path,
                expected="tokens of their own",
                do="add them with ADD_TOKENS='template' (--add_tokens template), or choose "
                "another CHAT_TEMPLATE",
            )
        return {piece: token for piece, token in ids.items() if token is not None}

    @property
    def end_id(self) -> int:
        """The token that ends an answer: EOS, or the one that the chat template has for it."""
        end = self.template.end
        return self.eos_id if end is None else self.template_ids[end]

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """The tokens that end a text when generating: the template's, and EOS."""
        return tuple(dict.fromkeys((self.end_id, self.eos_id)))

    def id_of(self, segment: Segment) -> list[int]:
        """The id of a segment that is a special token; nothing for BOS where there is none."""
        if segment.kind == "bos":
            return [] if self.bos_id is None else [self.bos_id]
        return [self.eos_id if segment.kind == "eos" else self.template_ids[segment.text]]

    @cached_property
    def named_ids(self) -> dict[str, int]:
        """BOS, EOS, unknown and padding, those there are, by the names Hugging Face gives them."""
        ids = {"bos": self.bos_id, "eos": self.eos_id, "unk": self.unk_id, "pad": self.pad_id}
        return {f"{name}_token": token for name, token in ids.items() if token is not None}

    @cached_property
    def special_strings(self) -> dict[str, int]:
        """Text that the paper's tokenizer takes for a special token, and that token's id."""
        return {self.piece(token): token for token in self.named_ids.values()}

    def piece(self, token: int) -> str:
        """The piece of an id, such as `▁the`, `<0x0A>`, `Ġthe` or `</s>`.

        Raises:
            TokenizerError: there is no such id.
        """
        if not 0 <= token < self.vocab_size:
            raise TokenizerError(
                "no such token id", got=token, at=self.path, expected=f"0 to {self.vocab_size - 1}"
            )
        if token == self.pad_id and self.pad_piece is not None:
            return self.pad_piece
        return self._piece(int(token))

    def opens_text(self, token: int) -> bool:
        """Whether a text that follows this special token has the tokens of a new text.

        In Tülu's format it has after BOS; the paper's encoding starts anew after every one.
        """
        at_bos = token == self.bos_id and self.template.name == "tulu"
        return at_bos or self.encoding == "paper"

    def encode_text(self, text: str) -> list[int]:
        """The token ids of a text that stands alone: no BOS, special strings stay text."""
        return self.encode_texts([text])[0]

    def encode_texts(self, texts: Sequence[str], *, threads: int = 1) -> list[list[int]]:
        """`encode_text` of each text, by several threads."""
        opened = [self.opening(text) for text in texts]
        return [ids.tolist() for ids in self.encode_after_newline(opened, threads=threads)]

    def decode(
        self, ids: Sequence[int] | np.ndarray, skip_special: bool = True, *, after: bool = False
    ) -> str:
        """The text of token ids; bytes that are not valid UTF-8 become U+FFFD.

        Special tokens are left out, or with `skip_special=False` written as their piece. The space
        that SentencePiece puts before a text's first word is taken away, except with `after=True`:
        the ids then continue a text, and a space in front belongs to it.

        Raises:
            TokenizerError: an id is outside the vocabulary.
        """
        texts: list[str] = []
        at_start = not after
        for special, run in self._runs(ids):
            if special:
                texts.append("" if skip_special else "".join(map(self.piece, run)))
                at_start = self.opens_text(run[-1])
            else:
                texts.append(self._decode_run(run, at_start))
        return "".join(texts)

    def _runs(self, ids: Sequence[int] | np.ndarray) -> Iterator[tuple[bool, list[int]]]:
        """The ids cut into runs of special and of ordinary tokens."""
        run: list[int] = []
        last = False
        for token in np.asarray(ids, dtype=np.int64).tolist():
            special = token in self.special_ids
            if not special and not 0 <= token < self.vocab_size:
                self.piece(token)  # raises
            if run and special != last:
                yield last, run
                run = []
            run.append(token)
            last = special
        if run:
            yield last, run


def check_special_text(tokenizer: Tokenizer) -> None:
    """Passes when the template's tokens are there, and the text of special tokens stays text.

    Raises: TokenizerError.
    """
    for text in (*tokenizer.special_strings, *tokenizer.template_ids):
        if tokenizer.special_ids.intersection(tokenizer.encode_text(text)):
            raise TokenizerError(
                "tokenizer cannot keep the text of a special token as text",
                got=repr(text),
                at=tokenizer.path,
                expected="a special token that no text becomes",
            )
