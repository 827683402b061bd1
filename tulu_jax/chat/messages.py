"""What a conversation is, and the check that a value is one."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import NotRequired, TypedDict

from tulu_jax.errors import DataError

ROLES = ("system", "user", "assistant")
"""The roles a message may have. Loss falls on what the assistant says, and on nothing else."""


class Message(TypedDict):
    """One turn of a conversation: who speaks (one of `ROLES`) and the text.

    `train` says whether an answer of the assistant carries loss; without it, it does.
    """

    role: str
    content: str
    train: NotRequired[bool]


Messages = Sequence[Message]
"""A conversation: one message or more, in the order in which they were said."""


def check_messages(messages: object, at: object = "messages") -> None:
    """Passes when `messages` is a conversation, and says what is wrong with it otherwise.

    `at` names the place (a file and line, a dataset and id) that the error points to.

    >>> check_messages([{"role": "user", "content": "Hello"}])

    Raises:
        DataError: the value is not a list, is empty, or holds a message that is not a mapping,
            lacks `role` or `content`, has an unknown role, text that is not valid Unicode, or a
            `train` that is not true or false.
    """
    if not isinstance(messages, list | tuple):
        raise DataError(
            "messages are not a list",
            got=type(messages).__name__,
            at=at,
            expected="a list of {role, content}",
        )
    if not messages:
        raise DataError(
            "messages are empty", at=at, expected="at least one message", do="drop the record"
        )
    for index, message in enumerate(messages):
        problem = _problem(message)
        if problem is not None:
            what, got, expected = problem
            raise DataError(what, got=got, at=f"{at}, message {index}", expected=expected)


def _problem(message: object) -> tuple[str, str | None, str] | None:
    """What is wrong with one message as (what, got, expected), or None."""
    if not isinstance(message, dict):
        return "message is not a mapping", type(message).__name__, "{role, content}"
    for field in ("role", "content"):
        if field not in message:
            found = f"fields {sorted(map(str, message))}"[:200]
            return f"message has no {field!r}", found, "role, content"
    role, content = message["role"], message["content"]
    if role not in ROLES:
        return "unknown role", repr(role)[:60], "one of " + ", ".join(ROLES)
    if not isinstance(content, str):
        return "message content is not text", type(content).__name__, "str"
    if not isinstance(message.get("train", True), bool):
        return "message's train is not true or false", repr(message["train"])[:60], "true or false"
    if not content.isascii():
        try:
            content.encode("utf-8")
        except UnicodeEncodeError as error:
            found = f"a lone surrogate {content[error.start]!r} at character {error.start}"
            return "message content is not valid Unicode", found, "text that UTF-8 can hold"
    return None


def text_of_parts(parts: Sequence[object], at: object, *, do: str = "take such records out") -> str:
    """The text of a content that is given as parts, joined as it stands.

    >>> text_of_parts([{"type": "text", "text": "Tell "}, {"type": "text", "text": "me."}], "row 1")
    'Tell me.'

    Raises:
        DataError: a part is not text (an image, a call of a tool ...).
    """
    texts = []
    for part in parts:
        kind = part.get("type") if isinstance(part, dict) else type(part).__name__
        text = part.get("text") if isinstance(part, dict) and kind == "text" else None
        if not isinstance(text, str):
            raise DataError(
                "message has a part that is not text",
                got=f"part of type {ascii(kind)[:60]}",
                at=at,
                expected='{"type": "text", "text": ...}',
                do=do,
            )
        texts.append(text)
    return "".join(texts)


_MARKERS = (
    "<|user|>", "<|assistant|>", "<|system|>", "<|prompter|>", "<|im_start|>", "<|im_end|>",
    "<|endoftext|>", "<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>",
    "<|end_header_id|>", "<|eot_id|>", "<|end|>", "[INST]", "[/INST]", "<<SYS>>", "<</SYS>>",
    "<start_of_turn>", "<end_of_turn>",
)  # fmt: skip
_IN_MARKERS = ("<|", "INST]", "SYS>>", "_of_turn>")
"""One of these is in every marker: most texts have none."""


def has_chat_markers(text: str) -> bool:
    """Whether a message writes out what a chat format puts around messages.

    The format is put around it once more, so that the model learns to say it as text. `<s>` and
    `</s>` count where the text begins or ends with one that has no other half: in HTML they strike
    words through.

    >>> has_chat_markers("<|user|> Hi"), has_chat_markers("Paris.</s>")
    (True, True)
    >>> has_chat_markers("a <| b"), has_chat_markers("<s>old</s>")
    (False, False)
    """
    if any(part in text for part in _IN_MARKERS) and any(marker in text for marker in _MARKERS):
        return True
    halves = text.count("<s>") - text.count("</s>")
    return (halves > 0 and text.lstrip().startswith("<s>")) or (
        halves < 0 and text.rstrip().endswith("</s>")
    )


def is_blank(text: str) -> bool:
    r"""Whether a text shows nothing: spaces, line ends, and characters without width.

    >>> is_blank(" \n\u200b"), is_blank(".")
    (True, False)
    """
    if text[:1].isalnum():
        return False
    return all(one.isspace() or unicodedata.category(one) in ("Cc", "Cf") for one in text)


def no_answer_to_train(messages: Messages) -> bool:
    """Whether there are answers of the assistant and every one says that it is not trained.

    >>> no_answer_to_train([{"role": "assistant", "content": "Yo", "train": False}])
    True
    """
    flags = [message.get("train", True) for message in messages if message["role"] == "assistant"]
    return bool(flags) and not any(flags)
