"""The encoding `paper`: token for token what the paper's runs trained on.

They used transformers' slow tokenizers (LLaMA's, OPT's), which take the text of a special token for
that token wherever it stands, strip whitespace on both sides of it, and tokenize what follows as if
a new text began. In ordinary conversations that only concerns the EOS our template writes, and
`as_the_paper_did` says how; text that itself holds special tokens takes the reference's own way.

Source: allenai/open-instruct, `encode_with_messages_format`@e44fcf588 with transformers 4.33.2.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence

from tulu_jax.chat.messages import Messages
from tulu_jax.chat.template import MARKERS, Segment, render, segments_text
from tulu_jax.chat.tokenizer import Tokenizer


def has_special_text(messages: Messages, tokenizer: Tokenizer) -> bool:
    """Whether some content holds the text of a special token, such as `</s>`."""
    strings = tokenizer.special_strings
    return any(string in message["content"] for message in messages for string in strings)


def as_the_paper_did(segments: Sequence[Segment]) -> list[Segment]:
    r"""Rendered segments without the whitespace around EOS, and with the mask that came of it.

    The newline after an EOS goes. So does the one before it, in the marker, when the answer is
    empty; the reference, which counts tokens of the text *with* that newline, then masks the EOS.

    >>> from tulu_jax.chat.template import render
    >>> chat = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": ""}]
    >>> for kind, text, trained in as_the_paper_did(render(chat))[-3:]:
    ...     print(f"{kind:8}{text!r:16}{trained}")
    marker  '<|assistant|>' False
    content ''              True
    eos     ''              False
    """
    result: list[Segment] = []
    for segment in segments:
        if segment.kind == "newline" and result[-1].kind == "eos":
            continue
        if segment.kind == "eos" and not result[-1].text:
            marker = result[-2]
            result[-2] = marker._replace(text=marker.text.rstrip("\n"))
            segment = segment._replace(trained=marker.trained)
        result.append(segment)
    return result


def tokens_of(text: str, tokenizer: Tokenizer) -> list[int]:
    """BOS and the tokens of a text, as the slow tokenizer gave them."""
    special = tokenizer.special_strings
    pattern = "|".join(re.escape(string) for string in sorted(special, key=len, reverse=True))
    parts = re.split(f"({pattern})", text)
    texts = [_strip(part, left=i > 0, right=i < len(parts) - 1) for i, part in enumerate(parts)]
    encoded = iter(tokenizer.encode_texts(texts[::2]))
    tokens = tokenizer.start_ids
    for index, part in enumerate(parts):
        tokens += [special[part]] if index % 2 else next(encoded)
    return tokens


def _strip(text: str, *, left: bool, right: bool) -> str:
    text = text.lstrip() if left else text
    return text.rstrip() if right else text


def _text(messages: Messages, tokenizer: Tokenizer) -> str:
    """The text of messages, each ending in its newline."""
    prompt = segments_text(
        render(messages, generation_prompt=True), tokenizer.piece(tokenizer.eos_id)
    )
    return prompt.removesuffix(MARKERS["assistant"])


def prompt_tokens(messages: Messages, tokenizer: Tokenizer) -> list[int]:
    """The tokens of a generation prompt whose text holds special tokens."""
    return tokens_of(_text(messages, tokenizer) + MARKERS["assistant"], tokenizer)


def encode_by_prefixes(
    messages: Messages, tokenizer: Tokenizer, max_length: int | None
) -> tuple[list[int], list[bool], bool]:
    """Tokens, loss mask, and whether tokens were cut off, by the reference's own method.

    Masks are counted out by tokenizing every prefix of the conversation from scratch. Slow (the
    square of the number of messages), and used only where the text holds special tokens.
    """
    tokens = tokens_of(_text(messages, tokenizer).strip(), tokenizer)
    limit = sys.maxsize if max_length is None else max_length
    mask = [True] * min(len(tokens), limit)
    for index, message in enumerate(messages):
        answer = message["role"] == "assistant"
        if answer and message.get("train", True):
            continue
        before, upto = _text(messages[:index], tokenizer), _text(messages[: index + 1], tokenizer)
        answered = index + 1 < len(messages) and messages[index + 1]["role"] == "assistant"
        if answered and not answer:
            upto += MARKERS["assistant"]
        start = len(tokens_of(before, tokenizer)) if index else 0
        stop = len(tokens_of(upto, tokenizer))
        for place in range(start, min(stop, len(mask))):
            mask[place] = False
        if stop >= limit:
            break
    return tokens[:limit], mask, len(tokens) > limit
