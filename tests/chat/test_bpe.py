import doctest
import json
import pickle
import shutil

import numpy as np
import pytest
from hypothesis import given, settings

from tulu_jax.chat import (
    bpe_file,
    check_bos,
    copy_tokenizer_files,
    encode,
    encode_many,
    encode_prompt,
    holds_tokenizer,
    load_tokenizer,
    render,
)
from tulu_jax.chat.template import segments_text
from tulu_jax.errors import GuardError, TokenizerError

from . import small_bpe
from .small_bpe import change
from .strategies import SPECIAL_TEXTS, conversations
from .test_encode import CHAT, differing, golden_rows

NAMES = ["neox", "opt", "llama3", "pythia", "real_opt"]


def write_config(folder, **config):
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def whole_text(messages, tokenizer, **options):
    """BOS and the library's tokens of each stretch of text between two EOS."""
    parts = segments_text(render(messages, **options), "\0EOS\0").split("\0EOS\0")
    tokens = [*tokenizer.start_ids]
    for index, part in enumerate(parts):
        tokens += [tokenizer.eos_id] if index else []
        tokens += tokenizer._backend.encode(part, add_special_tokens=False).ids
    return tokens


def test_docstring_examples():
    assert doctest.testmod(bpe_file).failed == 0


def test_every_golden_row_of_pythia(shared, pythia):
    assert differing(shared, "pythia", pythia) == []


def test_every_golden_row_of_opt(shared):
    """Those are of the slow tokenizer, literal special tokens included: the encoding `paper`."""
    tokenizer = load_tokenizer(shared / "tokenizers/opt", "paper")
    assert differing(shared, "opt", tokenizer) == []


def test_opt_keeps_the_newline_after_eos_and_literal_specials(shared, real_opt):
    row = next(row for row in golden_rows(shared, "opt") if row[0] == "edge_3")
    _, messages, _, theirs, _, _ = row
    ours = encode(messages, real_opt)
    assert theirs.count(real_opt.eos_id) == 5
    assert ours.tokens.tolist().count(real_opt.eos_id) == 3  # BOS and two turns
    assert "</s> literal <s> and <|assistant|> inside" in real_opt.decode(ours.tokens)
    newline = real_opt.encode_text("\n")
    assert ours.tokens[np.flatnonzero(ours.tokens == real_opt.eos_id)[1] + 1] == newline[0]


def test_special_ids(pythia, real_opt, llama3):
    assert (pythia.bos_id, pythia.eos_id, pythia.pad_id, pythia.vocab_size) == (
        None, 0, None, 50277,
    )  # fmt: skip
    assert (real_opt.bos_id, real_opt.eos_id, real_opt.unk_id, real_opt.pad_id) == (2, 2, 3, 1)
    assert real_opt.vocab_size == 50265
    assert (pythia.start_ids, real_opt.start_ids) == ([], [2])
    assert llama3.piece(llama3.bos_id) == "<|begin_of_text|>"
    assert llama3.special_ids == {llama3.bos_id, llama3.eos_id, llama3.pad_id}


def test_padding_may_be_added(shared, tmp_path, pythia):
    shutil.copy(shared / "tokenizers/pythia/tokenizer.json", tmp_path)
    padded = load_tokenizer(write_config(tmp_path, eos_token="<|endoftext|>", pad_token="<pad>"))
    assert (padded.pad_id, padded.vocab_size) == (50277, 50278)
    assert padded.piece(50277) == "<pad>"
    assert padded.fingerprint != pythia.fingerprint
    assert padded.fitting(50277).fingerprint == pythia.fingerprint
    assert padded.fitting(50304) is padded
    assert padded.encode_text("<pad>") == pythia.encode_text("<pad>")


@pytest.mark.parametrize("name", NAMES)
def test_equals_the_whole_text_on_random_conversations(name, request):
    tokenizer = request.getfixturevalue(name)

    @settings(max_examples=60, deadline=None)
    @given(conversations(SPECIAL_TEXTS), conversations())
    def check(special, ordinary):
        for messages in (special, ordinary):
            encoded = encode(messages, tokenizer)
            tokens = encoded.tokens.tolist()
            assert tokens == whole_text(messages, tokenizer)
            answers = sum(message["role"] == "assistant" for message in messages)
            assert tokens.count(tokenizer.eos_id) == answers + (
                tokenizer.bos_id == tokenizer.eos_id
            )
            prompt = encode_prompt(messages, tokenizer).tolist()
            assert prompt == whole_text(messages, tokenizer, generation_prompt=True)
            more = encode([*messages, {"role": "assistant", "content": "x"}], tokenizer)
            assert more.tokens[: len(prompt)].tolist() == prompt
            check_bos(encoded.tokens, tokenizer)

    check()


@pytest.mark.parametrize("name", NAMES)
def test_loss_falls_on_answers(name, request):
    tokenizer = request.getfixturevalue(name)
    chat = [
        {"role": "user", "content": "Hi."},
        {"role": "assistant", "content": "A camel.\n\nYes!"},
    ]
    encoded = encode(chat * 2, tokenizer)
    eos = tokenizer.piece(tokenizer.eos_id)
    trained = tokenizer.decode(encoded.tokens[encoded.loss_mask], skip_special=False)
    assert trained == f"A camel.\n\nYes!{eos}\nA camel.\n\nYes!{eos}"
    whole = tokenizer.decode(encoded.tokens)
    assert whole == "\n".join(["<|user|>\nHi.\n<|assistant|>\nA camel.\n\nYes!"] * 2)


def test_llama3_has_bos_exactly_once_and_joins_line_ends(llama3):
    encoded = encode(CHAT * 3, llama3)
    assert encoded.tokens.tolist().count(llama3.bos_id) == 1
    assert encoded.tokens[0] == llama3.bos_id
    ids = llama3.encode_text("<|user|>\n")
    assert "|>\n" in [llama3.decode([i]) for i in ids]
    empty = encode([{"role": "user", "content": ""}, CHAT[1]], llama3)
    assert llama3.decode(empty.tokens[empty.loss_mask]) == "4"


def test_check_bos(opt, neox):
    tokens = encode(CHAT, opt).tokens
    assert tokens.tolist().count(opt.bos_id) == 2  # BOS, and EOS, which is the same
    check_bos(tokens, opt)
    with pytest.raises(GuardError, match="more than one BOS - got BOS at positions 0 and 1"):
        check_bos(np.concatenate([tokens[:1], tokens]), opt)
    with pytest.raises(GuardError, match="does not start with BOS"):
        check_bos(tokens[1:], opt)
    check_bos(encode(CHAT, neox).tokens, neox)


def test_decode_and_pieces(neox):
    camel = neox.encode_text("🐫  x")
    assert neox.decode(camel) == "🐫  x" and neox.decode(camel, after=True) == "🐫  x"
    assert "\ufffd" in neox.decode(camel[:1])
    assert neox.piece(neox.encode_text(" camel")[0]).startswith("Ġ")
    assert neox.decode([neox.eos_id, *camel], skip_special=False) == "<|endoftext|>🐫  x"
    assert neox.decode(neox.encode_text("e\u0301")) == "é"  # NFC, as Pythia was trained
    with pytest.raises(TokenizerError, match=f"no such token id - got {neox.vocab_size} at"):
        neox.decode([neox.vocab_size])


def test_a_pickled_copy_still_keeps_special_text(neox):
    chat = [{"role": "user", "content": "<|endoftext|>"}]
    tokens = encode(chat, neox).tokens.tolist()
    copy = pickle.loads(pickle.dumps(neox))
    assert encode(chat, copy).tokens.tolist() == tokens
    assert copy.fingerprint == neox.fingerprint and neox.eos_id not in tokens


def test_threads_give_the_same(neox):
    batch = [CHAT, [{"role": "user", "content": "a 🐫\n b"}]] * 40
    one, two = encode_many(batch, neox, threads=1), encode_many(batch, neox, threads=2)
    assert [e.tokens.tolist() for e in one] == [e.tokens.tolist() for e in two]


def test_what_a_folder_holds_decides(tmp_path, model_bytes):
    small_bpe.opt(tmp_path)
    by_vocab = load_tokenizer(tmp_path)
    assert by_vocab.path.name == "vocab.json"
    small_bpe.neox(tmp_path)
    by_definition = load_tokenizer(tmp_path)
    assert by_definition.path.name == "tokenizer.json"
    assert load_tokenizer(tmp_path, "paper").path.name == "vocab.json"
    assert load_tokenizer(tmp_path / "vocab.json").fingerprint == by_vocab.fingerprint
    copies = tmp_path / "run" / "tokenizer"
    names = ["tokenizer.json", "vocab.json", "merges.txt"]
    assert [f.name for f in copy_tokenizer_files(tmp_path, copies)] == names
    assert copy_tokenizer_files(copies, copies) == []
    assert load_tokenizer(copies.parent).fingerprint == by_definition.fingerprint
    shutil.rmtree(copies)
    copy_tokenizer_files(by_vocab.path, copies)
    assert load_tokenizer(copies.parent).fingerprint == by_vocab.fingerprint
    (tmp_path / "tokenizer.model").write_bytes(model_bytes)
    assert load_tokenizer(tmp_path).path.name == "tokenizer.model"
    (tmp_path / "other.model").write_bytes(model_bytes)
    copied = copy_tokenizer_files(tmp_path / "other.model", tmp_path / "alone")
    assert copied[0] == tmp_path / "alone" / "tokenizer.model"
    assert holds_tokenizer(tmp_path) and not holds_tokenizer(tmp_path / "nowhere")


def test_fingerprint_is_of_what_changes_tokens(tmp_path, neox):
    folder = small_bpe.neox(tmp_path)
    assert load_tokenizer(folder).fingerprint == neox.fingerprint
    change(folder, truncation={"max_length": 9, "strategy": "LongestFirst", "stride": 0,
                               "direction": "Right"}, decoder=None)  # fmt: skip
    assert load_tokenizer(folder).fingerprint == neox.fingerprint
    change(folder, normalizer=None)
    assert load_tokenizer(folder).fingerprint != neox.fingerprint


LOWERCASE = {"type": "Lowercase"}
SPACED = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
AFTER_LINES = {
    "type": "Sequence",
    "pretokenizers": [
        {
            "type": "Split",
            "pattern": {"Regex": r"(?<=\n).|\n|[^\n]+"},
            "behavior": "Isolated",
            "invert": False,
        },
        {**SPACED, "add_prefix_space": False, "use_regex": False},
    ],
}
AROUND = {
    "type": "TemplateProcessing",
    "single": [{"Sequence": {"id": "A"}}, {"SpecialToken": {"id": "<|endoftext|>"}}],
}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"model__type": "WordPiece"},
            "not supported - got WordPiece at .+tokenizer.json",
        ),
        ({"model__type": "Unigram"}, "model is not supported - got Unigram"),
        ({"model__byte_fallback": True}, "got BPE with byte fallback.+put its tokenizer.model"),
        ({"model": {}}, "corrupt or cut off - got no model with a vocabulary"),
        ({"model__merges": 3}, "corrupt or cut off - got TypeError in vocabulary or merges"),
        ({"model__merges": [["zzz", "qqq"]]}, "corrupt or cut off - got .+zzz"),
        ({"model__dropout": 0.1}, r"merges in an unusual way - got \{'dropout': 0.1\}"),
        ({"normalizer": LOWERCASE}, r"rewrites text - got \{\"type\": \"Lowercase\"\}"),
        ({"pre_tokenizer": {"type": "Whitespace"}}, "does not take text as bytes"),
        ({"pre_tokenizer": None}, "does not take text as bytes"),
        ({"pre_tokenizer": SPACED}, "puts a space before text"),
        ({"pre_tokenizer": AFTER_LINES}, "joins newlines to the text after them"),
        ({"post_processor": AROUND}, r"puts tokens around text.+'text', '<\|endoftext\|>'"),
        ({"post_processor": {"type": "BertProcessing"}}, "puts tokens around text"),
        ({"added_tokens": [{"id": 0}]}, "added tokens without content"),
        ({"added_tokens": [{"content": "x"}]}, "added tokens without id"),
        ({"added_tokens": [{"id": 500, "content": "a\n", "special": False}]}, "joins newlines to"),
    ],
)
def test_definitions_that_would_be_silently_wrong(tmp_path, changes, message):
    folder = change(small_bpe.neox(tmp_path), **changes)
    with pytest.raises(TokenizerError, match=message):
        load_tokenizer(folder)


def test_added_tokens_with_a_gap_in_their_ids(tmp_path):
    folder = small_bpe.neox(tmp_path)
    content = json.loads((folder / "tokenizer.json").read_text())
    content["added_tokens"][-1]["id"] += 7
    small_bpe.write(folder, content)
    with pytest.raises(TokenizerError, match="added token has another id than the file says - got"):
        load_tokenizer(folder)


def test_vocabularies_that_lose_text(tmp_path):
    folder = small_bpe.neox(tmp_path)
    vocab = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    lacking = {piece: token for piece, token in vocab.items() if piece != "Ċ"}
    change(folder, model__vocab=lacking)
    with pytest.raises(TokenizerError, match=r"lacks bytes.+ no piece for 1 bytes, e.g. 0x0A"):
        load_tokenizer(folder)
    change(folder, model__vocab=vocab | {"x": vocab["y"]})
    with pytest.raises(TokenizerError, match="repeated or negative ids"):
        load_tokenizer(folder)


def test_pieces_that_join_newlines_to_text(tmp_path):
    folder = small_bpe.neox(tmp_path)
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    last = max(model["vocab"].values())
    pieces = {**model["vocab"], "ĊT": last + 3}
    change(folder, model__vocab=pieces, model__merges=[*model["merges"], ["Ċ", "T"]])
    with pytest.raises(TokenizerError, match=r"joins newlines to the text after.+ got '\\nT'"):
        load_tokenizer(folder)


def test_a_special_token_that_text_becomes(tmp_path):
    folder = small_bpe.neox(tmp_path)
    write_config(folder, eos_token="<|endoftext|>", pad_token=".")
    with pytest.raises(TokenizerError, match=r"cannot keep the text of a special token.+ got '.'"):
        load_tokenizer(folder)


@pytest.mark.parametrize("content", ["", "{", "[]", "[" * 10**5])
def test_files_that_are_not_json_objects(tmp_path, content):
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(TokenizerError, match=r"tokenizer.json is not a JSON object - got "):
        load_tokenizer(tmp_path)


def test_gpt2_files_as_windows_saves_them(tmp_path):
    """After a byte order mark the line of the version was taken for a merge."""
    folder = small_bpe.opt(tmp_path)
    before = load_tokenizer(folder).fingerprint
    for name in ("merges.txt", "vocab.json"):
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(b"\xef\xbb\xbf" + data.replace(b"\n", b"\r\n"))
    assert load_tokenizer(folder).fingerprint == before


def test_gpt2_files(tmp_path):
    folder = small_bpe.opt(tmp_path)
    merges = folder / "merges.txt"
    text = merges.read_text(encoding="utf-8")
    merges.write_text(text.replace("\n", "\na b c\n", 1), encoding="utf-8")
    with pytest.raises(TokenizerError, match=r"corrupt.+ got 'a b c' at .+merges.txt, line 2"):
        load_tokenizer(folder)
    merges.write_bytes(b"\xff\n")
    with pytest.raises(TokenizerError, match=r"corrupt.+ got .+ at .+merges.txt"):
        load_tokenizer(folder)
    merges.unlink()
    with pytest.raises(TokenizerError, match=r"holds vocab.json but no merges.txt - at"):
        load_tokenizer(folder)
    merges.write_text(text, encoding="utf-8")
    write_config(folder, add_prefix_space=True)
    with pytest.raises(TokenizerError, match=r"puts a space before text - got .add_prefix_space"):
        load_tokenizer(folder)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"eos_token": "<|im_end|>"}, r"no eos token - got '<\|im_end\|>', which is not one of"),
        ({"pad_token": ""}, "pad_token is empty"),
        ({"add_bos_token": True}, "no bos token - got none at"),
        ({"add_bos_token": True, "bos_token": "<s>"}, "no bos token - got '<s>'"),
    ],
)
def test_configs_that_do_not_fit(tmp_path, config, message):
    folder = write_config(small_bpe.neox(tmp_path), **config)
    with pytest.raises(TokenizerError, match=message):
        load_tokenizer(folder)


def test_padding_that_is_eos_leaves_eos_trained(tmp_path):
    folder = small_bpe.neox(tmp_path)
    plain = load_tokenizer(folder)
    padded = load_tokenizer(write_config(folder, pad_token="<|endoftext|>"))
    assert padded.pad_id == padded.eos_id == plain.eos_id
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    encoded = encode(messages, padded)
    assert encoded.tokens[-1] == padded.eos_id and encoded.loss_mask[-1]
    assert np.array_equal(encoded.tokens, encode(messages, plain).tokens)


def test_settings_decide_about_bos(tmp_path, llama3):
    folder = small_bpe.neox(tmp_path)
    eos = "<|endoftext|>"
    write_config(folder, eos_token=eos, bos_token=eos, unk_token=eos)
    named = load_tokenizer(folder)
    assert (named.bos_id, named.eos_id, named.unk_id) == (None, 0, 0)
    write_config(folder, eos_token=eos, bos_token=eos, add_bos_token=True)
    assert load_tokenizer(folder).bos_id == 0
    folder = small_bpe.llama3(tmp_path)
    write_config(folder, eos_token="<|end_of_text|>", add_bos_token=False)
    assert load_tokenizer(folder).bos_id is None
    write_config(folder)
    with pytest.raises(TokenizerError, match=r"no eos token - got none at .+ name it in"):
        load_tokenizer(folder)


def test_encoding_paper_is_of_slow_tokenizers(tmp_path):
    with pytest.raises(TokenizerError, match=r"slow tokenizers of LLaMA and OPT - got token"):
        load_tokenizer(small_bpe.neox(tmp_path), "paper")
