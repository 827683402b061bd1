"""Calls of tools as text: one form for every way to write them, trained as answers are."""

# ruff: noqa: E501
import json

import pytest

from tasks import jsonl
from tasks.own import tools
from tulu_jax.chat import render
from tulu_jax.chat.template import segments_text
from tulu_jax.data.faults import Faults, unused_lines
from tulu_jax.errors import DataError

TOOL = {"name": "weather", "parameters": {"type": "object"}}
CALL = {"name": "weather", "arguments": {"city": "Oslo"}}
QUESTION = {"role": "user", "content": "Is it cold in Oslo?"}
ANSWER = {"role": "assistant", "content": "Yes."}
OPENAI = {
    "tools": [{"type": "function", "function": TOOL}],
    "messages": [
        QUESTION,
        {"role": "assistant", "content": None, "tool_calls": [
            {"id": "c1", "type": "function", "function": {**CALL, "arguments": json.dumps(CALL["arguments"])}}]},
        {"role": "tool", "tool_call_id": "c1", "name": "weather", "content": "-4"},
        ANSWER,
    ],
}  # fmt: skip
LEGACY = {
    "functions": [TOOL],
    "messages": [
        QUESTION,
        {"role": "assistant", "content": "", "function_call": CALL},
        {"role": "function", "name": "weather", "content": "-4"},
        ANSWER,
    ],
}
SHAREGPT = {
    "tools": json.dumps([TOOL]),
    "conversations": [
        {"from": "human", "value": QUESTION["content"]},
        {"from": "function_call", "value": json.dumps(CALL)},
        {"from": "observation", "value": "-4"},
        {"from": "gpt", "value": "Yes."},
    ],
}


def read(folder, *rows, **options):
    path = folder / "a.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    faults = Faults()
    made = [row["messages"] for row in jsonl.read(path, faults=faults, tools="text", **options)]
    return made, faults


@pytest.mark.parametrize("row", [OPENAI, LEGACY, SHAREGPT])
def test_every_way_to_write_it_is_the_documented_text(tmp_path, row):
    (messages,), faults = read(tmp_path, row)
    documented = tools.__doc__.split("as in:\n\n")[1].replace("\n    ", "\n").strip()
    assert segments_text(render(messages), "") == documented
    assert not faults.unused and not faults.metadata
    spoken = "".join(s.text for s in render(messages) if s.trained)
    assert spoken == f"<tool_call>\n{json.dumps(CALL)}\n</tool_call>\nYes."


def test_refused_without_the_option(tmp_path):
    path = tmp_path / "a.jsonl"
    for row in (OPENAI, LEGACY, SHAREGPT):
        path.write_text(json.dumps(row))
        with pytest.raises(
            DataError, match=r"record has calls or results of tools - got a message"
        ):
            list(jsonl.read(path))


def test_text_before_calls_several_calls_and_results(tmp_path):
    calls = [{"id": name, "function": {"name": name, "arguments": "{}"}} for name in "ab"]
    results = [{"role": "tool", "tool_call_id": name, "content": name * 2} for name in "ab"]
    chat = [
        QUESTION,
        {"role": "assistant", "content": "Let me see.", "tool_calls": calls},
        *results,
        ANSWER,
    ]
    system = {"role": "system", "content": "Be kind."}
    ((first, _, called, result, answer),), _ = read(
        tmp_path, {"messages": [system, *chat], "tools": [TOOL]}
    )
    assert first["content"] == f"Be kind.\n\n{tools.LISTING}\n{json.dumps(TOOL)}"
    assert called["content"] == "Let me see.\n" + "\n".join(
        f'<tool_call>\n{{"name": "{name}", "arguments": {{}}}}\n</tool_call>' for name in "ab"
    )
    assert result == {
        "role": "user",
        "content": "<tool_response>\naa\n</tool_response>\n<tool_response>\nbb\n</tool_response>",
    }
    assert answer == ANSWER


def test_flags_of_calls(tmp_path):
    turns = [dict(turn) for turn in SHAREGPT["conversations"]]
    turns[1]["loss"] = False
    ((_, called, result, answer),), faults = read(tmp_path, {"conversations": turns})
    assert called["train"] is False and "train" not in answer and "train" not in result
    turns[1]["loss"], turns[2]["loss"] = True, True
    ((_, called, result, _),), faults = read(tmp_path, {"conversations": turns})
    assert "train" not in called and "train" not in result
    assert (
        "flag that asks to train what is said as 'observation'" in unused_lines(faults.as_json())[0]
    )


def test_conversations_without_tools_do_not_change(tmp_path):
    chat = [QUESTION, ANSWER]
    made, faults = read(
        tmp_path,
        {"messages": chat},
        {"prompt": "a", "completion": "b"},
        {"messages": [{**QUESTION, "name": "Bob"}, ANSWER]},
    )
    assert made == [
        chat,
        [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
        chat,
    ]
    assert "message field 'name' is not used" in unused_lines(faults.as_json())[0]


def called(**message):
    return {"messages": [QUESTION, {"role": "assistant", "content": None, **message}, ANSWER]}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (called(tool_calls="x"), "calls are no list - got str at .*line 1, message 1"),
        (called(tool_calls=[3]), "call of a tool has no name - got 3"),
        (called(tool_calls=[{"function": {"arguments": "{}"}}]), "call of a tool has no name"),
        (called(tool_calls=[{"function": {"name": "f", "arguments": "{"}}]), "arguments of a call are no JSON - got '{'"),
        (called(tool_calls=[{"function": {"name": "f", "arguments": '{"a": 1, "a": 2}'}}]), "arguments of a call are no JSON"),
        (called(content=7, tool_calls=[{"function": CALL}]), "message content is not text - got int"),
        ({"messages": [{**QUESTION, "tool_calls": [{"function": CALL}]}]}, "only the assistant calls tools - got 'user'"),
        ({"messages": [QUESTION, {"role": "tool", "content": "-4"}]}, "result of a tool does not follow its call - got a result with no call"),
        ({"messages": [*OPENAI["messages"][:2], {"role": "tool", "tool_call_id": "c2", "content": "-4"}]},
         "result of a tool does not follow its call - got 'c2' at .* - expected the result of 'c1'"),
        ({"messages": [*OPENAI["messages"][:2], {"role": "tool", "content": None}]}, "result of a tool is not text - got NoneType"),
        ({"conversations": [{"from": "function_call", "value": "f()"}]}, "call is no JSON - got 'f"),
        ({"messages": [QUESTION, ANSWER], "tools": "x"}, "tools are no JSON - got 'x'"),
        ({"messages": [QUESTION, ANSWER], "tools": {"a": 1}}, "tools are no list of objects - got dict"),
        ({"messages": [{"role": "robot", "content": "-4"}]}, "unknown role - got 'robot'"),
        ({"messages": [3]}, "message is not a mapping"),
        ({"messages": [{"role": "tool"}]}, "message has no 'content'"),
        ({"conversations": [{"from": "human", "value": "q", "role": "user"}]}, "message has no 'content'"),
    ],
)  # fmt: skip
def test_calls_that_are_none_are_faults(tmp_path, row, message):
    made, faults = read(tmp_path, row)
    assert made == [] and faults.skipped == 1
    with pytest.raises(DataError, match=message):
        raise DataError(faults.messages[0])
