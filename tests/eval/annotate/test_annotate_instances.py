"""Instances: the reference's file, what two models answered in every format, broken ones."""

import doctest
import json

import pytest

from eval.annotate import instances
from eval.annotate.instances import pair_up, read_instances, sample
from eval.annotate.store.assign import plan_places
from tests.eval.annotate import studies
from tests.eval.results import row, write_result
from tulu_jax.errors import DataError


def write(path, rows):
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    return path


def line(i=0, **changed):
    sides = [{"model": m, "completion": f"{m} {i}"} for m in ("m", "n")]
    return {"id": f"t{i}", "prompt": f"p{i}", "completions": sides, **changed}


def test_docstring_examples():
    assert doctest.testmod(instances).failed == 0


def test_the_references_file(shared):
    found = read_instances(shared / "eval_data" / "human_eval" / "eval_instances_tulu_1.jsonl")
    assert len(found) == 996
    assert len({one.prompt for one in found}) == 332
    assert len({frozenset(one.models) for one in found}) == 3


def test_lines_without_id_have_their_number(tmp_path):
    rows = [{k: v for k, v in line(i).items() if k != "id"} for i in range(2)]
    assert [one.id for one in read_instances(write(tmp_path / "i.jsonl", rows))] == ["1", "2"]


def test_what_no_database_keeps_is_replaced(tmp_path):
    (found,) = read_instances(write(tmp_path / "i.jsonl", [line(prompt="a\x00b\ud800c")]))
    assert found.prompt == "a\ufffdb\ufffdc"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"completions": []}, "instance has not two completions - got \\[\\] at i.jsonl, line 1"),
        ({"completions": [1, 2]}, "instance has no model - got None"),
        ({"prompt": None}, "instance has no prompt - got None"),
        ({"prompt": ["x"]}, "instance has no prompt - got \\['x'\\]"),
        ({"prompt": "x" * 1_000_001}, "prompt is too long to be read by anyone"),
        ({"completions": [{"model": "m", "completion": "x"}] * 2}, "compared with itself"),
        ({"gold": {}}, "gold answer is not understood"),
        ({"gold": {"preference": "z"}}, "prefers a model that is not there - got 'z'"),
        ({"gold": {"acceptable": {"m": True}}}, "gold answer is not understood"),
    ],
)
def test_wrong_lines_are_named(tmp_path, changed, message):
    with pytest.raises(DataError, match=message):
        read_instances(write(tmp_path / "i.jsonl", [line(**changed)]))


def test_wrong_files_are_named(tmp_path):
    path = tmp_path / "i.jsonl"
    for content, message in (
        ("{", "line is no JSON - got .* line 1"),
        ("3", "entry is no object - got a JSON int"),
        ("", "file holds no JSON - got an empty file"),
        ("\n", "there are no instances"),
        ("<!doctype html>", "file holds no JSON - got a web page"),
        (json.dumps(line()) + "\n" + json.dumps(line()), "an instance is there twice"),
    ):
        path.write_text(content)
        with pytest.raises(DataError, match=message):
            read_instances(path)
    with pytest.raises(DataError, match="file is missing"):
        read_instances(tmp_path / "none")


def test_two_result_folders(tmp_path):
    for model, ids in (("base", "abc"), ("tuned", "cbd")):
        rows = [{**row(i, True), "prompt": f"<|user|>\nAsk {i}\n<|assistant|>\n",
                 "output": f"{model} says {i}"} for i in ids]  # fmt: skip
        write_result(tmp_path / model, rows, model=model)
    found, left_out = pair_up(tmp_path / "base", tmp_path / "tuned")
    assert left_out == 2
    assert {one.id: one.completions for one in found} == {
        "b": ("base says b", "tuned says b"), "c": ("base says c", "tuned says c")
    }  # fmt: skip
    assert found[0].models == ("base", "tuned")
    assert found[0].prompt.startswith("Ask ")


def test_answers_of_other_programs(tmp_path):
    alpaca = [
        {"instruction": f"Ask {i % 3}", "output": f"x{i}", "generator": "x"} for i in range(4)
    ]
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "model_outputs.json").write_text(json.dumps(alpaca))
    theirs = [
        {**one, "output": one["output"].replace("x", "y"), "generator": "y"} for one in alpaca
    ]
    (tmp_path / "y.json").write_text(json.dumps(theirs[::-1]))
    found, left_out = pair_up(tmp_path / "x", tmp_path / "y.json", ("one", "two"))
    assert left_out == 0 and len({one.id for one in found}) == 4
    assert found[0].models == ("one", "two")
    assert all(one.prompt.startswith("Ask") for one in found)
    said = {"messages": [{"role": "user", "content": "Hi"}]}
    for name, prompts in (("v", {"prompt": "Hi"}), ("w", said)):
        write(tmp_path / f"{name}.jsonl", [{"id": 1, **prompts, "output": name}])
    (one,), _ = pair_up(tmp_path / "v.jsonl", tmp_path / "w.jsonl")
    assert (one.id, one.prompt, one.models, one.completions) == ("1", "Hi", ("v", "w"), ("v", "w"))


def test_answers_that_do_not_fit_together(tmp_path):
    a = write(tmp_path / "a.jsonl", [{"id": "1", "prompt": "p", "output": "x"}])
    other = write(tmp_path / "b.jsonl", [{"id": "1", "prompt": "q", "output": "x"}])
    none = write(tmp_path / "c.jsonl", [{"id": "2", "prompt": "p", "output": "x"}])
    twice = write(tmp_path / "d.jsonl", [{"id": "1", "prompt": "p", "output": "x"}] * 2)
    mixed = write(tmp_path / "e.jsonl", [{"id": str(i), "prompt": "p", "output": "x",
                                          "generator": str(i)} for i in (1, 2)])  # fmt: skip
    no_output = write(tmp_path / "f.jsonl", [{"id": "1", "prompt": "p"}])
    for second, message in (
        (other, "the two models were asked other prompts - got 'q'"),
        (none, "the two models answered no instance in common - got 1 and 1"),
        (twice, "an instance is there twice - got '1'"),
        (mixed, "answers are of several models"),
        (no_output, "instance has no output"),
        (tmp_path, "folder holds no answers"),
    ):
        with pytest.raises(DataError, match=message):
            pair_up(a, second)
    with pytest.raises(DataError, match="compared with itself"):
        pair_up(a, a)


def test_a_sample_keeps_gold_and_order():
    found = [*studies.instances(20), *read_gold()]
    drawn = sample(found, 5, seed=1)
    assert len(drawn) == 6 and drawn[-1].gold
    assert [found.index(one) for one in drawn] == sorted(found.index(one) for one in drawn)
    assert sample(found, 5, seed=1) == drawn != sample(found, 5, seed=2)
    assert sample(found, 99, seed=1) == found


def read_gold():
    import dataclasses

    (one,) = studies.instances(1, start=90)
    return [dataclasses.replace(one, gold={"preference": "tie"})]


def test_the_overlap_is_as_large_as_asked_for():
    found = [*studies.instances(50), *read_gold()]
    places = plan_places(found, annotators=3, overlap=0.3, seed=0)
    assert places.count(3) == 15 and places.count(1) == 35 and places[-1] == 0
