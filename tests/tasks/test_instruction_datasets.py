"""Datasets without real samples, and options without reference outputs, on records made up here."""

import json
import random

import pytest

from tasks import read_conversations
from tasks.templates import encode_instruction
from tulu_jax.data.faults import Faults
from tulu_jax.data.specs import get_spec
from tulu_jax.errors import DataError


def write_lines(folder, name, rows):
    (folder / get_spec(name).sources[0].filename).write_text(
        "\n".join(json.dumps(row) for row in rows), encoding="utf-8"
    )


def texts(conversations):
    return [[message["content"] for message in row["messages"]] for row in conversations]


# --- unnatural_instructions --------------------------------------------------------------------


def instance(constraints="", **fields):
    kept = {"input": "in", "instruction_with_input": "unused", "output": "out"}
    return {**kept, "constraints": constraints, **fields}


def unnatural(folder, rows, **options):
    write_lines(folder, "unnatural_instructions", rows)
    return list(read_conversations("unnatural_instructions", folder, **options))


@pytest.mark.parametrize("none", ["", "None", "none", "NONE", "None.", "none.", "nOnE.", None])
def test_every_spelling_of_none_adds_nothing(tmp_path, none):
    made = unnatural(tmp_path, [{"instruction": "Do.", "instances": [instance(none)]}])
    expected = encode_instruction("Do.", "out", context="in", rng=random.Random(42))
    assert texts(made) == [list(expected)]


@pytest.mark.parametrize("some", ["Be brief.", "none!", " none", "None. Really", "No", " "])
def test_constraints_follow_the_instruction(tmp_path, some):
    made = unnatural(tmp_path, [{"instruction": "Do.", "instances": [instance(some)]}])
    expected = encode_instruction(f"Do.\n{some}", "out", context="in", rng=random.Random(42))
    assert texts(made) == [list(expected)]


def test_ids_count_instances_and_one_stream_draws_all_templates(tmp_path):
    rows = [
        {"instruction": "A", "instances": [instance(), instance(input="")], "reformulations": []},
        {"instruction": "B", "instances": []},
        {"instruction": "C", "instances": [instance("x")]},
    ]
    made = unnatural(tmp_path, rows)
    assert [row["id"] for row in made] == [f"unnatural_instructions_{n}" for n in range(3)]
    assert {row["dataset"] for row in made} == {"unnatural_instructions"}
    rng = random.Random(42)
    asked = [("A", "in"), ("A", ""), ("C\nx", "in")]
    assert texts(made) == [list(encode_instruction(i, "out", context=c, rng=rng)) for i, c in asked]
    assert "unused" not in json.dumps(made)


def test_sampling_follows_templating(tmp_path):
    rows = [{"instruction": f"I{n}", "instances": [instance()]} for n in range(9)]
    every, some = unnatural(tmp_path, rows), unnatural(tmp_path, rows, num_examples=4)
    assert [row["id"] for row in some] == [f"unnatural_instructions_{n}" for n in range(4)]
    assert all(text in texts(every) for text in texts(some))
    rng = random.Random(42)
    for _ in rows:
        encode_instruction("", "", context="x", rng=rng)
    assert texts(some) == texts(rng.sample(every, 4))
    assert unnatural(tmp_path, rows, num_examples=9) == every


def test_a_line_with_a_bad_instance_is_left_out_whole(tmp_path):
    rows = [{"instruction": "A", "instances": [instance(), {"input": ""}]}] * 2
    rows.append({"instruction": "B", "instances": [instance()]})
    faults = Faults()
    made = unnatural(tmp_path, rows, faults=faults)
    assert [row["id"] for row in made] == ["unnatural_instructions_0"]
    assert faults.skipped == 2 and "missing field 'output'" in faults.messages[0]
    with pytest.raises(DataError, match=r"field 'instances' has the wrong type .* line 1"):
        unnatural(tmp_path, [{"instruction": "A", "instances": 3}])
    with pytest.raises(DataError, match=r"instance has the wrong type - got int 3 .* line 1"):
        unnatural(tmp_path, [{"instruction": "A", "instances": [3]}])


# --- lima --------------------------------------------------------------------------------------


def test_lima_takes_turns_and_drops_an_odd_last_text(tmp_path):
    rows = [["q", "a"], ["q", "a", "r", "b", "s"], ["q"], []]
    write_lines(tmp_path, "lima", [{"conversations": row, "source": "x"} for row in rows])
    made = list(read_conversations("lima", tmp_path))
    assert texts(made) == [["q", "a"], ["q", "a", "r", "b"], [], []]
    assert [message["role"] for message in made[1]["messages"]] == ["user", "assistant"] * 2
    assert made[1]["id"] == "lima_1" and made[1]["dataset"] == "lima"
    write_lines(tmp_path, "lima", [{"conversations": ["q", {"a": 1}]}])
    with pytest.raises(DataError, match=r"turn has the wrong type - got dict .* expected text"):
        list(read_conversations("lima", tmp_path))


# --- science -----------------------------------------------------------------------------------


def test_science_names_the_dataset_within(tmp_path):
    rows = [{"input": " in ", "output": "out\n", "dataset": name} for name in ("qasper", "scitldr")]
    write_lines(tmp_path, "science", rows)
    made = list(read_conversations("science", tmp_path))
    assert [row["dataset"] for row in made] == ["science.qasper", "science.scitldr"]
    assert [row["id"] for row in made] == ["science_0", "science_1"]
    assert texts(made) == [[" in ", "out\n"]] * 2
    write_lines(tmp_path, "science", [{"input": "a", "output": "b"}])
    with pytest.raises(DataError, match=r"missing field 'dataset' - got fields input, output at"):
        list(read_conversations("science", tmp_path))


# --- options -----------------------------------------------------------------------------------


def alpaca(number):
    return {"instruction": f"I{number}", "input": "", "output": f"O{number}"}


@pytest.mark.parametrize("name", ["dolly", "self_instruct", "science", "lima"])
def test_num_examples_samples_lines_before_anything_else(tmp_path, name):
    rows = [
        {**alpaca(n), "response": f"O{n}", "dataset": "x", "conversations": ["q", f"O{n}"]}
        for n in range(20)
    ]
    write_lines(tmp_path, name, rows)
    made = list(read_conversations(name, tmp_path, num_examples=5))
    drawn = random.Random(42).sample(range(20), 5)
    assert [text[1].strip() for text in texts(made)] == [f"O{n}" for n in drawn]
    assert [row["id"] for row in made] == [f"{name}_{n}" for n in range(5)]
    every = list(read_conversations(name, tmp_path))
    assert every == list(read_conversations(name, tmp_path, num_examples=20))


@pytest.mark.parametrize("name", ["stanford_alpaca", "code_alpaca", "gpt4_alpaca"])
def test_num_examples_samples_elements_before_templating(tmp_path, name):
    rows = [alpaca(n) for n in range(20)]
    path = tmp_path / get_spec(name).sources[0].filename
    path.write_text(json.dumps(rows))
    rng = random.Random(42)
    drawn = rng.sample(rows, 5)
    expected = [encode_instruction(row["instruction"], row["output"], rng=rng) for row in drawn]
    made = read_conversations(name, tmp_path, num_examples=5)
    assert texts(made) == [list(pair) for pair in expected]
    assert len(list(read_conversations(name, tmp_path, num_examples=50))) == 20


def test_tulu_2_counts():
    def options(name):
        return get_spec(f"tulu_v2_{name}").options

    assert options("gpt4_alpaca") == {"num_examples": 20_000, "filter_names": True}
    assert options("cot")["num_zero_shot"] == options("cot")["num_few_shot"] == 25_000
    assert options("hard_coded") == {"repeat": 10}
    assert get_spec("tulu_v2_flan_v2").sources[0].filename == options("flan_v2")["file"]


# --- cot and flan_v2 ---------------------------------------------------------------------------


def write_cot(folder, zero_shot, few_shot):
    for name, count in (("zsopt", zero_shot), ("fsopt", few_shot)):
        rows = [{"inputs": f"{name} {n}", "targets": "t"} for n in range(count)]
        (folder / f"cot_{name}.jsonl").write_text("\n".join(json.dumps(row) for row in rows))


def test_cot_samples_either_file_from_one_stream(tmp_path):
    write_cot(tmp_path, 10, 8)
    made = read_conversations("cot", tmp_path, num_zero_shot=3, num_few_shot=4)
    rng = random.Random(42)
    expected = [f"zsopt {n}\n" for n in rng.sample(range(10), 3)]
    expected += [f"fsopt {n}\n" for n in rng.sample(range(8), 4)]
    made = list(made)
    assert [text[0] for text in texts(made)] == expected
    assert [row["id"] for row in made] == [f"cot_{n}" for n in range(7)]


def test_cot_without_few_shot_rows_keeps_the_others(tmp_path):
    write_cot(tmp_path, 4, 4)
    only_zero = list(read_conversations("cot", tmp_path, num_few_shot=0))
    assert [text[0] for text in texts(only_zero)] == [f"zsopt {n}\n" for n in range(4)]
    only_few = list(read_conversations("cot", tmp_path, num_zero_shot=0))
    assert [text[0] for text in texts(only_few)] == [f"fsopt {n}\n" for n in range(4)]


def test_flan_prompts_are_closed_and_answers_untouched(tmp_path):
    prompts = {"Q": "Q\n", "Q\n": "Q\n", "A:": "A:", "A: ": "A: ", "Q ": "Q \n", "": "\n"}
    write_lines(tmp_path, "flan_v2", [{"inputs": text, "targets": " y "} for text in prompts])
    assert texts(read_conversations("flan_v2", tmp_path)) == [
        [closed, " y "] for closed in prompts.values()
    ]
