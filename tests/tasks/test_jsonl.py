"""Any file of conversations is a dataset under its path, and its faults are named."""

import json
import os
import pickle

import pytest

from tasks import jsonl, read_conversations
from tulu_jax.data.faults import Faults
from tulu_jax.data.specs import get_spec, locate_raw_dir, raw_fingerprint
from tulu_jax.errors import ConfigError, DataError

PAIR = {"prompt": "q", "completion": "a"}
CHAT = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]


def write(path, *rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps(row) for row in rows)
    path.write_text("\n".join(lines) if path.suffix == ".jsonl" else f"[{','.join(lines)}]")
    return path


def read(path, **options):
    return list(jsonl.read(path, name="x", **options))


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json"])
def test_records(tmp_path, name):
    system = {"role": "system", "content": "", "name": "not used"}
    path = write(
        tmp_path / name,
        {"messages": [system, *CHAT], "more": 1},
        {"prompt": " q ", "completion": ""},
        {"messages": CHAT, "prompt": "not used", "id": "mine"},
        {"messages": CHAT, "id": 7, "dataset": "not used"},
        {"messages": CHAT, "id": None},
    )
    rows = read(path)
    assert [row["id"] for row in rows] == ["x_0", "x_1", "mine", "7", "x_4"]
    assert {row["dataset"] for row in rows} == {"x"}
    assert rows[0]["messages"] == [{"role": "system", "content": ""}, *CHAT]
    assert rows[1]["messages"] == [
        {"role": "user", "content": " q "},
        {"role": "assistant", "content": ""},
    ]
    assert rows[2]["messages"] == rows[3]["messages"] == CHAT


def test_ids_are_made_distinct(tmp_path):
    path = write(
        tmp_path / "a.jsonl", *({"messages": CHAT, "id": one} for one in ("b", "b", 1, "1"))
    )
    assert [row["id"] for row in read(path)] == ["b", "b#2", "1", "1#2"]


def test_a_folder_is_its_files_by_name(tmp_path):
    write(tmp_path / "b.jsonl", {"prompt": "2", "completion": ""})
    write(tmp_path / "a.json", {"prompt": "1", "completion": ""})
    (tmp_path / "notes.txt").write_text("no conversations")
    rows = read(tmp_path)
    assert [(row["id"], row["messages"][0]["content"]) for row in rows] == [
        ("x_0", "1"),
        ("x_1", "2"),
    ]


def test_what_the_reference_wrote_reads_back(shared):
    golden = shared / "data/golden/records/oasst1_august.jsonl"
    expected = [json.loads(line) for line in golden.read_text().splitlines()]
    for ours, theirs in zip(read(golden), expected, strict=True):
        assert (ours["id"], ours["messages"]) == (theirs["id"], theirs["messages"])


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"messages": []}, "messages are empty - at .*, line 2 - expected at least one"),
        ({"messages": "hi"}, "field 'messages' has the wrong type - got str 'hi'"),
        ({"messages": None}, "field 'messages' has the wrong type - got NoneType"),
        ({"messages": ["hi"]}, "message is not a mapping - got str at .*, line 2, message 0"),
        (
            {"messages": [{"role": "bot", "content": ""}]},
            "unknown role - got 'bot' .* expected one",
        ),
        ({"messages": [{"role": "user"}]}, r"message has no 'content' - got fields \['role'\]"),
        ({"messages": [{"role": "user", "content": None}]}, "message content is not text"),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, "not valid Unicode"),
        ({"messages": [{"role": ["user"], "content": ""}]}, "unknown role"),
        ({"prompt": "q"}, "missing field 'completion'"),
        ({"completion": "a"}, "missing field 'prompt'"),
        ({"prompt": "q", "completion": ["a"]}, "field 'completion' has the wrong type - got list"),
        (
            {"text": "a", "x": 1},
            "record has no conversation - got fields text, x at .*, line 2 - exp",
        ),
        ({}, "record has no conversation - got fields none"),
        ({"messages": CHAT, "id": [1]}, "field 'id' has the wrong type - got list"),
        ({"messages": CHAT, "id": True}, "field 'id' has the wrong type - got bool"),
    ],
)
def test_bad_records_are_named_or_skipped(tmp_path, row, message):
    path = write(tmp_path / "a.jsonl", {"messages": CHAT}, row, {"messages": CHAT})
    with pytest.raises(DataError, match=message):
        read(path)
    faults = Faults(strict=False)
    assert len(read(path, faults=faults)) == 2
    assert (faults.records, faults.skipped) == (3, 1)


def test_a_path_is_a_dataset(tmp_path, monkeypatch):
    path = write(tmp_path / "My chats (2).jsonl", {"messages": CHAT})
    spec = get_spec(str(path))
    assert (spec.task_name, spec.name) == ("tulu_jsonl_my_chats_2", "jsonl_my_chats_2")
    for raw_dir in (None, tmp_path / "elsewhere"):
        assert locate_raw_dir(spec, raw_dir) == tmp_path
    monkeypatch.chdir(tmp_path)
    assert get_spec("./My chats (2).jsonl") is get_spec(path.name) is get_spec(str(path))
    rows = list(read_conversations(path.name, locate_raw_dir(spec, None)))
    assert rows == [{"dataset": spec.name, "id": "jsonl_my_chats_2_0", "messages": CHAT}]


def test_its_content_decides_about_its_store(tmp_path):
    path = write(tmp_path / "a.jsonl", {"messages": CHAT})
    spec = get_spec(str(path))
    before = raw_fingerprint(spec, tmp_path)
    write(path, {"messages": CHAT}, {"messages": CHAT})
    assert raw_fingerprint(spec, tmp_path) != before


def test_other_processes_can_have_it(tmp_path):
    spec = get_spec(str(write(tmp_path / "a.jsonl", {"messages": CHAT})))
    copy = pickle.loads(pickle.dumps(spec))
    assert copy == spec and list(copy.read(tmp_path)) == list(spec.read(tmp_path))


def test_a_folder_is_a_dataset(tmp_path):
    folder = write(tmp_path / "Talks.v2" / "a.jsonl", {"messages": CHAT}).parent
    spec = get_spec(str(folder))
    assert spec.task_name == "tulu_jsonl_talks_v2"
    assert len(list(spec.read(locate_raw_dir(spec, None)))) == 1


@pytest.mark.parametrize(
    ("path", "name"),
    [("set/train.jsonl", "set_train"), ("set/Data.json", "set_data"), ("s/привет.jsonl", "file")],
)
def test_names_that_say_little(tmp_path, path, name):
    spec = get_spec(str(write(tmp_path / path, {"messages": CHAT})))
    assert spec.task_name == "tulu_jsonl_" + name


def test_names_that_say_too_much(tmp_path):
    specs = [get_spec(str(write(tmp_path / f"{'a' * 200}{n}.jsonl", PAIR))) for n in (1, 2)]
    names = {spec.task_name for spec in specs}
    assert len(names) == 2 and max(map(len, names)) < 110
    odd = tmp_path / os.fsdecode(b"\xff.jsonl")
    spec = get_spec(str(write(odd, PAIR)))
    assert len(raw_fingerprint(spec, tmp_path)) == 64 and spec.description.isascii()


def test_the_task_of_the_fixed_name(tmp_path):
    write(tmp_path / "one.jsonl", {"messages": CHAT})
    spec = get_spec("tulu_jsonl")
    assert locate_raw_dir(spec, tmp_path) == tmp_path
    write(tmp_path / "jsonl" / "two.jsonl", *[{"messages": CHAT}] * 2)
    assert locate_raw_dir(spec, tmp_path) == tmp_path / "jsonl"
    rows = list(read_conversations("tulu_jsonl", tmp_path / "jsonl"))
    assert [row["id"] for row in rows] == ["jsonl_0", "jsonl_1"]


def test_paths_that_cannot_be_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lost.jsonl").symlink_to("gone")
    os.mkfifo(tmp_path / "pipe.jsonl")
    for name, message in {
        "allenai/tulu-v2-sft-mixture": r"no such file .* nothing is downloaded by name: get it fir",
        "parts/*.jsonl": r"no such file .* name the folder: patterns are not expanded",
        "lost.jsonl": r"no such file .* got .*/lost.jsonl, a link to gone - expected",
        "pipe.jsonl": r"not in a plain file - got .*/pipe.jsonl - .* write them to a file first",
    }.items():
        with pytest.raises(DataError, match=message):
            get_spec(name)
    with pytest.raises(DataError, match=r"no such file of conversations - got .*/no.jsonl - exp"):
        get_spec(str(tmp_path / "no.jsonl"))
    with pytest.raises(ConfigError, match=r"path of conversations is an address, not a path"):
        get_spec("gs://bucket/a")
    with pytest.raises(DataError, match=r"folder has no conversations - at .* - expected files"):
        get_spec(str(tmp_path))
    (tmp_path / "a.jsonl.gz").write_bytes(b"")
    with pytest.raises(DataError, match=r"raw file is empty - at .*a.jsonl.gz - fill it or leave"):
        read(get_spec(str(tmp_path / "a.jsonl.gz")).sources[0].filename)
    with pytest.raises(DataError, match=r"unknown dataset - got 'jsonlines'"):
        get_spec("jsonlines")
