"""Which records are conversations, in which shapes, by which columns."""

# ruff: noqa: E501
import doctest
import json

import pytest

from tasks import jsonl, read_conversations
from tasks.own import fields, files, say, shapes, tables
from tulu_jax.data.faults import unused_lines
from tulu_jax.errors import ConfigError, DataError

from .records import ALPACA, CHAT, PAIR, SYSTEM, TURNS, read


@pytest.mark.parametrize("module", [fields, files, say, shapes, tables])
def test_docstring_examples(module):
    assert doctest.testmod(module).failed == 0


def test_alpaca_is_what_the_dataset_is(tmp_path, shared):
    raw = shared / "data/raw/stanford_alpaca"
    theirs = [row["messages"] for row in read_conversations("stanford_alpaca", raw)]
    rows = json.loads((raw / "alpaca_data.json").read_text())
    ours, faults = read(tmp_path, *rows)
    assert ours == theirs and len(ours) > 100 and not faults.skipped


def test_senders_of_sharegpt(tmp_path):
    who = ["system", "human", "chatgpt", "user", "bing", "human", "bard", "human", "assistant"]
    turns = [{"from": name, "value": name} for name in who]
    (messages,), faults = read(tmp_path, {"conversations": turns, "id": "x"})
    assert [m["role"] for m in messages] == ["system", *["user", "assistant"] * 4]
    assert [m["content"] for m in messages] == who and not faults.unused


@pytest.mark.parametrize(
    "row",
    [
        {"messages": CHAT},
        {"conversations": TURNS},
        PAIR,
        {"conversations": CHAT},
        {"messages": TURNS},
    ],
)
@pytest.mark.parametrize("name", ["system", "system_prompt"])
def test_a_system_message_beside_the_turns(tmp_path, row, name):
    assert read(tmp_path, {**row, name: "Be kind."})[0] == [[SYSTEM, *CHAT]]
    assert read(tmp_path, {**row, name: ""})[0] == [CHAT]
    assert read(tmp_path, {**row, name: None})[0] == [CHAT]


def test_system_messages_that_differ_are_faults(tmp_path):
    rows = (
        {"messages": [SYSTEM, *CHAT], "system": "Be kind."},
        {"messages": [SYSTEM, *CHAT], "system": "Be rude."},
        {"messages": CHAT, "system": "a", "system_prompt": "b"},
        {"messages": CHAT, "system": ["a"]},
    )
    made, faults = read(tmp_path, *rows)
    assert made == [[SYSTEM, *CHAT]] and faults.skipped == 3
    assert (
        "record has two system messages - got system, and 1 among its messages"
        in faults.messages[0]
    )
    assert "field 'system' has the wrong type" in faults.messages[2]


def test_prompt_and_completion_that_are_messages(tmp_path):
    """TRL's form, of which only the completion is trained."""
    row = {
        "prompt": [SYSTEM, *CHAT, CHAT[0]],
        "completion": [{"role": "assistant", "content": "b"}],
    }
    (messages,), faults = read(tmp_path, row, {**row, "completion": "b"}, {**row, "prompt": [3]})
    assert [m["content"] for m in messages] == ["Be kind.", "q", "a", "q", "b"]
    assert [m.get("train", True) for m in messages] == [True, True, False, True, True]
    assert "field 'prompt' has the wrong type - got list" in faults.messages[0]
    assert "message is not a mapping - got int at" in faults.messages[1]
    assert "line 3, prompt, message 0" in faults.messages[1]


def test_the_alpaca_template_after_a_system_message(tmp_path):
    ((system, user, answer),), _ = read(tmp_path, {**ALPACA, "system": "Be kind."})
    assert system == SYSTEM and "1 2" in user["content"] and answer["content"] == "3"


def test_records_of_another_shape_than_the_first_are_faults(tmp_path):
    for first, other in ((ALPACA, PAIR), ({"conversations": TURNS}, PAIR), (PAIR, ALPACA)):
        made, faults = read(tmp_path, first, first, other)
        assert len(made) == 2
        assert "record has another shape than the first ones - got fields " in faults.messages[0]
        assert "a.jsonl, line 3 - expected" in faults.messages[0]
    made, faults = read(tmp_path, {"messages": CHAT}, PAIR)  # these two may be mixed
    assert made == [CHAT, CHAT]
    made, faults = read(tmp_path, {"text": "a"}, *[ALPACA] * 2)
    assert len(made) == 2 and "missing field 'instruction'" in faults.messages[0]


def test_columns_that_are_null_are_not_there(tmp_path):
    """A table has every column in every row."""
    nulls = dict.fromkeys(
        (
            "messages",
            "conversations",
            "prompt",
            "completion",
            "instruction",
            "output",
            "weight",
            "tools",
        )
    )
    for row in ({"messages": CHAT}, PAIR, {"conversations": TURNS}):
        made, faults = read(tmp_path, {**nulls, **row})
        assert made == [CHAT] and not faults.unused
    with pytest.raises(DataError, match="record has no conversation - got fields messages, conv"):
        read(tmp_path, nulls)


@pytest.mark.parametrize(
    ("row", "advice"),
    [
        ({"question": "q", "answer": "a"}, "--columns prompt=question,completion=answer"),
        ({"Prompt": "q", "Answer": "a"}, "--columns prompt=Prompt,completion=Answer"),
        ({"contents": [{"role": "user", "parts": [{"text": "q"}]}]}, "write each turn as role and content"),
        ({"query": "q", "response": "a"}, "--columns prompt=query,completion=response"),
        ({"input": "q", "output": "a"}, "--columns prompt=input,completion=output"),
        ({"prompt": "q", "chosen": "a", "rejected": "b"}, "--columns prompt=prompt,completion=chosen"),
        ({"instruction": "i", "context": "", "response": "a"},
         "--columns instruction=instruction,input=context,output=response"),
        ({"dialog": CHAT}, "--columns messages=dialog"),
        ({"text": "a"}, "text alone does not say who speaks and what is trained"),
        ({"role": "user", "content": "q"}, r'put the messages of a conversation into a list: {"mes'),
        ({"a": {"messages": CHAT}, "b": {"messages": CHAT}}, "write what is in these fields as a JSON list"),
        ({"columns": ["prompt"], "index": [0], "data": [["q"]]}, "in pandas: orient='records'"),
        ({"x": "a", "y": 1}, "--columns prompt=NAME,completion=NAME"),
    ],
)  # fmt: skip
def test_unknown_shapes_are_refused_with_the_columns_that_may_be_meant(tmp_path, row, advice):
    with pytest.raises(
        DataError, match=r"record has no conversation - got fields .* line 1 - exp"
    ) as error:
        read(tmp_path, row, row)
    assert advice in str(error.value) and "(ShareGPT)" in str(error.value)
    with pytest.raises(DataError, match="record has no conversation"):
        jsonl.describe(tmp_path / "a.jsonl", **jsonl.OPTIONS)


# --- columns ---


@pytest.mark.parametrize("columns", ["prompt=question, completion=answer",
                                     {"prompt": "question", "completion": "answer"}])  # fmt: skip
def test_columns(tmp_path, columns):
    row = {"question": "q", "answer": "a", "prompt": "p", "source": "s"}
    made, faults = read(tmp_path, row, {"question": "q"}, columns=columns)
    assert made == [CHAT]
    assert "missing column 'answer' - got fields question at" in faults.messages[0]
    assert faults.metadata == {"source": 1}
    assert (
        "field 'prompt (not the one that columns name)' is not used: 1 time"
        in unused_lines(faults.as_json())[0]
    )


def test_columns_for_every_shape(tmp_path):
    assert read(
        tmp_path, {"dialog": CHAT, "s": "Be kind.", "n": 7}, columns="messages=dialog,system=s,id=n"
    )[0] == [[SYSTEM, *CHAT]]
    assert read(tmp_path, {"dialog": TURNS}, columns="conversations=dialog")[0] == [CHAT]
    ours, _ = read(
        tmp_path, {"i": "Add.", "c": "1 2", "o": "3"}, columns="instruction=i,input=c,output=o"
    )
    assert ours == read(tmp_path, ALPACA)[0]
    assert read(tmp_path, {**ALPACA, "prompt": "x"}, columns="prompt=input,completion=output")[
        0
    ] == [[{"role": "user", "content": "1 2"}, {"role": "assistant", "content": "3"}]]


def test_columns_that_no_record_has(tmp_path):
    with pytest.raises(
        DataError, match=r"missing column 'quesion' - got fields prompt, completion at"
    ):
        read(tmp_path, PAIR, columns="prompt=quesion")


@pytest.mark.parametrize(
    "columns", ["prompt", "", "asked=question", "prompt=", 3, {}, {"prompt": ""}]
)
def test_columns_that_are_not_understood(tmp_path, columns):
    with pytest.raises(
        ConfigError, match=r"columns are not understood - got .* for instance --col"
    ):
        read(tmp_path, PAIR, columns=columns)


@pytest.mark.parametrize(("name", "value"), [("tools", "yes"), ("empty", None)])
def test_options_that_are_not_understood(tmp_path, name, value):
    with pytest.raises(
        ConfigError, match=f"unknown value of option {name} - got .* - expected .* or "
    ):
        read(tmp_path, PAIR, **{name: value})
