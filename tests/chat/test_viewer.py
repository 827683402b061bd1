import pytest

from tulu_jax.chat import encode, preview
from tulu_jax.errors import DataError

CHAT = [
    {"role": "user", "content": "Hi\n🐫"},
    {"role": "assistant", "content": "Camel."},
    {"role": "user", "content": "More"},
]


def test_preview(small, small_paper):
    encoded = encode(CHAT, small)
    text = preview(encoded.tokens, encoded.loss_mask, small)
    assert text == "<s><|user|>⏎Hi⏎🐫⏎<|assistant|>⏎[[Camel.</s>⏎]]<|user|>⏎More"
    encoded = encode(CHAT, small_paper)
    text = preview(encoded.tokens, encoded.loss_mask, small_paper)
    assert text == "<s><|user|>⏎Hi⏎🐫⏎<|assistant|>⏎[[Camel.</s>]]<|user|>⏎More"


def test_preview_is_cut(small):
    encoded = encode(CHAT, small)
    text = preview(encoded.tokens, encoded.loss_mask, small, limit=10)
    assert text == f"<s><|user|…… ({len(encoded.tokens)} tokens)".replace("……", "…")


def test_mask_of_another_length_is_refused(small):
    encoded = encode(CHAT, small)
    with pytest.raises(DataError, match=r"differ in length - got \d+ and \d+"):
        preview(encoded.tokens, encoded.loss_mask[:-1], small)


def test_byte_level_pieces_are_readable(neox, opt):
    encoded = encode(CHAT, neox)
    text = preview(encoded.tokens, encoded.loss_mask, neox)
    assert text == "<|user|>⏎Hi⏎🐫⏎<|assistant|>⏎[[Camel.<|endoftext|>⏎]]<|user|>⏎More"
    encoded = encode(CHAT, opt)
    text = preview(encoded.tokens, encoded.loss_mask, opt)
    assert text == "</s><|user|>⏎Hi⏎🐫⏎<|assistant|>⏎[[Camel.</s>⏎]]<|user|>⏎More"
