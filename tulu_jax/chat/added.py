"""ADD_TOKENS: special tokens that a tokenizer gets behind all those it has."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tulu_jax.chat.segments import ChatTemplate
from tulu_jax.errors import ConfigError, TokenizerError

FOR_TEMPLATE = "template"
"""What stands for those tokens of the chat template that the tokenizer lacks."""

AddTokens = Sequence[str] | str
"""Tokens to add, or `FOR_TEMPLATE`."""


def check_add_tokens(value: object) -> None:
    """Passes when `value` says which tokens to add: a list of texts, or 'template'.

    Raises: ConfigError.
    """
    if value == FOR_TEMPLATE:
        return
    tokens = list(value) if isinstance(value, list | tuple) else [None]
    good = all(isinstance(token, str) and _is_plain(token) for token in tokens)
    if not good or len(set(tokens)) < len(tokens):
        raise ConfigError(
            "ADD_TOKENS is not understood",
            got=repr(value),
            expected="'template', or a list of different texts without spaces around them, such "
            "as ['<|im_start|>', '<|im_end|>']",
        )


def _is_plain(token: str) -> bool:
    """Whether a text may be a token: whole characters, no NUL, no spaces around it."""
    whole = not any("\ud800" <= character <= "\udfff" for character in token)
    return bool(token) and token == token.strip() and "\0" not in token and whole


def tokens_to_add(
    wanted: AddTokens, template: ChatTemplate, known: Callable[[str], bool], at: object
) -> list[str]:
    """The pieces to add to a tokenizer for which `known` says whether it has a piece.

    Raises:
        ConfigError: see `check_add_tokens`; or 'template' for one that needs none.
        TokenizerError: nothing is to be added, or a token is there already.
    """
    check_add_tokens(wanted)
    if wanted == FOR_TEMPLATE:
        if not template.tokens:
            raise ConfigError(
                "ADD_TOKENS adds nothing",
                got=f"ADD_TOKENS='template' with the chat template {template.name!r}",
                expected="a chat template with special tokens of its own: llama3 or chatml",
                do="leave ADD_TOKENS out",
            )
        new = [piece for piece in template.tokens if not known(piece)]
    else:
        new = list(wanted)
        there = [piece for piece in new if known(piece)]
        if there:
            raise _there(there, at)
    if wanted and not new:
        raise _there(template.tokens, at)
    return new


def _there(pieces: Sequence[str], at: object) -> TokenizerError:
    return TokenizerError(
        "tokens to add are there already",
        got=", ".join(map(repr, pieces)),
        at=at,
        expected="tokens that the tokenizer lacks",
        do="leave them out of ADD_TOKENS",
    )
