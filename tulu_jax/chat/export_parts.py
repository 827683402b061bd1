"""Parts of `tokenizer.json` that tokenizers of every kind have."""

from __future__ import annotations

from tulu_jax.chat.settings import Json
from tulu_jax.chat.tokenizer import Tokenizer


def special_token(piece: str) -> Json:
    """A special token as Hugging Face files describe it: nothing around it is stripped."""
    return {
        "content": piece,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": True,
    }


def special_tokens(tokenizer: Tokenizer) -> list[Json]:
    """The special tokens, each with its id, by id."""
    ids = sorted(tokenizer.special_ids)
    return [{"id": i, **special_token(tokenizer.piece(i))} for i in ids]


def bos_in_front(tokenizer: Tokenizer) -> Json | None:
    """The rule that puts BOS before each text, for those who tokenize with special tokens."""
    if tokenizer.bos_id is None or not tokenizer.start_ids:
        return None
    bos = tokenizer.piece(tokenizer.bos_id)
    first = [{"SpecialToken": {"id": bos, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    second = [{"SpecialToken": {"id": bos, "type_id": 1}}, {"Sequence": {"id": "B", "type_id": 1}}]
    return {
        "type": "TemplateProcessing",
        "single": first,
        "pair": [*first, *second],
        "special_tokens": {bos: {"id": bos, "ids": [tokenizer.bos_id], "tokens": [bos]}},
    }
