"""Table 1 is counted as the paper counted it, and planned mixtures add up."""

import io
import json

import pytest
from rich.console import Console

from tasks import demo
from tulu_jax.data.mixtures import Component, mixture_specs, resolve
from tulu_jax.data.specs import get_spec
from tulu_jax.errors import DataError
from tulu_jax.inspect.dry_run import plan_mixture, plan_table
from tulu_jax.inspect.report import table1
from tulu_jax.inspect.table1 import PAPER, LengthCounter, Table1Row, TextLengths, count_lengths

TOKENIZER = str(demo.TOKENIZER_DIR)

SAMPLES = {
    "super_ni": (2917, 1.00, 161.8, 12.4),
    "cot": (2100, 1.00, 223.6, 56.6),
    "flan_v2": (1303, 1.00, 208.9, 23.4),
    "dolly": (80, 1.00, 113.3, 139.3),
    "oasst1_june": (545, 1.52, 40.2, 201.9),
    "self_instruct": (150, 1.00, 69.3, 68.0),
    "stanford_alpaca": (3000, 1.00, 27.9, 66.1),
    "code_alpaca": (1800, 1.00, 34.1, 66.7),
    "gpt4_alpaca": (772, 1.00, 28.1, 169.9),
    "baize": (1000, 2.33, 53.0, 148.1),
    "sharegpt": (2033, 3.22, 75.1, 312.6),
}
"""Instances, rounds, prompt and completion of the reference code's records of the samples."""


def messages(*turns):
    return [{"role": role, "content": content} for role, content in turns]


def record(*turns):
    return {"dataset": "x", "id": "x_0", "messages": messages(*turns)}


def last(stream):
    *_, found = stream
    return found


def test_lengths_are_means_over_messages():
    count = LengthCounter(TOKENIZER)
    one = record(("system", "be kind"), ("user", "a b"), ("assistant", "c"), ("user", "d"))
    two = record(("user", "e f g"), ("assistant", ""))
    tokens = [len(count.tokenizer.encode_text(text)) for text in ("a b", "d", "e f g", "c", "")]
    row = count([one, two]).row()
    assert row.instances == 2 and row.rounds == 5 / 2 / 2, "system messages are of no round"
    assert row.prompt == sum(tokens[:3]) / 3 and row.completion == sum(tokens[3:]) / 2
    assert tokens[-1] == 0 and row.tokens_per_instance == row.rounds * (row.prompt + row.completion)


def test_special_tokens_are_not_counted():
    count = LengthCounter(TOKENIZER)
    assert count([record(("user", "a"))]).prompt_tokens == len(count.tokenizer.encode_text("a"))
    assert TextLengths().row() == Table1Row(0, 0.0, 0.0, 0.0)


def test_a_lone_surrogate_is_named():
    with pytest.raises(DataError, match=r"lone surrogate - at one of 1 conversations from x_0"):
        LengthCounter(TOKENIZER)([record(("user", "\ud800"))])


def test_datasets_are_counted_apart():
    streams = {
        "a": [record(("user", "one"), ("assistant", "two"))] * 300,
        "b": [record(("user", "three four"), ("assistant", "five"))],
    }
    counted = {name: lengths.row() for name, lengths in count_lengths(streams, TOKENIZER)}
    assert {name: row.instances for name, row in counted.items()} == {"a": 300, "b": 1}


@pytest.mark.parametrize("dataset", SAMPLES)
def test_the_samples_have_the_numbers_of_the_reference(shared, dataset):
    path = shared / "data/golden/records" / f"{dataset}.jsonl"
    with open(path, encoding="utf-8") as lines:
        records = (json.loads(line) for line in lines)
        tokenizer = str(shared / "tokenizers/llama")
        _, lengths = last(count_lengths({dataset: records}, tokenizer))
    row = lengths.row()
    got = (row.instances, round(row.rounds, 2), round(row.prompt, 1), round(row.completion, 1))
    assert got == SAMPLES[dataset]


def test_the_papers_counts_are_the_tasks():
    counts = {name: get_spec(name).expected_examples["train"] for name in PAPER}
    assert counts == {name: row.instances for name, row in PAPER.items()}


def parts_of(mixture):
    specs = {spec.task_name: spec for spec in mixture_specs(mixture)}
    return [(component, specs[component.task]) for component in resolve(mixture)]


def plan(mixture, **kwargs):
    options = {"row_length": 2048, "batch_size": 128, "epochs": 2, **kwargs}
    return plan_mixture(mixture, parts_of(mixture), **options)


def test_the_full_mixture_adds_up():
    found = plan("tulu_v1_human_gpt")
    assert found.examples == 490_694 == sum(one.examples for one in found.datasets)
    sharegpt = next(one for one in found.datasets if one.task == "tulu_sharegpt")
    assert sharegpt.tokens == round(168_864 * 3.2 * (71.0 + 357.8 + 16))
    assert found.rows == -int(-found.tokens // (2048 * 0.99))
    assert found.steps == -(-2 * found.rows // 128)
    assert plan("tulu_v1_human_gpt", packing="padded").rows == 490_694
    shares = [one["share"] for one in found.as_json()["datasets"]]
    assert sum(shares) == pytest.approx(1.0)


def test_caps_unknown_counts_and_unknown_lengths_are_told():
    parts = [
        (Component(task="tulu_cot", max_examples=500), get_spec("cot")),
        (Component(task="tulu_dolly", max_examples=10**6), get_spec("dolly")),
    ]
    found = plan_mixture("x", parts, row_length=100, batch_size=8, epochs=1)
    assert [one.examples for one in found.datasets] == [500, 15_011]
    two = plan("tulu_v2")
    lengths = {one.task: one.tokens for one in two.datasets}
    assert lengths["tulu_v2_lima"] is None and lengths["tulu_v2_cot"] is not None
    assert any("not counted in tokens and rows" in note and "v2_lima" in note for note in two.notes)
    assert any("first paper's reading" in note and "v2_sharegpt" in note for note in two.notes)


def printed(table, width):
    stream = io.StringIO()
    Console(width=width, file=stream).print(table)
    return stream.getvalue()


@pytest.mark.parametrize("mixture", ["tulu_v1_human_gpt", "tulu_v2"])
def test_tables_fit(mixture):
    text = printed(plan_table(plan(mixture)), 100)
    assert max(map(len, text.splitlines())) <= 100 and "…" not in text
    rows = {f"tulu_{name}": row for name, row in PAPER.items()}
    names = {task: task.removeprefix("tulu_") for task in rows}
    text = printed(table1({**rows, "tulu_x": None}, {**names, "tulu_x": "x"}, vocab_size=512), 100)
    assert max(map(len, text.splitlines())) <= 100 and "…" not in text
    assert "unnatural_instructions" in text and "by LLaMA's tokenizer, ours by the one" in text
    assert "without numbers: no raw files" in text
