"""Raw files become the reference's messages, byte for byte; a wrong name is met with near ones."""

import json
import random

import pytest

from tasks import read_conversations, templates
from tasks.name_filter import REASON, mentions_name
from tulu_jax.data import specs
from tulu_jax.data.faults import Faults
from tulu_jax.data.specs import DatasetSpec, all_specs, get_spec, locate_raw_dir, register
from tulu_jax.errors import DataError

RAW = ("code_alpaca", "dolly", "stanford_alpaca", "super_ni")
DERIVED = ("cot", "flan_v2", "gpt4_alpaca", "self_instruct")
"""The datasets with reference outputs, by the folder of the samples they were made from."""

TULU_V2 = ("code_alpaca", "cot", "flan_v2", "gpt4_alpaca", "hard_coded", "lima", "science")


def sample_of(shared, name):
    return shared / "data" / ("raw" if name in RAW else "raw_derived") / name


@pytest.mark.parametrize("name", RAW + DERIVED)
def test_messages_equal_the_reference(shared, name):
    golden = (shared / f"data/golden/records/{name}.jsonl").read_text().splitlines()
    faults = Faults()
    ours = read_conversations(name, sample_of(shared, name), faults=faults)
    assert [json.dumps(row) for row in ours] == golden
    assert (faults.records, faults.skipped) == (len(golden), 0)


@pytest.mark.parametrize("name", ["code_alpaca", "cot", "gpt4_alpaca"])
def test_tulu_2_leaves_out_named_models(shared, name):
    every = [row["messages"] for row in read_conversations(name, sample_of(shared, name))]
    faults = Faults()
    left = read_conversations(f"tulu_v2_{name}", sample_of(shared, name), faults=faults)
    left = [row["messages"] for row in left]
    assert left == [messages for messages in every if not mentions_name({"messages": messages})]
    assert faults.left_out == ({REASON: len(every) - len(left)} if len(left) < len(every) else {})
    assert faults.skipped == 0


@pytest.mark.parametrize("name", TULU_V2)
def test_tulu_2_readings_are_datasets_of_their_own(name):
    first, second = get_spec(f"tulu_{name}"), get_spec(f"tulu_v2_{name}")
    assert first.name == second.name == name and first.task_name != second.task_name
    assert first.read is second.read and first.options != second.options
    assert set(first.options) == set(second.options)


def test_every_dataset_says_where_it_comes_from():
    published = [spec for spec in all_specs().values() if spec.name != "jsonl"]
    for spec in published:
        assert spec.version and spec.licence and spec.citation and spec.description.endswith(".")
        for source in spec.sources:
            assert source.url.startswith("https://") and not source.filename.startswith("/")


def test_template_weights_sum_to_one():
    for table in (templates.WITH_INPUT, templates.WITHOUT_INPUT):
        assert sum(template.weight for template in table) == pytest.approx(1.0)
        assert len(table) == 14


def test_blank_input_takes_the_table_without_input():
    for context in (None, "", "  \n"):
        prompt, _ = templates.encode_instruction("I", "x", context=context, rng=random.Random(0))
        assert "Input" not in prompt
    answers = {
        templates.encode_instruction("I", " x ", rng=random.Random(seed))[1] for seed in range(50)
    }
    assert answers == {"x", "\nx"}


def test_braces_in_the_data_are_kept():
    prompt, answer = templates.encode_instruction(
        "{input}", "{0}", context="{x}", rng=random.Random(0)
    )
    assert "{input}" in prompt and "{x}" in prompt and answer == "{0}"


def test_unknown_names():
    with pytest.raises(
        DataError, match=r"unknown dataset - got 'tulu_doly' .*did you mean tulu_dolly"
    ):
        read_conversations("tulu_doly", ".")
    with pytest.raises(DataError, match=r"dataset dolly has no such split - got 'test'"):
        read_conversations("dolly", ".", split_name="test")
    with pytest.raises(DataError, match=r"unknown option of dataset dolly - got 'rule'"):
        read_conversations("dolly", ".", rule="june")
    with pytest.raises(DataError, match=r"dataset dolly is read from files - name their folder"):
        read_conversations("dolly")


def test_missing_field_names_file_and_line(tmp_path):
    path = tmp_path / "databricks-dolly-15k.jsonl"
    path.write_text('{"instruction": "a", "response": "b"}\n{"instruction": "a"}\n')
    with pytest.raises(DataError, match=r"missing field 'response' .*15k.jsonl, line 2"):
        list(read_conversations("dolly", tmp_path))


def test_raw_files_are_found_in_either_folder(tmp_path):
    spec = get_spec("dolly")
    with pytest.raises(
        DataError, match=r"raw files of dataset dolly are missing - got no databricks"
    ):
        locate_raw_dir(spec, tmp_path)
    (tmp_path / "dolly").mkdir()
    (tmp_path / "dolly" / "databricks-dolly-15k.jsonl").write_text("{}")
    assert locate_raw_dir(spec, tmp_path) == tmp_path / "dolly"
    assert locate_raw_dir(spec, tmp_path / "dolly") == tmp_path / "dolly"
    assert locate_raw_dir(get_spec("tulu_demo"), tmp_path) is None


def test_a_dataset_is_registered_once(monkeypatch):
    monkeypatch.setattr(specs, "_SPECS", dict(specs._SPECS))
    text = dict.fromkeys(("description", "citation", "licence", "homepage"), "")
    spec = DatasetSpec(name="new", version="1.0.0", read=lambda raw_dir, **_: iter(()), **text)
    assert register(spec) is register(spec) is get_spec("tulu_new")
    other = DatasetSpec(name="new", version="2.0.0", read=spec.read, **text)
    with pytest.raises(DataError, match=r"a dataset of this name exists already - got 'tulu_new'"):
        register(other)
