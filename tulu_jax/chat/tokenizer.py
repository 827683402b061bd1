"""A SentencePiece tokenizer with what the chat format needs to know about it.

Loading checks everything that would otherwise make masks or text silently wrong later.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np
import sentencepiece

from tulu_jax.chat.model_file import ModelSettings, read_settings
from tulu_jax.chat.template import TEMPLATE_VERSION
from tulu_jax.errors import TokenizerError

Encoding = Literal["hf", "paper"]
"""`hf`: SentencePiece's own segmentation, what transformers gives for an exported checkpoint.
`paper`: token for token what the slow tokenizer of the paper's runs gave."""

MODEL_NAME = "tokenizer.model"
CONFIG_NAME = "tokenizer_config.json"


@dataclass(frozen=True, eq=False)
class Tokenizer:
    """A loaded tokenizer; make it with `load_tokenizer`. Equal fingerprints mean equal tokens.

    `path` is the model file. `pad_id` is None when the model has no padding token; one that is not
    a piece of the model is added behind the last piece and counts in `vocab_size` (LLaMA: `<pad>`,
    32000 of 32001).
    """

    path: Path
    encoding: Encoding
    settings: ModelSettings
    bos_id: int
    eos_id: int
    unk_id: int
    pad_id: int | None
    pad_piece: str | None
    _model: sentencepiece.SentencePieceProcessor = field(repr=False)
    _model_bytes: bytes = field(repr=False)
    _starts: dict[tuple[str, bool], list[int]] = field(default_factory=dict, repr=False)

    @property
    def vocab_size(self) -> int:
        """How many token ids there are, an added padding token included."""
        size = self._model.vocab_size()
        return size + (self.pad_id is not None and self.pad_id >= size)

    def fitting(self, vocab_size: int) -> Tokenizer:
        """The same tokenizer, as a model of `vocab_size` embeddings can use it.

        Where its added padding token alone is too many, that is left out; else nothing changes.
        Padding is told by segment 0 and no text becomes that token, so encodings stay the same.
        """
        pieces = self._model.vocab_size()
        if self.pad_id == pieces == vocab_size:
            return replace(self, pad_id=None, pad_piece=None)
        return self

    @cached_property
    def fingerprint(self) -> str:
        """A SHA-256 (hex) of all that decides which tokens a conversation becomes.

        That is the model file, the special tokens, the encoding and the template; not the path, nor
        settings that change no token. So an exported copy has its original's fingerprint.
        """
        parts = {
            "model": hashlib.sha256(self._model_bytes).hexdigest(),
            "special": [self.bos_id, self.eos_id, self.unk_id, self.pad_id, self.pad_piece],
            "encoding": self.encoding,
            "template": TEMPLATE_VERSION,
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    @property
    def model_bytes(self) -> bytes:
        """The content of the SentencePiece model file."""
        return self._model_bytes

    @property
    def model(self) -> sentencepiece.SentencePieceProcessor:
        """The SentencePiece processor itself."""
        return self._model

    @cached_property
    def special_ids(self) -> frozenset[int]:
        """The ids that stand for no text: BOS, EOS, unknown, padding, other control pieces."""
        control = (i for i in range(self._model.vocab_size()) if self._model.is_control(i))
        named = (self.bos_id, self.eos_id, self.unk_id, self.pad_id)
        return frozenset([*control, *(i for i in named if i is not None)])

    @cached_property
    def special_strings(self) -> dict[str, int]:
        """Text that the paper's tokenizer takes for a special token, and that token's id."""
        ids = (self.bos_id, self.eos_id, self.unk_id, self.pad_id)
        return {self.piece(i): i for i in ids if i is not None}

    def piece(self, token: int) -> str:
        """The piece of an id, such as `▁the`, `<0x0A>` or `</s>`.

        Raises:
            TokenizerError: there is no such id.
        """
        if not 0 <= token < self.vocab_size:
            raise TokenizerError(
                "no such token id", got=token, at=self.path, expected=f"0 to {self.vocab_size - 1}"
            )
        if token == self.pad_id and self.pad_piece is not None:
            return self.pad_piece
        return self._model.id_to_piece(int(token))

    def encode_text(self, text: str) -> list[int]:
        """The token ids of a text that stands alone: no BOS, special strings stay text."""
        return self._model.encode(text)

    def encode_texts(self, texts: Sequence[str], *, threads: int = 1) -> list[list[int]]:
        """`encode_text` of each text, by several threads."""
        return self._model.encode(list(texts), num_threads=threads) if texts else []

    def encode_after_newline(self, texts: Sequence[str], *, threads: int = 1) -> list[list[int]]:
        """The token ids of texts that follow a newline (and so get no word-start mark in front)."""
        skip = len(self.newline_ids)
        encoded = self.encode_texts(["\n" + text for text in texts], threads=threads)
        return [tokens[skip:] for tokens in encoded]

    @cached_property
    def newline_ids(self) -> list[int]:
        """The ids of a text that is one newline: the word-start mark, if any, and the newline."""
        return self._model.encode("\n")

    def fixed_ids(self, text: str, *, at_start: bool) -> list[int]:
        """The ids of a piece of the template (kept), at the start of a text or after a newline."""
        key = (text, at_start)
        if key not in self._starts:
            ids = self.encode_text(text) if at_start else self.encode_after_newline([text])[0]
            self._starts[key] = ids
        return self._starts[key]

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
                # The paper's encoding starts anew after every special token.
                at_start = run[-1] == self.bos_id or self.encoding == "paper"
            elif at_start:
                texts.append(self._model.decode(run))
            else:
                texts.append(self._model.decode(self.newline_ids + run)[1:])
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


def load_tokenizer(path: str | Path, encoding: str = "hf") -> Tokenizer:
    """The tokenizer in a folder that holds `tokenizer.model`, of that file, or of a run folder.

    `tokenizer_config.json` or `special_tokens_map.json` beside it may name the special tokens and
    add a padding token.

    Raises:
        TokenizerError: nothing there, a corrupt file, an unusable model (see `_check_model`), or
            special tokens that are missing or clash.
    """
    if encoding not in get_args(Encoding):
        raise TokenizerError("unknown encoding", got=repr(encoding), expected="'hf' or 'paper'")
    file = _find_model(Path(path))
    data = file.read_bytes()
    settings = read_settings(data, file)
    try:
        model = sentencepiece.SentencePieceProcessor(model_proto=data)
    except (RuntimeError, OSError) as error:
        raise TokenizerError(
            "tokenizer model is corrupt", got=str(error)[:200], at=file, do="copy it again"
        ) from error
    _check_model(model, settings, file)
    config = _read_config(file.parent)
    bos, eos, unk = (_special_id(model, config, name, file) for name in ("bos", "eos", "unk"))
    pad, pad_piece = _pad(model, config, file)
    if pad is not None and pad == eos:
        raise TokenizerError(
            "padding and end-of-sequence are one token, so models would never learn to stop",
            got=f"id {pad} ({pad_piece!r})",
            at=file.parent / CONFIG_NAME,
            expected="two different ids",
            do='name another "pad_token", for instance "<pad>"',
        )
    _check_added(config, {pad: pad_piece}, model.vocab_size(), file.parent)
    place = file.parent.resolve() / file.name
    known = cast(Encoding, encoding)
    return Tokenizer(
        place, known, settings, bos, eos, unk, pad, pad_piece, _model=model, _model_bytes=data
    )


def _find_model(path: Path) -> Path:
    """The model file that `path` is or holds, or that it keeps in `tokenizer/` as a run does."""
    for file in (path, path / MODEL_NAME, path / "tokenizer" / MODEL_NAME):
        if file.is_file():
            return file
    if not path.exists():
        raise TokenizerError(
            "tokenizer folder does not exist", got=str(path), expected=f"a folder with {MODEL_NAME}"
        )
    found = ", ".join(sorted(p.name for p in path.iterdir())[:8]) or "an empty folder"
    raise TokenizerError(
        f"folder holds no {MODEL_NAME}", got=found, at=path, expected="a SentencePiece model"
    )


def _read_config(folder: Path) -> dict[str, Any]:
    """The Hugging Face settings beside the model, merged; none are needed."""
    config = {**_read_json(folder / "special_tokens_map.json"), **_read_json(folder / CONFIG_NAME)}
    if "added_tokens_decoder" not in config:
        added = _read_json(folder / "added_tokens.json")
        config["added_tokens_decoder"] = {str(i): piece for piece, i in added.items()}
    return config


def _read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; an empty one where there is no file."""
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise TokenizerError(f"{path.name} is not JSON", got=str(error), at=path) from error
    if not isinstance(content, dict):
        raise TokenizerError(
            f"{path.name} is not an object", got=type(content).__name__, at=path, expected="{...}"
        )
    return content


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
    model: sentencepiece.SentencePieceProcessor, config: dict[str, Any], name: str, at: Path
) -> int:
    """The id of BOS, EOS or the unknown token: the one the config names, else the model's own."""
    named = _token_text(config.get(f"{name}_token"))
    token = getattr(model, f"{name}_id")() if named is None else _piece_id(model, named)
    if token is None or token < 0:
        raise TokenizerError(
            f"tokenizer has no {name} token",
            got="none" if named is None else f"{named!r}, which is not a piece of the model",
            at=at,
            expected="a piece of the model",
        )
    return token


def _pad(
    model: sentencepiece.SentencePieceProcessor, config: dict[str, Any], at: Path
) -> tuple[int | None, str | None]:
    """The padding token's id and piece; an id behind the last piece when it is not a piece."""
    named = _token_text(config.get("pad_token"))
    if named is None:
        own = model.pad_id()
        return (None, None) if own < 0 else (own, model.id_to_piece(own))
    if not named:
        raise TokenizerError("pad_token is empty", at=at.parent / CONFIG_NAME, expected="a token")
    own = _piece_id(model, named)
    return (model.vocab_size() if own is None else own), named


def _check_added(
    config: dict[str, Any], pad: dict[int | None, str | None], size: int, at: Path
) -> None:
    """Passes when the config adds no token other than `pad` behind the model's last piece."""
    added = {i: _token_text(token) for i, token in config["added_tokens_decoder"].items()}
    behind = {int(i): piece for i, piece in added.items() if i.isdecimal() and int(i) >= size}
    extra = {i: piece for i, piece in behind.items() if pad.get(i) != piece}
    if extra:
        raise TokenizerError(
            "tokenizer adds tokens that its model lacks",
            got=extra,
            at=at,
            expected=f"no added token but the padding token, as id {size}",
        )


def _piece_id(model: sentencepiece.SentencePieceProcessor, piece: str) -> int | None:
    """The id of a piece, or None where SentencePiece would answer "unknown"."""
    token = model.piece_to_id(piece)
    return token if model.id_to_piece(token) == piece else None


def _token_text(token: object) -> str | None:
    """The text of a token in a Hugging Face file: a string, or an object with `content`."""
    if isinstance(token, dict):
        token = token.get("content")
    return token if isinstance(token, str) else None
