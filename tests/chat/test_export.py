import json

import numpy as np
import pytest
from hypothesis import given, settings

from tulu_jax.chat import encode, encode_prompt, load_tokenizer, render, save_tokenizer_files
from tulu_jax.chat.spm_export import tokenizer_json
from tulu_jax.chat.template import segments_text
from tulu_jax.errors import TokenizerError

from .small import train
from .strategies import conversations
from .test_encode import some_golden_rows

NAMES = ["small", "llama", "stories"]


@pytest.fixture(scope="module")
def auto(tmp_path_factory, request):
    """(our tokenizer, transformers' own loaded from our files), by name."""
    transformers = pytest.importorskip("transformers")
    loaded = {}

    def load(name):
        if name not in loaded:
            ours = request.getfixturevalue(name)
            folder = tmp_path_factory.mktemp(name)
            save_tokenizer_files(ours, folder)
            loaded[name] = ours, transformers.AutoTokenizer.from_pretrained(folder)
        return loaded[name]

    return load


def template_tokens(tokenizer, messages, **options):
    out = tokenizer.apply_chat_template(messages, tokenize=True, return_dict=True, **options)
    return out["input_ids"]


@pytest.mark.parametrize("name", ["llama", "stories"])
def test_transformers_gives_our_tokens_on_every_golden_conversation(shared, auto, name):
    ours, theirs = auto(name)
    wrong = {"text": set(), "template": set(), "mask": set(), "prompt": set(), "decode": set()}
    for row_id, messages, *_rest in some_golden_rows(shared, "llama"):
        encoded = encode(messages, ours)
        tokens = encoded.tokens.tolist()
        if theirs(segments_text(render(messages), "</s>"))["input_ids"] != tokens:
            wrong["text"].add(row_id)
        out = theirs.apply_chat_template(
            messages, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
        )
        if out["input_ids"] != tokens:
            wrong["template"].add(row_id)
        if out["assistant_masks"] != encoded.loss_mask.astype(int).tolist():
            wrong["mask"].add(row_id)
        prompt = template_tokens(theirs, messages, add_generation_prompt=True)
        if prompt != encode_prompt(messages, ours).tolist():
            wrong["prompt"].add(row_id)
        if theirs.decode(tokens, skip_special_tokens=True).lstrip(" ") != ours.decode(tokens):
            wrong["decode"].add(row_id)
    # The one conversation whose text holds literal special tokens: here they stay text.
    literal = {"edge_3"}
    assert wrong == {
        "text": literal, "template": literal, "mask": literal, "prompt": literal, "decode": set(),
    }  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_transformers_gives_our_tokens_on_random_text(auto, name):
    ours, theirs = auto(name)
    assert len(theirs) == ours.vocab_size
    assert theirs.pad_token_id == ours.pad_id

    @settings(max_examples=100, deadline=None)
    @given(conversations())
    def check(messages):
        tokens = encode(messages, ours).tokens.tolist()
        assert theirs(segments_text(render(messages), "</s>"))["input_ids"] == tokens
        assert template_tokens(theirs, messages) == tokens
        prompt = template_tokens(theirs, messages, add_generation_prompt=True)
        assert prompt == encode_prompt(messages, ours).tolist()

    check()


def test_template_masks_equal_ours(auto):
    ours, theirs = auto("small")

    @settings(max_examples=100, deadline=None)
    @given(conversations())
    def check(messages):
        out = theirs.apply_chat_template(
            messages, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
        )
        theirs_mask = np.array(out["assistant_masks"], bool)
        assert np.array_equal(theirs_mask, encode(messages, ours).loss_mask)

    check()


def test_template_refuses_unknown_roles(auto):
    _, theirs = auto("small")
    with pytest.raises(Exception, match="unknown role bot: expected system, user or assistant"):
        template_tokens(theirs, [{"role": "bot", "content": "x"}])


@pytest.mark.parametrize("name", NAMES)
def test_a_copy_is_the_same_tokenizer(tmp_path, request, name):
    ours = request.getfixturevalue(name)
    files = save_tokenizer_files(ours, tmp_path / "new" / "folder")
    assert [f.name for f in files] == [
        "tokenizer.model", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
        "chat_template.jinja",
    ]  # fmt: skip
    copy = load_tokenizer(tmp_path / "new" / "folder")
    assert copy.fingerprint == ours.fingerprint
    assert (copy.vocab_size, copy.pad_id) == (ours.vocab_size, ours.pad_id)
    config = json.loads(files[2].read_text(encoding="utf-8"))
    assert config["chat_template"] == files[4].read_text(encoding="utf-8")


def test_llama_equals_a_tokenizer_json_that_is_known_to_be_right(shared, llama):
    from tokenizers import Tokenizer

    known_file = shared / "tokenizers/llama_export/tokenizer.json"
    known = json.loads(known_file.read_text(encoding="utf-8"))
    ours = tokenizer_json(llama)
    assert ours["model"]["vocab"] == known["model"]["vocab"]
    assert set(ours["model"]["merges"]) == set(known["model"]["merges"])
    for part in ("added_tokens", "pre_tokenizer", "post_processor", "decoder", "normalizer"):
        assert ours[part] == known[part]
    exported, reference = Tokenizer.from_str(json.dumps(ours)), Tokenizer.from_file(str(known_file))
    for n in range(1, 200):
        text = "a:\n" + " " * n + "for"
        ids = [1, *llama.encode_text(text)]
        assert exported.encode(text).ids == reference.encode(text).ids == ids


def test_options_that_a_demo_tokenizer_may_have(folder):
    for options in ({"split_digits": False}, {"allow_whitespace_only_pieces": True}, {"pad_id": 3}):
        (folder / "tokenizer.model").write_bytes(train(**options))
        save_tokenizer_files(load_tokenizer(folder), folder / "out")


def test_folder_that_cannot_be_written(small, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(TokenizerError, match=r"cannot be written - got File exists at .+file"):
        save_tokenizer_files(small, tmp_path / "file")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model_type": "unigram"}, "cannot be exported.+ got a unigram model"),
        ({"add_dummy_prefix": False}, "cannot be exported.+ add_dummy_prefix=False"),
        ({"user_defined_symbols": ["<|user|>"]}, "cannot be exported.+ got 1 user-defined"),
    ],
)
def test_models_that_cannot_be_exported(folder, options, message):
    (folder / "tokenizer.model").write_bytes(train(**options))
    tokenizer = load_tokenizer(folder)
    assert encode([{"role": "user", "content": "camel"}], tokenizer).tokens[0] == tokenizer.bos_id
    with pytest.raises(TokenizerError, match=message):
        save_tokenizer_files(tokenizer, folder / "out")
    assert not (folder / "out").exists()


def test_an_export_that_segments_otherwise_is_refused(small, tmp_path, monkeypatch):
    monkeypatch.setattr("tulu_jax.chat.spm_export._merges", lambda tokenizer: [])
    with pytest.raises(TokenizerError, match=r"not segment as tokenizer.model does - got .+ text"):
        save_tokenizer_files(small, tmp_path / "out")
    assert not (tmp_path / "out").exists()
