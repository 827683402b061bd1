"""The demo: splits that share no question, answers that are right, a tokenizer that is ours."""

from collections import Counter

import pytest
import sentencepiece

from tasks import demo, demo_words
from tasks.demo_tokenizer import train as tokenizer_script


@pytest.fixture(scope="module")
def splits():
    return {name: list(demo.generate(name)) for name in demo.SPLITS}


def test_sizes_and_ids(splits):
    for name, rows in splits.items():
        assert len(rows) == demo.SIZES[name]
        assert len({row["id"] for row in rows}) == len(rows)
        assert all(row["id"].startswith(f"demo_{name}_") for row in rows)


def test_no_question_is_in_two_splits(splits):
    asked = {name: {row["messages"][0]["content"] for row in rows} for name, rows in splits.items()}
    assert not asked["train"] & (asked["validation"] | asked["test"])
    assert not asked["validation"] & asked["test"]


def test_no_list_or_context_is_in_two_splits(splits):
    """Another wording around a list that was trained on would be no new question."""

    def contents(rows):
        kinds = {"repeat"}
        return {
            row["messages"][1]["content"] for row in rows if row["id"].split("_", 3)[3] in kinds
        }

    held_out = contents(splits["validation"]) | contents(splits["test"])
    assert held_out and not contents(splits["train"]) & held_out


def test_about_one_in_seven_has_a_second_turn(splits):
    turns = Counter(len(row["messages"]) for row in splits["train"])
    assert set(turns) == {2, 4}
    assert 0.10 < turns[4] / len(splits["train"]) < 0.20


def test_every_kind_is_trained_and_tested(splits):
    for rows in (splits["train"], splits["test"]):
        assert {row["id"].split("_", 3)[3] for row in rows} == set(demo._KINDS)


def test_generation_is_reproducible(splits):
    assert list(demo.generate("test")) == splits["test"]


def answers(kind, splits):
    for row in splits["train"][:20_000]:
        if row["id"].split("_", 3)[3] == kind:
            yield [message["content"] for message in row["messages"]]


def test_answers_are_right(splits):
    for question, answer in answers("add", splits):
        numbers = [int(n) for n in "".join(c if c.isdigit() else " " for c in question).split()]
        assert sum(numbers) == int(answer)
    for question, answer in answers("compare", splits):
        numbers = [int(n) for n in "".join(c if c.isdigit() else " " for c in question).split()]
        most = any(word in question for word in ("larger", "more", "bigger"))
        assert int(answer) == (max(numbers) if most else min(numbers))
    for question, answer in answers("reverse", splits):
        assert " ".join(reversed(answer.split())) in question
    for _, first, _, second in answers("next_twice", splits):
        assert int(second) == int(first) + 1
    for question, answer in answers("spell", splits):
        assert answer.replace(" ", "") in question
    for question, answer in answers("scene", splits):
        assert answer.removeprefix("in ") in question
    for question, first, _, second in answers("scene_twice", splits):
        assert second.removeprefix("in ") in question and first != second


def test_answers_are_short(splits):
    longest = max(len(row["messages"][-1]["content"].split()) for row in splits["train"][:5000])
    assert longest <= 6


def test_eval_items_end_in_the_question():
    items = demo.eval_items("test")
    assert len(items) == demo.SIZES["test"]
    assert all(item.messages[-1]["role"] == "user" for item in items)
    two = next(item for item in items if item.kind == "scene_twice")
    assert [m["role"] for m in two.messages] == ["user", "assistant", "user"]


def test_score_is_exact_match():
    assert demo.score(" a cup\n", "a cup") == 1.0
    assert demo.score("a cups", "a cup") == 0.0
    assert demo.score("", "a cup") == 0.0


def pieces(model):
    processor = sentencepiece.SentencePieceProcessor()
    processor.LoadFromSerializedProto(model)
    return [processor.IdToPiece(i) for i in range(processor.GetPieceSize())]


def test_script_reproduces_the_tokenizer():
    committed = (demo.TOKENIZER_DIR / "tokenizer.model").read_bytes()
    assert len(committed) < 30_000
    assert pieces(tokenizer_script.train()) == pieces(committed)


def test_script_writes_the_files(tmp_path, monkeypatch):
    monkeypatch.setattr(tokenizer_script, "train", lambda: b"model")
    tokenizer_script.main(tmp_path / "new")
    assert (tmp_path / "new" / "tokenizer.model").read_bytes() == b"model"
    committed = (demo.TOKENIZER_DIR / "tokenizer_config.json").read_text()
    assert (tmp_path / "new" / "tokenizer_config.json").read_text() == committed


def test_copied_words_are_one_piece_in_both_forms():
    processor = sentencepiece.SentencePieceProcessor(
        model_file=str(demo.TOKENIZER_DIR / "tokenizer.model")
    )
    for word in (*demo_words.THINGS, *demo_words.NAMES, *demo_words.COLOURS, *demo_words.PLACES):
        assert processor.PieceToId(word) != processor.unk_id()
        assert processor.PieceToId("\u2581" + word) != processor.unk_id()
    assert (processor.unk_id(), processor.bos_id(), processor.eos_id()) == (0, 1, 2)
    assert not any("\n" in processor.IdToPiece(i) for i in range(processor.GetPieceSize()))
