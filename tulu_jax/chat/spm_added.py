"""Tokens that the settings beside a `tokenizer.model` add behind the model's last piece."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tulu_jax.chat.segments import ChatTemplate
from tulu_jax.chat.settings import CONFIG_NAME, Json, token_text
from tulu_jax.errors import TokenizerError

NAMES = ("bos_token", "eos_token", "unk_token", "pad_token")


def added_behind(config: Json, size: int, template: ChatTemplate, at: Path) -> list[str]:
    """The pieces that the config adds to a model of `size` pieces, by id.

    Only special tokens may be added, which no text becomes: those that are marked as such, that
    have one of the names above, or that the chat template writes.

    Raises:
        TokenizerError: other tokens are added, or ids are left out.
    """
    tokens = {int(i): token for i, token in config["added_tokens_decoder"].items()
              if i.isdecimal() and int(i) >= size}  # fmt: skip
    known = {*template.tokens, *(token_text(config.get(name)) for name in NAMES)}
    known.update(more_special(config))
    extra = {
        i: token_text(token)
        for i, token in sorted(tokens.items())
        if i >= size + len(tokens)
        or not (token_text(token) in known or (isinstance(token, dict) and token.get("special")))
    }
    if extra:
        raise TokenizerError(
            "tokenizer adds tokens that its model lacks",
            got=extra,
            at=at,
            expected=f"special tokens only, with the ids from {size} on and none left out",
        )
    return [str(token_text(token)) for _, token in sorted(tokens.items())]


def more_special(config: Json) -> list[str | None]:
    """The special tokens that the config names beside those with names of their own."""
    lists = (config.get(n) or [] for n in ("additional_special_tokens", "extra_special_tokens"))
    return [token_text(token) for more in lists
            for token in (more.values() if isinstance(more, dict) else more)]  # fmt: skip


def check_more_special(config: Json, find: Callable[[str], int | None], at: Path) -> None:
    """Refuses special tokens that are named and are not there: they would be text here.

    Raises: TokenizerError, naming them.
    """
    lacking = [token for token in more_special(config) if token and find(token) is None]
    if lacking:
        raise TokenizerError(
            "tokenizer names special tokens that it lacks",
            got=", ".join(map(repr, lacking[:5])),
            at=at / CONFIG_NAME,
            expected="pieces of the model, or tokens in added_tokens_decoder",
            do="save it anew with transformers, which gives them ids, or take them out",
        )
