"""No record, however broken, stops a reader of instructions; each is converted or reported."""

import json
import random

import pytest
from fuzzing import HUGE, break_bytes, fuzz_files, fuzz_lines, fuzz_list, mutate
from thorough import sample

from tasks import read_conversations

ALPACA = [
    {"instruction": "Add.", "input": "1 2", "output": "3"},
    {"instruction": "Say hi.", "input": "", "output": "hi"},
    {"instruction": "Übersetze {x}", "input": "< noinput >", "output": ""},
]
DOLLY = [
    {"instruction": "Why?", "context": "", "response": "So.", "category": "open_qa"},
    {"instruction": "Who?", "context": "Ann ran.", "response": "Ann", "category": "closed_qa"},
    {"instruction": "名前は?", "context": None, "response": "太郎", "category": "open_qa"},
]
FLAN = [
    {"inputs": "Q: why?\nA:", "targets": "so", "task": "gsm8k"},
    {"inputs": "Translate: é", "targets": "", "task": "wmt"},
    {"inputs": "x", "targets": " y", "task": ""},
]
SCIENCE = [
    {"input": "Extract.", "output": "{}", "dataset": "scierc"},
    {"input": "Summarize é.", "output": "s", "dataset": "scitldr"},
    {"input": "", "output": "", "dataset": "qasper"},
]
LIMA = [
    {"conversations": ["a", "b"], "source": "stackexchange"},
    {"conversations": ["a", "b", "c", "d", "e"], "source": "multi_turn"},
    {"conversations": ["é"], "source": "wikihow"},
]
UNNATURAL = [
    {
        "instruction": "Add.",
        "instances": [
            {"input": "1 2", "instruction_with_input": "", "constraints": "None.", "output": "3"},
            {"input": "2 2", "instruction_with_input": "", "constraints": "briefly", "output": "4"},
        ],
    },
    {"instruction": "Sort é.", "instances": [{"input": "b a", "constraints": "", "output": "a b"}]},
    {"instruction": "Nothing.", "instances": []},
]

LINES = {
    "dolly": ("databricks-dolly-15k.jsonl", DOLLY),
    "self_instruct": ("all_instances_82K.jsonl", ALPACA),
    "flan_v2": ("flan_v2_resampled_100k.jsonl", FLAN),
    "science": ("science_train.jsonl", SCIENCE),
    "lima": ("train.jsonl", LIMA),
    "unnatural_instructions": ("core_data.jsonl", UNNATURAL),
}
LISTS = {
    "stanford_alpaca": "alpaca_data.json",
    "code_alpaca": "code_alpaca_20k.json",
    "gpt4_alpaca": "alpaca_gpt4_data.json",
}


@pytest.mark.parametrize("name", LINES)
def test_jsonl_datasets(tmp_path, name):
    file, records = LINES[name]
    fuzz_lines(
        tmp_path / file,
        records,
        lambda faults: read_conversations(name, tmp_path, faults=faults),
        one_each=name != "unnatural_instructions",
    )


def test_cot(tmp_path):
    (tmp_path / "cot_fsopt.jsonl").write_text("{}")
    fuzz_lines(
        tmp_path / "cot_zsopt.jsonl",
        FLAN,
        lambda faults: read_conversations("cot", tmp_path, faults=faults, num_few_shot=0),
    )


@pytest.mark.parametrize("name", LISTS)
def test_json_lists(tmp_path, name):
    def read(faults):
        return read_conversations(name, tmp_path, faults=faults)

    full = name == "stanford_alpaca"  # the other two are of the same format
    path = tmp_path / LISTS[name]
    fuzz_list(path, ALPACA, read, count=sample(8_000) if full else 1_000)
    count = sample(2_000) if full else 200
    refused = fuzz_files(path, json.dumps(ALPACA, indent=1), read, count=count)
    assert count // 2 < refused < count


def test_tulu_2_filter_counts_with_faults(tmp_path):
    records = [*ALPACA, {"instruction": "Are you ChatGPT?", "input": "", "output": "Yes."}]
    faults = fuzz_list(
        tmp_path / LISTS["code_alpaca"],
        records,
        lambda faults: read_conversations("tulu_v2_code_alpaca", tmp_path, faults=faults),
        count=2_000,
    )
    assert sum(faults.left_out.values()) > 100


def test_the_mutations_are_of_every_kind():
    rng = random.Random(1)
    texts = [mutate(rng, rng.choice(ALPACA)) for _ in range(2_000)]
    for part in ("\\ud800", "\\u0000", "[[[[[", "NaN", "99999", "null"):
        assert any(part in text for text in texts), part
    assert any("output" not in text for text in texts)
    broken = [break_bytes(rng, text) for text in texts[:500]]
    assert any(b"\xff" in data for data in broken) and len(HUGE) == 10_000_000
