"""`tulu eval` on a folder's model: chat format, fingerprints, judges, and what is kept."""

import csv
import io
import json
import shutil

import pytest

from eval.harness.asks import Choose, Generate, Prompt, Weigh
from eval.harness.backends import EngineBackend, find, fit, stream_of
from eval.truthfulqa.run_eval import COLUMNS
from tasks import demo
from tests.cli.small_model import write_model
from tests.eval.asking import read_jsonl, result
from tulu_jax.chat import load_tokenizer
from tulu_jax.chat.template import hf_template
from tulu_jax.chat.templates import TEMPLATES
from tulu_jax.checkpoint import hf
from tulu_jax.cli.main import main
from tulu_jax.generate import Engine


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def engine(model):
    config, params = hf.load(model)
    return Engine(config, params, slots=2, tokenizer=load_tokenizer(model))


def evaluate(*words):
    return main(["eval", *map(str, words)])


def test_a_model_with_a_chat_format_is_asked_in_it(model, tmp_path, capsys):
    where = ["--model", model, "--save_dir", tmp_path, "--data_dir", tmp_path, "--limit", 3]
    assert evaluate("tulu_demo", *where) == 0
    metrics, run, rows = result(tmp_path / "tulu_demo")
    assert run["chat"] is True and run["model"]["template"] == "tulu" and metrics["n"] == 3
    assert all(row["prompt"].startswith("<|user|>\n") for row in rows)
    assert all(row["output_tokens"] <= 64 and row["stop_reason"] for row in rows)
    assert evaluate("tulu_demo", *where, "--no_chat_format") == 0
    assert "no chat format on a model that was tuned with one" in capsys.readouterr().err
    assert not result(tmp_path / "tulu_demo")[2][0]["prompt"].startswith("<|user|>")


def test_the_template_of_another_tokenizer_is_said_aloud(model, tmp_path, capsys):
    """It was not: a model tuned in one format was scored in another as if that were its own."""
    other, where = tmp_path / "model", ["--data_dir", tmp_path, "--limit", 1]
    shutil.copytree(model, other)
    template = hf_template("bos_token", TEMPLATES["zephyr"])
    (other / "chat_template.jinja").write_text(template)
    words = ["tulu_demo", "--model", other, "--save_dir", tmp_path / "out", *where]
    assert evaluate(*words) == 2
    assert "a model with the chat template 'zephyr'" in capsys.readouterr().err
    assert evaluate(*words, "--tokenizer", demo.TOKENIZER_DIR) == 0
    said = "Chat template: tulu, though the model's own is zephyr: leave --tokenizer out"
    assert said in " ".join(capsys.readouterr().err.split())


def test_an_imported_base_model_has_no_chat_format(tmp_path):
    base = write_model(tmp_path / "hf")
    for name in ("chat_template.jinja", "checksums.json"):
        (base / name).unlink(missing_ok=True)
    config = json.loads((base / "tokenizer_config.json").read_text())
    config.pop("chat_template", None)
    (base / "tokenizer_config.json").write_text(json.dumps(config))
    assert main(["import", "--hf", str(base), "--model_dir", str(tmp_path / "run")]) == 0
    for folder in (base, tmp_path / "run"):
        out = tmp_path / f"results_{folder.name}"
        words = ["tulu_demo", "--model", folder, "--save_dir", out, "--data_dir", tmp_path]
        assert evaluate(*words, "--limit", 1) == 0
        assert result(out / "tulu_demo")[1]["chat"] is False


def test_what_was_answered_is_not_asked_again(model, tmp_path, monkeypatch):
    where = ["--model", model, "--save_dir", tmp_path, "--data_dir", tmp_path]
    assert evaluate("tulu_demo", *where, "--limit", 2, "--batch_size", 1) == 0
    asked = []
    answer = EngineBackend.answer

    def count(self, asks, on_done):
        asked.extend(asks)
        answer(self, asks, on_done)

    monkeypatch.setattr(EngineBackend, "answer", count)
    first = result(tmp_path / "tulu_demo")[2]
    assert evaluate("tulu_demo", *where, "--limit", 4, "--batch_size", 3) == 0
    assert len(asked) == 2
    again = {row["id"]: row["output"] for row in result(tmp_path / "tulu_demo")[2]}
    assert len(again) == 4 and all(again[row["id"]] == row["output"] for row in first)
    assert evaluate("tulu_demo", *where, "--limit", 4, "--dtype", "bfloat16") == 0
    assert len(asked) == 6  # other numbers: another model


def test_a_folder_may_judge(model, tmp_path):
    folder = tmp_path / "data" / "truthfulqa"
    folder.mkdir(parents=True)
    text = io.StringIO()
    csv.writer(text).writerows([COLUMNS, ["A", "L", "Who?", "He", "He; She", "They; We", ""]])
    (folder / "TruthfulQA.csv").write_text(text.getvalue())
    judges = [f"truthfulqa.gpt_{name}_model_name={model}" for name in ("judge", "info")]
    words = ["truthfulqa", "--model", model, "--data_dir", tmp_path / "data"]
    words += ["--save_dir", tmp_path, "--option", "truthfulqa.preset=null"]
    words += [word for judge in judges for word in ("--option", judge)]
    assert evaluate(*words) == 0
    metrics, run, rows = result(tmp_path / "truthfulqa")
    answer = next(row for row in rows if row["kind"] == "answer")
    assert 0 < answer["GPT-judge"] < 1 and run["metric"] == "GPT-judge-info acc"
    assert {"MC1", "MC2", "MC3", "GPT-judge acc", "GPT-info acc"} < set(metrics)
    kept = len(read_jsonl(tmp_path / "answers.jsonl"))
    assert evaluate(*words) == 0 and len(read_jsonl(tmp_path / "answers.jsonl")) == kept == 4
    assert main(["eval", "score", str(tmp_path / "truthfulqa")]) == 0
    assert json.loads((tmp_path / "truthfulqa/run.json").read_text())["value"] == run["value"]


def prompt(engine, text):
    tokenizer = engine.tokenizer
    return Prompt(text, (tokenizer.bos_id, *tokenizer.encode_text(text)))


def asked(engine, *asks):
    found = {}
    EngineBackend(engine, "m").answer(asks, found.__setitem__)
    return [found[index] for index in range(len(asks))]


def test_token_sequences_end_an_output_before_them(engine):
    ask = Generate(prompt(engine, "What is"), 24)
    (whole,) = asked(engine, ask)
    (made,) = engine.generate([list(ask.prompt.ids)], max_new_tokens=24)
    tokens = made.tokens
    pair, single = tuple(tokens[5:7]), (tokens[9],)
    for stops in ((pair,), (single,), (pair, single)):
        (cut,) = asked(engine, Generate(ask.prompt, 24, stop_tokens=stops))
        end = min(at for one in stops if (at := find(tokens, one)) is not None)
        assert cut.output_tokens == end and whole.output.startswith(cut.output)


def test_choices_and_continuations_are_weighed_as_the_engine_scores(engine):
    start = prompt(engine, "What is")
    choices = (5, 9, 11)
    after = ((7, 8), (9,), ())
    chosen, weighed = asked(
        engine, Choose(start, choices), Weigh(start, tuple((start.ids, ids) for ids in after))
    )
    pairs = [(list(start.ids), list(ids)) for ids in ((5,), (9,), (11,), (7, 8), (9,))]
    totals = [score.total for score in engine.score(pairs)]
    assert chosen.logprobs == tuple(totals[:3]) and chosen.prompt_tokens == len(start.ids)
    assert weighed.logprobs == (totals[3], totals[4], 0.0)


def test_samples_have_streams_of_their_own(engine):
    start = prompt(engine, "What is")
    draws = [Generate(start, 8, temperature=1.0, sample=i) for i in range(4)]
    assert len({stream_of(one) for one in draws}) == 4
    outputs = [answer.output for answer in asked(engine, *draws)]
    assert len(set(outputs)) > 1
    assert [a.output for a in asked(engine, *draws[::-1])] == outputs[::-1]


def test_long_prompts_lose_their_beginning_but_for_the_first_token():
    ids = tuple(range(100, 120))
    kept, cut = fit(Generate(Prompt("t", ids), 5), 16)
    assert cut == 5 and kept.prompt.ids == (100, *ids[6:]) and len(kept.prompt.ids) == 15
    assert fit(Generate(Prompt("t", ids), 5), 21)[1] == 0
    assert fit(Generate(Prompt("t"), 5), 1)[1] == 0
    kept, cut = fit(Weigh(Prompt("t", ids), ((ids, (1, 2, 3)), (ids[:3], (1,)))), 16)
    assert cut == 6 and len(kept.pairs[0][0]) + 3 - 1 == 16 and kept.pairs[1] == (ids[:3], (1,))
