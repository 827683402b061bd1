"""TydiQA: prompts in the question's language, cut passages, SQuAD's metric."""

import json

import pytest

from eval.harness import matching
from eval.tydiqa.run_eval import Options, Tydiqa
from tasks.demo import TOKENIZER_DIR
from tests.eval.asking import context, read_jsonl, replay, result, tulu_format
from tulu_jax.chat import load_tokenizer
from tulu_jax.cli.evaluate import run_benchmark
from tulu_jax.errors import ConfigError, DataError


def paragraph(text, *questions):
    found = [
        {"id": name, "question": q, "answers": [{"text": a, "answer_start": 0} for a in answers]}
        for name, q, *answers in questions
    ]
    return {"title": "t", "paragraphs": [{"context": text, "qas": found}]}


DEV = [
    paragraph(
        "A passage.", ("english--1-0", "Who?", "the cat", "a dog"), ("english-2", "Why?", "so")
    ),
    paragraph("구절.", ("korean-3-1", "누구?", "고양이")),
    paragraph("Another one.", ("english-4", "Where?", "here")),
]
TRAIN = [
    paragraph("Shown.", ("english-9", "When?", "now", "then")),
    paragraph("보기.", ("korean-9", "언제?", "지금")),
]


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "tydiqa"
    path.mkdir()
    write(path, "dev", DEV)
    write(path, "train", TRAIN)
    return path


def write(folder, part, data):
    file = folder / f"tydiqa-goldp-v1.1-{part}.json"
    file.write_text(json.dumps({"version": "1", "data": data}))
    return file


def load(folder, options=None, **fields):
    return Tydiqa().load(context(Tydiqa(), folder, options, **fields))


def test_instruction_example_passage_and_question(folder):
    instances = load(folder)
    assert [one.id for one in instances] == ["english--1-0", "english-2", "english-4", "korean-3-1"]
    assert instances[0].ask.prompt.text == (
        "Answer the following question based on the information in the given passage.\n\n"
        "Passage: Shown.\nQuestion: When?\nAnswer: now\n\n"
        "Passage: A passage.\nQuestion: Who?\nAnswer:"
    )
    assert instances[3].ask.prompt.text.endswith("문단: 구절.\n질문: 누구?\n답변:")
    assert (instances[0].ask.stops, instances[0].ask.max_new_tokens) == (("\n",), 50)
    assert instances[0].gold == ["the cat", "a dog"]
    assert instances[0].cluster == instances[1].cluster != instances[2].cluster


def test_closed_book(folder):
    (one, *_) = load(folder, Options(no_context=True, n_shot=0))
    assert one.ask.prompt.text == "Answer the following question.\n\nQuestion: Who?\nAnswer:"


def test_in_chat_format_the_reference_leaves_an_empty_line(folder):
    options = Options(n_shot=0, no_context=True)
    (fixed, *_) = load(folder, options, formatter=tulu_format)
    assert fixed.ask.prompt.text.endswith("Question: Who?\n<|assistant|>\nAnswer:")
    (paper, *_) = load(folder, options, formatter=tulu_format, compat="paper")
    assert paper.ask.prompt.text.endswith("Question: Who?\n\n<|assistant|>\nAnswer:")


def test_passages_are_cut_to_their_first_tokens(folder):
    tokenizer = load_tokenizer(TOKENIZER_DIR)
    options = Options(max_context_length=3, n_shot=0, languages=("english",))
    (fixed, *_) = load(folder, options, tokenizer=tokenizer)
    assert "A passage.".startswith(fixed.data["context"]) and fixed.data["context_truncated"] > 0
    (paper, *_) = load(folder, options, tokenizer=tokenizer, compat="paper")
    assert paper.data["context"].startswith("<s>")
    assert paper.ask.prompt.ids.count(tokenizer.bos_id) == 2  # the second is read from the text
    (whole, *_) = load(folder, Options(max_context_length=0), tokenizer=tokenizer)
    assert whole.data["context"] == "A passage." and "context_truncated" not in whole.data


def test_the_papers_questions(shared, tmp_path):
    """Ids, and one example of each language, as the reference draws them."""
    data = shared / "eval_data"
    drawn = json.loads((data / "fixtures/tydiqa_seed42_sorted.json").read_text())
    options = Options(n_shot=0, max_num_examples_per_lang=100)
    instances = load(data / "tydiqa", options)
    for language, ids in drawn["dev_ids"].items():
        assert [one.id for one in instances if one.group == language] == ids
    assert len(instances) == 900


SCORES = [
    ("the cat", ["The Cat!"], 100.0, 100.0),
    ("a cat sat", ["cat"], 0.0, 100 * 2 / 3),
    ("", ["cat"], 0.0, 0.0),
    ("dog", ["cat", "dog"], 100.0, 100.0),
    ("고양이 이", ["고양이"], 0.0, 100 * 2 / 3),
    ("the", ["an"], 100.0, 0.0),
]


@pytest.mark.parametrize(("prediction", "golds", "em", "f1"), SCORES)
def test_exact_match_and_f1(prediction, golds, em, f1):
    row = Tydiqa().grade({"output": f" {prediction}\n", "gold": golds}, context(Tydiqa(), "."))
    assert (row["exact_match"], row["score"]) == (em, pytest.approx(f1))
    assert matching.squad_em(prediction, golds) * 100 == em


def test_of_an_endpoints_answer_the_first_line_counts():
    setting = context(Tydiqa(), ".", endpoint=True)
    row = Tydiqa().grade({"output": "\ncat \nIt is so.", "gold": ["cat"]}, setting)
    assert row["prediction"] == "cat" and row["exact_match"] == 100


def test_from_data_to_results(folder, tmp_path):
    answers = {
        "english--1-0": "cat",
        "english-2": "no",
        "english-4": "here",
        "korean-3-1": "고양이",
    }
    setting = context(Tydiqa(), folder, Options(n_shot=0))
    file = replay(tmp_path / "a.jsonl", Tydiqa(), setting, lambda one: f" {answers[one.id]} ")
    arguments = ["--data_dir", str(folder), "--save_dir", str(tmp_path / "out"), "--n_shot", "0"]
    assert run_benchmark("tydiqa", [*arguments, "--replay", str(file)]) == 0
    metrics, run, _ = result(tmp_path / "out")
    assert metrics["english"] == {
        "exact_match": pytest.approx(200 / 3),
        "f1": pytest.approx(200 / 3),
    }
    assert metrics["average"]["f1"] == run["value"] == pytest.approx((200 / 3 + 100) / 2)
    assert run["unit"] == "percent"
    lines = read_jsonl(tmp_path / "out/tydiaqa_predictions.jsonl")
    names = ["id", "lang", "context", "question", "answers", "prediction_text"]
    assert all(list(line) == names for line in lines) and lines[0]["prediction_text"] == "cat"


def test_damaged_and_partial_data_are_told(folder):
    with pytest.raises(ConfigError, match="unknown language - got elvish at --languages"):
        load(folder, Options(languages=("elvish",)))
    write(folder, "train", TRAIN[:1])
    with pytest.raises(DataError, match=r"no example to show - got korean .* --languages english"):
        load(folder)
    (folder / "tydiqa-goldp-v1.1-train.json").rename(
        folder / "tydiqa-goldp-v1.1-train.partial-en.json"
    )
    assert load(folder, Options(languages=("english",)))
    (folder / "tydiqa-goldp-v1.1-train.partial-en.json").unlink()
    with pytest.raises(DataError, match=r"benchmark file is missing .*train.json"):
        load(folder)
    write(folder, "dev", [paragraph("x", ("english-1", "Who?"))])
    with pytest.raises(DataError, match="question has no answer - got english-1"):
        load(folder)
    write(folder, "dev", [])
    with pytest.raises(DataError, match="benchmark file has no question"):
        load(folder)
    write(folder, "dev", [paragraph("x", ("klingon-1", "Who?", "he"))])
    with pytest.raises(DataError, match="no prompt for a language - got klingon"):
        load(folder)
