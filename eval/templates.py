"""Chat formats as text, under the names that open-instruct gives them.

`--chat_formatting_function` names one of them, or any function of yours with these arguments.
Source: arXiv 2306.04751, section 3.2; allenai/open-instruct:eval/templates.py@662c2ad49.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

from tulu_jax.errors import ConfigError, DataError

Message = Mapping[str, str]
Formatter = Callable[..., str]

TULU = "eval.templates.create_prompt_with_tulu_chat_format"


def create_prompt_with_tulu_chat_format(
    messages: Sequence[Message], bos: str = "<s>", eos: str = "</s>", add_bos: bool = True
) -> str:
    r"""A conversation in Tülu's format, up to where the assistant answers next.

    >>> create_prompt_with_tulu_chat_format([{"role": "user", "content": "Hi"}], add_bos=False)
    '<|user|>\nHi\n<|assistant|>\n'

    Raises:
      DataError: a role that is none of system, user and assistant.
    """
    parts = [bos] if add_bos else []
    for index, message in enumerate(messages):
        role, content = message["role"], message["content"]
        if role not in ("system", "user", "assistant"):
            raise _unknown_role(role, index)
        text = content.strip() + eos if role == "assistant" else content
        parts.append(f"<|{role}|>\n{text}\n")
    return "".join([*parts, "<|assistant|>\n"])


def create_prompt_with_llama2_chat_format(
    messages: Sequence[Message], bos: str = "<s>", eos: str = "</s>", add_bos: bool = True
) -> str:
    """A conversation in LLaMA-2-chat's format; the system message stands in the first question.

    >>> create_prompt_with_llama2_chat_format([{"role": "user", "content": " Hi "}])
    '<s>[INST] Hi [/INST]'

    Raises:
      DataError: another role, or a system message with no question after it.
    """
    messages = list(messages)
    if messages and messages[0]["role"] == "system":
        if len(messages) < 2 or messages[1]["role"] != "user":
            raise DataError(
                "system message has no question to stand in",
                at="message 0",
                expected="role user next",
            )
        system, first = messages[0]["content"], messages[1]["content"]
        text = f"<<SYS>>\n{system}\n<</SYS>>\n\n{first}"
        messages = [{"role": "user", "content": text}, *messages[2:]]
    parts = []
    for index, message in enumerate(messages):
        if message["role"] == "user":
            parts.append(f"{bos}[INST] {message['content'].strip()} [/INST]")
        elif message["role"] == "assistant":
            parts.append(f" {message['content']} {eos}")
        else:
            raise _unknown_role(message["role"], index)
    text = "".join(parts)
    return text if add_bos else text.removeprefix(bos)


def _unknown_role(role: str, index: int) -> DataError:
    return DataError(
        "unknown role", got=repr(role), at=f"message {index}", expected="system, user or assistant"
    )


def import_formatter(dotted: str) -> Any:
    """The function that a dotted path names.

    Raises:
      ConfigError: there is none.
    """
    module, _, name = dotted.rpartition(".")
    try:
        found = getattr(import_module(module), name) if module else None
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            "chat formatting function cannot be imported", got=error, at=dotted,
            expected="module.function", do=f"for example {TULU}",
        ) from error  # fmt: skip
    if not callable(found):
        raise ConfigError(
            "chat formatting function is none", got=repr(found), at=dotted,
            expected="module.function", do=f"for example {TULU}",
        )  # fmt: skip
    return found
