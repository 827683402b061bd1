r"""Calls of tools and functions as text, for those who ask for it with the option `tools=text`.

The system message ends in the tools, a call is a part of the answer and trained with it, and
results are what the user says, which is never trained. All of it as in:

    <|system|>
    You can call tools. A call is a JSON object between <tool_call> and </tool_call>. The tools:
    {"name": "weather", "parameters": {"type": "object"}}
    <|user|>
    Is it cold in Oslo?
    <|assistant|>
    <tool_call>
    {"name": "weather", "arguments": {"city": "Oslo"}}
    </tool_call>
    <|user|>
    <tool_response>
    -4
    </tool_response>
    <|assistant|>
    Yes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from tasks.json_window import OWN, BadRecord
from tasks.own.fields import is_absent
from tulu_jax.errors import DataError

CALLS = ("tool_calls", "function_call")
RESULTS = ("tool", "function", "observation", "function_response", "tool_response")
CALLERS = ("function_call", "tool_call")
TOOL_ROLES = frozenset((*RESULTS, *CALLERS))
"""Roles, or senders, of messages that are results, and of answers that are calls."""

LISTING = (
    "You can call tools. A call is a JSON object between <tool_call> and </tool_call>. The tools:"
)


def no_tools(role: Any, at: str) -> DataError:
    """The error of a call or a result where nobody asked for tools as text."""
    return BadRecord(
        "record has calls or results of tools",
        got=f"a message of role {ascii(role)[:40]}",
        at=at,
        expected="messages of text",
        do="take such records out, or have them written as text: --option FILE.tools=text",
    )


def with_tools(messages: list[dict[str, Any]], tools: Any, at: str) -> list[dict[str, Any]]:
    """The messages with the tools at the end of the system message, made where there is none.

    Raises: BadRecord for tools that are no list of objects.
    """
    if is_absent(tools):
        return messages
    if isinstance(tools, str):
        tools = _parsed(tools, "tools are no JSON", at)
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        got = type(tools).__name__
        raise BadRecord("tools are no list of objects", got=got, at=at, expected="a list")
    told = [_json(tool.get("function") or tool) for tool in tools]
    listing = "\n".join([LISTING, *told])
    if messages and messages[0].get("role") == "system":
        system = f"{messages[0]['content'].rstrip()}\n\n{listing}".lstrip()
        return [{**messages[0], "content": system}, *messages[1:]]
    return [{"role": "system", "content": listing}, *messages]


def as_text(turns: Sequence[Any], at: str) -> list[Any]:
    """Messages of text alone; what is no message stays for `check_messages` to refuse.

    Raises: BadRecord for a call that is none, a result out of order, or without a call before it.
    """
    messages: list[Any] = []
    waiting: list[Any] = []
    after_result = False
    for index, turn in enumerate(turns):
        place = f"{at}, message {index}"
        result = isinstance(turn, dict) and turn.get("role") in RESULTS
        if not isinstance(turn, dict) or not {"role", "content"} <= turn.keys():
            messages.append(turn)
            result = False
        elif not result:
            calls = _calls(turn, place)
            waiting = [call.pop("id") for call in calls]
            messages.append(_written(turn, calls, place))
        elif after_result:
            messages[-1]["content"] += "\n" + _result(turn, waiting, place)
        else:
            messages.append({"role": "user", "content": _result(turn, waiting, place)})
        after_result = result
    return messages


def _written(turn: dict[str, Any], calls: list[dict[str, Any]], at: str) -> dict[str, Any]:
    """The turn, which is no result, as a message of text."""
    called = turn["role"] in CALLERS
    role = "assistant" if called else turn["role"]
    if calls and role != "assistant":
        got = ascii(role)[:40]
        raise BadRecord("only the assistant calls tools", got=got, at=at, expected="assistant")
    content = "" if called or (calls and turn["content"] is None) else turn["content"]
    if calls and isinstance(content, str):
        texts = [f"<tool_call>\n{_json(call)}\n</tool_call>" for call in calls]
        content = "\n".join([content, *texts] if content else texts)
    message = {"role": role, "content": content}
    if turn.get("train") is False and role == "assistant":
        message["train"] = False
    return message


def _calls(turn: dict[str, Any], at: str) -> list[dict[str, Any]]:
    """The calls of a turn as `{id, name, arguments}`."""
    if turn["role"] in CALLERS:
        found = _parsed(turn["content"], "call is no JSON", at)
        found = found if isinstance(found, list) else [found]
    elif not is_absent(turn.get("function_call")):
        found = [turn["function_call"]]
    else:
        found = turn.get("tool_calls") or []
    if not isinstance(found, list):
        raise BadRecord("calls are no list", got=type(found).__name__, at=at, expected="a list")
    return [_call(one, at) for one in found]


def _call(given: Any, at: str) -> dict[str, Any]:
    call = given.get("function") or given if isinstance(given, dict) else given
    if not isinstance(call, dict) or not isinstance(call.get("name"), str):
        raise BadRecord(
            "call of a tool has no name", got=ascii(given)[:60], at=at, expected="name, arguments"
        )
    arguments = call.get("arguments")
    if isinstance(arguments, str):
        arguments = _parsed(arguments or "{}", "arguments of a call are no JSON", at)
    return {"id": given.get("id"), "name": call["name"], "arguments": arguments or {}}


def _result(turn: dict[str, Any], waiting: list[Any], at: str) -> str:
    """A result as text; the ids of the calls that are `waiting` for theirs are then one fewer."""
    given = turn.get("tool_call_id")
    if not waiting or (given and waiting[0] and given != waiting[0]):
        raise BadRecord(
            "result of a tool does not follow its call",
            got=ascii(given)[:60] if waiting else "a result with no call before it",
            at=at,
            expected=f"the result of {ascii(waiting[0])[:60]}" if waiting else "a call",
        )
    waiting.pop(0)
    content = turn["content"]
    if not isinstance(content, str):
        got = type(content).__name__
        raise BadRecord("result of a tool is not text", got=got, at=at, expected="text")
    return f"<tool_response>\n{content}\n</tool_response>"


def _parsed(text: Any, what: str, at: str) -> Any:
    try:
        return OWN.decode(text)
    except (ValueError, TypeError, RecursionError) as error:
        raise BadRecord(what, got=ascii(text)[:60], at=at, expected="JSON") from error


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
