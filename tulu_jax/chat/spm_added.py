"""Tokens that the settings beside a `tokenizer.model` add behind the model's last piece."""

from __future__ import annotations

from pathlib import Path

from tulu_jax.chat.segments import ChatTemplate
from tulu_jax.chat.settings import Json, token_text
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
    for name in ("additional_special_tokens", "extra_special_tokens"):
        more = config.get(name) or []
        known.update(map(token_text, more.values() if isinstance(more, dict) else more))
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
