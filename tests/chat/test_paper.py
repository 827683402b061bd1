import doctest

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tulu_jax.chat import encode, encode_prompt, load_tokenizer, paper
from tulu_jax.chat.paper import encode_by_prefixes, has_special_text, prompt_tokens, tokens_of

from .strategies import SPECIAL_TEXTS, flagged, without_flags


def test_docstring_examples():
    assert doctest.testmod(paper).failed == 0


def test_fast_path_equals_the_prefix_method(small_paper, request):
    tokenizers = [small_paper]

    @settings(max_examples=300, deadline=None)
    @given(flagged(), st.sampled_from((None, 5, 20, 60)))
    def check(messages, max_length):
        for tokenizer in tokenizers:
            assert not has_special_text(messages, tokenizer)
            fast = encode(messages, tokenizer, max_length=max_length)
            tokens, mask, cut = encode_by_prefixes(messages, tokenizer, max_length)
            assert fast.tokens.tolist() == tokens
            assert fast.loss_mask.tolist() == mask
            assert fast.truncated == cut
            assert encode_prompt(messages, tokenizer).tolist() == prompt_tokens(messages, tokenizer)

    check()


def test_fast_path_equals_the_prefix_method_for_llama(shared):
    tokenizer = load_tokenizer(shared / "tokenizers/llama", "paper")

    @settings(max_examples=100, deadline=None)
    @given(flagged())
    def check(messages):
        tokens, mask, _ = encode_by_prefixes(messages, tokenizer, None)
        fast = encode(messages, tokenizer)
        assert (fast.tokens.tolist(), fast.loss_mask.tolist()) == (tokens, mask)

    check()


def test_flags_where_text_holds_special_tokens(small_paper):
    @settings(max_examples=200, deadline=None)
    @given(flagged(SPECIAL_TEXTS))
    def check(messages):
        tokens, mask, _ = encode_by_prefixes(messages, small_paper, None)
        plain = without_flags(messages)
        same, all_of_it, _ = encode_by_prefixes(plain, small_paper, None)
        assert tokens == same
        untrained = [i for i, m in enumerate(messages) if not m.get("train", True)]
        expected = np.array(all_of_it)
        for index in untrained:
            if messages[index]["role"] != "assistant":
                continue
            ends = [
                len(prompt_tokens(plain[:count], small_paper))
                - len(small_paper.encode_after_newline(["<|assistant|>\n"])[0])
                if count
                else 0
                for count in (index, index + 1)
            ]
            expected[ends[0] : ends[1]] = False
        assert mask == expected.tolist()

    check()


def test_special_strings_become_tokens_and_eat_whitespace(small_paper):
    bos, eos, unk = small_paper.bos_id, small_paper.eos_id, small_paper.unk_id
    camel, two = small_paper.encode_text("camel"), small_paper.encode_text("is 12")
    assert tokens_of("camel \n</s>\n is 12", small_paper) == [bos, *camel, eos, *two]
    assert tokens_of("<s><unk> camel", small_paper) == [bos, bos, unk, *camel]
    assert tokens_of("</s> \n </s>", small_paper) == [bos, eos, eos]
    assert tokens_of("<pad>", small_paper) == [bos, *small_paper.encode_text("<pad>")]


def test_empty_answer_trains_nothing(small_paper):
    question = {"role": "user", "content": "Hi"}
    empty = encode([question, {"role": "assistant", "content": " "}], small_paper)
    assert empty.dropped and empty.tokens[-1] == small_paper.eos_id
    more = encode([question, {"role": "assistant", "content": ""}] * 2, small_paper)
    assert more.dropped
    assert np.count_nonzero(more.tokens == small_paper.eos_id) == 2
