"""No record, however broken, stops a reader of conversations; each is converted or reported."""

import random
from pathlib import Path

import pytest
from fuzzing import HUGE, Collecting, fuzz_lines, fuzz_list
from thorough import sample

import tasks
from tasks import baize, jsonl, oasst1, open_orca, read_conversations, sharegpt, wizardlm
from tulu_jax.chat import load_tokenizer
from tulu_jax.errors import DataError

TREES = [
    {
        "message_tree_id": "m",
        "prompt": {
            "text": "q",
            "role": "prompter",
            "replies": [
                {
                    "text": "a",
                    "role": "assistant",
                    "deleted": False,
                    "labels": {"quality": {"value": 0.5, "count": 3}},
                    "replies": [{"text": "r", "role": "prompter", "replies": []}],
                },
                {"text": "é", "role": "assistant", "replies": [], "labels": None},
            ],
        },
    },
    {"prompt": {"text": "q", "role": "prompter", "replies": []}},
]
TALKS = [
    {
        "id": "a1",
        "conversations": [
            {"from": "human", "value": "q"},
            {"from": "gpt", "value": "a"},
            {"from": "human", "value": "é 名前"},
            {"from": "gpt", "value": "</s>"},
        ],
    },
    {"id": "a2", "conversations": [{"from": "system", "value": "s"}], "more": 1},
    {"id": "a3", "conversations": []},
]
SELF_CHATS = [
    {"topic": "t", "input": "talk.\n[|Human|] q\n[|AI|] a\n[|Human|] r\n[|AI|] b\n[|Human|] "},
    {"topic": "é", "input": "[|Human|] q\n[|AI|] é"},
    {"topic": "", "input": ""},
]
EVOLVED = [
    {"idx": "x", "conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "é"}]},
    {"idx": 7, "conversations": [], "more": "x"},
]
OWN = [
    {
        "id": "x",
        "messages": [
            {"role": "system", "content": ""},
            {"role": "user", "content": "q"},
            {"role": "assistant", "content": "é"},
        ],
    },
    {"prompt": "q", "completion": "a", "id": 3},
]


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"rule": "every"}, {"rule": "october", "top_k": 1}])
def test_oasst1(tmp_path, options):
    def read(faults):
        return read_conversations("oasst1", tmp_path, faults=faults, **options)

    fuzz_lines(tmp_path / oasst1.FILE, TREES, read, one_each=False)


@pytest.mark.slow
def test_own_lines(tmp_path):
    path = tmp_path / "a.jsonl"
    fuzz_lines(path, OWN, lambda faults: jsonl.read(path, faults=faults))


@pytest.mark.slow
def test_own_list(tmp_path):
    path = tmp_path / "a.json"
    fuzz_list(path, OWN, lambda faults: jsonl.read(path, faults=faults))


@pytest.mark.slow
@pytest.mark.parametrize("split", sharegpt.SPLITS)
def test_sharegpt(tmp_path, split):
    tokenizer = load_tokenizer(Path(tasks.__file__).parent / "demo_tokenizer")
    first, second = (tmp_path / name for name in sharegpt.FILES)
    first.write_text("[]")

    def read(faults):
        return read_conversations(
            "sharegpt", tmp_path, tokenizer=tokenizer, split=split, faults=faults
        )

    fuzz_list(second, TALKS, read, count=sample(5_000), one_each=False)


@pytest.mark.slow
def test_baize(tmp_path):
    for part in baize.PARTS:
        (tmp_path / f"{part}_chat_data.json").write_text("[]")
    path = tmp_path / "quora_chat_data.json"
    fuzz_list(
        path,
        SELF_CHATS,
        lambda f: read_conversations("baize", tmp_path, faults=f),
        count=sample(10_000),
    )


@pytest.mark.slow
def test_wizardlm(tmp_path):
    def read(faults):
        return read_conversations("wizardlm", tmp_path, faults=faults)

    fuzz_list(tmp_path / wizardlm.FILE, EVOLVED, read, count=sample(10_000))


def write_orca(path, rows):
    """A Parquet file of these texts, given as bytes that need not be UTF-8."""
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    columns = zip(*rows, strict=True)
    table = {
        name: pyarrow.array(list(values), pyarrow.binary()).view(pyarrow.string())
        for name, values in zip(open_orca.COLUMNS, columns, strict=True)
    }
    parquet.write_table(pyarrow.table(table), path, row_group_size=1000)


@pytest.mark.slow
def test_rows_of_open_orca(tmp_path):
    rng = random.Random(0)
    odd = [b"", b"\x00", b"\xff\xfe", b"\xed\xa0\x80", "é".encode(), b"\xc3", b"\n", None]
    rows = []
    for number in range(sample(10_000)):
        row = [f"t0.{number}".encode(), b"Think.", b"q", b"a"]
        if rng.random() < 0.5:
            row[rng.randrange(4)] = rng.choice(odd)
        rows.append(row)
    rows[10][2] = HUGE.encode()
    path = tmp_path / open_orca.FILE
    write_orca(path, rows)
    faults = Collecting()
    found = list(read_conversations("open_orca", tmp_path, faults=faults))
    bad = sum(any(text in (*odd[2:4], odd[5], None) for text in row) for row in rows)
    assert faults.records == len(rows) == len(found) + faults.skipped and faults.skipped == bad
    assert all(str(path) + ", row " in message for message in faults.every)


@pytest.mark.slow
def test_damaged_files_of_open_orca(tmp_path):
    rng = random.Random(0)
    path = tmp_path / open_orca.FILE
    write_orca(path, [[f"t0.{n}".encode(), b"Think.", b"question", b"answer"] for n in range(50)])
    content = path.read_bytes()
    refused = 0
    for _ in range(sample(2_000)):
        broken = bytearray(content)
        for _ in range(rng.randint(1, 4)):
            broken[rng.randrange(len(broken))] = rng.randrange(256)
        path.write_bytes(broken[: rng.randrange(len(broken))] if rng.random() < 0.2 else broken)
        faults = Collecting()
        try:
            list(read_conversations("open_orca", tmp_path, faults=faults))
        except DataError as error:
            refused += 1
            assert path.name in str(error)
        assert all(path.name in message for message in faults.every)
    assert refused > sample(2_000) // 4
