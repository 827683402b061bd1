import doctest

import pytest

from tulu_jax.chat import ROLES, check_messages, messages
from tulu_jax.chat.messages import no_answer_to_train
from tulu_jax.errors import DataError

# ruff: noqa: E501
GOOD = {"role": "user", "content": "Hi"}


def test_docstring_examples():
    assert doctest.testmod(messages).failed == 0


@pytest.mark.parametrize("role", ROLES)
def test_every_role_and_empty_content_are_fine(role):
    check_messages([{"role": role, "content": ""}, {"role": role, "content": "中文 🐫"}])
    check_messages([{"role": role, "content": "", "train": train} for train in (True, False)])


def test_conversations_without_an_answer_to_train():
    trained, not_trained = ({"role": "assistant", "content": "", "train": t} for t in (True, False))
    assert no_answer_to_train([GOOD, not_trained, GOOD, not_trained])
    assert not no_answer_to_train([GOOD, not_trained, trained])
    assert not no_answer_to_train([GOOD, not_trained, {"role": "assistant", "content": "Yo"}])
    assert not no_answer_to_train([{**GOOD, "train": False}])


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("Hi", r"messages are not a list - got str at row 3 - expected a list of"),
        (None, r"messages are not a list - got NoneType at row 3"),
        ([], r"messages are empty - at row 3 - expected at least one message - drop the record"),
        ([GOOD, "Hi"], r"message is not a mapping - got str at row 3, message 1"),
        ([{"content": "Hi"}], r"message has no 'role' - got fields \['content'\] at row 3, message 0"),
        ([{"role": "user"}], r"message has no 'content' - got fields \['role'\]"),
        ([GOOD, {"role": "bot", "content": ""}], r"unknown role - got 'bot' at row 3, message 1 - expected one of system, user, assistant"),
        ([{"role": None, "content": ""}], r"unknown role - got None"),
        ([{"role": "user", "content": None}], r"message content is not text - got NoneType"),
        ([{"role": "user", "content": b"Hi"}], r"message content is not text - got bytes"),
        ([{**GOOD, "train": 0}], r"message's train is not true or false - got 0 at row 3, message 0 - expected true or false"),
        ([{**GOOD, "train": None}], r"message's train is not true or false - got None"),
        ([{"role": "user", "content": "a\ud800"}], r"not valid Unicode - got a lone surrogate '\\ud800' at character 1"),
    ],
)  # fmt: skip
def test_bad_messages_are_refused(value, message):
    with pytest.raises(DataError, match=message):
        check_messages(value, at="row 3")
