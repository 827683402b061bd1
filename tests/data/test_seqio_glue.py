"""From plain SeqIO and TFDS: the same conversations, the same tokens as in the store."""

import dataclasses
import doctest
import json

import numpy as np
import pytest

from tasks import demo, read_conversations
from tulu_jax.chat import load_tokenizer
from tulu_jax.data.keys import PrepareOptions
from tulu_jax.data.prepare import prepare
from tulu_jax.data.specs import DatasetSpec, Source, get_spec
from tulu_jax.errors import ConfigError, DataError

pytestmark = [
    pytest.mark.slow,  # importing TensorFlow alone takes seconds
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::ResourceWarning"),
]
LENGTHS = {"targets": 256, "loss_mask": 256}


@pytest.fixture(scope="module")
def glue():
    from tulu_jax.data import seqio_glue

    return seqio_glue


@pytest.fixture(autouse=True)
def unconfigured(glue, monkeypatch):
    monkeypatch.setattr(glue.tasks, "_settings", None)


@pytest.fixture
def raw_dir(tmp_path):
    folder = tmp_path / "raw" / "dolly"
    folder.mkdir(parents=True)
    rows = [
        {"instruction": f"What is {i} plus 1?", "context": "", "response": str(i + 1)}
        for i in range(40)
    ]
    rows[3]["instruction"] = "cup " * 400  # fills the row: is dropped
    rows[4]["response"] = "cup \u00e4\u2028 \U0001f600" * 40  # is cut
    text = "\n".join(json.dumps(row) for row in rows)
    (folder / "databricks-dolly-15k.jsonl").write_text(text)
    return tmp_path / "raw"


def test_tasks_are_registered(glue):
    import seqio

    names = {"tulu_demo", "tulu_dolly", "tulu_stanford_alpaca"}
    assert names <= set(seqio.TaskRegistry.names())
    assert glue.builder_class("tulu_demo").name == "tulu_demo"


def test_builder_gives_the_conversations_in_file_order(glue, tmp_path, raw_dir):
    spec = get_spec("dolly")
    got = list(glue.read_prepared(spec, "train", data_dir=tmp_path / "d", raw_dir=raw_dir))
    assert got == list(read_conversations("dolly", raw_dir / "dolly"))
    builder = glue.prepared_builder(spec, data_dir=tmp_path / "d", raw_dir=raw_dir)
    assert builder.info.splits["train"].num_examples == 40
    assert "Databricks" in builder.info.citation or "Dolly" in builder.info.citation
    assert len(builder.as_data_source("train")) == 40


def test_changed_raw_files_are_read_anew(glue, tmp_path, raw_dir):
    spec = get_spec("dolly")
    path = raw_dir / "dolly" / "databricks-dolly-15k.jsonl"
    for count in (2, 3):
        path.write_text('{"instruction": "a", "response": "b"}\n' * count)
        got = glue.read_prepared(spec, "train", data_dir=tmp_path / "d", raw_dir=raw_dir)
        assert len(list(got)) == count


def test_faults_in_raw_files_come_through(glue, tmp_path, raw_dir):
    path = raw_dir / "dolly" / "databricks-dolly-15k.jsonl"
    path.write_text('{"instruction": "a", "response": "b"}\n{"instruction": "a", ')
    with pytest.raises(DataError, match=r"malformed or truncated JSON .*jsonl, line 2"):
        glue.read_prepared(get_spec("dolly"), "train", data_dir=tmp_path / "d", raw_dir=raw_dir)


def test_few_bad_records_are_skipped_and_told(glue, tmp_path, raw_dir):
    path = raw_dir / "dolly" / "databricks-dolly-15k.jsonl"
    path.write_text('{"instruction": "a", "response": "b"}\n' * 150 + '{"instruction": 3}\n')
    where = {"data_dir": tmp_path / "d", "raw_dir": raw_dir}
    builder = glue.prepared_builder(get_spec("dolly"), **where)
    faults = glue.builder_faults(builder)["train"]
    assert (faults["records"], faults["skipped"], faults["left_out"]) == (151, 1, {})
    assert "jsonl, line 151" in faults["messages"][0]
    assert builder.info.splits["train"].num_examples == 150
    again = glue.prepared_builder(get_spec("dolly"), **where)
    assert glue.builder_faults(again)["train"] == faults
    with pytest.raises(DataError, match=r"bad record in dataset dolly train .*jsonl, line 151"):
        glue.prepared_builder(get_spec("dolly"), **where, strict=True)
    where["data_dir"] = tmp_path / "e"
    with pytest.raises(DataError, match=r"jsonl, line 151"):
        glue.prepared_builder(get_spec("dolly"), **where, strict=True)


def test_options_and_tokenizer_decide_what_is_built(glue, tmp_path):
    seen = []

    def read(raw_dir, *, tokenizer=None, rule="leaf", **_):
        seen.append((tokenizer, rule))
        messages = [{"role": "user", "content": rule}, {"role": "assistant", "content": "b"}]
        yield {"dataset": "own", "id": f"own_{rule}", "messages": messages}
        yield {"dataset": "own", "id": "own_none", "messages": []}

    text = dict.fromkeys(("description", "citation", "licence", "homepage"), "")
    (tmp_path / "own.txt").write_text("")
    spec = DatasetSpec(
        name="own", version="1.0.0", read=read, sources=(Source("", "own.txt"),),
        options={"rule": "leaf"}, needs_tokenizer=True, **text,
    )  # fmt: skip
    where = {"data_dir": tmp_path / "d", "raw_dir": tmp_path}
    with pytest.raises(ConfigError, match=r"dataset own is cut by tokens and there is no token"):
        glue.read_prepared(spec, "train", **where)
    tokenizer = load_tokenizer(demo.TOKENIZER_DIR)
    for rule in ("leaf", "every", "leaf"):
        chosen = dataclasses.replace(spec, options={"rule": rule})
        got = list(glue.read_prepared(chosen, "train", **where, tokenizer=tokenizer))
        assert [row["id"] for row in got] == [f"own_{rule}", "own_none"]
        assert got[1]["messages"] == []
    assert seen == [(tokenizer, "leaf"), (tokenizer, "every")]  # the third was there already


def test_raw_files_are_fetched_when_there_are_none(glue, tmp_path, raw_dir, monkeypatch):
    asked = []

    def fetch(spec, raw_root, **_):
        asked.append((spec.name, str(raw_root)))
        return raw_dir / spec.name

    monkeypatch.setattr("tulu_jax.download.run.fetch", fetch)
    got = glue.read_prepared(get_spec("dolly"), "train", data_dir=tmp_path / "d", raw_dir=None)
    assert len(list(got)) == 40 and asked == [("dolly", str(tmp_path / "d" / "raw"))]


def test_unwritable_folder(glue, tmp_path, raw_dir):
    (tmp_path / "d").write_text("")
    with pytest.raises(DataError, match=r"cannot prepare dataset dolly .*--data_dir"):
        glue.read_prepared(get_spec("dolly"), "train", data_dir=tmp_path / "d", raw_dir=raw_dir)


def test_unconfigured_tasks_say_so(glue):
    import seqio

    task = seqio.get_mixture_or_task("tulu_dolly")
    with pytest.raises(ConfigError, match=r"no tokenizer yet - call .*seqio_glue.configure"):
        task.get_dataset(sequence_length=LENGTHS, split="train")


def test_seqio_gives_what_the_store_holds(glue, tmp_path, raw_dir):
    import seqio

    data_dir, tokenizer = str(tmp_path / "data"), str(demo.TOKENIZER_DIR)
    options = PrepareOptions(
        tokenizer=tokenizer, max_length=256, data_dir=data_dir, raw_dir=str(raw_dir)
    )

    def reader(spec, split):
        return glue.read_prepared(spec, split, data_dir=data_dir, raw_dir=raw_dir)

    (store,) = prepare("tulu_dolly", options, reader=reader)
    assert len(store) == 39 and store.meta["counts"]["truncated"] == 1

    glue.configure(tokenizer=tokenizer, data_dir=data_dir, raw_dir=raw_dir)
    task = seqio.get_mixture_or_task("tulu_dolly")
    dataset = task.get_dataset(sequence_length=LENGTHS, split="train", shuffle=False)
    examples = list(dataset.as_numpy_iterator())
    assert len(examples) == len(store)
    for example, (tokens, mask) in zip(examples, store, strict=True):
        assert example["targets"].dtype == example["loss_mask"].dtype == np.int32
        assert np.array_equal(example["targets"], tokens)
        assert np.array_equal(example["loss_mask"], mask)
    vocabulary = task.output_features["targets"].vocabulary
    assert vocabulary.vocab_size == store.meta["vocab_size"]
    assert (vocabulary.bos_token_id, vocabulary.eos_id, vocabulary.unk_id) == (1, 2, 0)
    assert vocabulary.decode(vocabulary.encode("a cup")) == "a cup"


def test_answers_that_are_not_trained_are_not_in_seqio_either(glue, tmp_path):
    """The task of the fixed name, whose builder writes flags; and files of a builder without."""
    import seqio

    chat = [
        {"role": "user", "content": "What is 1 plus 1?"},
        {"role": "assistant", "content": "3", "weight": 0},
        {"role": "user", "content": "Again?"},
        {"role": "assistant", "content": "2"},
    ]
    rows = [{"messages": chat}, {"messages": chat[:2]}, {"messages": chat[2:]}]
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    data_dir, tokenizer = str(tmp_path / "data"), str(demo.TOKENIZER_DIR)
    options = PrepareOptions(
        tokenizer=tokenizer, max_length=256, data_dir=data_dir, raw_dir=str(tmp_path)
    )
    (store,) = prepare("tulu_jsonl", options)
    assert store.meta["counts"]["dropped"] == {"no answer to train": 1}
    (same,) = prepare(
        "tulu_jsonl",
        options,
        reader=lambda spec, split: read_conversations("jsonl", tmp_path),
        rebuild=True,
    )
    assert same.fingerprint == store.fingerprint
    glue.configure(tokenizer=tokenizer, data_dir=data_dir, raw_dir=str(tmp_path))
    task = seqio.get_mixture_or_task("tulu_jsonl")
    dataset = task.get_dataset(sequence_length=LENGTHS, split="train", shuffle=False)
    examples = list(dataset.as_numpy_iterator())
    assert len(examples) == len(store) == 2
    vocabulary = task.output_features["targets"].vocabulary
    for example, (tokens, mask) in zip(examples, store, strict=True):
        assert np.array_equal(example["targets"], tokens)
        assert np.array_equal(example["loss_mask"], mask)
        trained = example["targets"][example["loss_mask"] > 0]
        assert vocabulary.decode(trained.tolist()).strip().startswith("2")
    got = list(glue.read_prepared(get_spec("jsonl"), "train", data_dir=data_dir, raw_dir=tmp_path))
    assert got == list(read_conversations("jsonl", tmp_path))
    assert got[0]["messages"][1]["train"] is False and "train" not in got[0]["messages"][3]


def test_flags_lie_in_the_files_of_a_builder(glue):
    builders = glue.builders
    question, kept = ({"role": "user", "content": "?"}, {"role": "assistant", "content": "a"})
    for messages in ([question, kept, {**kept, "train": False}], [question, kept]):
        written = builders.encode_flags({"messages": messages})["messages"]
        columns = [[m[name].encode() for m in written] for name in ("role", "content", "train")]
        assert builders.decode_messages(*columns) == messages
        assert builders.decode_messages(*columns[:2], []) == [
            {"role": m["role"], "content": m["content"]} for m in messages
        ]
    assert doctest.testmod(builders).failed == 0
