"""From the turns of a user's record to messages: roles, parts of text, flags, calls of tools."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tasks.json_window import BadRecord
from tasks.own.fields import FLAGS, count_unused, flag_of, is_absent
from tasks.own.tools import CALLERS, CALLS, TOOL_ROLES, as_text, no_tools
from tulu_jax.chat import ROLES, check_messages
from tulu_jax.chat.messages import text_of_parts
from tulu_jax.data.faults import Faults

SHAREGPT_ROLES = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
}
"""Who speaks in `from`, by the names that exports of ShareGPT use."""

_KNOWN = frozenset(("role", "content", "from", "value", *FLAGS))
_TOOL_FIELDS = (*CALLS, "tool_call_id")


def messages_of(
    turns: Sequence[Any], *, at: str, faults: Faults, tools: bool = False
) -> list[dict[str, Any]]:
    """The messages of a conversation whose turns have `role` and `content`, or `from` and `value`.

    Content may be parts of text, which are joined. With `tools`, calls and results of tools become
    text (`tasks/own/tools.py`); otherwise they are refused, as are images. A message that a flag
    says is not trained has `train` false.

    Raises: DataError for what is no conversation, or cannot be text.
    """
    messages = []
    for index, turn in enumerate(turns):
        if type(turn) is dict and not (
            len(turn) == 2 and turn.get("role") in ROLES and type(turn.get("content")) is str
        ):  # most turns hold nothing else
            turn = _message(turn, f"{at}, message {index}", faults, tools=tools)
        messages.append(turn)
    if tools:
        messages = as_text(messages, at)
    check_messages(messages, at)
    return messages


def _message(turn: dict[str, Any], at: str, faults: Faults, *, tools: bool) -> dict[str, Any]:
    """One turn as a message; with `tools`, fields of calls and results are still there."""
    sharegpt = "from" in turn and "role" not in turn
    if not sharegpt and ("role" not in turn or ("content" not in turn and not _calls(turn))):
        return turn  # which `check_messages` refuses
    role = turn["from"] if sharegpt else turn["role"]
    if sharegpt:
        if "value" not in turn:
            raise BadRecord("turn has no 'value'", got=_names(turn), at=at, expected="from, value")
        if not (isinstance(role, str) and (role in SHAREGPT_ROLES or _is_tool(role))):
            raise BadRecord(
                "unknown sender",
                got=ascii(role)[:60],
                at=at,
                expected=", ".join(SHAREGPT_ROLES),
            )
        role = SHAREGPT_ROLES.get(role, role)
    if not tools and (_calls(turn) or _is_tool(role)):
        raise no_tools(role, at)
    known = {*_KNOWN, *_TOOL_FIELDS, *(["name"] * _is_tool(role))} if tools else _KNOWN
    count_unused(turn, known, "message", at=at, faults=faults)
    text = turn["value"] if sharegpt else turn.get("content")
    message: dict[str, Any] = {"role": role, "content": _text(text, at, faults)}
    flag = flag_of(turn, "message", at)
    if flag is False:
        message["train"] = False
    elif flag and role != "assistant" and role not in CALLERS:
        faults.ignore(f"flag that asks to train what is said as {ascii(role)[:40]}", at)
    if tools:
        message |= {name: turn[name] for name in _TOOL_FIELDS if turn.get(name)}
    return message


def _text(content: Any, at: str, faults: Faults) -> Any:
    """Content as text: parts of text are joined; what is neither is given back as it is."""
    if not isinstance(content, list) or not content:
        return content
    text = text_of_parts(content, at)
    for part in content:
        count_unused(part, ("type", "text"), "part", at=at, faults=faults)
    return text


def _calls(turn: dict[str, Any]) -> bool:
    return any(not is_absent(turn.get(name)) for name in CALLS)


def _is_tool(role: Any) -> bool:
    return isinstance(role, str) and role in TOOL_ROLES


def _names(turn: dict[str, Any]) -> str:
    return f"fields {sorted(map(str, turn))}"[:200].encode(errors="backslashreplace").decode()
