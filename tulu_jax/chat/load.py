"""Finds a tokenizer's files and loads the kind they are of."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import cast, get_args

from tulu_jax.chat.added import AddTokens
from tulu_jax.chat.bpe import load_bpe
from tulu_jax.chat.recognise import kept, own_template, recognise, unknown
from tulu_jax.chat.segments import ChatTemplate
from tulu_jax.chat.settings import (
    DEFINITION_NAME,
    MERGES_NAME,
    SENTENCEPIECE_NAME,
    VOCAB_NAME,
    find_main,
)
from tulu_jax.chat.spm import load_sentencepiece
from tulu_jax.chat.templates import CHECKPOINT, TEMPLATES, check_template_name
from tulu_jax.chat.tokenizer import Encoding, Tokenizer
from tulu_jax.errors import ConfigError, TokenizerError
from tulu_jax.files import hub_advice
from tulu_jax.places import Place, local_folder

EXPECTED = f"{SENTENCEPIECE_NAME}, {DEFINITION_NAME}, or {VOCAB_NAME} with {MERGES_NAME}"


def load_tokenizer(
    path: str | Place,
    encoding: str = "hf",
    *,
    template: str = "tulu",
    add_tokens: AddTokens = (),
) -> Tokenizer:
    """The tokenizer in a folder, of one of the files below, or of a run folder.

    What the folder holds decides the kind, the first of: `tokenizer.model` (SentencePiece: LLaMA),
    `tokenizer.json` (byte-level BPE: Pythia, Llama 3), `vocab.json` with `merges.txt` (GPT-2's
    byte-level BPE: OPT; with encoding `paper` they come before `tokenizer.json`).
    `tokenizer_config.json` or `special_tokens_map.json` beside them may name the special tokens and
    add a padding token. `template` names the chat template of conversations, `checkpoint` the
    folder's own; `add_tokens` are special tokens to add, or `template` for those that it lacks.

    Raises:
        TokenizerError: nothing there, a corrupt file, an unusable model, special tokens that are
            missing or clash (`load_sentencepiece`, `load_bpe`), a template whose tokens are
            missing, or a folder's own that is none of ours (`recognise`).
        ConfigError: an unknown template.
    """
    if encoding not in get_args(Encoding):
        raise TokenizerError("unknown encoding", got=repr(encoding), expected="'hf' or 'paper'")
    check_template_name(template)
    known = cast(Encoding, encoding)
    if template == CHECKPOINT:
        template = checkpoint_template(path).name
    if encoding == "paper" and template != "tulu":
        raise ConfigError(
            "encoding 'paper' is that of the paper's chat template",
            got=f"the chat template {template!r}",
            expected="'tulu'",
            do="use encoding 'hf'",
        )
    return _load(_find(local_folder(path)), known, TEMPLATES[template], add_tokens)


def checkpoint_template(path: str | Place) -> ChatTemplate:
    """The one of our chat templates that a tokenizer folder's own is.

    Raises:
        TokenizerError: the folder has none, or one that is none of ours.
    """
    file = _find(local_folder(path))
    text = own_template(file.parent)
    if text is None:
        raise TokenizerError(
            "tokenizer folder has no chat template",
            at=file.parent,
            expected="chat_template.jinja, or chat_template in tokenizer_config.json",
            do=f"name one with CHAT_TEMPLATE (--chat_template): {', '.join(TEMPLATES)}",
        )
    return recognise(text, _load(file, "hf", TEMPLATES["tulu"], ()))


def load_model_tokenizer(path: str | Place, encoding: str = "hf") -> Tokenizer:
    """The tokenizer of a model that was not trained here, with its own chat template.

    Where the folder has none that is Tülu's. One that is none of ours is kept for an export, and
    refused when a conversation is to be encoded with it.
    """
    file = _find(local_folder(path))
    text = own_template(file.parent)
    plain = load_tokenizer(path, encoding)
    if text is None or encoding == "paper":
        return plain
    try:
        return _load(file, plain.encoding, kept(text, plain), ())
    except TokenizerError as error:  # it writes tokens that the tokenizer lacks
        return replace(plain, template=unknown(text, error))


def has_template(path: str | Place) -> bool:
    """Whether the tokenizer that `path` names has a chat template of its own beside it."""
    file = find_main(local_folder(path))
    return file is not None and own_template(file.parent) is not None


def _load(
    file: Path, encoding: Encoding, template: ChatTemplate, add_tokens: AddTokens
) -> Tokenizer:
    if file.suffix != ".json":
        return load_sentencepiece(file, encoding, template, add_tokens)
    slow = file.with_name(VOCAB_NAME)
    use_slow = encoding == "paper" and slow.is_file()
    return load_bpe(slow if use_slow else file, encoding, template, add_tokens)


def _find(path: Path) -> Path:
    """The main file of the tokenizer at `path`."""
    file = find_main(path)
    if file is not None:
        return file
    if not path.is_dir():
        raise TokenizerError(
            "tokenizer folder does not exist", got=str(path), expected=f"a folder with {EXPECTED}",
            do=hub_advice(path),
        )  # fmt: skip
    found = ", ".join(sorted(p.name for p in path.iterdir())[:8]) or "an empty folder"
    raise TokenizerError("folder holds no tokenizer", got=found, at=path, expected=EXPECTED)
