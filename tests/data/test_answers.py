"""Answers that are empty, or say that they are not trained: counted, and refused when all are."""

import doctest

import pytest

from tulu_jax.chat import load_tokenizer
from tulu_jax.data import faults, parts
from tulu_jax.errors import GuardError
from tulu_jax.inspect import report as report_module
from tulu_jax.inspect.report import dataset_report, report_table

from .test_prepare import TOKENIZER, run, small, talk

__all__ = ["small"]  # a fixture


def flagged(number, *trained):
    """A conversation whose answers say whether they are trained."""
    messages = []
    for place, train in enumerate(trained):
        messages += talk(0, answer=f"{place} cups")["messages"]
        messages[-1]["train"] = train
    return talk(number, messages=messages)


@pytest.mark.parametrize("encoding", ["hf", "paper"])
def test_answers_that_say_so_are_not_trained_and_counted(tmp_path, small, encoding):
    rows = [flagged(0, True, False), flagged(1, False, False), flagged(2, True)]
    (store,) = run(tmp_path, rows, encoding=encoding)
    counts = store.meta["counts"]
    assert store.ids == ["small_0", "small_2"]
    assert counts["dropped"] == {"no answer to train": 1}
    assert counts["answers"] == {"trained": 2, "empty": 0, "not trained": 3}
    tokenizer = load_tokenizer(TOKENIZER, encoding)
    tokens, mask = store[0]
    assert tokenizer.decode(tokens[mask]).strip() == "0 cups"
    assert store[1][1].sum() == mask.sum() - (encoding == "hf")  # the newline after the first EOS
    (report,) = dataset_report([store], row_length=64)
    caption = str(report_table([report]).caption)
    assert "small train: 3 of 5 answers are not trained" in caption
    assert "small train: 1 dropped, no answer to train" in caption
    with pytest.raises(GuardError, match=r"no token .* all dropped: 1 no answer to train .*weight"):
        run(tmp_path / "none", [flagged(0, False)])


def test_empty_answers_are_counted_and_refused_when_all_are(tmp_path, small):
    (store,) = run(tmp_path, [talk(0), talk(1, answer=" \n"), talk(2, answer="\u200b")])
    answers = {"trained": 3, "empty": 2, "not trained": 0}
    assert store.meta["counts"]["answers"] == answers
    (report,) = dataset_report([store], row_length=64)
    caption = str(report_table([report]).caption)
    assert "small train: 2 of 3 answers are empty or blank: nothing but their end" in caption
    with pytest.raises(
        GuardError, match=r"every answer of the dataset is empty - got 1 empty .* inspect"
    ):
        run(tmp_path / "none", [talk(1, answer=" ")])


def test_a_chat_format_within_the_text_is_told(tmp_path, small):
    baked = [talk(0), talk(1, answer="Yes.</s>"), talk(2, answer="<s>no</s> yes")]
    baked.append(talk(3, messages=[{"role": "user", "content": "[INST] Say 3. [/INST]"},
                                   {"role": "assistant", "content": "3<|im_end|>"}]))  # fmt: skip
    (store,) = run(tmp_path, baked)
    assert store.meta["counts"]["answers"]["markers"] == 3
    (report,) = dataset_report([store], row_length=64)
    assert "small train: 3 messages have markers of a chat format as text" in str(
        report_table([report]).caption
    )


def test_conversations_without_an_answer_say_so(tmp_path, small):
    (store,) = run(tmp_path, [talk(0), talk(1, messages=talk(1)["messages"][:1])])
    assert store.meta["counts"]["dropped"] == {"no answer": 1}


@pytest.mark.parametrize("module", [faults, parts, report_module])
def test_docstring_examples(module):
    assert doctest.testmod(module).failed == 0
