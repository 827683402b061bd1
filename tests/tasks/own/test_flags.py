"""Flags that say what is trained, and answers without text."""

# ruff: noqa: E501
import pytest

from tasks import jsonl
from tasks.own import fields
from tulu_jax.data.faults import unused_lines
from tulu_jax.errors import DataError

from .records import ALPACA, CHAT, PAIR, SYSTEM, answers, put, read, trained


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


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ({"messages": CHAT, "train_on_turn": [0, 1]}, "record"),
        ({**PAIR, "masked": True}, "record"),
        ({"messages": [CHAT[0], {"role": "assistant", "content": [{"type": "text", "text": "x", "weight": 0}]}]}, "part"),
    ],
)  # fmt: skip
def test_flags_of_records_and_parts_that_are_not_understood_are_faults(tmp_path, row, what):
    with pytest.raises(DataError, match=f"{what} has a flag that is not understood - got field"):
        list(jsonl.read(put(tmp_path, row)))


def test_measurements_of_records_are_no_flags(tmp_path):
    made, faults = read(tmp_path, {**PAIR, "train_loss": 0.7, "weights": [0.5, 1], "label": True})
    assert made == [CHAT] and len(unused_lines(faults.as_json())) == 3


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


# --- answers without text ---


def test_empty_answers_are_kept_or_not_trained(tmp_path):
    chat = [*CHAT, CHAT[0], {"role": "assistant", "content": " \n"}]
    rows = {"messages": chat}, {"prompt": "q", "completion": "\u200b\ufeff"}, PAIR
    kept, _ = read(tmp_path, *rows)
    assert [trained(m) for m in kept] == [[True, True], [True], [True]]
    left, faults = read(tmp_path, *rows, empty="drop")
    assert [trained(m) for m in left] == [[True, False], [True]]
    assert faults.left_out == {"no answer with text": 1}
    only_question, faults = read(tmp_path, {"messages": CHAT[:1]}, empty="drop")
    assert only_question == [CHAT[:1]] and not faults.left_out  # which preparing counts
