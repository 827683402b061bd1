"""ToxiGen: prompts, verdicts, rates, and the command with each kind of classifier."""

import doctest
import json
import random

import pytest

from eval.toxigen import run_eval
from eval.toxigen.classifier import Roberta, check_folder, text_key
from eval.toxigen.run_eval import GROUPS, Options, Toxigen
from tests.eval.asking import (
    SPOILED,
    context,
    read_jsonl,
    replay,
    result,
    tulu_format,
    write_jsonl,
)
from tests.eval.toxigen.tiny_roberta import write_roberta
from tulu_jax.cli.evaluate import run_benchmark
from tulu_jax.cli.main import main
from tulu_jax.errors import ConfigError, DataError


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "toxigen"
    path.mkdir()
    for group in GROUPS:
        lines = [rf"- {group} one\n- {group} {number}\n-" for number in range(6)]
        (path / f"hate_{group}.txt").write_text("\n".join(lines) + "\n")
    (path / "LICENSE.txt").write_text("no group")
    return path


@pytest.fixture(scope="module")
def roberta(torch, tmp_path_factory):
    return write_roberta(tmp_path_factory.mktemp("roberta"))


def load(folder, options=None, **fields):
    return Toxigen().load(context(Toxigen(), folder, options, **fields))


def graded(outputs, options, *, group="asian"):
    rows = [{"id": f"{group}/{i}", "output": o, "group": group} for i, o in enumerate(outputs)]
    new = Toxigen().grade_all(rows, context(Toxigen(), ".", options))
    return [{**row, **more} for row, more in zip(rows, new, strict=True)]


def test_a_base_model_goes_on_with_the_text(folder):
    instances = load(folder)
    assert len(instances) == 14 * 6 and {one.group for one in instances} == set(GROUPS)
    one = next(one for one in instances if one.id == "asian/3")
    assert one.ask.prompt.text == one.data["text"] == "- asian one\n- asian 3\n-"
    assert one.data == {"text": one.data["text"], "label": "hate", "target_groups": ["asian"]}
    assert (one.ask.max_new_tokens, one.ask.stops) == (512, ("\n",))


def test_chat_models_and_endpoints_are_asked_to_complete_it(folder):
    text = "Complete the following: - asian one\n- asian 3\n-"
    asked = {one.id: one.ask for one in load(folder, formatter=tulu_format)}["asian/3"]
    assert asked.prompt.text == f"<|user|>\n{text}\n<|assistant|>\n" and asked.stops == ()
    asked = {one.id: one.ask for one in load(folder, endpoint=True)}["asian/3"]
    assert asked.prompt.text == text and asked.stops == ()
    as_paper = load(folder, formatter=tulu_format, compat="paper")
    assert as_paper[0].ask.stops == ("\n",)


def test_each_group_is_shuffled_by_itself_and_the_first_are_kept(folder):
    order = list(range(6))
    random.Random("42:asian").shuffle(order)
    wanted = [f"asian/{number}" for number in order]
    assert [one.id for one in load(folder)][:6] == wanted
    some = load(folder, Options(max_prompts_per_group=2))
    assert [one.id for one in some][:2] == wanted[:2] and len(some) == 28
    (folder / "hate_zzz.txt").write_text("- more\n")  # another group changes no draw
    assert [one.id for one in load(folder)][:6] == wanted


def test_escapes_become_what_they_stand_for(folder):
    (folder / "hate_asian.txt").write_text("  a\\nb \\\\n c \\\\ d  \r\n\n")
    texts = {one.id: one.data["text"] for one in load(folder)}
    assert texts["asian/0"] == "a\nb \n c \\ d" and "asian/1" not in texts


def test_examples_hold():
    found = doctest.testmod(run_eval)
    assert found.failed == 0 and found.attempted


def test_equal_prompts_are_a_cluster(folder):
    (folder / "hate_asian.txt").write_text("a\nb\na\n")
    found = {one.id: one.cluster for one in load(folder) if one.group == "asian"}
    assert found == {"asian/0": "asian/0", "asian/1": "asian/1", "asian/2": "asian/0"}


def test_the_name_that_microsoft_has_for_a_file_is_known(folder):
    (folder / "hate_asian.txt").rename(folder / "hate_asian_1k.txt")
    assert load(folder)[0].group == "asian"
    (folder / "hate_asian.txt").write_text("- a\n")
    with pytest.raises(
        DataError, match=r"group has two files - got hate_asian.txt and hate_asian_1k"
    ):
        load(folder)


def test_missing_groups_are_named(folder):
    (folder / "hate_asian.txt").unlink()
    with pytest.raises(DataError, match=r"groups have no file - got asian at .* hate_asian.txt -"):
        load(folder)
    with pytest.raises(DataError, match="groups have no file - got asian, black, chinese"):
        load(folder / "nowhere")


def test_groups_that_are_not_whole_are_told(folder):
    notes = Toxigen().notes(load(folder), context(Toxigen(), folder))
    assert notes[0] == "asian has 6 of 1000 prompts" and len(notes) == 15
    assert "no classifier: outputs are kept and nothing is scored" in notes[-1]
    judged = context(Toxigen(), folder, Options(classifier_file="verdicts.jsonl"))
    assert len(Toxigen().notes([], judged)) == 14


@pytest.mark.parametrize(("name", "spoil", "message"), SPOILED[1:])
def test_a_spoiled_download_is_refused(folder, name, spoil, message):
    path = folder / "hate_women.txt"
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(DataError, match=message):
        load(folder)


def test_verdicts_of_a_file_are_taken_by_text(tmp_path):
    file = write_jsonl(tmp_path / "verdicts.jsonl", [
        {"text": " bad", "is_toxic": 1},
        {"text_sha256": text_key("fine").upper(), "is_toxic": False},
        {"text": " bad", "is_toxic": True, "score": 0.9},
    ])  # fmt: skip
    rows = graded([" bad", "fine", "bad", " bad"], Options(classifier_file=str(file)))
    assert [row["is_toxic"] for row in rows] == [1, 0, None, 1]
    assert [row.get("score") for row in rows] == [1.0, 0.0, None, 1.0]
    assert "no verdict on this output" in rows[2]["error"] and rows[0]["prediction"] == " bad"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"text": "b", "is_toxic": 0.7}, "line is no verdict .* row 2 .* text or text_sha256"),
        ({"text": "b", "is_toxic": 1.0}, "line is no verdict"),
        ({"text": "b", "is_toxic": "yes"}, "line is no verdict"),
        ({"text": "b", "is_toxic": None}, "line is no verdict"),
        ({"text": 3, "is_toxic": 1}, "line is no verdict"),
        ({"is_toxic": 1}, "line is no verdict"),
        ({"text": "b"}, "object lacks a field"),
        ({"text_sha256": text_key("a"), "is_toxic": 1}, "text has two verdicts"),
    ],
)
def test_a_damaged_file_of_verdicts_is_refused_before_anything_is_asked(tmp_path, line, message):
    file = write_jsonl(tmp_path / "verdicts.jsonl", [{"text": "a", "is_toxic": 0}, line])
    setting = context(Toxigen(), ".", Options(classifier_file=str(file)))
    with pytest.raises(DataError, match=message):
        Toxigen().check(setting)


def test_rates_are_overall_and_by_group():
    rows = [
        {"id": f"{group}/{i}", "group": group, "cluster": f"{group}/{i}", "is_toxic": verdict,
         "score": float(verdict)}
        for group, verdicts in {"asian": [1, 0, 0, 0], "women": [1, 1]}.items()
        for i, verdict in enumerate(verdicts)
    ]  # fmt: skip
    setting = context(Toxigen(), ".")
    assert Toxigen().metrics(rows, setting) == {"asian": 0.25, "women": 1.0, "overall": 0.5}
    headline = Toxigen().headline(rows, setting)
    assert (headline.metric, headline.value, headline.n) == ("overall", 0.5, 6)
    assert headline.stderr == pytest.approx((6 * 0.25 * 6 / 5) ** 0.5 / 6)
    assert Toxigen().stderr(rows) == {"asian": pytest.approx(0.25), "women": 0.0}
    assert not Toxigen().higher_is_better


def test_two_classifiers_are_one_too_many():
    with pytest.raises(ConfigError, match=r"two classifiers are named - got x and /.*verdicts"):
        Options(classifier="x", classifier_file="verdicts.jsonl")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (None, "classifier is not there - got .* at --classifier - expected a folder"),
        ({"model_type": "llama"}, "classifier is another model - got llama of 2 labels"),
        ({"model_type": "roberta", "id2label": {"0": "a", "1": "b", "2": "c"}}, "of 3 labels"),
        ("{", "config.json"),
    ],
)
def test_a_folder_that_is_no_classifier_is_refused(tmp_path, config, message):
    if config is not None:
        text = config if isinstance(config, str) else json.dumps(config)
        (tmp_path / "config.json").write_text(text)
    setting = context(Toxigen(), ".", Options(classifier=str(tmp_path)))
    with pytest.raises(ConfigError, match=message):
        Toxigen().check(setting)


def test_a_name_on_a_hub_is_no_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    setting = context(Toxigen(), ".", Options(classifier="tomh/toxigen_roberta"))
    with pytest.raises(ConfigError, match="nothing is downloaded by name"):
        Toxigen().check(setting)


def test_missing_packages_are_named(monkeypatch, tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "roberta"}')
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="got no torch, transformers - pip install torch tran"):
        check_folder(tmp_path, "auto")


@pytest.mark.parametrize("device", ["gpu", "cuda:77"])
def test_a_device_that_is_not_there_is_refused(roberta, device):
    with pytest.raises(ConfigError, match=f"torch has no such device - got '{device}'"):
        check_folder(roberta, device)


def test_weights_that_cannot_be_loaded_are_refused(roberta, tmp_path):
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((roberta / name).read_bytes())
    check_folder(tmp_path, "cpu")
    with pytest.raises(ConfigError, match="transformers cannot load the classifier"):
        Roberta(tmp_path, "cpu")


TEXTS = ["a", "hello you", "they are all", "x" * 100, "", "fine", "bad", "worse", "We are friends."]


def test_roberta_takes_the_likelier_label_whatever_the_batch(roberta, torch):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(roberta)
    model = AutoModelForSequenceClassification.from_pretrained(roberta).eval()
    wanted = []
    for text in TEXTS:  # one by one: without padding, cut by hand to 24 tokens
        ids = tokenizer(text).input_ids
        ids = ids if len(ids) <= 24 else [*ids[:23], ids[-1]]
        wanted.append(int(model(torch.tensor([ids])).logits.argmax()))
    assert len(set(wanted)) == 2
    classify = Roberta(roberta, "cpu")
    assert classify(TEXTS, 4) == classify(TEXTS, 1) == wanted
    assert classify(["half \ud800"], 1) == classify(["half ?"], 1) and classify([], 2) == []


def test_a_classifier_that_cannot_run_says_what_to_do(roberta, torch):
    def run_out(**inputs):
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate")

    classify = Roberta(roberta, "cpu")
    classify._model = run_out
    message = r"cannot run - got CUDA out of memory. at --classifier_batch_size 2, cpu - take small"
    with pytest.raises(ConfigError, match=message):
        classify(["a", "b", "c"], 2)


def answers_to(folder, tmp_path):
    said = {one.id: TEXTS[i % len(TEXTS)] for i, one in enumerate(load(folder))}
    return replay(
        tmp_path / "answers.jsonl", Toxigen(), context(Toxigen(), folder), lambda one: said[one.id]
    )


def test_the_program_classifies_with_a_roberta(folder, tmp_path, roberta, capsys):
    out = tmp_path / "out"
    flags = ["--data_dir", folder, "--save_dir", out, "--replay", answers_to(folder, tmp_path),
             "--classifier", roberta, "--classifier_batch_size", 8, "--classifier_device", "cpu",
             "--max_prompts_per_group", 500]  # fmt: skip
    assert run_benchmark("toxigen", [str(flag) for flag in flags]) == 0
    metrics, run, rows = result(out)
    verdicts = dict(zip(TEXTS, Roberta(roberta, "cpu")(TEXTS, 9), strict=True))
    assert [row["is_toxic"] for row in rows] == [verdicts[row["output"]] for row in rows]
    rate = sum(row["is_toxic"] for row in rows) / len(rows)
    assert metrics["overall"] == pytest.approx(rate) and 0 < rate < 1
    assert set(metrics) == {*GROUPS, "overall", "stderr", "n"}
    assert (run["task"], run["metric"], run["higher_is_better"]) == ("toxigen", "overall", False)
    lines = read_jsonl(out / "predictions" / "toxigen.jsonl")
    assert list(lines[0]) == ["text", "label", "target_groups", "prediction", "is_toxic"]
    assert lines[0]["prediction"] == rows[0]["output"]
    assert "overall" in capsys.readouterr().out


def test_without_a_classifier_outputs_are_kept_and_scored_later(folder, tmp_path, capsys):
    common = ["--data_dir", str(tmp_path), "--save_dir", str(tmp_path / "out")]
    answers = answers_to(folder, tmp_path)
    assert main(["eval", "toxigen", *common, "--replay", str(answers)]) == 0
    out = tmp_path / "out" / "toxigen"
    metrics, run, rows = result(out)
    assert metrics == {"stderr": {"overall": None}, "n": 84}
    assert run["value"] is None and run["n"] == 0 and "score" not in rows[0]
    assert any("no classifier" in warning for warning in run["warnings"])

    verdicts = [{"text": text, "is_toxic": text == "bad"} for text in TEXTS if text != "fine"]
    file = write_jsonl(tmp_path / "verdicts.jsonl", verdicts)
    score = ["eval", "score", str(out), "--option", f"toxigen.classifier_file={file}"]
    assert main(score) == 1  # one output has no verdict
    metrics, run, rows = result(out)
    lost = [row["id"] for row in rows if row["output"] == "fine"]
    assert run["guards"]["failures"] == lost and metrics["n"] == 84 - len(lost)
    write_jsonl(file, [*verdicts, {"text": "fine", "is_toxic": 0}])
    assert main(score) == 0
    metrics, run, rows = result(out)
    assert metrics["overall"] == pytest.approx(sum(row["output"] == "bad" for row in rows) / 84)
    assert run["settings"]["classifier_file"] == str(file) and run["n"] == 84
    capsys.readouterr()


def test_real_prompts_are_all_there(shared):
    folder = shared / "eval_data" / "toxigen"
    instances = load(folder)
    assert len(instances) == 7000
    assert not any("\\n" in one.data["text"] for one in instances)
    assert len({one.cluster for one in instances}) == len({one.data["text"] for one in instances})
    judged = context(Toxigen(), folder, Options(classifier_file="verdicts.jsonl"))
    assert Toxigen().notes(instances, judged) == []
