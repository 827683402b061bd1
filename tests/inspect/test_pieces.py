"""Tokens as text to look at: whole characters, nothing lost."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks import demo
from tulu_jax.chat import encode, load_tokenizer
from tulu_jax.inspect.pieces import PieceMaker


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(demo.TOKENIZER_DIR)


def conversation(question, answer):
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def texts(tokenizer, answer):
    encoded = encode(conversation("q", answer), tokenizer)
    pieces = PieceMaker(tokenizer).pieces(encoded.tokens, encoded.loss_mask)
    return [piece.text for piece in pieces if piece.trained]


@pytest.mark.parametrize(
    "character",
    ["é", "中", "𝕏", "\ufffd", "e\u0301", "👍🏽", "👩\u200d👩\u200d👧", "स्"],
    ids=lambda text: "-".join(f"{ord(c):x}" for c in text),
)
def test_a_character_of_several_tokens_is_one_piece(tokenizer, character):
    assert texts(tokenizer, f"{character}!")[0] == character


def test_pieces_cover_all_tokens_in_order(tokenizer):
    encoded = encode(conversation("中 of 文", "⚙ ok"), tokenizer)
    pieces = PieceMaker(tokenizer).pieces(encoded.tokens, encoded.loss_mask)
    assert [piece.start for piece in pieces] == [0, *(piece.stop for piece in pieces[:-1])]
    assert pieces[-1].stop == len(encoded.tokens)
    for piece in pieces:
        assert set(encoded.loss_mask[piece.start : piece.stop].tolist()) == {piece.trained}
    assert [piece.text for piece in pieces if piece.special] == ["<s>", "</s>"]


def test_the_docstrings_example(shared):
    tokenizer = load_tokenizer(shared / "tokenizers" / "llama")
    ids = [13, 30275, *(3 + byte for byte in "⚙".encode())]
    pieces = PieceMaker(tokenizer).pieces(np.array(ids), np.zeros(5, bool))
    assert [(p.start, p.stop, p.text) for p in pieces] == [(0, 1, "\n"), (1, 2, "中"), (2, 5, "⚙")]


def test_a_character_that_is_cut_off_is_shown_as_such(tokenizer):
    encoded = encode(conversation("q", "中"), tokenizer)
    cut = len(encoded.tokens) - 2  # the last byte and EOS
    pieces = PieceMaker(tokenizer).pieces(encoded.tokens[:cut], encoded.loss_mask[:cut])
    assert [piece.text for piece in pieces[-2:]] == ["\ufffd", "\ufffd"]


def test_tokens_of_different_mask_are_never_one_piece(tokenizer):
    encoded = encode(conversation("q", "中"), tokenizer)
    mask = encoded.loss_mask.copy()
    mask[-2] = False  # the character's last byte
    pieces = PieceMaker(tokenizer).pieces(encoded.tokens, mask)
    assert all(set(mask[p.start : p.stop].tolist()) == {p.trained} for p in pieces)


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=40), st.text(max_size=40))
def test_the_pieces_joined_are_the_text(question, answer):
    tokenizer = load_tokenizer(demo.TOKENIZER_DIR)
    try:
        encoded = encode(conversation(question, answer), tokenizer)
    except ValueError:  # a lone surrogate
        return
    pieces = PieceMaker(tokenizer).pieces(encoded.tokens, encoded.loss_mask)
    whole = tokenizer.decode(encoded.tokens, skip_special=False)
    assert "".join(piece.text for piece in pieces) == whole


@pytest.mark.parametrize("name", ["llama", "pythia", "opt"])
def test_real_tokenizers(shared, name):
    tokenizer = load_tokenizer(shared / "tokenizers" / name)
    question = "中⚙ 👩\u200d👩\u200d👧 👍🏽 שלום e\u0301 नमस्ते"
    encoded = encode(conversation(question, "مرحبا 𝕏 \ufffd <s> ok\n\n  end"), tokenizer)
    pieces = PieceMaker(tokenizer).pieces(encoded.tokens, encoded.loss_mask)
    whole = tokenizer.decode(encoded.tokens, skip_special=False)
    assert "".join(piece.text for piece in pieces) == whole
    assert sum(piece.text.count("\ufffd") for piece in pieces) == 1
