import doctest
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tulu_jax.chat import load_tokenizer, words
from tulu_jax.chat.words import WordCache, after_black, at_spaces, before_blanks, whole

from . import small_bpe
from .small import train
from .strategies import ODD

MORE = (
    *ODD,
    ".",
    "'",
    "(",
    "a",
    "B2",
    "=\u0338",
    "x\u0301",
    "'s",
    "!\n",
    " .",
    "\t ",
    "1",
    "\u3000",
)
TEXTS = st.one_of(st.text(max_size=60), st.lists(st.sampled_from(MORE), max_size=20).map("".join))


def test_docstring_examples():
    assert doctest.testmod(words).failed == 0


@settings(max_examples=300, deadline=None)
@given(TEXTS)
def test_words_add_up_to_the_text(text):
    for cut in (at_spaces, after_black, before_blanks, whole):
        assert "".join(cut(text)) == text
    if "▁" not in text and "\0" not in text:
        assert [word for word in at_spaces(text) if word] == words._by_spaces(text)


@pytest.mark.parametrize("name", ["small", "llama", "stories"])
def test_words_of_sentencepiece_have_the_tokens_of_the_text(name, request):
    tokenizer = request.getfixturevalue(name)
    skip = len(tokenizer.newline_ids)
    assert tokenizer._words._cut is at_spaces

    @settings(max_examples=100, deadline=None)
    @given(TEXTS)
    def check(text):
        assert tokenizer.encode_text(text) == tokenizer.model.encode(text)
        after = tokenizer.encode_after_newline([text])[0]
        assert after.tolist() == tokenizer.model.encode("\n" + text)[skip:]

    check()


@pytest.mark.parametrize(
    ("name", "cut"), [("neox", after_black), ("opt", after_black), ("llama3", before_blanks),
                      ("pythia", after_black), ("real_opt", after_black)],
)  # fmt: skip
def test_words_of_byte_level_bpe_have_the_tokens_of_the_text(name, cut, request):
    tokenizer = request.getfixturevalue(name)
    assert tokenizer._words._cut is cut

    @settings(max_examples=100, deadline=None)
    @given(TEXTS)
    def check(text):
        alone = tokenizer._backend.encode(text, add_special_tokens=False).ids
        assert tokenizer.encode_text(text) == alone
        assert tokenizer.encode_after_newline([text, text], threads=2)[1].tolist() == alone

    check()


def test_a_model_that_merges_across_spaces_is_not_cut(folder):
    data = train(split_by_whitespace=False, vocab_size=600)
    (folder / "tokenizer.model").write_bytes(data)
    tokenizer = load_tokenizer(folder)
    assert tokenizer._words._cut is whole
    text = "The word camel lives in the desert"
    assert tokenizer.encode_text(text) == tokenizer.model.encode(text)


def test_text_with_ordinary_added_tokens_is_not_cut(tmp_path):
    folder = small_bpe.neox(tmp_path)
    added = json.loads((folder / "tokenizer.json").read_text())["added_tokens"]
    more = {**added[-1], "id": added[-1]["id"] + 1, "content": "the camel(x)"}
    tokenizer = load_tokenizer(small_bpe.change(folder, added_tokens=[*added, more]))
    assert tokenizer._words._cut is whole
    assert more["id"] in tokenizer.encode_text("in the camel(x)")
    assert more["id"] not in tokenizer.special_ids


def test_words_are_tokenized_once_and_memory_is_bounded(monkeypatch):
    seen = []

    def encode(some, threads):
        seen.extend(some)
        return [[len(word)] * 2 for word in some]

    cache = WordCache(after_black, encode)
    got = cache(["a bb a bb", "", "a"])
    assert [ids.tolist() for ids in got] == [[1, 1, 3, 3, 2, 2, 3, 3], [], [1, 1]]
    assert got[0].dtype == np.int32 and sorted(seen) == [" a", " bb", "a"]
    cache(["a bb"])
    assert len(seen) == 3
    monkeypatch.setattr(words, "MAX_WORDS", 3)
    cache(["c"])
    assert cache._known == {} and cache(["c"])[0].tolist() == [1, 1]
    monkeypatch.setattr(words, "MAX_CHARACTERS", 8)
    cache(["long-word"])
    assert cache._known == {}
