"""Every chat template against transformers' own rendering of the published one."""

import hashlib
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from thorough import sample

from tulu_jax.chat import (
    TEMPLATES,
    check_bos,
    encode,
    encode_many,
    encode_prompt,
    load_tokenizer,
    preview,
    prompt_differs,
    save_tokenizer_files,
)
from tulu_jax.chat.segments import segments_text
from tulu_jax.errors import ConfigError, DataError, TokenizerError

from . import small_bpe
from .published import PUBLISHED
from .strategies import ODD, TEXTS, without_flags

NAMES = list(PUBLISHED)
SHAPES = {"spm": sample(100), "llama3_bpe": sample(100), "gpt2_bpe": sample(40)}
"""Kinds of tokenizers, each with how many random conversations of a template it sees."""
SPACES = ("", " ", "\n", "\n\n", " \n ", "\t")
CHAT = [
    {"role": "user", "content": "  Hi there "},
    {"role": "assistant", "content": "\nYo, camel "},
    {"role": "user", "content": "2+2?"},
    {"role": "assistant", "content": "4"},
]


def contents():
    """Text between whitespace that templates treat in different ways."""
    space = st.sampled_from(SPACES)
    return st.tuples(space, TEXTS, space).map("".join)


def talks(name, texts=None, flags=False):
    """Conversations that the template `name` can hold, of up to eight messages."""
    optional = {"train": st.booleans()} if flags else {}
    text = contents() if texts is None else texts

    def messages(roles):
        one = [st.fixed_dictionaries({"role": st.just(role), "content": text}, optional=optional)
               for role in roles]  # fmt: skip
        return st.tuples(*one).map(list)

    if TEMPLATES[name].alternates:
        turns = st.integers(1, 7).map(lambda n: (["user", "assistant"] * 4)[:n])
        roles = st.tuples(st.booleans(), turns).map(lambda x: ["system"] * x[0] + x[1])
    else:
        roles = st.lists(st.sampled_from(("system", "user", "assistant")), min_size=1, max_size=8)
    return roles.flatmap(messages)


@pytest.fixture(scope="module")
def folders(tmp_path_factory, model_bytes):
    """A folder with a tokenizer of each shape; each has `<s>` and `</s>` or their like."""
    places = {shape: tmp_path_factory.mktemp(shape) for shape in SHAPES}
    (places["spm"] / "tokenizer.model").write_bytes(model_bytes)
    small_bpe.llama3_instruct(places["llama3_bpe"])
    small_bpe.gpt2(places["gpt2_bpe"])
    return places


@pytest.fixture(scope="module")
def pair(folders, tmp_path_factory):
    """(our tokenizer with a template, transformers' loaded from our files), by names."""
    transformers = pytest.importorskip("transformers")
    made = {}

    def make(name, shape):
        if (name, shape) not in made:
            plain = load_tokenizer(folders[shape])
            lacking = [t for t in TEMPLATES[name].tokens if plain.token_id(t) is None]
            ours = load_tokenizer(
                folders[shape], template=name, add_tokens="template" if lacking else ()
            )
            out = tmp_path_factory.mktemp(f"{name}_{shape}")
            save_tokenizer_files(ours, out)
            made[name, shape] = ours, transformers.AutoTokenizer.from_pretrained(out)
        return made[name, shape]

    return make


def published(name, ours):
    """The published template, without BOS for a tokenizer that has none."""
    return PUBLISHED[name].replace("bos_token", "''" if ours.bos_id is None else "bos_token")


def applied(theirs, messages, **options):
    return theirs.apply_chat_template(
        without_flags(messages), tokenize=True, return_dict=True, **options
    )


@pytest.mark.parametrize("shape", list(SHAPES))
@pytest.mark.parametrize("name", NAMES)
def test_tokens_and_masks_are_those_of_the_published_template(pair, name, shape):
    ours, theirs = pair(name, shape)
    assert len(theirs) == ours.vocab_size

    @settings(max_examples=SHAPES[shape], deadline=None)
    @given(talks(name))
    def check(messages):
        encoded = encode(messages, ours)
        tokens, mask = encoded.tokens.tolist(), encoded.loss_mask.astype(int).tolist()
        for template in (published(name, ours), None):  # None: the one we export
            out = applied(
                theirs, messages, chat_template=template, return_assistant_tokens_mask=True
            )
            assert out["input_ids"] == tokens
            assert out["assistant_masks"] == mask
        check_bos(encoded.tokens, ours)
        if TEMPLATES[name].alternates and messages[-1]["role"] != "user":
            return
        prompt = encode_prompt(messages, ours).tolist()
        for template in (published(name, ours), None):
            out = applied(theirs, messages, chat_template=template, add_generation_prompt=True)
            assert out["input_ids"] == prompt

    check()


MARKERS = (
    "<|im_start|>", "<|im_end|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>",
    "[INST]",
    "[/INST]", "<<SYS>>", "<s>", "</s>", "<|begin_of_text|>", "<|end_of_text|>", "<|endoftext|>",
    "### Response:\n", "<|assistant|>\n", "\n",
)  # fmt: skip


def by_hand(messages, name, ours):
    """The ids, from the published template rendered with signs where special tokens stand.

    transformers takes the text of a special token for that token, so it cannot be asked here.
    """
    from transformers.utils.chat_template_utils import render_jinja_template

    signs = {**dict.fromkeys(TEMPLATES[name].tokens), "bos": None, "eos": None}
    signs = {text: f"\ue000{index}\ue000" for index, text in enumerate(signs)}
    template = published(name, ours)
    for text, sign in signs.items():
        template = template.replace(text, sign) if text not in ("bos", "eos") else template
    rendered, _ = render_jinja_template(
        [without_flags(messages)],
        chat_template=template,
        bos_token=signs["bos"],
        eos_token=signs["eos"],
    )
    ids = {sign: ours.token_id(text) for text, sign in signs.items() if text not in ("bos", "eos")}
    ids |= {signs["bos"]: ours.bos_id, signs["eos"]: ours.eos_id}
    tokens = []
    for index, part in enumerate(re.split("(\ue000.\ue000)", rendered[0])):
        if part in ids:
            tokens.append(ids[part])
        elif part:
            text = ours.opening(part) if not index else part
            tokens += ours.encode_after_newline([text])[0].tolist()
    return tokens


@pytest.mark.parametrize("shape", list(SHAPES))
@pytest.mark.parametrize("name", NAMES)
def test_text_that_looks_like_a_marker_stays_text(pair, name, shape):
    ours, _ = pair(name, shape)
    texts = st.lists(st.sampled_from((*ODD, *MARKERS)), max_size=8).map("".join)

    @settings(max_examples=sample(60), deadline=None)
    @given(talks(name, texts))
    def check(messages):
        encoded = encode(messages, ours)
        assert encoded.tokens.tolist() == by_hand(messages, name, ours)
        answers = sum(message["role"] == "assistant" for message in messages)
        assert (encoded.tokens[encoded.loss_mask] == ours.end_id).sum() == answers

    check()


@pytest.mark.parametrize("shape", list(SHAPES))
@pytest.mark.parametrize("name", list(TEMPLATES))
def test_an_answer_that_is_not_trained_has_no_part_in_the_mask(pair, name, shape):
    ours, _ = pair(name, shape)

    @settings(max_examples=sample(60), deadline=None)
    @given(talks(name, flags=True))
    def check(messages):
        flagged, plain = encode(messages, ours), encode(without_flags(messages), ours)
        assert flagged.tokens.tolist() == plain.tokens.tolist()
        assert not (flagged.loss_mask & ~plain.loss_mask).any()
        answers = [m for m in messages if m["role"] == "assistant"]
        trained = [m for m in answers if m.get("train", True)]
        ends = flagged.tokens[flagged.loss_mask] == ours.end_id
        assert ends.sum() == len(trained)
        if len(trained) == len(answers):
            assert np.array_equal(flagged.loss_mask, plain.loss_mask)
        if not trained:
            assert flagged.dropped

    check()


@pytest.mark.parametrize("shape", list(SHAPES))
@pytest.mark.parametrize("name", NAMES)
def test_a_prompt_is_the_start_of_the_same_conversation_with_an_answer(pair, name, shape):
    ours, _ = pair(name, shape)
    prompt = encode_prompt(CHAT[:3], ours).tolist()
    answered = encode(CHAT, ours)
    if prompt_differs(ours):  # GPT-2 cuts "\n\n4" into "\n" and "\n", but "\n\n" not at all
        assert (name, shape) == ("llama3", "gpt2_bpe")
        return
    assert answered.tokens[: len(prompt)].tolist() == prompt
    assert not answered.loss_mask[: len(prompt)][-3:].any()
    rest = answered.tokens[len(prompt) :]
    text = ours.decode(rest[answered.loss_mask[len(prompt) :]], after=True)
    assert text.strip() == "4" and ours.end_id in rest
    assert ours.end_id in ours.stop_ids and ours.eos_id in ours.stop_ids


@pytest.mark.parametrize("name", NAMES)
def test_many_by_threads_and_cut_off(pair, name):
    ours, _ = pair(name, "llama3_bpe")
    whole = encode(CHAT, ours)
    for length in (1, 7, len(whole.tokens), 1000):
        for one in encode_many([CHAT] * 3, ours, length, threads=2):
            assert one.tokens.tolist() == whole.tokens[:length].tolist()
            assert one.loss_mask.tolist() == whole.loss_mask[:length].tolist()
            assert one.truncated == (length < len(whole.tokens))


@pytest.mark.parametrize("name", [name for name in NAMES if TEMPLATES[name].alternates])
@pytest.mark.parametrize(
    ("roles", "place", "got"),
    [
        ("assistant", 0, "the role 'assistant'"),
        ("user user", 1, "the role 'user'"),
        ("user assistant assistant", 2, "the role 'assistant'"),
        ("system system user", 1, "the role 'system'"),
        ("user assistant system user", 2, "the role 'system'"),
        ("system", 1, "no message of the user"),
    ],
)
def test_roles_out_of_turn_are_refused_by_name(pair, name, roles, place, got):
    ours, theirs = pair(name, "spm")
    messages = [{"role": role, "content": "x"} for role in roles.split()]
    message = (
        rf"conversation does not fit the chat template '{name}' - got {got} at .*message {place} - "
        "expected (user|assistant): a system message or none, then user and assistant taking turns"
    )
    with pytest.raises(DataError, match=message):
        encode(messages, ours)
    if roles != "system":
        with pytest.raises(Exception, match="roles must be user and assistant by turns"):
            applied(theirs, messages)


def test_a_prompt_needs_a_question(pair):
    ours, _ = pair("llama2", "spm")
    with pytest.raises(DataError, match="got an answer to come at messages, message 4"):
        encode_prompt(CHAT, ours)


@pytest.mark.parametrize("name", ["llama3", "chatml", "zephyr"])
def test_unknown_roles_are_refused_by_the_exported_template(pair, name):
    _, theirs = pair(name, "spm")
    with pytest.raises(Exception, match="unknown role bot: expected system, user or assistant"):
        applied(theirs, [{"role": "bot", "content": "x"}])


@pytest.mark.parametrize("name", list(TEMPLATES))
def test_content_in_parts_is_joined(pair, name):
    ours, theirs = pair(name, "spm")
    parts = [
        {"role": m["role"], "content": [{"type": "text", "text": m["content"][:2]},
                                        {"type": "text", "text": m["content"][2:]}]}
        for m in [{"role": "system", "content": " Be brief"}, *CHAT]
    ]  # fmt: skip
    whole = encode([{"role": "system", "content": " Be brief"}, *CHAT], ours)
    out = theirs.apply_chat_template(
        parts, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
    )
    assert out["input_ids"] == whole.tokens.tolist()
    assert out["assistant_masks"] == whole.loss_mask.astype(int).tolist()
    image = [{"role": "user", "content": [{"type": "image", "url": "x"}]}]
    with pytest.raises(Exception, match="unknown content part image: expected text"):
        theirs.apply_chat_template(image, tokenize=True, return_dict=True)


VERSIONS = {
    "tulu-1": "752e4a833e1c0cee",
    "llama2-1": "bbce74020f08408b",
    "llama3-1": "99352a3ffa9a22f8",
    "mistral-1": "6326e2166b066ca8",
    "chatml-1": "dc14ba8f97ba8ee1",
    "zephyr-1": "2b8498732690217d",
    "alpaca-1": "759dc42a9023a1bf",
}


@pytest.mark.parametrize("name", list(TEMPLATES))
def test_version_names_the_template(name):
    template = TEMPLATES[name]
    talk = [{"role": "system", "content": " s "}, *CHAT]
    made = repr((template.render(talk), template.render(talk[:2], generation_prompt=True)))
    digest = hashlib.sha256(made.encode()).hexdigest()[:16]
    assert VERSIONS.get(template.version) == digest, "a changed template needs a new version"


def test_what_each_template_looks_like(pair):
    shown = {}
    for name in TEMPLATES:
        ours, _ = pair(name, "spm")
        talk = [{"role": "system", "content": "S"}, *CHAT[2:]]
        shown[name] = preview(*_parts(encode(talk, ours)), ours)
    assert shown == {
        "tulu": "<s><|system|>⏎S⏎<|user|>⏎2+2?⏎<|assistant|>⏎[[4</s>]]",
        "llama2": "<s>[INST] <<SYS>>⏎S⏎<</SYS>>⏎⏎2+2? [/INST][[ 4 </s>]]",
        "llama3": "<s><|start_header_id|>system<|end_header_id|>⏎⏎S<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>⏎⏎2+2?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>⏎⏎[[4<|eot_id|>]]",
        "mistral": "<s> [INST] S⏎⏎2+2? [/INST][[ 4</s>]]",
        "chatml": "<|im_start|>system⏎S<|im_end|>⏎<|im_start|>user⏎2+2?<|im_end|>⏎"
        "<|im_start|>assistant⏎[[4<|im_end|>]]⏎",
        "zephyr": "<|system|>⏎S</s>⏎<|user|>⏎2+2?</s>⏎<|assistant|>⏎[[4</s>]]⏎",
        "alpaca": "<s>S⏎⏎### Instruction:⏎2+2?⏎⏎### Response:⏎[[4</s>]]",
    }


def _parts(encoded):
    return encoded.tokens, encoded.loss_mask


def test_segments_as_text():
    segments = TEMPLATES["llama2"].render(CHAT[:2])
    assert segments_text(segments, "</s>", "<s>") == "<s>[INST] Hi there [/INST] Yo, camel </s>"


def test_unknown_template_and_encoding(folders):
    with pytest.raises(ConfigError, match=r"unknown chat template - got 'llama4'.+one of tulu, ll"):
        load_tokenizer(folders["spm"], template="llama4")
    with pytest.raises(ConfigError, match=r"that of the paper's chat template - got the chat temp"):
        load_tokenizer(folders["spm"], "paper", template="zephyr")


def test_a_template_whose_tokens_are_missing_is_refused(folders):
    message = (
        r"chat template 'chatml' needs tokens that the tokenizer lacks - got no <\|im_start\|>, "
        r"<\|im_end\|> at .+ - expected tokens of their own - add them with ADD_TOKENS='template'"
    )
    for shape in SHAPES:
        with pytest.raises(TokenizerError, match=message):
            load_tokenizer(folders[shape], template="chatml")


def test_tokens_that_do_not_add_up_are_refused(pair, monkeypatch):
    ours, _ = pair("zephyr", "spm")
    monkeypatch.setattr(type(ours), "text_bytes", lambda self, text: len(text) + 1)
    with pytest.raises(TokenizerError, match=r"do not add up to their text.+ got \d+ bytes in tok"):
        encode(CHAT, ours)
