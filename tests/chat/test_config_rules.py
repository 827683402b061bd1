"""What a tokenizer's settings may say, and files that are not what their names say."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tulu_jax.chat import copy_tokenizer_files, encode, load_tokenizer, save_tokenizer_files
from tulu_jax.errors import TokenizerError, TuluError

from . import small_bpe
from .test_tokenizer import CHAT, write_config

POINTER = (
    b"version https://git-lfs.github.com/spec/v1\n"
    b"oid sha256:9e556afd44213b6bd1be2b850ebbbd98f5481437a8021afaf58ee7fb1818d347\nsize 499723\n"
)
KINDS = {
    "a Git LFS pointer": (POINTER, "fetch it with `git lfs pull`, or download the file itself"),
    "a web page": (b"<!DOCTYPE html><html>", "download the file itself: this is a page about it"),
    "a gzip file": (b"\x1f\x8b\x08" + b"\0" * 20, "unpack it"),
    "a tiktoken vocabulary": (b"IQ== 0\nIg== 1\n", "name the tokenizer.json of the same model"),
    "UTF-16 text": ("{}".encode("utf-16"), "save it as UTF-8"),
}


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize(
    "name", ["tokenizer.model", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"]
)
def test_files_of_another_kind_are_named_and_never_copied(folder, tmp_path, kind, name):
    content, do = KINDS[kind]
    if name == "tokenizer.json":
        (folder / "tokenizer.model").unlink()
    (folder / name).write_bytes(content)
    message = rf"{name} is no tokenizer's file - got {kind}.* at .+{name} - expected .+ - {do}"
    with pytest.raises(TokenizerError, match=message):
        load_tokenizer(folder, template="checkpoint" if name.endswith("jinja") else "tulu")
    with pytest.raises(TokenizerError, match=message):
        copy_tokenizer_files(folder, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_the_pointer_of_the_case_is_named(shared):
    with pytest.raises(TokenizerError, match=r"tokenizer.model is no .+ - got a Git LFS pointer"):
        load_tokenizer(shared / "cases" / "211-lfs-model" / "tok")


def test_files_may_begin_with_a_mark_of_their_encoding(folder, llama3, tmp_path):
    (folder / "tokenizer_config.json").write_text('\ufeff{"pad_token": "<pad>"}', encoding="utf-8")
    assert load_tokenizer(folder).pad_piece == "<pad>"
    (tmp_path / "bpe").mkdir()
    for file in llama3.path.parent.iterdir():
        (tmp_path / "bpe" / file.name).write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert load_tokenizer(tmp_path / "bpe").fingerprint == llama3.fingerprint


def test_a_tokenizer_that_puts_no_bos_in_front(folder, tmp_path):
    plain = load_tokenizer(folder)
    without = load_tokenizer(write_config(folder, add_bos_token=False))
    assert (without.bos_id, without.start_ids) == (None, [])
    assert encode(CHAT, without).tokens.tolist() == encode(CHAT, plain).tokens[1:].tolist()
    assert without.fingerprint != plain.fingerprint
    llama2 = load_tokenizer(folder, template="llama2")  # which writes BOS whatever text gets
    assert llama2.start_ids == [] and encode(CHAT, llama2).tokens[0] == plain.bos_id
    transformers = pytest.importorskip("transformers")
    for name, tokenizer in (("tulu", without), ("llama2", llama2)):
        save_tokenizer_files(tokenizer, tmp_path / name)
        copy = load_tokenizer(tmp_path / name, template="checkpoint")
        assert (copy.template.name, copy.fingerprint) == (name, tokenizer.fingerprint)
        theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / name)
        made = theirs.apply_chat_template(CHAT, tokenize=True, return_dict=True)
        assert made["input_ids"] == encode(CHAT, tokenizer).tokens.tolist()
        assert theirs("camel")["input_ids"] == tokenizer.encode_text("camel")


def test_bos_that_bpe_text_does_not_get_is_written_by_templates(tmp_path):
    folder = small_bpe.gpt2(tmp_path)
    write_config(folder, bos_token="<|endoftext|>", eos_token="<|endoftext|>")
    tulu, llama2 = load_tokenizer(folder), load_tokenizer(folder, template="llama2")
    assert tulu.bos_id is None and llama2.start_ids == []
    assert encode(CHAT, llama2).tokens[0] == llama2.bos_id == llama2.eos_id
    save_tokenizer_files(llama2, folder / "out")
    assert load_tokenizer(folder / "out", template="llama2").fingerprint == llama2.fingerprint


HONOURED = {
    "legacy": True, "add_eos_token": False, "add_prefix_space": True, "sp_model_kwargs": {},
    "tokenizer_class": "LlamaTokenizerFast", "model_max_length": 10**30, "padding_side": "right",
    "additional_special_tokens": ["<unk>"], "clean_up_tokenization_spaces": True,
    "bos_token_id": 1, "eos_token_id": 2, "image_token": "<s>", "new_field": None, "_hash": "x",
    "auto_map": {}, "use_default_system_prompt": True,
}  # fmt: skip


@pytest.mark.parametrize("name", list(HONOURED))
def test_settings_that_change_no_token(folder, name):
    plain = load_tokenizer(folder)
    assert load_tokenizer(write_config(folder, **{name: HONOURED[name]})).fingerprint == (
        plain.fingerprint
    )


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"add_eos_token": True}, r"add_eos_token of the tokenizer's settings is not supported - "
         r"got add_eos_token=True at .+ - expected add_eos_token false or left out: the chat temp"),
        ({"do_lower_case": True}, "do_lower_case of the tokenizer's settings is not supported"),
        ({"sp_model_kwargs": {"nbest_size": -1}}, "sp_model_kwargs of .+ without sampling"),
        ({"auto_map": {"AutoTokenizer": "x.Y"}}, "auto_map of .+ no code comes with a tokenizer"),
        ({"add_prefix_space": False}, r"puts no space before text - got \"add_prefix_space\": fal"),
        ({"add_prefix_space": "no"}, "add_prefix_space is malformed - got 'no'"),
        ({"tokenizer_class": "T5Tokenizer"}, r"tokenizer_class of .+ - got tokenizer_class='T5Tok"
         ".+ expected one of LlamaTokenizer,.+ remove the field if the tokenizer works as one"),
        ({"tokenizer_class": ["x"]}, "tokenizer_class of the tokenizer's settings is not supp"),
        ({"eos_token": ["</s>", "<s>"]}, r"eos_token is malformed - got \['</s>', '<s>'\] at .+ - "
         "expected one token: a text, or an object with its content"),
        ({"pad_token": 0}, "pad_token is malformed - got 0"),
        ({"eos_token_id": 999999}, r"eos_token_id is outside the vocabulary - got 999999 at .+ - "
         r"expected 2, the id of the eos token, or no such field - remove the field, or name"),
        ({"pad_token_id": -1}, "pad_token_id is outside the vocabulary - got -1"),
        ({"eos_token_id": 1}, "eos_token_id is not eos_token's - got 1"),
        ({"eos_token_id": [2, 1]}, r"eos_token_id is not eos_token's - got \[2, 1\]"),
        ({"added_tokens_decoder": ["<x>"]}, "added_tokens_decoder is malformed"),
        ({"added_tokens_decoder": {"2": 7}}, "added_tokens_decoder is malformed"),
        ({"added_tokens_decoder": {"1": {"content": "<bos>", "special": True}}}, "settings give a "
         "token another id than the tokenizer has for it - got '<bos>' as 1 at .+ - expected text"),
        ({"added_tokens_decoder": {"1": "</s>"}}, "got '</s>' as 1 at .+ - expected the id 2"),
        ({"added_tokens_decoder": {"one": "<s>"}}, "got '<s>' as one at .+ - expected the id 1"),
        ({"bos_token": None, "add_bos_token": True}, "add_bos_token of the tokenizer's settings is "
         "not supported - got add_bos_token=True .+ expected false, as bos_token is null - say"),
        ({"additional_special_tokens": "<x>"}, "additional_special_tokens is malformed"),
        ({"reverse_text": 1}, r"reverse_text of .+ - got reverse_text=1 at .+ - expected only fie"
         "lds whose meaning is known - remove it if it changes no token"),
    ],
)  # fmt: skip
def test_settings_that_are_not_honoured_are_refused_by_name(folder, config, message):
    with pytest.raises(TokenizerError, match=message):
        load_tokenizer(write_config(folder, **config))


def test_special_tokens_that_two_files_name_otherwise(folder):
    (folder / "special_tokens_map.json").write_text('{"eos_token": {"content": "<s>"}}')
    message = (
        "eos_token is one token in special_tokens_map.json and another in tokenizer_config.json - "
        "got '<s>' and '</s>' at .* - programs differ in which they read"
    )
    with pytest.raises(TokenizerError, match=message):
        load_tokenizer(write_config(folder, eos_token="</s>"))
    (folder / "special_tokens_map.json").write_text('{"eos_token": "</s>", "pad_token": "<unk>"}')
    load_tokenizer(write_config(folder, eos_token={"content": "</s>"}))


def test_settings_that_give_a_bpe_token_another_id(tmp_path):
    """As where a reserved token was given a new name in tokenizer_config.json alone."""
    folder = small_bpe.gpt2(tmp_path)
    names = {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"}
    write_config(folder, **names, added_tokens_decoder={"7": {"content": "<|x|>"}})
    with pytest.raises(TokenizerError, match=r"another id .* got '<\|x\|>' as 7 .* stays text"):
        load_tokenizer(folder)


def test_settings_of_bpe_tokenizers(tmp_path):
    folder = small_bpe.opt(tmp_path)
    common = {"bos_token": "</s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    plain = load_tokenizer(write_config(folder, add_bos_token=True, **common))
    for more in ({"tokenizer_class": "GPT2TokenizerFast"}, {"add_prefix_space": False}):
        assert (
            load_tokenizer(write_config(folder, add_bos_token=True, **common, **more)).fingerprint
            == plain.fingerprint
        )
    with pytest.raises(TokenizerError, match=r"tokenizer_class of .+ expected one of GPT2Tok"):
        load_tokenizer(write_config(folder, **common, tokenizer_class="BertTokenizer"))
    small_bpe.neox(tmp_path)
    write_config(folder, eos_token="<|endoftext|>", add_prefix_space=True)
    with pytest.raises(
        TokenizerError, match='puts a space before text - got "add_prefix_space": t'
    ):
        load_tokenizer(folder)


FIELDS = (
    "bos_token", "eos_token", "unk_token", "pad_token", "bos_token_id", "eos_token_id",
    "pad_token_id", "added_tokens_decoder", "additional_special_tokens", "extra_special_tokens",
    "add_bos_token", "add_eos_token", "add_prefix_space", "tokenizer_class", "legacy", "auto_map",
    "sp_model_kwargs", "chat_template", "model_max_length", "new_field",
)  # fmt: skip
LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 10**12), st.floats(), st.text(max_size=4),
    st.sampled_from(("<s>", "</s>", "<pad>", "<|x|>", "360", "content", "special", "default")),
)  # fmt: skip
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(("content", "special", "360", "361", "2", "x")), inner),
        st.fixed_dictionaries({"content": inner, "special": st.booleans()}),
        st.fixed_dictionaries({"name": inner, "template": inner}),
    ),
    max_leaves=6,
)


@pytest.mark.parametrize("kind", ["spm", "bpe"])
def test_whatever_settings_say_is_honoured_or_refused_in_words(tmp_path, model_bytes, kind):
    if kind == "spm":
        (tmp_path / "tokenizer.model").write_bytes(model_bytes)
    else:
        small_bpe.llama3(tmp_path)
    names = st.sampled_from(("tokenizer_config.json", "special_tokens_map.json"))

    @settings(max_examples=150, deadline=None)
    @given(names, st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=4), st.booleans())
    def check(name, config, own):
        for other in ("tokenizer_config.json", "special_tokens_map.json"):
            (tmp_path / other).unlink(missing_ok=True)
        (tmp_path / name).write_text(json.dumps(config))
        try:
            tokenizer = load_tokenizer(tmp_path, template="checkpoint" if own else "tulu")
        except TuluError as error:
            assert str(error)
        else:
            encoded = encode(CHAT, tokenizer)
            assert encoded.tokens.max() < tokenizer.vocab_size and encoded.loss_mask.any()

    check()


@pytest.mark.parametrize(
    "changes",
    [
        {"pre_tokenizer": {"type": "Sequence", "pretokenizers": False}},
        {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [[]]}},
        {"post_processor": {"type": "Sequence", "processors": 7}},
        {"post_processor": {"type": "TemplateProcessing", "single": [1.5]}},
        {"model__vocab": ["a"]},
    ],
)
def test_parts_of_another_type_are_told_in_words(tmp_path, changes):
    small_bpe.change(small_bpe.llama3(tmp_path), **changes)
    message = r"tokenizer file is corrupt or cut off - got .+ at .+tokenizer.json"
    with pytest.raises(TokenizerError, match=message):
        load_tokenizer(tmp_path)


def test_a_sentencepiece_tokenizer_without_its_model_is_told_what_is_missing(shared):
    """Not first that its settings are wrong for a byte-level one."""
    message = "not supported - got BPE with byte fallback .* put its tokenizer.model beside it"
    with pytest.raises(TokenizerError, match=message):
        load_tokenizer(shared / "tokenizers" / "llama_export")


def test_a_setting_that_is_there_twice_is_refused(folder):
    """A parser would keep the second in silence."""
    (folder / "tokenizer_config.json").write_text('{"eos_token": "</s>", "eos_token": "<s>"}')
    with pytest.raises(
        TokenizerError,
        match=r"tokenizer_config.json is not a JSON object - got the field eos_token twice with",
    ):
        load_tokenizer(folder)
    (folder / "tokenizer_config.json").write_text('{"eos_token": "</s>", "eos_token": "</s>"}')
    load_tokenizer(folder)
