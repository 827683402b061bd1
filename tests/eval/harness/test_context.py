"""Prompts as text and as tokens."""

import dataclasses
from pathlib import Path

import pytest

from eval.harness.context import Context
from eval.harness.quirks import SHARED, Quirks
from eval.templates import create_prompt_with_tulu_chat_format as tulu
from tasks.demo import TOKENIZER_DIR
from tulu_jax.chat import load_tokenizer
from tulu_jax.errors import ConfigError


def make(compat="fixed", **fields):
    return Context(Path("."), None, Quirks(SHARED, compat), **fields)


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(TOKENIZER_DIR)


def test_an_answer_cue_follows_the_format_with_a_space_unless_it_ends_in_one():
    chat = make(formatter=tulu)
    assert chat.text("Hi", "A:") == "<|user|>\nHi\n<|assistant|>\nA:"
    bracketed = make(formatter=lambda messages, add_bos: f"[{messages[0]['content']}]")
    assert bracketed.text("Hi", "A:") == "[Hi] A:"
    assert bracketed.text("Hi") == "[Hi]"
    assert make().text("Hi", "A:", plain="\nA:") == "Hi\nA:"


def test_a_conversation_in_plain_text_is_a_line_each():
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    assert make().conversation(messages) == "a\nb\n"
    assert make(formatter=tulu).conversation(messages) == (
        "<|user|>\na\n<|assistant|>\nb</s>\n<|assistant|>\n"
    )


def test_prompts_have_one_bos_unless_it_is_not_wanted(tokenizer):
    context = make(tokenizer=tokenizer)
    (prompt,) = context.prompts(["Hello there"])
    assert prompt.ids == (tokenizer.bos_id, *tokenizer.encode_text("Hello there"))
    bare = dataclasses.replace(context, add_bos="false").prompts(["Hello there"])[0]
    assert bare.ids == tuple(tokenizer.encode_text("Hello there"))
    assert make().prompts(["Hello there"])[0].ids is None


def test_a_bos_that_the_tokenizer_lacks_is_refused(shared):
    pythia = load_tokenizer(shared / "tokenizers" / "pythia")
    assert make(tokenizer=pythia).start_ids() == []
    with pytest.raises(ConfigError, match=r"tokenizer has no BOS .* leave out --add_bos true"):
        make(tokenizer=pythia, add_bos="true").start_ids()


def test_text_of_a_special_token_stays_text_unless_the_quirk_is_in_force(tokenizer):
    text = "a</s>b"
    (fixed,) = make(tokenizer=tokenizer).prompts([text])
    assert tokenizer.eos_id not in fixed.ids
    (paper,) = make("paper", tokenizer=tokenizer).prompts([text])
    assert paper.ids.count(tokenizer.eos_id) == 1


SPECIAL = {
    # (legacy, text) -> pieces of transformers 4.33.2's slow tokenizer of stories260k
    (False, "x <s> y"): ["▁", "x", "▁", "<s>", "▁y"],
    (False, "<s>The cat</s> hi"): ["<s>", "T", "he", "▁c", "at", "</s>", "▁h", "i"],
    (False, "a\n<s>\n b </s>  c"): ["▁a", "<0x0A>", "<s>", "<0x0A>", "▁b", "▁", "</s>", "▁", "▁c"],
    (True, "x <s> y"): ["▁", "x", "▁", "<s>", "▁", "▁y"],
    (True, "<s>The cat</s> hi"): ["<s>", "▁The", "▁c", "at", "</s>", "▁", "▁h", "i"],
}


@pytest.mark.parametrize(("legacy", "text"), SPECIAL)
def test_special_text_is_split_as_the_slow_tokenizer_did(shared, tmp_path, legacy, text):
    source = shared / "models" / "stories260k"
    for name in ("tokenizer.model", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((source / name).read_bytes())
    config = tmp_path / "tokenizer_config.json"
    config.write_text(
        config.read_text().replace('"legacy":false', f'"legacy":{str(legacy).lower()}')
    )
    context = make("paper", tokenizer=load_tokenizer(tmp_path, "paper"))
    found = context.encode([text])[0]
    assert [context.tokenizer.piece(token) for token in found] == SPECIAL[legacy, text]


def test_a_text_is_cut_to_its_first_tokens(tokenizer):
    context = make(tokenizer=tokenizer)
    text = "What is the capital of France?"
    size = len(tokenizer.encode_text(text))
    assert context.cut(text, size, bos=False) == (text, 0)
    short, lost = context.cut(text, 3, bos=False)
    assert text.startswith(short) and lost == size - 3
    marked, lost_too = context.cut(text, 3, bos=True)
    assert marked.startswith("<s>") and lost_too == size - 2


def test_stops_are_strings_or_as_the_reference_spelled_them_in_tokens(tokenizer):
    assert make(tokenizer=tokenizer).stops("\n") == {"stops": ("\n",)}
    newline = tokenizer.encode_text("\n")[-1]
    paper = make("paper", tokenizer=tokenizer)
    assert paper.stops("\n") == {"stop_tokens": ((newline,),)}
    spelled = tuple(tokenizer.encode_text(" \ndef")[1:])
    assert paper.stops("\ndef") == {"stop_tokens": (spelled,)}


def test_in_chat_format_stops_are_left_out_but_for_quirk_and_wish(tokenizer):
    chat = make(tokenizer=tokenizer, formatter=tulu)
    assert chat.stops("\n") == {}
    assert chat.stops("\n", in_chat=True) == {"stops": ("\n",)}
    assert make("paper", tokenizer=tokenizer, formatter=tulu).stops("\n")
