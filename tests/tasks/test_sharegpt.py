"""Long conversations are cut as the reference cut them, or so that no pair that fits is lost."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tasks
from tasks import read_conversations, sharegpt
from tasks.record_ids import DistinctIds
from tasks.sharegpt_split import all_pairs_pieces, pair_starts, paper_pieces
from tulu_jax.chat import encode, encode_many, load_tokenizer
from tulu_jax.data.faults import Faults
from tulu_jax.errors import ConfigError, DataError


class Lost(dict):
    """Counts of what was left out, by reason."""

    def __call__(self, reason, count=1):
        self[reason] = self.get(reason, 0) + count


def cut(cutter, *arguments):
    lost = Lost()
    return list(cutter(*arguments, leave_out=lost)), lost


TOO_LONG = "pair longer than max_length"
LAST = "last pair, which no longer fits"


@pytest.mark.parametrize(
    ("costs", "pieces", "lost"),
    [
        ([], [], {}),
        ([10], [], {"odd last message": 1}),
        ([10, 10], [(0, 2)], {}),
        ([10, 10, 10], [(0, 2)], {"odd last message": 1}),
        ([50, 50], [(0, 2)], {}),  # exactly as long as allowed
        ([50, 51], [], {TOO_LONG: 1}),
        ([20] * 4, [(0, 4)], {}),
        ([20] * 6, [(0, 4)], {LAST: 1}),
        ([20] * 8, [(0, 4), (4, 8)], {}),
        ([20] * 10, [(0, 4), (4, 8)], {LAST: 1}),
        # A pair too long closes the piece before it and itself is lost; its cost still counts, so
        # that the next pair, which would fit, starts anew: lost too when it is the last.
        ([20, 20, 60, 60, 20, 20], [(0, 2)], {TOO_LONG: 1, LAST: 1}),
        ([60, 60, 20, 20, 20, 20], [(2, 6)], {TOO_LONG: 1}),
        ([20, 20, 60, 60], [(0, 2)], {TOO_LONG: 1}),
    ],
)
def test_pieces_of_the_paper(costs, pieces, lost):
    assert cut(paper_pieces, costs, 100) == (pieces, lost)


def test_pairs_are_found_in_any_order_of_roles():
    u, a = "user", "assistant"
    assert cut(pair_starts, [u, a, u, a]) == ([0, 2], {})
    assert cut(pair_starts, []) == ([], {})
    assert cut(pair_starts, [a, u, a, u]) == (
        [1],
        {
            "message of the assistant that answers nothing": 1,
            "message of the user without an answer": 1,
        },
    )
    assert cut(pair_starts, [u, None, a, u, u, a]) == (
        [4],
        {
            "message of the user without an answer": 2,
            "message of another sender": 1,
            "message of the assistant that answers nothing": 1,
        },
    )


@pytest.mark.parametrize(
    ("starts", "lengths", "pieces", "lost"),
    [
        ([], [], [], {}),
        ([0], [100], [(0, 2)], {}),
        ([0], [101], [], {TOO_LONG: 1}),
        ([0, 2], [50, 50], [(0, 4)], {}),
        ([0, 2], [50, 51], [(0, 2), (2, 4)], {}),  # the last pair stays
        ([0, 3], [10, 10], [(0, 2), (3, 5)], {}),  # something between them was left out
        ([0, 2, 4], [10, 101, 10], [(0, 2), (4, 6)], {TOO_LONG: 1}),
    ],
)
def test_pieces_that_hold_all_pairs(starts, lengths, pieces, lost):
    assert cut(all_pairs_pieces, starts, lengths, 100) == (pieces, lost)


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(1, 120))))
def test_every_pair_that_fits_is_in_one_piece(pairs):
    starts, here = [], 0
    for gap, _ in pairs:
        starts.append(here + gap)
        here += gap + 2
    lengths = [length for _, length in pairs]
    pieces, lost = cut(all_pairs_pieces, starts, lengths, 100)
    covered = [message for start, stop in pieces for message in range(start, stop)]
    fitting = [s for s, length in zip(starts, lengths, strict=True) if length <= 100]
    assert covered == [message for start in fitting for message in (start, start + 1)]
    assert sum(lost.values()) == len(starts) - len(fitting)


@pytest.fixture(scope="module", params=["hf", "paper"])
def tokenizer(request):
    return load_tokenizer(Path(tasks.__file__).parent / "demo_tokenizer", request.param)


@pytest.mark.parametrize("encoding", ["hf", "paper"])
def test_messages_equal_the_reference(shared, encoding):
    golden = (shared / "data/golden/records/sharegpt.jsonl").read_text().splitlines()
    faults = Faults(strict=True)
    ours = read_conversations(
        "sharegpt",
        shared / "data/raw/sharegpt",
        tokenizer=load_tokenizer(shared / "tokenizers/llama", encoding),
        split="paper",
        faults=faults,
    )
    assert [json.dumps(row) for row in ours] == golden
    assert faults.left_out == {
        "odd last message": 21,
        TOO_LONG: 64,
        LAST: 142,
        "piece in which not human and gpt take turns": 16,
    }


def test_no_piece_of_real_conversations_is_truncated(shared):
    tokenizer = load_tokenizer(shared / "tokenizers/llama")
    faults = Faults(strict=True)
    rows = list(
        read_conversations(
            "sharegpt", shared / "data/raw/sharegpt", tokenizer=tokenizer, faults=faults
        )
    )
    encoded = encode_many([row["messages"] for row in rows], tokenizer)
    assert len(rows) == 2193 and max(len(one.tokens) for one in encoded) == 2048
    pairs = sum(len(row["messages"]) for row in rows) // 2
    in_raw = sum(
        len(row["conversations"])
        for name in sharegpt.FILES
        for row in json.loads((shared / "data/raw/sharegpt" / name).read_text())
    )
    other = {reason: n for reason, n in faults.left_out.items() if reason != TOO_LONG}
    assert 2 * (pairs + faults.left_out[TOO_LONG]) + sum(other.values()) == in_raw


def talk(name, *texts, senders=("human", "gpt")):
    turns = [{"from": senders[i % len(senders)], "value": text} for i, text in enumerate(texts)]
    return {"id": name, "conversations": turns}


def write(tmp_path, *rows):
    first, second = (tmp_path / name for name in sharegpt.FILES)
    first.write_text(json.dumps(rows[:1]))
    second.write_text(json.dumps(rows[1:]))
    return tmp_path


def read(folder, tokenizer, **options):
    faults = Faults(strict=False)
    rows = list(
        read_conversations("sharegpt", folder, tokenizer=tokenizer, faults=faults, **options)
    )
    return rows, faults


def test_records(tmp_path, tokenizer):
    folder = write(tmp_path, talk("ab", " q\n", "a "), talk("cd", "q", "a", "q", "a"), talk("ef"))
    for split in sharegpt.SPLITS:
        rows, faults = read(folder, tokenizer, split=split)
        assert [row["id"] for row in rows] == ["sharegpt_ab_0", "sharegpt_cd_0"]
        assert rows[0] == {
            "dataset": "sharegpt",
            "id": "sharegpt_ab_0",
            "messages": [
                {"role": "user", "content": " q\n"},
                {"role": "assistant", "content": "a "},
            ],
        }
        assert not faults.left_out and faults.records == 3


def test_a_tokenizer_may_be_named_by_its_folder(tmp_path):
    named = Path(tasks.__file__).parent / "demo_tokenizer"
    raw = write(tmp_path, talk("ab", "q", "a"), talk("cd", "q", "a" * 30_000, "q", "a"))
    by_folder, _ = read(raw, named)
    assert by_folder == read(raw, str(named))[0] == read(raw, load_tokenizer(named))[0]
    assert len(by_folder) > 1


def test_ids_say_where_a_piece_starts(tmp_path, tokenizer):
    question = "the word " * 10
    pair = encode([*_messages(question, "a")], tokenizer).tokens.size
    folder = write(tmp_path, talk("ab", *[question, "a"] * 5))
    rows, _ = read(folder, tokenizer, max_length=2 * pair)
    assert [row["id"] for row in rows] == ["sharegpt_ab_0", "sharegpt_ab_4", "sharegpt_ab_8"]
    assert max(len(encode(row["messages"], tokenizer).tokens) for row in rows) <= 2 * pair
    estimate = sum(sharegpt._paper_costs([question, "a"], tokenizer, 2048))
    rows, faults = read(folder, tokenizer, max_length=2 * estimate, split="paper")
    assert [row["id"] for row in rows] == ["sharegpt_ab_0", "sharegpt_ab_4"]
    assert faults.left_out == {LAST: 1}


def _messages(question, answer):
    return {"role": "user", "content": question}, {"role": "assistant", "content": answer}


@pytest.mark.parametrize(
    ("senders", "paper", "all_pairs"),
    [
        (("human", "gpt"), ["x_0"], ["x_0"]),
        (("user", "chatgpt"), [], ["x_0"]),
        (("human", "bing"), [], []),
        (("system", "human", "gpt", "human"), [], ["x_1"]),
        (("gpt", "human", "gpt", "human"), [], ["x_1"]),
        (("human", "gpt", "human", "bard"), [], ["x_0"]),
        (("human", "human", "gpt", "gpt"), [], ["x_1"]),
    ],
)
def test_senders(tmp_path, tokenizer, senders, paper, all_pairs):
    folder = write(tmp_path, talk("x", "m", "m", "m", "m", senders=senders))
    for split, expected in (("paper", paper), ("all_pairs", all_pairs)):
        rows, faults = read(folder, tokenizer, split=split)
        assert [row["id"].removeprefix("sharegpt_") for row in rows] == expected
        assert not faults.skipped
        if split == "paper" and not paper:
            assert faults.left_out == {"piece in which not human and gpt take turns": 1}


def test_special_text_costs_the_paper_what_its_tokenizer_made_of_it(tokenizer):
    plain, special = sharegpt._paper_costs(["", "</s>"], tokenizer, 2048)
    assert (plain, special) == (7, 8)


def test_megabytes_are_too_long_without_a_tokenizer(tmp_path, tokenizer, monkeypatch):
    blank = "q" + " " * 4000
    rows = talk("x", "q", "a", "q", "x" * 4000, "q", "a"), talk("y", blank + "\n", "a")
    folder = write(tmp_path, *rows)
    before = {
        split: read(folder, tokenizer, split=split, max_length=100) for split in sharegpt.SPLITS
    }
    monkeypatch.setattr(sharegpt, "LONGEST_PIECE", 16)
    for split, (expected, faults) in before.items():
        again, same = read(folder, tokenizer, split=split, max_length=100)
        assert again == expected and same.left_out == faults.left_out
    assert [row["id"] for row in before["all_pairs"][0]] == [
        "sharegpt_x_0", "sharegpt_x_4", "sharegpt_y_0"
    ]  # fmt: skip


def test_a_repeated_id_gets_a_number(tmp_path, tokenizer):
    folder = write(tmp_path, talk("ab", "q", "a"), talk("ab", "q2", "a"))
    rows, _ = read(folder, tokenizer)
    assert [row["id"] for row in rows] == ["sharegpt_ab_0", "sharegpt_ab#2_0"]
    distinct = DistinctIds()
    assert [distinct(name) for name in ("x", "x", "x#2", "x")] == ["x", "x#2", "x#2#2", "x#3"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"conversations": []}, r"missing field 'id' - got fields conversations .*part2.*line 1"),
        ({"id": 7, "conversations": []}, "field 'id' has the wrong type - got int 7"),
        ({"id": "x"}, "missing field 'conversations'"),
        ({"id": "x", "conversations": {}}, "field 'conversations' has the wrong type - got dict"),
        ({"id": "x", "conversations": ["hi"]}, "message has the wrong type - got str 'hi'"),
        ({"id": "x", "conversations": [{"from": "gpt"}]}, "missing field 'value'"),
        ({"id": "x", "conversations": [{"from": 1, "value": ""}]}, "field 'from' has the wrong"),
        (talk("x", "q", "a \ud800"), "not valid Unicode .*lone surrogate"),
    ],
)
def test_a_bad_conversation_is_named_or_skipped(tmp_path, tokenizer, row, message):
    folder = write(tmp_path, talk("ab", "q", "a"), row, talk("cd", "q", "a"))
    for split in sharegpt.SPLITS:
        rows, faults = read(folder, tokenizer, split=split)
        assert [row["id"] for row in rows] == ["sharegpt_ab_0", "sharegpt_cd_0"]
        assert (faults.records, faults.skipped) == (3, 1)
    with pytest.raises(DataError, match=message):
        list(read_conversations("sharegpt", folder, tokenizer=tokenizer))


def test_the_reading_of_tulu_2(tmp_path, tokenizer):
    folder = write(tmp_path, talk("ab", "q", "a"), talk("cd", "q", "I am ChatGPT"))
    rows = list(read_conversations("tulu_v2_sharegpt", folder, tokenizer=tokenizer))
    assert [row["id"] for row in rows] == ["sharegpt_ab_0"]
    assert sharegpt.TULU_V2.options["max_length"] == 4096


def test_options_that_cannot_be(tmp_path, tokenizer):
    with pytest.raises(ConfigError, match=r"sharegpt is cut by token counts - got no tokenizer"):
        list(read_conversations("sharegpt", tmp_path))
    with pytest.raises(DataError, match=r"unknown split of sharegpt - got 'papers' .*mean paper"):
        list(read_conversations("sharegpt", tmp_path, tokenizer=tokenizer, split="papers"))
    with pytest.raises(ConfigError, match=r"max_length is too small - got 0 - expected 1 or more"):
        list(read_conversations("sharegpt", tmp_path, tokenizer=tokenizer, max_length=0))
