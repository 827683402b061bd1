"""Which conversations are shown, sampled and packed."""

import numpy as np
import pytest

from tasks import demo
from tulu_jax.chat import load_tokenizer
from tulu_jax.data.rows import choose_examples, make_rows
from tulu_jax.data.store import Example, write_store
from tulu_jax.errors import ConfigError
from tulu_jax.inspect.html import packed_rows
from tulu_jax.inspect.looking import (
    Filters,
    encode_views,
    role_pattern,
    roles_of,
    sample,
    search_pattern,
    view_of_examples,
    view_of_store,
)

TOKENIZER = load_tokenizer(demo.TOKENIZER_DIR)


def record(name, *turns, system=None):
    messages = [{"role": "system", "content": system}] if system else []
    for number, text in enumerate(turns):
        messages.append({"role": ("user", "assistant")[number % 2], "content": text})
    return {"dataset": "small", "id": name, "messages": messages}


def shown(*records, task="tulu_small", max_length=64):
    return list(encode_views(task, records, TOKENIZER, max_length=max_length))


def names(filters, items):
    return [item.id for item in items if filters.match(item, TOKENIZER)]


@pytest.fixture(scope="module")
def items():
    return shown(
        record("one", "What is C++?", "A language."),
        record("two", "Hi", "Hello", "Bye", "Goodbye"),
        record("system", "Hi", "Hello", system="Be kind."),
        record("cut", "Hi", "yes " * 200),
        record("full", "word " * 200, "never seen"),
        record("none"),
    )


def test_what_is_said_of_each(items):
    assert [item.roles for item in items] == ["ua", "uaua", "sua", "ua", "ua", ""]
    assert [item.truncated for item in items] == [False, False, False, True, True, False]
    reasons = [None, None, None, None, "prompt fills max_length", "no message"]
    assert [item.dropped for item in items] == reasons


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        (Filters(), ["one", "two", "system", "cut", "full", "none"]),
        (Filters(tasks=("tulu_other",)), []),
        (Filters(ids=("two", "cut")), ["two", "cut"]),
        (Filters(min_tokens=64), ["cut", "full"]),
        (Filters(max_tokens=0), ["none"]),
        (Filters(roles="user assistant"), ["one", "cut", "full"]),
        (Filters(roles="system? (user assistant)+"), ["one", "two", "system", "cut", "full"]),
        (Filters(roles="uaua"), ["two"]),
        (Filters(search="c++"), ["one"]),
        (Filters(search="/good|kind/"), ["two", "system"]),
        (Filters(only="truncated"), ["cut", "full"]),
        (Filters(only="dropped"), ["full", "none"]),
    ],
)
def test_filters(items, filters, expected):
    assert names(filters, items) == expected


def test_patterns_that_are_none():
    with pytest.raises(ConfigError, match=r"not a pattern of roles - got 'bot' .* for instance"):
        Filters(roles="bot")
    with pytest.raises(ConfigError, match="not a pattern of roles - got '\\(user'"):
        role_pattern("(user")
    with pytest.raises(ConfigError, match=r"not a regular expression - got '/\(/' .* leave the"):
        search_pattern("/(/")


def test_a_store_is_looked_at_as_the_raw_files_are(items, tmp_path):
    kept = [item for item in items if not item.dropped]
    meta = {"task": "tulu_small", "vocab_size": TOKENIZER.vocab_size, "max_length": 64,
            "counts": {"read": 6, "truncated": 1, "dropped": {"no message": 1}}}  # fmt: skip
    examples = [Example(item.id, item.tokens, item.loss_mask) for item in kept]
    looked = view_of_store(write_store(tmp_path / "store", examples, meta=meta), TOKENIZER)
    raw = view_of_examples("tulu_small", items)
    assert len(looked) == len(raw) == 4
    for number in range(4):
        ours, theirs = looked.example(number), raw.example(number)
        assert (ours.id, ours.roles, ours.truncated) == (theirs.id, theirs.roles, theirs.truncated)
        assert np.array_equal(ours.tokens, theirs.tokens)
    assert raw.counts["dropped"] == {"prompt fills max_length": 1, "no message": 1}
    assert raw.counts["truncated"] == 1


def test_roles_are_read_from_markers_at_line_starts_only():
    assert roles_of("<|user|>\nsay <|assistant|>\nok\n<|assistant|>\n<|user|> x") == "ua"


def many(task, count):
    records = [record(f"{task}_{i}", f"What comes after {i}?", str(i + 1)) for i in range(count)]
    return view_of_examples(task, shown(*records, task=task))


def test_the_sample_is_even_over_datasets_and_always_the_same():
    tasks = [many("tulu_large", 200), many("tulu_small", 5)]
    found = sample(tasks, 40, filters=Filters(), tokenizer=TOKENIZER)
    assert [item.id for item in found] == [
        item.id for item in sample(tasks, 40, filters=Filters(), tokenizer=TOKENIZER)
    ]
    assert [item.task for item in found] == ["tulu_large"] * 35 + ["tulu_small"] * 5
    assert len({item.id for item in found}) == 40
    other = sample(tasks, 40, filters=Filters(), tokenizer=TOKENIZER, seed=1)
    assert {item.id for item in other} != {item.id for item in found}
    chosen = Filters(search="after 17?")
    (one,) = sample(tasks, 40, filters=chosen, tokenizer=TOKENIZER)
    assert one.id == "tulu_large_17"


def test_the_sample_has_some_that_are_cut_or_dropped(items):
    usual = [record(f"u{i}", "Hi", "Hello") for i in range(100)]
    task = view_of_examples("tulu_small", [*shown(*usual), *items])
    found = sample([task], 20, filters=Filters(), tokenizer=TOKENIZER)
    assert len(found) == 20
    assert 1 <= sum(item.truncated or bool(item.dropped) for item in found) <= 2
    dropped = sample([task], 20, filters=Filters(only="dropped"), tokenizer=TOKENIZER)
    assert [item.id for item in dropped] == ["full", "none"]


def test_rows_are_those_of_training(tmp_path):
    tasks = [many("tulu_a", 40), many("tulu_b", 30)]
    rows = list(packed_rows(tasks, row_length=64, seed=7))
    stores = [as_store(tmp_path, task) for task in tasks]
    source = make_rows(stores, row_length=64, seed=7)
    assert len(rows) == source.num_rows
    for place, row in enumerate(rows[:10]):
        expected = source.at(np.array([place]))
        tokens = np.concatenate([segment.tokens for segment in row.segments])
        assert np.array_equal(expected["tokens"][0, : row.filled], tokens)
        assert not expected["segment_ids"][0, row.filled :].any()


def test_a_capped_task_keeps_what_training_chooses(tmp_path):
    task = many("tulu_a", 40)
    capped = task.capped(10, seed=3)
    chosen = choose_examples(task.ids, np.arange(40), 10, seed=3)
    assert [capped.example(i).id for i in range(10)] == [task.ids[i] for i in chosen]
    assert capped.lengths.tolist() == task.lengths[chosen].tolist()


def test_no_example_no_row():
    assert list(packed_rows([many("tulu_a", 0)], row_length=64)) == []


def as_store(folder, task):
    meta = {"task": task.name, "vocab_size": TOKENIZER.vocab_size}
    items = map(task.example, range(len(task)))
    examples = [Example(item.id, item.tokens, item.loss_mask) for item in items]
    return write_store(folder / task.name, examples, meta=meta)
