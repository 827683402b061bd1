"""Conversations that name a language model are left out, and counted."""

import pytest

from tasks.name_filter import NAMES, REASON, mentions_name, without_names
from tulu_jax.data.faults import Faults


def says(*texts):
    return {"messages": [{"role": "user", "content": text} for text in texts]}


@pytest.mark.parametrize("name", NAMES)
def test_every_spelling_in_any_case_and_any_message(name):
    for spelled in (name, name.upper(), name.lower(), f"x{name}y"):
        assert mentions_name(says("hello", f"I am {spelled}."))


@pytest.mark.parametrize(
    "text", ["", "GPT", "gpt-2", "Bing", "open-assistant", "chat  gpt", "lai on", "CLAUD"]
)
def test_other_words_pass(text):
    assert not mentions_name(says(text))


def test_ordinary_palms_go_too():
    assert mentions_name(says("A palm tree.")) and mentions_name(says("the lombard street"))


def test_left_out_rows_are_counted():
    faults = Faults(strict=True)
    rows = [says("a"), says("Claude"), says("b", "openai"), says("c")]
    assert list(without_names(rows, faults)) == [rows[0], rows[3]]
    assert faults.left_out == {REASON: 2} and faults.skipped == 0
    assert list(without_names(rows, faults, wanted=False)) == rows
    assert list(without_names(rows)) == [rows[0], rows[3]]
