"""WizardLM's rows become conversations, all of them or a sample."""

import json
import random

import pytest

from tasks import read_conversations, wizardlm
from tulu_jax.data.faults import Faults
from tulu_jax.errors import DataError


def row(name, *texts, senders=("human", "gpt")):
    turns = [{"from": senders[i % 2], "value": text} for i, text in enumerate(texts)]
    return {"idx": name, "conversations": turns}


def write(tmp_path, *rows):
    (tmp_path / wizardlm.FILE).write_text(json.dumps(rows, indent=1))
    return tmp_path


def test_records(tmp_path):
    folder = write(tmp_path, row("x1", "q ", "a", "r", "\nb"), row(7, "q", ""), row("e"))
    one, two, empty = read_conversations("wizardlm", folder)
    roles = ("user", "assistant")
    contents = ("q ", "a", "r", "\nb")
    assert one == {
        "dataset": "wizardlm",
        "id": "wizardlm_x1",
        "messages": [{"role": roles[i % 2], "content": text} for i, text in enumerate(contents)],
    }
    assert two["id"] == "wizardlm_7" and two["messages"][1]["content"] == ""
    assert empty["messages"] == []


def test_a_sample_is_in_the_order_of_the_draw(tmp_path):
    folder = write(tmp_path, *(row(n, "q", "a") for n in range(20)))
    drawn = random.Random(42).sample(range(20), 5)
    rows = read_conversations("wizardlm", folder, num_examples=5)
    assert [one["id"] for one in rows] == [f"wizardlm_{n}" for n in drawn]
    assert len(list(read_conversations("wizardlm", folder, num_examples=21))) == 20


def test_the_reading_of_tulu_2(tmp_path):
    folder = write(tmp_path, row("a", "q", "a"), row("b", "q", "ask Claude"))
    rows = list(read_conversations("tulu_v2_wizardlm", folder))
    assert [one["id"] for one in rows] == ["wizardlm_a"]
    assert wizardlm.TULU_V2.options["num_examples"] == 30_000


def test_a_repeated_id_gets_a_number(tmp_path):
    folder = write(tmp_path, row("a", "q", "a"), row("a", "r", "a"))
    rows = read_conversations("wizardlm", folder)
    assert [one["id"] for one in rows] == ["wizardlm_a", "wizardlm_a#2"]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (
            row("x", "a", "q", senders=("gpt", "human")),
            "turns are out of order - got 'gpt' .*turn 0",
        ),
        (
            row("x", "q", "r", senders=("human", "human")),
            r"got 'human' at .*, turn 1 - expected gpt",
        ),
        (row("x", "q"), "last question has no answer - got 1 turns at .*, line "),
        ({"idx": "x"}, "missing field 'conversations'"),
        ({"idx": None, "conversations": []}, "field 'idx' has the wrong type - got NoneType"),
        ({"conversations": []}, "missing field 'idx'"),
        ({"idx": "x", "conversations": ["q", "a"]}, "turn has the wrong type - got str 'q'"),
        ({"idx": "x", "conversations": [{"from": "human"}]}, "missing field 'value'"),
    ],
)
def test_bad_records_are_named_or_skipped(tmp_path, bad, message):
    folder = write(tmp_path, row("a", "q", "a"), bad)
    with pytest.raises(DataError, match=message):
        list(read_conversations("wizardlm", folder))
    faults = Faults(strict=False)
    assert len(list(read_conversations("wizardlm", folder, faults=faults))) == 1
    assert (faults.records, faults.skipped) == (2, 1)
