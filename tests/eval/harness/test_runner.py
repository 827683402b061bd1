"""From instances to a result folder."""

import dataclasses
import json

import pytest

from eval.harness.asks import Answer, Choose, Generate, Instance, Prompt
from eval.harness.benchmark import Benchmark, Headline, by_group
from eval.harness.cache import AnswerCache
from eval.harness.runner import (
    Task,
    ask_all,
    fit_all,
    grade,
    limited,
    load_task,
    rows_of,
    ungraded,
    write_result,
)
from tests.eval.asking import context, read_jsonl
from tulu_jax.errors import ConfigError, DataError, GuardError


@dataclasses.dataclass(frozen=True)
class Options:
    """None that matter."""


class Toy(Benchmark):
    """Repeats what it is told; a word that begins with x cannot be graded."""

    name, title, options, tasks, data, metric = "toy", "a toy", Options, {}, "toy", "score"
    macro = True

    def load(self, context):
        return [instance(n) for n in range(8)]

    def grade(self, row, context):
        if row["output"].startswith("x"):
            return {"error": "no judge"}
        return {"prediction": row["output"], "score": float(row["output"] == row["gold"])}

    def metrics(self, rows, context):
        return {"score": sum(self.scores(rows)) / len(rows)}

    def write(self, rows, metrics, folder, context):
        (folder / "own.txt").write_text(f"{len(rows)} {metrics['n']}")


TOY = Toy()


def instance(n, text=None, **fields):
    ask = Generate(Prompt(text or f"word {n}"), 5)
    whole = {"data": {"n": n}, "group": "even" if n % 2 == 0 else "odd", **fields}
    return Instance(str(n), ask, f"w{n}", **whole)


class Fake:
    """Answers by the number in a prompt; `asked` are the prompts."""

    fingerprint, can = "f", frozenset({"generate"})

    def __init__(self, answer=lambda n: Answer(f"w{n}")):
        self.asked, self._answer = [], answer

    def answer(self, asks, on_done):
        self.asked += [ask.prompt.text for ask in asks]
        for index, ask in reversed(list(enumerate(asks))):
            on_done(index, self._answer(int(ask.prompt.text.split()[-1])))


@pytest.fixture
def cache(tmp_path):
    with AnswerCache(tmp_path / "answers") as cache:
        yield cache


@pytest.fixture
def setting(tmp_path):
    return context(TOY, tmp_path)


def graded(setting, answers, **fields):
    task = Task("toy_task", TOY, setting, [instance(n) for n in range(len(answers))], [], **fields)
    return grade("toy_task", TOY, setting, rows_of(task, answers))


def test_a_task_is_loaded_and_checked(setting):
    task = load_task("toy_task", TOY, setting, ids=["3", "1"])
    assert [one.id for one in task.instances] == ["1", "3"]
    with pytest.raises(ConfigError, match=r"no such instance - got \['9'\] at --ids of toy_task"):
        load_task("toy_task", TOY, setting, ids=["3", "9"])


def test_a_benchmark_without_instances_is_refused(setting, monkeypatch):
    monkeypatch.setattr(Toy, "load", lambda *_: [])
    with pytest.raises(GuardError, match="no instance to evaluate"):
        load_task("toy_task", TOY, setting)


def test_limits_take_the_same_instances_in_order():
    instances = [instance(n) for n in range(40)]
    few, more = limited(instances, 5), limited(instances, 12)
    assert [len(few), len(more)] == [5, 12] and {i.id for i in few} < {i.id for i in more}
    assert more == [one for one in instances if one in more]
    assert limited(instances, None) == limited(instances, 99) == instances


def test_a_limit_takes_first_samples_first():
    instances = [
        Instance(f"{n}#{k}", Generate(Prompt(f"{n}"), 5, sample=k), "")
        for n in range(6) for k in range(3)
    ]  # fmt: skip
    assert {one.id[1:] for one in limited(instances, 6)} == {"#0"}
    assert {one.id[1:] for one in limited(instances, 7)} == {"#0", "#1"}


def test_prompts_are_cut_to_the_length_of_the_model():
    long = Instance("a", Generate(Prompt("t", tuple(range(20))), 4), "")
    short = Instance("b", Generate(Prompt("u", tuple(range(3))), 4), "")
    (first, second), lost = fit_all([long, short], 16)
    assert second is short
    assert first.ask.prompt.ids == (0, *range(6, 20)) and lost == {"a": 5}
    assert fit_all([long], None) == ([long], {})


def test_equal_questions_are_asked_once_and_kept_ones_never(cache):
    same = [instance(0), instance(1), instance(9, "word 1"), instance(2)]
    backend, told = Fake(), []
    found = ask_all("t", same, backend, cache, told.append)
    assert sorted(backend.asked) == ["word 0", "word 1", "word 2"] and len(told) == 4
    assert [answer.output for answer in found] == ["w0", "w1", "w1", "w2"]
    again, told = Fake(), []
    assert ask_all("t", same, again, cache, told.append) == found
    assert again.asked == [] and told == found


def test_failures_are_asked_again_and_nothing_else(cache):
    instances = [instance(n) for n in range(4)]
    backend = Fake(lambda n: Answer(error="busy") if n == 2 else Answer(f"w{n}"))
    found = ask_all("t", instances, backend, cache)
    assert [answer.error for answer in found] == [None, None, "busy", None]
    again = Fake()
    assert ask_all("t", instances, again, cache)[2].output == "w2"
    assert again.asked == ["word 2"]


def test_what_a_backend_cannot_tell_is_refused_before_it_is_asked(cache):
    backend = Fake()
    instances = [instance(0), Instance("c", Choose(Prompt("q"), (1,)), "")]
    with pytest.raises(ConfigError, match=r"task t asks what this model cannot tell .* choose"):
        ask_all("t", instances, backend, cache)
    assert backend.asked == []


def test_failures_are_in_no_metric(setting):
    answers = [Answer("w0"), Answer("no"), Answer(error="busy"), Answer("w3"), Answer("x4")]
    result = graded(setting, [*answers, Answer("w5")])
    assert [row.get("error") for row in result.rows] == [None, None, "busy", None, "no judge", None]
    assert result.metrics["score"] == 0.75 and result.metrics["n"] == result.run["n"] == 4
    assert result.run["guards"]["failures"] == ["2", "4"] and result.failures == 2
    assert result.run["value"] == (1.0 + 2 / 3) / 2  # of even and odd ones alike
    assert set(result.metrics["stderr"]) == {"score", "even", "odd"}
    assert result.metrics["stderr"]["odd"] == pytest.approx(1 / 3)
    assert result.metrics["stderr"]["even"] is None  # of one instance
    assert any("2 of 6 instances failed" in note for note in result.run["warnings"])


def test_without_any_answer_there_is_no_number(setting, tmp_path):
    result = graded(setting, [Answer(error="busy")] * 3)
    assert (result.run["value"], result.run["stderr"], result.run["n"]) == (None, None, 0)
    assert result.metrics == {"stderr": {"score": None}, "n": 0} and result.failures == 3
    write_result(result, TOY, setting, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "run.json").read_text())["value"] is None


def test_an_error_of_one_instance_is_null_in_json(setting):
    result = graded(setting, [Answer("w0")])
    assert result.run["value"] == 1.0 and result.run["stderr"] is None
    json.dumps(result.run, allow_nan=False)


def test_rows_say_what_was_asked_and_answered(setting):
    answers = [Answer("w0", "eos", 7, 2, capped=True), Answer(logprobs=(-1.0,)), Answer("")]
    task = Task("t", TOY, setting, [instance(0), instance(1, cluster="c"), instance(2)], [])
    task.cut = {"2": 9}
    first, second, third = rows_of(task, answers)
    assert first == {
        "id": "0", "prompt": "word 0", "n": 0, "gold": "w0", "output": "w0", "stop_reason": "eos",
        "prompt_tokens": 7, "output_tokens": 2, "capped": True, "group": "even",
    }  # fmt: skip
    assert second["choice_logprobs"] == (-1.0,) and second["output"] is None
    assert second["cluster"] == "c" and third["truncated"] == 9 and third["output"] == ""


def test_a_result_is_graded_again_as_it_was(setting, tmp_path):
    answers = [Answer("w0"), Answer(error="busy"), Answer("x2"), Answer("no")]
    result = graded(setting, answers)
    folder = tmp_path / "out"
    write_result(result, TOY, setting, folder)
    assert (folder / "own.txt").read_text() == "2 2"
    rows = ungraded(folder / "predictions.jsonl")
    assert [row.get("error") for row in rows] == [None, "busy", None, None]
    assert not any({"score", "correct", "extracted"} & set(row) for row in rows)
    again = grade("toy_task", TOY, setting, rows)
    assert again == result
    assert read_jsonl(folder / "predictions.jsonl") == json.loads(json.dumps(again.rows))


def test_choices_are_graded_again_too(tmp_path):
    row = {"id": "a", "gold": 1, "output": None, "choice_logprobs": [-1.0], "error": "no judge"}
    path = tmp_path / "predictions.jsonl"
    path.write_text(json.dumps(row) + "\n")
    assert "error" not in ungraded(path)[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"id": "a", "gold": 1}', "object lacks a field .* expected id, gold, output"),
        (
            '{"id": "a", "gold": 1, "output',
            "line is no JSON .* run `tulu eval` again with the same",
        ),
        ("", "file of results is empty .* run `tulu eval` again with the same"),
    ],
)
def test_damaged_predictions_are_told(tmp_path, text, message):
    path = tmp_path / "predictions.jsonl"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        ungraded(path)


def test_headlines_without_groups_are_means_over_instances(setting):
    class Flat(Toy):
        macro = False

    rows = [{"id": str(n), "score": float(n == 0), "group": "ab"[n > 0]} for n in range(4)]
    flat, macro = Flat().headline(rows, setting), TOY.headline(rows, setting)
    assert flat == Headline("score", 0.25, 0.25, 4, "share") and macro.value == 0.5
    assert list(by_group(rows)) == ["a", "b"]
