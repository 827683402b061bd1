import pytest

from tulu_jax.chat import encode, preview, render_tokens, show_piece
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


def test_render(small):
    view = render_tokens(encode(CHAT, small), small)
    shown = "<s><|user|>⏎\nHi⏎\n🐫⏎\n<|assistant|>⏎\nCamel.</s>⏎\n<|user|>⏎\nMore\n"
    assert view.plain.startswith(shown)
    styles = {view.plain[s.start : s.end]: str(s.style) for s in view.spans}
    assert styles["Camel."] == "bold green"
    assert styles["</s>"] == "bold green reverse"
    assert styles["<s>"] == "dim reverse"
    assert styles["<|user|>⏎\nMore"] == "dim"


def test_legend(small):
    encoded = encode(CHAT, small)
    last = render_tokens(encoded, small).plain.splitlines()[-1]
    count = f"{encoded.loss_tokens} of {len(encoded.tokens)} tokens carry loss"
    assert last.startswith("trained  not trained  special  " + count)
    assert "cut off" not in last
    assert "cut off at max_length" in render_tokens(encode(CHAT, small, max_length=9), small).plain


def test_mask_of_another_length_is_refused(small):
    encoded = encode(CHAT, small)
    with pytest.raises(DataError, match=r"differ in length - got \d+ and \d+"):
        preview(encoded.tokens, encoded.loss_mask[:-1], small)


def test_byte_level_pieces_are_readable(neox, opt):
    encoded = encode(CHAT, neox)
    text = preview(encoded.tokens, encoded.loss_mask, neox)
    assert text == "<|user|>⏎Hi⏎🐫⏎<|assistant|>⏎[[Camel.<|endoftext|>⏎]]<|user|>⏎More"
    assert "Camel.<|endoftext|>⏎\n" in render_tokens(encoded, neox).plain
    encoded = encode(CHAT, opt)
    text = preview(encoded.tokens, encoded.loss_mask, opt)
    assert text == "</s><|user|>⏎Hi⏎🐫⏎<|assistant|>⏎[[Camel.</s>⏎]]<|user|>⏎More"


def test_one_piece(small, neox):
    for tokenizer in (small, neox):
        shown = [show_piece(i, tokenizer) for i in tokenizer.encode_text("The camel\n🐫")]
        assert "".join(shown).lstrip().startswith("The camel⏎<0xF0>")
        assert shown[-1].endswith("<0xAB>")
        assert show_piece(tokenizer.eos_id, tokenizer) == tokenizer.piece(tokenizer.eos_id)
