"""Baize's marked text becomes turns, as the reference splits it."""

import json

import pytest

from tasks import baize, read_conversations
from tulu_jax.data.faults import Faults
from tulu_jax.errors import DataError


def write(tmp_path, **parts):
    """The four files, each a list of records with these inputs."""
    for part in baize.PARTS:
        rows = [{"topic": "t", "input": text} for text in parts.get(part, ())]
        (tmp_path / f"{part}_chat_data.json").write_text(json.dumps(rows))
    return tmp_path


def test_messages_equal_the_reference(shared, tmp_path):
    write(tmp_path)
    quora = shared / "data/raw_derived/baize/quora_chat_data.json"
    (tmp_path / quora.name).write_bytes(quora.read_bytes())
    golden = (shared / "data/golden/records/baize.jsonl").read_text().splitlines()
    assert [json.dumps(row) for row in read_conversations("baize", tmp_path)] == golden


def turns(text):
    return [(m["role"][0], m["content"]) for m in baize.turns(text, at="f, line 1")]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("The conversation between human and AI assistant.", []),
        ("intro [|AI|] nobody asked\n[|Human|] q\n[|AI|] a", [("u", "q"), ("a", "a")]),
        ("[|Human|] q\n[|AI|] a\n[|Human|] ", [("u", "q"), ("a", "a")]),
        ("[|Human|]q[|AI|]a[|Human|]r[|AI|]b", [("u", "q"), ("a", "a"), ("u", "r"), ("a", "b")]),
        ("[|Human|] without answer\n[|Human|] q\n[|AI|] a", [("u", "q"), ("a", "a")]),
        ("[|Human|] \n [|Human|] q\n[|AI|]\n", [("u", "q"), ("a", "")]),
        ("[|Human|][|AI|]a", [("u", ""), ("a", "a")]),
        ("[|human|] q [|AI|] a", []),
    ],
)
def test_turns(text, expected):
    assert turns(text) == expected


def test_files_follow_each_other_and_empty_records_stay(tmp_path):
    round_ = "[|Human|] {}\n[|AI|] a".format
    folder = write(tmp_path, stackoverflow=[round_("s")], alpaca=[round_("a"), ""], medical=["x"])
    rows = list(read_conversations("baize", folder))
    assert [row["id"] for row in rows] == [f"baize_{n}" for n in range(4)]
    assert [row["messages"][0]["content"] if row["messages"] else "" for row in rows] == [
        "a", "", "", "s"
    ]  # fmt: skip
    assert {row["dataset"] for row in rows} == {"baize"}


def test_bad_records_are_named_or_skipped(tmp_path):
    double = "[|Human|] q\n[|AI|] a [|AI|] b"
    folder = write(tmp_path, quora=["", double, 3, "[|Human|] q\n[|AI|] \ud83d"])
    faults = Faults(strict=False)
    assert len(list(read_conversations("baize", folder, faults=faults))) == 1
    assert (faults.records, faults.skipped) == (4, 3)
    two, wrong, half = faults.messages
    assert two.startswith("a question has more than one answer - got 2 marks [|AI|] in round 1 at")
    assert "quora_chat_data.json, line 1 - expected one" in two
    assert "field 'input' has the wrong type - got int 3" in wrong and "half a character" in half
    with pytest.raises(DataError, match="a question has more than one answer"):
        list(read_conversations("baize", folder))
