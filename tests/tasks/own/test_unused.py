"""What of a record is not used, what is refused, and what is said of it."""

# ruff: noqa: E501
import json

import pytest

from tasks import jsonl
from tulu_jax.data.faults import unused_lines
from tulu_jax.errors import DataError

from .records import ALPACA, CHAT, PAIR, TURNS, answers, put, read


def test_fields_that_may_mean_something_are_named_with_their_first_place(tmp_path):
    rows = [{"messages": CHAT}] + [{"messages": CHAT, "tools": [{"type": "function"}]}] * 3
    rows += [{"messages": [{**CHAT[0], "name": "Bob"}, {**CHAT[1], "reasoning_content": "hm"}]}]
    made, faults = read(tmp_path, *rows)
    assert made == [CHAT] * 5
    at = tmp_path / "a.jsonl"
    assert unused_lines(faults.as_json()) == [
        f"field 'tools' is not used: 3 times, first at {at}, line 2",
        f"message field 'name' is not used: 1 time, first at {at}, line 5, message 0",
        f"message field 'reasoning_content' is not used: 1 time, first at {at}, line 5, message 1",
    ]


def test_fields_that_say_nothing_are_not_named(tmp_path):
    row = {"messages": [{**CHAT[0], "name": None}, {**CHAT[1], "tool_calls": [], "function_call": None}],
           "tools": [], "images": None, "history": []}  # fmt: skip
    made, faults = read(tmp_path, row)
    assert made == [CHAT] and unused_lines(faults.as_json()) == []


def test_metadata_is_one_line_and_many_fields_are_not_many_lines(tmp_path):
    row = {**PAIR, "source": "s", "score": 1, "id": "x", "": 3}
    _, faults = read(tmp_path, row, row)
    assert unused_lines(faults.as_json()) == [
        "not used: source (2), score (2), a column without a name (2)"
    ]
    _, faults = read(tmp_path, {**PAIR, **{f"field {n}": 1 for n in range(30)}})
    lines = unused_lines(faults.as_json())
    assert len(lines) == 13 and lines[-1] == "18 fields more are not used"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({**PAIR, "images": ["a.png"]}, "record has images, which text cannot hold - at .*line 1 - expected text"),
        ({"messages": [{**CHAT[0], "audio": {"id": 1}}, CHAT[1]]}, "message has audio, which text cannot hold"),
        ({**PAIR, "label": False}, "record says that its answer is a bad one - got field 'label' with false"),
        ({"messages": CHAT, "kto_tag": False}, "its answer is a bad one .* - take such records out"),
        ({"prompt": ["a", "b"], "completion": ["c", "d"]}, "prompt and completion are lists of texts - at"),
        ({**ALPACA, "history": [["a", "b"]]}, "record has a history of earlier turns beside its own"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}, CHAT[1]]},
         "message has a part that is not text - got part of type 'image_url' at .*line 1, message 0"),
        ({"messages": [{"role": "user", "content": ["a"]}]}, "part that is not text - got part of type 'str'"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "part that is not text"),
        ({"messages": [{"role": "user", "content": []}]}, "message content is not text - got list"),
        ({"messages": [{"role": "tool", "content": "4"}]}, "record has calls or results of tools - got a message of role 'tool'"),
        ({"messages": [{**CHAT[1], "tool_calls": [{"id": 1}]}]}, "record has calls or results .* --option FILE.tools=text"),
        ({"messages": [{"role": "assistant", "content": None, "function_call": {"name": "f"}}]}, "calls or results of tools"),
        ({"conversations": [{"from": "observation", "value": "4"}]}, "calls or results of tools - got a message of role 'obs"),
        ({"conversations": [{"from": "narrator", "value": "4"}]}, "unknown sender - got 'narrator' at .* - expected system, human"),
        ({"conversations": [{"from": 3, "value": "4"}]}, "unknown sender - got 3"),
        ({"conversations": [{"from": "gpt"}]}, r"turn has no 'value' - got fields \['from'\]"),
        ({"conversations": [{"from": "gpt", "value": None}]}, "message content is not text - got NoneType"),
        ({"conversations": []}, "messages are empty"),
        ({"conversations": "x"}, "field 'conversations' has the wrong type"),
    ],
)  # fmt: skip
def test_records_that_would_be_another_conversation_are_faults(tmp_path, row, message):
    with pytest.raises(DataError, match=message):
        list(jsonl.read(put(tmp_path, row)))


def test_faults_are_counted_by_kind(tmp_path):
    tool = {"messages": [*CHAT, {"role": "tool", "content": "4"}]}
    _, faults = read(tmp_path, *[{"messages": CHAT}] * 2, *[tool] * 3, {**PAIR, "images": [1]})
    with pytest.raises(DataError, match=(
        r"too many bad records - got 4 of 6; first: .*line 3.*; in all 3 record has calls or results of tools, "
        r"1 record has images, which text cannot hold at tulu_x .* mend these records or take them out"
    )):  # fmt: skip
        faults.check("tulu_x", own=True)


@pytest.mark.parametrize("depth", [300, 900, 985, 2000])
def test_deep_values_are_faults_or_kept_out(tmp_path, depth):
    deep = "[" * depth + "]" * depth
    rows = [
        f'{{"prompt": "q", "completion": "a", "{name}": {deep}}}'
        for name in ("weight", "x", "system", "tools", "id")
    ]
    rows += [f'{{"messages": {deep}}}', json.dumps(PAIR)]
    for tools in ("refuse", "text"):
        made, faults = read(tmp_path, *rows, tools=tools)
        assert CHAT in made and len(made) + faults.skipped == len(rows)
        jsonl.describe(tmp_path / "a.jsonl", **{**jsonl.OPTIONS, "tools": tools})


# --- what is said ---


def test_what_is_said_before_reading(tmp_path):
    def said(*rows, **options):
        return jsonl.describe(put(tmp_path, *rows), **{**jsonl.OPTIONS, **options})

    assert said({**PAIR, "source": "s", "tools": [1]}) == [
        "a.jsonl: one record a line; prompt -> user, completion -> assistant; not used: field 'tools', source",
        "    the first: user 'q', assistant 'a'",
    ]
    assert said({"messages": answers({"weight": 0}, {}, {}), "system": "x" * 50}) == [
        "a.jsonl: one record a line; messages of role and content, system -> system",
        f"    the first: system '{'x' * 40}...', user 'q', assistant '0' (not trained), user 'q' and 3 messages more",
    ]
    assert "Alpaca: instruction and input -> user, in the templates of stanf" in said(ALPACA)[0]
    assert (
        "ShareGPT: conversations of from -> role and value -> text"
        in said({"conversations": TURNS})[0]
    )
    assert said({"q": "q", "a": "a"}, columns="prompt=q,completion=a")[0].endswith(
        "(columns prompt=q, completion=a)"
    )
    assert "none that can be read: malformed or truncated JSON" in said("{x", "{y")[1]


def test_what_is_said_stays_short(tmp_path):
    many = {**PAIR, **{f"f{n}": 1 for n in range(20)}}
    line = jsonl.describe(put(tmp_path, many), **jsonl.OPTIONS)[0]
    assert line.endswith(
        "; not used: field 'f0', field 'f1', field 'f2', field 'f3', field 'f4', field 'f5', field 'f6', field 'f7', 12 fields more"
    )
    rows = [{**PAIR, f"f{n}": 1} for n in range(300)]
    _, faults = read(tmp_path, *rows)
    ((_, fields_found),) = faults.unused.items()
    assert len(fields_found) == 101 and fields_found["one field or other"][0] == 200
