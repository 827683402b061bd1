"""What becomes of a record: its conversation, what is honoured, what is counted, what is refused."""

# ruff: noqa: E501
import doctest
import json

import pytest

from tasks import jsonl, read_conversations
from tasks.own import fields, files, say, shapes, tables
from tulu_jax.data.faults import Faults, unused_lines
from tulu_jax.errors import ConfigError, DataError

CHAT = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
PAIR = {"prompt": "q", "completion": "a"}
TURNS = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]
ALPACA = {"instruction": "Add.", "input": "1 2", "output": "3"}
SYSTEM = {"role": "system", "content": "Be kind."}


def put(folder, *rows, name="a.jsonl"):
    path = folder / name
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    return path


def read(folder, *rows, **options):
    """The messages of the rows, and the faults."""
    faults = Faults()
    made = jsonl.read(put(folder, *rows), faults=faults, **options)
    return [row["messages"] for row in made], faults


@pytest.mark.parametrize("module", [fields, files, say, shapes, tables])
def test_docstring_examples(module):
    assert doctest.testmod(module).failed == 0


# --- shapes ---


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


# --- flags ---


def answers(*flags):
    messages = []
    for number, flag in enumerate(flags):
        messages += [
            {"role": "user", "content": "q"},
            {"role": "assistant", "content": str(number)},
        ]
        messages[-1] |= flag
    return messages


def trained(messages):
    return [m.get("train", True) for m in messages if m["role"] == "assistant"]


@pytest.mark.parametrize("name", fields.FLAGS)
@pytest.mark.parametrize(("no", "yes"), [(0, 1), (False, True), (0.0, 1.0)])
def test_flags_of_messages_are_honoured(tmp_path, name, no, yes):
    chat = answers({name: no}, {name: yes}, {}, {name: None})
    talk = [
        {"from": m["role"], "value": m["content"], **({name: m[name]} if name in m else {})}
        for m in chat
    ]
    for rows in ({"messages": chat}, {"conversations": talk}):
        (messages,), faults = read(tmp_path, rows)
        assert trained(messages) == [False, True, True, True] and not faults.unused
        assert all(set(m) <= {"role", "content", "train"} for m in messages)


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ({"weight": 0.5}, "message has a weight that is neither 0 nor 1 - got 0.5 at .*line 1, message 1 - expected true or 1 for"),
        ({"weight": 2}, "message has a weight that is neither 0 nor 1 - got 2"),
        ({"train": "false"}, "message has a train that is neither 0 nor 1 - got 'false'"),
        ({"loss": []}, "message has a loss that is neither 0 nor 1"),
        ({"loss_mask": [0, 1]}, "message has a loss_mask that is neither 0 nor 1"),
        ({"weight": 1, "train": False}, "message has two flags that differ - got weight true, train false"),
        ({"masked": True}, "message has a flag that is not understood - got field 'masked' at"),
        ({"train_detail": [{"begin_offset": 0}]}, "message has a flag that is not understood - got field 'train_d"),
        ({"ignore_loss": 1}, "message has a flag that is not understood .* weight, train, training"),
    ],
)  # fmt: skip
def test_flags_that_are_not_understood_are_faults(tmp_path, flag, message):
    with pytest.raises(DataError, match=message):
        list(jsonl.read(put(tmp_path, {"messages": answers(flag)})))


def test_flags_of_messages_that_are_never_trained(tmp_path):
    no, yes = ({"role": "user", "content": "q", "weight": weight} for weight in (0, 1))
    (messages,), faults = read(tmp_path, {"messages": [no, yes, CHAT[1]]})
    assert trained(messages) == [True] and [m["role"] for m in messages] == [
        "user",
        "user",
        "assistant",
    ]
    assert unused_lines(faults.as_json()) == [
        f"flag that asks to train what is said as 'user' is not used: 1 time, first at {tmp_path}/a.jsonl, line 1, message 1"
    ]


def test_flags_of_whole_records(tmp_path):
    for name in ("weight", "train", "training", "trainable", "loss"):
        no, yes = {**PAIR, name: False}, {**PAIR, name: True}
        made, faults = read(
            tmp_path, no, yes, {"messages": CHAT, name: False}, {**ALPACA, name: True}
        )
        assert [trained(m) for m in made] == [[False], [True], [False]] and faults.skipped == 1
    made, faults = read(tmp_path, {**PAIR, "loss": 0.7})
    assert made == [CHAT] and "field 'loss' is not used" in unused_lines(faults.as_json())[0]
    made, faults = read(
        tmp_path, {**PAIR, "weight": 0.7}, {"messages": answers({"train": True}), "weight": 1}
    )
    assert (
        len(made) == 1
        and "record has a weight that is neither 0 nor 1 - got 0.7" in faults.messages[0]
    )


def test_a_list_of_flags_beside_the_messages(tmp_path):
    row = {"messages": answers({}, {}), "loss_mask": [1, 0, 1, 1], "system": "Be kind."}
    made, faults = read(
        tmp_path, row, {**row, "loss_mask": [1]}, {**row, "loss_mask": [1, 2, 1, 1]}
    )
    assert [trained(m) for m in made] == [[False, True]] and made[0][0] == SYSTEM
    assert (
        "loss_mask does not fit the messages - got 1 flags for 4 messages at" in faults.messages[0]
    )
    assert "record has a loss_mask that is neither 0 nor 1 - got 2" in faults.messages[1]


# --- fields that are not used ---


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


# --- answers without text ---


def test_empty_answers_are_kept_or_not_trained(tmp_path):
    chat = [*CHAT, CHAT[0], {"role": "assistant", "content": " \n"}]
    rows = {"messages": chat}, {"prompt": "q", "completion": ""}, PAIR
    kept, _ = read(tmp_path, *rows)
    assert [trained(m) for m in kept] == [[True, True], [True], [True]]
    left, faults = read(tmp_path, *rows, empty="drop")
    assert [trained(m) for m in left] == [[True, False], [True]]
    assert faults.left_out == {"no answer with text": 1}
    only_question, faults = read(tmp_path, {"messages": CHAT[:1]}, empty="drop")
    assert only_question == [CHAT[:1]] and not faults.left_out  # which preparing counts


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
