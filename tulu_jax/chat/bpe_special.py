"""Which tokens of a byte-level BPE tokenizer are BOS, EOS, unknown and padding.

The settings beside it name them. Where there are none, only what cannot be mistaken is taken: a
vocabulary that begins `<s> <pad> </s> <unk>` is OPT's, and of GPT-NeoX's and GPT-2's special tokens
`<|endoftext|>` is EOS. BOS is what the tokenizer itself puts in front of text, which is not always
what the settings call BOS.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from tulu_jax.chat.added import AddTokens, tokens_to_add
from tulu_jax.chat.segments import ChatTemplate
from tulu_jax.chat.settings import CONFIG_NAME, Json, token_text
from tulu_jax.errors import TokenizerError

OPT_START = ("<s>", "<pad>", "</s>", "<unk>")
OPT_NAMES = {
    "bos_token": "</s>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "pad_token": "<pad>",
    "add_bos_token": True,
}
END_OF_TEXT = "<|endoftext|>"


class Special(NamedTuple):
    """The fields of `Tokenizer` that tell its special tokens."""

    bos_id: int | None
    eos_id: int
    unk_id: int | None
    pad_id: int | None
    pad_piece: str | None


def read_special(definition: Json, config: Json, file: Path) -> Special:
    """The special tokens of a definition, as the settings `config` or the file itself name them.

    They are marked special in the definition; padding that is added behind all other tokens is
    taken out of it.

    Raises:
        TokenizerError: EOS is not named or not there, padding is an empty string, or tokens other
            than one BOS in front are put around text.
    """
    ids = {**definition["model"]["vocab"]}
    ids.update((t["content"], t["id"]) for t in definition["added_tokens"])
    known = config if token_text(config.get("eos_token")) else {**_guess(ids, file), **config}
    eos = token_text(known.get("eos_token"))
    if eos not in ids:
        raise TokenizerError(
            "tokenizer has no eos token",
            got="none" if eos is None else f"{eos!r}, which is not one of its tokens",
            at=file,
            expected='one of its tokens, named as "eos_token"',
            do=f"name it in {CONFIG_NAME} beside it",
        )
    pad_piece = token_text(known.get("pad_token"))
    if pad_piece == "":
        raise TokenizerError("pad_token is empty", at=file.parent / CONFIG_NAME, expected="a token")
    pad = None if pad_piece is None else ids.get(pad_piece, max(ids.values()) + 1)
    unk = ids.get(token_text(known.get("unk_token")) or "")
    special = Special(_bos(definition, known, ids, file), ids[eos], unk, pad, pad_piece)
    last = max(definition["model"]["vocab"].values())
    added_pad = pad if pad is not None and pad > last and pad >= max(ids.values()) else None
    named = {token for token in special[:4] if token not in (None, added_pad)}
    marked = {token: piece for piece, token in ids.items() if token in named}
    _mark(definition, marked, without=added_pad)
    return special


def with_named_bos(definition: Json, special: Special, config: Json) -> Special:
    """The special tokens with the BOS that the settings name, which plain text does not get.

    Chat templates write it all the same, as `bos_token`.
    """
    ids = {**definition["model"]["vocab"]}
    ids.update((t["content"], t["id"]) for t in definition["added_tokens"])
    named = token_text(config.get("bos_token"))
    if named is None or named not in ids:
        return special
    _mark(definition, {ids[named]: named}, without=None)
    return special._replace(bos_id=ids[named])


def add_special(
    definition: Json, special: Special, template: ChatTemplate, add_tokens: AddTokens, file: Path
) -> None:
    """Marks the chat template's tokens as special in a definition, and adds those to be added.

    Padding that is added behind all other tokens stays in front of them.

    Raises:
        TokenizerError: a token to add is there already (`tokens_to_add`).
    """
    ids = {**definition["model"]["vocab"]}
    ids.update((t["content"], t["id"]) for t in definition["added_tokens"])
    if special.pad_piece is not None and special.pad_id is not None:
        ids.setdefault(special.pad_piece, special.pad_id)
    new = tokens_to_add(add_tokens, template, ids.__contains__, file)
    wanted = {ids[piece]: piece for piece in template.tokens if piece in ids}
    if new:
        last = max(ids.values())
        wanted.update((token, piece) for piece, token in ids.items() if token == special.pad_id)
        wanted.update(enumerate(new, last + 1))
    _mark(definition, wanted, without=None)


def _guess(ids: dict[str, int], file: Path) -> Json:
    """The names of the special tokens of a tokenizer that comes without settings."""
    if tuple(piece for piece, token in sorted(ids.items(), key=lambda i: i[1])[:4]) == OPT_START:
        return OPT_NAMES
    return {"eos_token": END_OF_TEXT} if END_OF_TEXT in ids else {}


def _bos(definition: Json, config: Json, ids: dict[str, int], file: Path) -> int | None:
    """The id put before text: as `add_bos_token` says, else as the post-processor does."""
    own = _put_in_front(definition["post_processor"], file)
    wanted = config.get("add_bos_token")
    if wanted is False or (wanted is None and not own):
        return None
    named = token_text(config.get("bos_token"))
    bos = ids.get(own[0] if own else named or "")
    if bos is None:
        raise TokenizerError(
            "tokenizer has no bos token",
            got="none" if not own and named is None else repr(own[0] if own else named),
            at=file,
            expected='one of its tokens, named as "bos_token"',
            do='name it, or set "add_bos_token" to false',
        )
    return bos


def _put_in_front(processor: Any, file: Path) -> list[str]:
    """The tokens that a post-processor puts before text: one, or none."""
    if not isinstance(processor, dict) or processor.get("type") == "ByteLevel":
        return []
    kind = processor.get("type")
    if kind == "Sequence":
        steps = [_put_in_front(step, file) for step in processor.get("processors", [])]
        return [token for step in steps for token in step]
    single = processor.get("single", []) if kind == "TemplateProcessing" else []
    names = [step.get("SpecialToken", {}).get("id") for step in single]
    if names[-1:] != [None] or len(names) > 2:
        raise TokenizerError(
            "tokenizer puts tokens around text",
            got=f"{kind} {[name or 'text' for name in names]}",
            at=file,
            expected="at most one token, BOS, in front",
            do="take the others out of its post_processor: the chat template writes EOS",
        )
    return [name for name in names if name is not None]


def _mark(definition: Json, special: dict[int, str], *, without: int | None) -> None:
    """Makes tokens special in a definition: never matched in text, nothing around them stripped."""
    added = {t["id"]: t for t in definition["added_tokens"] if t["id"] != without}
    for token, piece in special.items():
        added[token] = {"id": token, "content": piece, "special": True}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    definition["added_tokens"] = [
        {**token, **flags} if token["special"] else token for _, token in sorted(added.items())
    ]
