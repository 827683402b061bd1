"""Checks that run by themselves."""

import json
from pathlib import Path

import pytest

from eval.harness import guards
from eval.harness.asks import Choose, Generate, Instance, Prompt, Weigh
from eval.harness.context import Context
from eval.harness.quirks import SHARED, Quirks
from eval.harness.registry import benchmarks, find_task
from eval.harness.runner import load_task
from eval.templates import create_prompt_with_tulu_chat_format as tulu
from tasks.demo import TOKENIZER_DIR
from tulu_jax.chat import load_tokenizer
from tulu_jax.errors import GuardError


def make(**fields):
    return Context(Path("data"), None, Quirks(SHARED, "fixed"), **fields)


def asked(texts, data=None, ids=None):
    return [
        Instance(str(i), Generate(Prompt(text, ids), 5), "g", data[i] if data else {"q": i})
        for i, text in enumerate(texts)
    ]


KNOWN = [one for one in benchmarks().values() if one.questions is not None]


@pytest.mark.parametrize("benchmark", KNOWN, ids=lambda one: one.name)
def test_of_whole_data_nothing_is_said(benchmark, shared):
    assert guards.check_data(benchmark, shared / "eval_data" / benchmark.data) == []


def test_a_part_of_the_data_and_questions_put_twice_are_told(tmp_path):
    """Such data gave a plain number, and twice as many instances a smaller standard error."""
    task = {"examples": [{"input": f"{n}?", "target": "yes"} for n in range(3)]}
    (tmp_path / "bbh").mkdir()
    (tmp_path / "bbh" / "navigate.json").write_text(json.dumps(task))
    (note,) = guards.check_data(benchmarks()["bbh"], tmp_path)
    assert note.startswith("data have 3 questions where the whole benchmark has 6,511: not to be")
    row = json.dumps({"question": "1+1?", "answer": "#### 2"}) + "\n"
    (tmp_path / "test.jsonl").write_text(row * 1400)
    (note,) = guards.check_data(benchmarks()["gsm"], tmp_path)
    assert note.startswith(
        "data have 1,400 questions where the whole benchmark has 1,319, "
        "1,399 of them repeat another: not to be"
    )


def test_loading_a_task_tells_it(tmp_path):
    (tmp_path / "test.jsonl").write_text('{"question": "1+1?", "answer": "#### 2"}\n')
    task = find_task("gsm_chat")
    context = Context(tmp_path, task.options, Quirks(task.benchmark.quirks, "fixed"))
    loaded = load_task("gsm_chat", task.benchmark, context)
    assert loaded.notes[0].startswith("data have 1 questions where the whole")


def test_no_instance_is_an_error():
    with pytest.raises(GuardError, match="no instance to evaluate"):
        guards.check_prompts([], make())


def test_an_id_that_is_there_twice_is_an_error():
    with pytest.raises(GuardError, match="instances share an id - got 2 times '0'"):
        guards.check_prompts([*asked("ab"), *asked("c")], make())


def test_one_prompt_for_different_questions_is_an_error():
    """open-instruct's PR #99: a closure that made every prompt the last one."""
    with pytest.raises(GuardError, match="different questions have one and the same prompt"):
        guards.check_prompts(asked(["same"] * 5), make())


def test_samples_of_one_question_share_its_prompt():
    same = [{"q": 0}] * 5
    assert guards.check_prompts(asked(["same"] * 5, same), make()) == []


def test_a_few_equal_prompts_are_told():
    notes = guards.check_prompts(asked(["a", "a", "b", "c", "d", "e"]), make())
    assert notes == ["1 of 6 questions share a prompt with another"]


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(TOKENIZER_DIR)


def test_two_bos_or_none_are_an_error(tokenizer):
    bos = tokenizer.bos_id
    context = make(tokenizer=tokenizer)
    assert guards.check_prompts(asked("a", ids=(bos, 9)), context) == []
    for ids in ((bos, bos, 9), (9, 10)):
        with pytest.raises(GuardError, match="does not begin with exactly one BOS"):
            guards.check_prompts(asked("a", ids=ids), context)
    bare = make(tokenizer=tokenizer, add_bos="false")
    with pytest.raises(GuardError, match="begins with a BOS that is not wanted"):
        guards.check_prompts(asked("a", ids=(bos, 9)), bare)


def test_a_bos_in_the_middle_is_told(tokenizer):
    notes = guards.check_prompts(
        asked("a", ids=(tokenizer.bos_id, 9, tokenizer.bos_id)), make(tokenizer=tokenizer)
    )
    assert notes == ["1 prompts have a BOS in their middle, first 0"]


def test_chat_format_and_model_must_go_together():
    chat = make(formatter=tulu)
    (note,) = guards.check_format(chat, model_chats=False, chats=True)
    assert "base models are evaluated without it" in note
    (note,) = guards.check_format(make(), model_chats=True, chats=True)
    assert "add --use_chat_format" in note
    for context, has, asks in ((chat, True, True), (make(), False, True), (make(), True, False)):
        assert guards.check_format(context, model_chats=has, chats=asks) == []


def row(i, **fields):
    return {"id": str(i), "output": f"out {i}", "stop_reason": "eos", **fields}


def test_answers_are_counted_and_what_is_odd_is_told():
    rows = [row(i) for i in range(8)]
    counts, notes = guards.look_at_answers(rows)
    assert notes == [] and counts["stop_reasons"] == {"eos": 8} and counts["distinct_outputs"] == 8
    rows += [row(8, error="gone", output=None), row(9, truncated=3), row(10, capped=True)]
    counts, notes = guards.look_at_answers(rows)
    assert counts["failures"] == ["8"] and counts["truncated_prompts"] == ["9"]
    assert counts["capped"] == ["10"] and [note.split()[0] for note in notes] == ["1", "1", "1"]


@pytest.mark.parametrize("count", [2, 3])
def test_from_a_tenth_on_answers_without_end_are_told(count):
    """A third of GSM8K's answers were cut at 512 tokens without a word."""
    rows = [row(i) for i in range(20 - count)]
    rows += [row(20 + i, stop_reason="length", extracted=False) for i in range(count)]
    notes = guards.look_at_answers(rows)[1]
    assert notes == [
        f"no answer was found in {count} of 20 outputs",
        f"{count} of 20 outputs did not end by themselves",
    ] * (count > 2)


def test_turns_that_a_model_makes_up_are_told():
    """The last number of GSM8K's answer is then one of a question that nobody asked."""
    ends = "It is 4.\n<|user|>\nWhat is 5+5?\n<|assistant|>\n10"
    _, (note,) = guards.look_at_answers([row(0), row(1), row(2, output=ends)])
    assert note.startswith("1 of 3 outputs have the markers of a chat format in them: a model that")


def test_failures_are_told_with_their_commonest_cause():
    rows = [row(0), *(row(i, error="gone" if i < 3 else "late", output=None) for i in (1, 2, 3))]
    _, (note,) = guards.look_at_answers(rows)
    assert note.startswith("3 of 4 instances failed (2 by 'gone'): they are in no metric; run")


def test_constant_endless_and_empty_answers_are_told():
    rows = [row(i, output="same", stop_reason="length", extracted=False) for i in range(10)]
    _, notes = guards.look_at_answers(rows)
    assert notes == [
        "no answer was found in 10 of 10 outputs",
        "10 of 10 outputs did not end by themselves",
        "10 of 10 outputs are one and the same: 'same'",
    ]


def test_kinds_of_asks_and_what_can_answer_them():
    prompt = Prompt("a")
    kinds = {"generate": Generate(prompt, 1), "choose": Choose(prompt), "weigh": Weigh(prompt, ())}
    for name, ask in kinds.items():
        instance = Instance("0", ask, None)
        assert guards.can_answer(instance, frozenset({name}))
        assert not guards.can_answer(instance, frozenset(kinds) - {name})
