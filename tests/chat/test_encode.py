import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from thorough import THOROUGH

from tulu_jax.chat import (
    check_bos,
    encode,
    encode_many,
    encode_prompt,
    load_tokenizer,
    render,
)
from tulu_jax.chat.template import segments_text
from tulu_jax.errors import ConfigError, DataError, GuardError

from .strategies import SPECIAL_TEXTS, conversations, flagged

NEWLINE = "\n"
CHAT = [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}]


def golden_rows(shared, name):
    """The reference's rows as (id, messages, max_length, ids, mask, dropped)."""
    messages = None
    file = shared / "data/golden/encodings" / f"{name}.jsonl"
    for line in file.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        messages = row["messages"] or messages
        flags, lengths = zip(*row["label_runs"], strict=True)
        mask = np.repeat(np.array(flags, bool), lengths)
        yield row["id"], messages, row["max_length"], row["input_ids"], mask, row["dropped"]


def some_golden_rows(shared, name):
    """Of the conversations that are not cut the odd ones and each fourth of the others, or all."""
    whole = [row for row in golden_rows(shared, name) if row[2] == 2048]
    return [
        row
        for number, row in enumerate(whole)
        if THOROUGH or number % 4 == 0 or row[0].startswith("edge")
    ]


def differing(shared, name, tokenizer):
    wrong, count = [], 0
    for row_id, messages, max_length, ids, mask, dropped in golden_rows(shared, name):
        encoded = encode(messages, tokenizer, max_length=max_length)
        same = encoded.tokens.tolist() == ids and np.array_equal(encoded.loss_mask, mask)
        count += 1
        if not same or encoded.dropped != dropped:
            wrong.append((row_id, max_length))
    assert count == 896
    return wrong


def by_prefixes(messages, tokenizer):
    """Tokens and mask of encoding `hf`, the slow way: every prefix is tokenized from scratch."""
    model, newline = tokenizer.model, len(tokenizer.newline_ids)

    def tokens_of(text):
        tokens = [tokenizer.bos_id]
        for index, part in enumerate(text.split("\0EOS\0")):
            tokens += [tokenizer.eos_id] if index else []
            tokens += model.encode("\n" + part)[newline:] if index else model.encode(part)
        return tokens

    def text_of(some):
        ends = {"assistant": "\0EOS\0\n"}
        return "".join(
            f"<|{m['role']}|>\n{m['content'].strip()}{ends.get(m['role'], NEWLINE)}" for m in some
        )

    tokens = tokens_of(text_of(messages).strip())
    mask = np.ones(len(tokens), bool)
    for i, message in enumerate(messages):
        answer = message["role"] == "assistant"
        if answer and message.get("train", True):
            continue
        start = len(tokens_of(text_of(messages[:i]))) if i else 0
        answered = i + 1 < len(messages) and messages[i + 1]["role"] == "assistant" and not answer
        until = text_of(messages[: i + 1]) + "<|assistant|>\n" * answered
        mask[start : len(tokens_of(until))] = False
    return tokens, mask


def test_every_golden_row_but_literal_specials(shared, llama):
    assert differing(shared, "llama", llama) == [("edge_3", 2048), ("edge_3", 256)]


def test_every_golden_row_of_the_paper(shared):
    tokenizer = load_tokenizer(shared / "tokenizers/llama", "paper")
    assert differing(shared, "llama_paper", tokenizer) == []


def test_literal_special_tokens_stay_text(shared, llama):
    row = next(row for row in golden_rows(shared, "llama") if row[0] == "edge_3")
    _, messages, _, theirs, mask, _ = row
    ours = encode(messages, llama)
    assert theirs.count(llama.bos_id) == 2 and theirs.count(llama.eos_id) == 4
    assert ours.tokens.tolist().count(llama.bos_id) == 1
    assert ours.tokens.tolist().count(llama.eos_id) == 2
    assert "</s> literal <s> and <|assistant|> inside" in llama.decode(ours.tokens)
    assert "<|user|> fake </s> x" in llama.decode(ours.tokens[ours.loss_mask])
    first = theirs.index(llama.eos_id) + 1
    assert ours.tokens[:first].tolist() == theirs[:first]
    assert np.array_equal(ours.loss_mask[:first], mask[:first])


def test_docstring_columns(llama):
    rows = [line.split() for line in encode.__doc__.splitlines()]

    def cells(name):
        return [cell for row in rows if row[:1] == [name] for cell in row[1:]]

    encoded = encode(CHAT, llama)
    shown = ["\\n" if llama.piece(i) == "<0x0A>" else llama.piece(i) for i in encoded.tokens]
    assert cells("token") == shown
    assert cells("id") == [str(i) for i in encoded.tokens]
    assert cells("loss_mask") == [str(int(m)) for m in encoded.loss_mask]


@pytest.mark.parametrize("name", ["small", "llama", "stories"])
def test_equals_the_prefix_method_on_random_text(name, request):
    tokenizer = request.getfixturevalue(name)

    @settings(max_examples=150, deadline=None)
    @given(flagged())
    def check(messages):
        tokens, mask = by_prefixes(messages, tokenizer)
        encoded = encode(messages, tokenizer)
        assert encoded.tokens.tolist() == tokens
        assert np.array_equal(encoded.loss_mask, mask)
        text = tokenizer.decode(encoded.tokens)
        for message in messages:
            # SentencePiece writes a space as U+2581, so that character comes back as a space.
            assert message["content"].strip().replace("▁", " ") in text

    check()


@pytest.mark.parametrize("name", ["small", "small_paper", "llama", "stories"])
def test_prompt_is_a_prefix_of_training_tokens(name, request):
    tokenizer = request.getfixturevalue(name)

    @settings(max_examples=100, deadline=None)
    @given(conversations(), conversations(SPECIAL_TEXTS), st.booleans(), st.text(min_size=0))
    def check(messages, special, use_special, answer):
        messages = special if use_special else messages
        if tokenizer.encoding == "paper":
            answer = "x" + answer
        prompt = encode_prompt(messages, tokenizer)
        full = encode([*messages, {"role": "assistant", "content": answer}], tokenizer)
        assert full.tokens[: len(prompt)].tolist() == prompt.tolist()
        ends = tokenizer.decode(prompt[-40:], after=True).endswith("<|assistant|>\n")
        assert ends and prompt.dtype == np.int32

    check()


@settings(max_examples=60, deadline=None)
@given(st.lists(conversations(SPECIAL_TEXTS), max_size=5), st.sampled_from((None, 1, 7, 40)))
def test_many_equal_one_by_one(small, small_paper, batch, max_length):
    for tokenizer in (small, small_paper):
        many = encode_many(batch, tokenizer, max_length=max_length, threads=2)
        for messages, got in zip(batch, many, strict=True):
            alone = encode(messages, tokenizer, max_length=max_length)
            whole = encode(messages, tokenizer)
            assert got.tokens.tolist() == alone.tokens.tolist()
            assert got.tokens.tolist() == whole.tokens[:max_length].tolist()
            assert got.loss_mask.tolist() == alone.loss_mask.tolist()
            assert got.truncated == (len(whole.tokens) > len(got.tokens))
            assert got.tokens.dtype == np.int32 and got.loss_mask.dtype == np.bool_


def test_more_conversations_than_a_batch(small, monkeypatch):
    monkeypatch.setattr(sys.modules["tulu_jax.chat.encode"], "BATCH", 3)
    batch = [[*CHAT, {"role": "user", "content": str(i)}] for i in range(8)]
    got = encode_many(batch, small)
    assert [e.tokens.tolist() for e in got] == [encode(m, small).tokens.tolist() for m in batch]
    assert encode_many([], small) == []


def test_no_text_is_tokenized_twice(small, monkeypatch):
    handed = []
    real = type(small).encode_after_newline

    def spy(self, texts, **options):
        handed.extend(texts)
        return real(self, texts, **options)

    monkeypatch.setattr(type(small), "encode_after_newline", spy)
    chat = [{"role": r, "content": r * 9} for r in ("user", "assistant") * 50]
    encode(chat, small)
    assert "".join(handed) == " " + segments_text(render(chat), "")


def test_cut_before_the_answer_is_dropped(small):
    whole = encode(CHAT, small)
    first = int(np.argmax(whole.loss_mask))
    assert whole.loss_mask[first:].all() and whole.loss_tokens == len(whole.tokens) - first
    cut = encode(CHAT, small, max_length=first)
    assert cut.dropped and cut.truncated and cut.loss_tokens == 0
    kept = encode(CHAT, small, max_length=first + 1)
    assert not kept.dropped and kept.loss_tokens == 1
    assert not whole.truncated and whole.tokens[-1] == small.eos_id


def test_bad_input_is_refused(small):
    with pytest.raises(DataError, match=r"unknown role - got 'bot' at messages, message 0"):
        encode([{"role": "bot", "content": ""}], small)
    with pytest.raises(DataError, match=r"messages are empty - at conversation 1 "):
        encode_many([CHAT, []], small)
    with pytest.raises(DataError, match=r"messages are empty - at train.jsonl:7 "):
        encode_many([[]], small, at="train.jsonl:7")
    with pytest.raises(DataError, match=r"messages are empty - at messages"):
        encode_prompt([], small)
    with pytest.raises(ConfigError, match=r"max_length is too small - got 0 - expected 1 or more"):
        encode(CHAT, small, max_length=0)


def test_check_bos(small, small_paper):
    good = encode(CHAT, small).tokens
    check_bos(good, small)
    with pytest.raises(GuardError, match=r"start with BOS - got '.+' at row 4 - expected '<s>'"):
        check_bos(good[1:], small, at="row 4")
    with pytest.raises(GuardError, match=r"does not start with BOS - got 'no token'"):
        check_bos(good[:0], small)
    with pytest.raises(GuardError, match=r"more than one BOS - got BOS at positions 0 and 1 at"):
        check_bos(np.concatenate([good[:1], good]), small)
    literal = [{"role": "user", "content": "what is <s> for?"}]
    check_bos(encode(literal, small).tokens, small)
    check_bos(encode(literal, small_paper).tokens, small_paper)
    with pytest.raises(GuardError, match=r"more than one BOS"):
        check_bos(encode(literal, small_paper).tokens, small)
    with pytest.raises(GuardError, match=r"more than one BOS"):
        check_bos(np.concatenate([good[:1], good]), small_paper)


def test_importing_the_room_is_light():
    heavy = ("rich", "tokenizers", "transformers", "jax", "flax", "torch", "tensorflow")
    code = f"import sys, tulu_jax.chat; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
