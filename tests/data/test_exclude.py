"""What exclude files name is in no row, is counted, and is kept in mind by checkpoints."""

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.fixtures import META, make_examples
from tulu_jax.data.config import DataConfig
from tulu_jax.data.ensure import assemble
from tulu_jax.data.exclude import read_exclusion
from tulu_jax.data.exclude_file import refuse_to_replace, write_exclusion
from tulu_jax.data.mixtures import Component
from tulu_jax.data.store import write_store
from tulu_jax.errors import ConfigError, DataError
from tulu_jax.inspect.report import dataset_report, mixture_report, mixture_table, report_table

SIZES = {"tulu_a": 40, "tulu_b": 20}
OUT = {"tulu_a": {f"tulu_a_{i}" for i in (0, 3, 7, 8, 21, 39)}, "tulu_b": {"tulu_b_4"}}


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """Two tasks of short examples, and one with a validation split."""
    folder = tmp_path_factory.mktemp("stores")
    found = {}
    for task, size in {**SIZES, "tulu_v": 12}.items():
        lengths = [3 + i % 5 for i in range(size)]
        found[task] = {}
        for split in ("train", "validation") if task == "tulu_v" else ("train",):
            counts = {"read": size, "truncated": 0, "dropped": {}}
            meta = {**META, "task": task, "split": split, "counts": counts}
            examples = make_examples(lengths, seed=len(folder.name) + size, name=task)
            found[task][split] = write_store(folder / task / split, examples, meta=meta)
    return found


def line(task, name, **more):
    return json.dumps({"task": task, "id": name, **more})


@pytest.fixture
def exclude(tmp_path):
    """A file of the ids in OUT, written by hand."""
    lines = [line(task, name, reason="duplicate") for task in OUT for name in sorted(OUT[task])]
    lines[0] = line("tulu_a", "tulu_a_0", reason="contaminated", detail="100% of gsm item 3")
    (tmp_path / "out.jsonl").write_text("\n".join(lines))
    return tmp_path / "out.jsonl"


def data(stores, exclude, tasks=tuple(SIZES), **changes):
    changes = {"length": 16, "batch_size": 4, "epochs": 1, **changes}
    config = DataConfig(mixture=",".join(tasks), tokenizer="t", exclude=exclude, **changes)
    caps = config.max_examples
    parts = [Component(task=task, max_examples=caps.get(task), seed=42) for task in tasks]
    return assemble(config, parts, {task: stores[task] for task in tasks}, None)


def shown(rows):
    """How often each tuple of tokens is a segment of the rows, over all epochs."""
    counts = {}
    for step in range(rows.num_steps(4)):
        batch = rows.batch(step, 4)
        for tokens, segments in zip(batch["tokens"], batch["segment_ids"], strict=True):
            for number in range(1, segments.max() + 1):
                key = tuple(tokens[segments == number].tolist())
                counts[key] = counts.get(key, 0) + 1
    return counts


def tokens_of(stores, tasks=tuple(SIZES)):
    return {
        name: tuple(stores[task]["train"][i][0].tolist())
        for task in tasks
        for i, name in enumerate(stores[task]["train"].ids)
    }


@pytest.mark.parametrize("packing", ["best_fit", "padded"])
def test_over_an_epoch_each_kept_example_comes_once_and_no_excluded_one(stores, exclude, packing):
    found = shown(data(stores, str(exclude), packing=packing).train)
    tokens = tokens_of(stores)
    out = OUT["tulu_a"] | OUT["tulu_b"]
    assert found == {tokens[name]: 1 for name in tokens.keys() - out} and len(found) == 53


def test_under_rates_too(stores, exclude):
    rows = data(stores, str(exclude), schedule="rates", rates={"tulu_b": 60.0}, epochs=3).train
    found = shown(rows)
    tokens = tokens_of(stores)
    assert not found.keys() & {tokens[name] for name in OUT["tulu_a"] | OUT["tulu_b"]}
    assert found.keys() == {tokens[n] for n in tokens.keys() - OUT["tulu_a"] - OUT["tulu_b"]}
    without = data(stores, str(exclude), schedule="rates")
    assert without.mixing["rates"] == {"tulu_a": 34.0, "tulu_b": 19.0}


def test_held_out_and_capped_examples_come_from_the_rest(stores, exclude):
    found = data(stores, str(exclude), heldout_examples=5, max_examples={"tulu_a": 25})
    ids = stores["tulu_a"]["train"].ids
    held = {ids[i] for i in found.heldout["tulu_a"].examples}
    train = {ids[i] for i in found.train.examples if i < 40}
    assert len(held) == 5 and len(train) == 25
    assert not held & train and not (held | train) & OUT["tulu_a"]
    whole = data(stores, None, heldout_examples=5)
    first = {ids[i] for i in whole.heldout["tulu_a"].examples}
    assert first - OUT["tulu_a"] <= held, "who else is held out does not depend on the file"


def test_a_validation_split_is_left_out_by_lines_without_a_split(stores, tmp_path):
    (tmp_path / "x.jsonl").write_text(line("v", "tulu_v_1"))
    found = data(stores, str(tmp_path / "x.jsonl"), ("tulu_v",))
    assert 1 not in found.heldout["tulu_v"].examples and 1 not in found.train.examples
    (tmp_path / "x.jsonl").write_text(line("v", "tulu_v_1", split="train"))
    found = data(stores, str(tmp_path / "x.jsonl"), ("tulu_v",))
    assert 1 in found.heldout["tulu_v"].examples and 1 not in found.train.examples


def test_nothing_changes_without_a_file(stores):
    found = data(stores, None)
    assert found.mixing == {} and found.notes == [] and found.exclusion.files_record() == []
    assert np.array_equal(found.train.examples, np.arange(60))


def test_what_a_checkpoint_keeps_depends_on_the_examples_alone(stores, exclude, tmp_path):
    kept = data(stores, str(exclude)).mixing["exclude"]
    assert kept["examples"] == {"tulu_a train": 6, "tulu_b train": 1}
    lines = exclude.read_text().splitlines()
    (tmp_path / "one, a.jsonl").write_text("\n".join(lines[4:]))
    (tmp_path / "two.jsonl").write_text("\n".join([*lines[:4], line("a", "gone")]))
    both = [str(tmp_path / "one, a.jsonl"), str(tmp_path / "two.jsonl")]
    assert data(stores, both).mixing["exclude"] == kept
    (tmp_path / "less.jsonl").write_text("\n".join(lines[1:]))
    assert data(stores, str(tmp_path / "less.jsonl")).mixing["exclude"] != kept
    record = data(stores, both).exclusion.files_record()
    assert [one["path"] for one in record] == both and len(record[0]["sha256"]) == 64


def test_reports_count_what_is_left_and_say_why(stores, exclude):
    found = data(stores, str(exclude))
    (a, b) = dataset_report(found.stores, row_length=16, exclusion=found.exclusion)
    assert a.examples == 34 and a.read == 40 and b.excluded == {"duplicate": 1}
    kept = [i for i, name in enumerate(found.stores[0].ids) if name not in OUT["tulu_a"]]
    assert a.tokens == found.stores[0].lengths[kept].sum()
    assert a.loss_tokens == found.stores[0].loss_tokens[kept].sum()
    assert "a train: excluded 6 (contaminated 1, duplicate 5)" in report_table([a, b]).caption
    mixed = mixture_report(found.train, batch_size=4, exclusion=found.exclusion)
    assert mixed.datasets[0]["excluded"] == {"contaminated": 1, "duplicate": 5}
    assert "b: excluded 1 (duplicate 1)" in mixture_table(mixed).caption
    assert mixed.datasets[0]["examples"] == 34


def test_all_of_a_task_is_refused(stores, tmp_path):
    ids = stores["tulu_b"]["train"].ids
    (tmp_path / "x.jsonl").write_text("\n".join(line("tulu_b", name) for name in ids))
    with pytest.raises(
        DataError,
        match=r"every example is excluded - got excluded 20 \(listed 20\) at tulu_b train - .*"
        "leave the task out of the mixture, or exclude less",
    ):
        data(stores, str(tmp_path / "x.jsonl"))


def test_ids_that_no_store_has(stores, tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text("\n".join([line("tulu_a", "tulu_a_1"), line("a", "x"), line("tulu_z", "z")]))
    assert data(stores, str(path)).notes == [
        "exclude: tulu_a has no example of 1 of 2 ids (0 conversations were dropped when it was "
        "prepared): x",
        "exclude: ids of what is not read here are of no account: tulu_z (1)",
        "exclude: no file is about tulu_b: all of it is kept",
    ]
    path.write_text("\n".join([line("tulu_a", "x"), line("tulu_a", "y"), line("b", "tulu_b_1")]))
    with pytest.raises(
        DataError,
        match=r"none of the ids to exclude is in the store - got 2 ids, such as x, y at tulu_a - "
        "expected ids such as tulu_a_0, .* with the same reading options",
    ):
        data(stores, str(path))
    path.write_text(line("tulu_z", "z"))
    with pytest.raises(
        DataError, match=r"exclude file is of other tasks than these - got tulu_z .*or tulu_b"
    ):
        data(stores, str(path))


def test_ids_that_were_dropped_when_prepared_are_no_mistake(tmp_path):
    counts = {"read": 4, "truncated": 0, "dropped": {"empty answer": 1}}
    meta = {**META, "task": "tulu_d", "counts": counts}
    store = write_store(tmp_path / "store", make_examples([4] * 3, name="d"), meta=meta)
    header = {"split": "train", "datasets": {"tulu_d": {"conversations": 4}}}
    row = {"task": "tulu_d", "id": "d_empty", "reason": "broken", "detail": ""}
    write_exclusion(tmp_path / "x.jsonl", header, [row])
    found = data({"tulu_d": {"train": store}}, str(tmp_path / "x.jsonl"), ("tulu_d",))
    assert "(1 conversations were dropped" in found.notes[0] and found.mixing == {}


def test_a_file_of_other_data_is_said(stores, tmp_path):
    def notes(**facts):
        header = {"split": "train", "datasets": {"tulu_a": facts, "tulu_b": {}}}
        row = {"task": "tulu_a", "id": "tulu_a_1", "reason": "broken", "detail": ""}
        write_exclusion(tmp_path / "x.jsonl", header, [row])
        return data(stores, str(tmp_path / "x.jsonl")).notes

    assert notes(conversations=40) == []
    (note,) = notes(conversations=41)
    assert "made from 41 conversations, the store was made from 40: its ids may name" in note
    stores["tulu_a"]["train"].meta["raw_files"] = "one"
    assert notes(raw_files="one") == []
    assert "made from other raw files" in notes(raw_files="two")[0]
    del stores["tulu_a"]["train"].meta["raw_files"]
    assert notes(raw_files="two") == [], "a store made from a download does not know"


HEADER = '{"format": "tulu-exclude", "version": 1, "datasets": {"tulu_a": {"conversations": 40}}}'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"not an exclude file - got no line at .*write it with `tulu data check"),
        ("\n \n", r"got no line"),
        ('{"task": "a"', r"not an exclude file - got Expecting .* at .*x.jsonl, line 1"),
        (line("a", "b") + "\n[1]", r"got \[1\] at .*line 2 - expected lines .* mend or delete"),
        ('{"task": "a", "id": 3}', r"got id 3 at"),
        ('{"task": "", "id": "x"}', r"got task '' at"),
        ('{"task": "a", "id": "x", "keep": true}', r"got the unknown field 'keep'"),
        ('{"task": "a", "id": "x", "reason": 1}', r"got reason 1"),
        ('{"task": "a", "id": "x", "id": "y"}', r"got the field id twice"),
        (f"{HEADER}\n{HEADER}", r"got a second first line at .*line 2 .*joined by commas"),
        (HEADER.replace(": 1,", ": 2,"), r"exclude file is of another format - got .*version 2"),
        (HEADER.replace("40", '"40"'), r"got conversations '40'"),
        (HEADER.replace('{"conversations": 40}', "3"), r"got facts of a dataset that are 3"),
        (HEADER.replace('"datasets"', '"split": 1, "datasets"'), r"got split 1"),
        ("version https://git-lfs.github.com/spec/v1\n", r"got a Git LFS pointer .*name an excl"),
        (b"\xff{}", r"got bytes that are not UTF-8"),
        ("[" * 100_000, r"not an exclude file"),
    ],
)
def test_files_that_are_none(tmp_path, text, message):
    path = tmp_path / "x.jsonl"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError, match=message):
        read_exclusion(str(path))


def test_paths_that_are_none(tmp_path, monkeypatch):
    with pytest.raises(DataError, match=r"exclude file cannot be read - got No such file"):
        read_exclusion(str(tmp_path / "none"))
    with pytest.raises(DataError, match=r"exclude file cannot be read - got Is a directory"):
        read_exclusion(str(tmp_path))
    with pytest.raises(DataError, match=r"an exclude file is named twice"):
        read_exclusion(["a", "./a"])
    with pytest.raises(ConfigError, match=r"exclude is an address"):
        read_exclusion("gs://bucket/x")
    for value, message in (
        ("", "EXCLUDE names no file or folder - got ''"),
        (" , ", "EXCLUDE names no file or folder - got ''"),
        ([""], "EXCLUDE names no file or folder - got ''"),
        (3, r"exclude is not text, or a list, .* or None"),
        ({"a": 1}, r"exclude is not text, or a list, .* or None"),
    ):
        with pytest.raises(ConfigError, match=message):
            DataConfig(mixture="a", tokenizer="t", exclude=value)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a,b.jsonl").touch()
    for named, paths in (("a,b.jsonl", ["a,b.jsonl"]), ("a, c.jsonl", ["a", "c.jsonl"])):
        config = DataConfig(mixture="a", tokenizer="t", exclude=named)
        assert config.exclude == [str(tmp_path / name) for name in paths], "absolute, once for all"
        assert dataclasses.replace(config) == config


def test_only_an_exclude_file_is_replaced(tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_text('{"messages": []}')
    with pytest.raises(DataError, match=r"what lies there is no exclude file, so it is not repl"):
        write_exclusion(path, {}, [])
    assert path.read_text() == '{"messages": []}'
    with pytest.raises(DataError, match=r"exclude file is a folder"):
        refuse_to_replace(tmp_path)
    with pytest.raises(DataError, match=r"cannot write the exclude file - got"):
        write_exclusion(path / "x.jsonl", {}, [])
    write_exclusion(tmp_path / "new" / "x.jsonl", {"datasets": {"a": {}}}, [])
    write_exclusion(tmp_path / "new" / "x.jsonl", {"datasets": {"b": {}}}, [])
    assert read_exclusion(str(tmp_path / "new" / "x.jsonl")).tasks.popitem()[1] == {"tulu_b"}


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
FIELDS = ("task", "id", "reason", "detail", "split", "format", "version", "datasets", "more")
ROWS = st.dictionaries(st.sampled_from(FIELDS), VALUES | st.sampled_from(["tulu-exclude", "a", 1]))


@settings(max_examples=200, deadline=None)
@given(lines=st.lists(ROWS.map(json.dumps) | st.text(max_size=20), max_size=4), junk=st.booleans())
def test_whatever_a_file_holds_it_is_read_or_refused(tmp_path_factory, lines, junk):
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    path.write_bytes("\n".join(lines).encode("utf-16" if junk else "utf-8", "surrogatepass"))
    try:
        found = read_exclusion([str(path)])
    except DataError as error:
        assert str(path) in str(error) and " - expected " in str(error)
    else:
        assert all(isinstance(name, str) for ids in found.listed.values() for name in ids)
        found.record([])
