import json
import pickle
import shutil

import numpy as np
import pytest

from tulu_jax.chat import encode, load_tokenizer
from tulu_jax.errors import TokenizerError

from .small import train

CHAT = [{"role": "user", "content": "naïve 🐫"}, {"role": "assistant", "content": "A  camel.\n  x"}]


def write_config(folder, **config):
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def test_llama(llama):
    assert (llama.bos_id, llama.eos_id, llama.unk_id, llama.pad_id) == (1, 2, 0, 32000)
    assert llama.vocab_size == 32001
    assert llama.piece(32000) == "<pad>" and llama.piece(29871) == "▁"


def test_stories(stories):
    assert (stories.vocab_size, stories.pad_id) == (512, None)


def test_folder_and_file_are_the_same_tokenizer(folder):
    write_config(folder, pad_token="<pad>")
    by_folder, by_file = load_tokenizer(folder), load_tokenizer(folder / "tokenizer.model")
    assert by_folder.fingerprint == by_file.fingerprint
    assert by_folder.vocab_size == by_file.vocab_size == by_folder.pad_id + 1


def test_pad_may_be_a_piece_or_an_object_or_the_models_own(folder):
    assert load_tokenizer(folder).pad_id is None
    assert load_tokenizer(write_config(folder, pad_token="<unk>")).pad_id == 0
    added = load_tokenizer(write_config(folder, pad_token={"content": "<pad>"}))
    assert added.piece(added.pad_id) == "<pad>"
    (folder / "tokenizer_config.json").unlink()
    (folder / "tokenizer.model").write_bytes(train(pad_id=3))
    own = load_tokenizer(folder)
    assert (own.pad_id, own.piece(3)) == (3, "<pad>")
    assert own.vocab_size == own.model.vocab_size()


def test_padding_that_is_eos_leaves_eos_trained(folder):
    """Zephyr's tokenizer is so; masks come from spans and rows are padded by segment."""
    tokenizer = load_tokenizer(write_config(folder, pad_token="</s>"))
    assert tokenizer.pad_id == tokenizer.eos_id == 2
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    encoded = encode(messages, tokenizer)
    assert encoded.tokens[-1] == 2 and encoded.loss_mask[-1]
    assert np.array_equal(encoded.tokens, encode(messages, load_tokenizer(folder)).tokens)


def test_fingerprint_changes_with_what_changes_tokens(folder):
    plain = load_tokenizer(folder)
    assert len(plain.fingerprint) == 64
    assert load_tokenizer(folder, "paper").fingerprint != plain.fingerprint
    assert load_tokenizer(write_config(folder, model_max_length=9)).fingerprint == plain.fingerprint
    assert load_tokenizer(write_config(folder, pad_token="<pad>")).fingerprint != plain.fingerprint
    (folder / "tokenizer_config.json").unlink()
    (folder / "tokenizer.model").write_bytes(train(vocab_size=350))
    assert load_tokenizer(folder).fingerprint != plain.fingerprint


OF_BEFORE = {
    ("llama", "hf"): "e89127b4605c43678c50ecd6507c32929255d439f41a9a4d073a51f807a9978e",
    ("llama", "paper"): "28d42643a17187ed2bd745066132344d424c401756fe06d99ae0eb95416db5e3",
    ("pythia", "hf"): "e4b8791b918157c7ef7a22d8295d53a31485473c45cd4a5475df35aa5b4b6fd2",
    ("opt", "paper"): "c232f84ab2c1378e0fccfa6020e8378825551e879a399f81475d1af5cde5c578",
}
"""Fingerprints of real tokenizers from before there was a choice of chat templates: stores and
checkpoints hold them."""


@pytest.mark.parametrize(("name", "encoding"), list(OF_BEFORE))
def test_stores_and_checkpoints_of_before_are_still_of_the_same_tokenizer(shared, name, encoding):
    tokenizer = load_tokenizer(shared / "tokenizers" / name, encoding)
    assert tokenizer.fingerprint == OF_BEFORE[name, encoding]
    if encoding == "hf":
        other = load_tokenizer(shared / "tokenizers" / name, template="zephyr")
        assert other.fingerprint != tokenizer.fingerprint


def test_decode(small, small_paper):
    tokens = encode(CHAT, small).tokens
    text = "<|user|>\nnaïve 🐫\n<|assistant|>\nA  camel.\n  x"
    assert small.decode(tokens) == text
    assert small.decode(tokens, skip_special=False) == f"<s>{text}</s>"
    assert small_paper.decode(encode(CHAT, small_paper).tokens) == text
    assert small.decode([]) == ""


def test_decode_of_a_continuation_keeps_its_space(small):
    ids = small.encode_text("camel")
    assert small.decode(ids) == "camel"
    assert small.decode(ids, after=True) == " camel"
    assert small.decode([small.eos_id, *ids], skip_special=False) == "</s> camel"


def test_decode_of_added_padding_and_broken_bytes(folder):
    tokenizer = load_tokenizer(write_config(folder, pad_token="<pad>"))
    camel = [tokenizer.model.piece_to_id(f"<0x{byte:02X}>") for byte in "🐫".encode()]
    assert tokenizer.decode([*camel, tokenizer.pad_id]) == "🐫"
    assert tokenizer.decode([tokenizer.pad_id], skip_special=False) == "<pad>"
    assert "\ufffd" in tokenizer.decode(camel[:2])
    assert tokenizer.decode(np.array(camel, np.int32)) == "🐫"


@pytest.mark.parametrize("token", [-1, 10**6])
def test_ids_outside_the_vocabulary(small, token):
    with pytest.raises(
        TokenizerError, match=rf"no such token id - got {token} at .+ - expected 0 to "
    ):
        small.decode([5, token])
    with pytest.raises(TokenizerError, match="no such token id"):
        small.piece(token)


def test_survives_pickling(small):
    copy = pickle.loads(pickle.dumps(small))
    assert copy.fingerprint == small.fingerprint
    assert encode(CHAT, copy).tokens.tolist() == encode(CHAT, small).tokens.tolist()


def test_run_folder_keeps_its_tokenizer_one_level_down(folder, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(folder, run / "tokenizer")
    assert load_tokenizer(run).fingerprint == load_tokenizer(folder).fingerprint


def test_missing(tmp_path):
    with pytest.raises(
        TokenizerError, match=r"folder does not exist - got .*nowhere - expected a folder"
    ):
        load_tokenizer(tmp_path / "nowhere")
    with pytest.raises(TokenizerError, match=r"holds no tokenizer - got an empty folder at"):
        load_tokenizer(tmp_path)
    (tmp_path / "merges.txt").touch()
    with pytest.raises(TokenizerError, match=r"holds no tokenizer - got merges.txt at"):
        load_tokenizer(tmp_path)


def test_unknown_encoding(folder):
    with pytest.raises(
        TokenizerError, match=r"unknown encoding - got 'fast' - expected 'hf' or 'paper'"
    ):
        load_tokenizer(folder, "fast")


def test_corrupt_model(folder, model_bytes):
    file = folder / "tokenizer.model"
    for data in (
        b"",
        b"version https://git-lfs.github.com",
        model_bytes[: len(model_bytes) // 2],
        b"\x00" * 9,
    ):
        file.write_bytes(data)
        with pytest.raises(
            TokenizerError, match=r"corrupt or cut off - got .+ at .+tokenizer.model"
        ):
            load_tokenizer(folder)


def test_special_tokens_that_are_named_and_not_there(folder):
    write_config(folder, additional_special_tokens=["<a>", {"content": "<b>"}])
    with pytest.raises(
        TokenizerError, match=r"names special tokens that it lacks - got '<a>', '<b>' at .+config"
    ):
        load_tokenizer(folder)


def test_text_in_place_of_a_model(folder):
    (folder / "tokenizer.model").write_bytes(b'{"error": "not found"}')
    with pytest.raises(TokenizerError, match=r"got text that begins with '{\"error\": \"not fou"):
        load_tokenizer(folder)


def test_model_that_sentencepiece_refuses(folder, model_bytes):
    second_bos = b"\x0a\x05\x0a\x03<s>"
    (folder / "tokenizer.model").write_bytes(model_bytes + second_bos)
    with pytest.raises(TokenizerError, match=r"model is corrupt - got .*<s> is already defined"):
        load_tokenizer(folder)


@pytest.mark.parametrize("share", range(1, 20))
def test_model_cut_off_anywhere(folder, model_bytes, share):
    (folder / "tokenizer.model").write_bytes(model_bytes[: len(model_bytes) * share // 20])
    with pytest.raises(TokenizerError, match="corrupt"):
        load_tokenizer(folder)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"normalization_rule_name": "nmt_nfkc"}, "rewrites text - got a normalisation table"),
        ({"remove_extra_whitespaces": True}, "rewrites text - got remove_extra_whitespaces"),
        ({"byte_fallback": False, "vocab_size": 120}, "no byte fallback"),
        ({"treat_whitespace_as_suffix": True}, "treats spaces unusually"),
        ({"user_defined_symbols": ["\n\n"]}, r"joins newlines to other text.+ got 1 such pieces"),
        ({"bos_id": -1}, "has no bos token - got none at"),
    ],
)
def test_models_that_would_be_silently_wrong(folder, options, message):
    (folder / "tokenizer.model").write_bytes(train(**options))
    with pytest.raises(TokenizerError, match=message):
        load_tokenizer(folder)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"pad_token": ""}, "pad_token is empty"),
        ({"eos_token": "<|im_end|>"}, r"no eos token - got '<\|im_end\|>', which is not a piece"),
        (
            {"added_tokens_decoder": {"360": "<|x|>"}, "pad_token": "<pad>"},
            r"adds tokens.+ got \{360: '<\|x\|>'\}",
        ),
        (
            {"added_tokens_decoder": {"9999": {"content": "<|x|>"}}},
            "adds tokens that its model lacks",
        ),
    ],
)
def test_configs_that_do_not_fit_the_model(folder, config, message):
    with pytest.raises(TokenizerError, match=message):
        load_tokenizer(write_config(folder, **config))


def test_older_files_name_special_tokens(folder):
    (folder / "special_tokens_map.json").write_text('{"pad_token": "[PAD]"}')
    size = load_tokenizer(folder).model.vocab_size()
    (folder / "added_tokens.json").write_text(json.dumps({"[PAD]": size}))
    assert load_tokenizer(folder).piece(size) == "[PAD]"
    (folder / "added_tokens.json").write_text(json.dumps({"[PAD]": size, "<|x|>": size + 1}))
    with pytest.raises(TokenizerError, match=r"adds tokens that its model lacks - got .+<\|x\|>"):
        load_tokenizer(folder)


def test_config_that_is_not_json(folder):
    (folder / "tokenizer_config.json").write_text("{")
    with pytest.raises(
        TokenizerError, match=r"tokenizer_config.json is not a JSON object - got .+ at "
    ):
        load_tokenizer(folder)
    (folder / "tokenizer_config.json").write_text("[]")
    with pytest.raises(TokenizerError, match=r"is not a JSON object - got a JSON list"):
        load_tokenizer(folder)


def test_added_pad_is_left_out_for_a_model_without_a_row_for_it(shared):
    tokenizer = load_tokenizer(shared / "tokenizers" / "llama")
    assert (tokenizer.vocab_size, tokenizer.pad_id) == (32001, 32000)
    fitted = tokenizer.fitting(32000)
    assert (fitted.vocab_size, fitted.pad_id) == (32000, None)
    assert fitted.encode_text("two camels") == tokenizer.encode_text("two camels")
    for vocab_size in (32001, 32064, 31999):
        assert tokenizer.fitting(vocab_size) is tokenizer


@pytest.mark.parametrize("name", ["small", "neox", "opt", "llama3"])
def test_the_bytes_of_tokens_are_those_of_their_text(name, request):
    tokenizer = request.getfixturevalue(name)
    text = "Once, a naïve 猫\n said  “hi”🙂"
    ids = tokenizer.encode_text(text)
    found = b"".join(map(tokenizer.token_bytes, ids)).decode()
    assert found.removeprefix(tokenizer.opening("x")[:-1]) == text
    assert tokenizer.token_bytes(tokenizer.eos_id).decode() == tokenizer.piece(tokenizer.eos_id)
