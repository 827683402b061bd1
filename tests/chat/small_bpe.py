"""Small byte-level BPE tokenizers, in the shapes of Pythia's, OPT's and Llama 3's files."""

import json

from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers, processors, trainers

from tulu_jax.chat.bpe_file import LLAMA3_REGEX

from .small import CORPUS

TEXTS = [
    *CORPUS,
    "\n".join(CORPUS),
    "x = [1, 2]\n\n\n    y =  3.\n\n\tz!\n\n",
    "one.\n\ntwo?\n",
] * 4
ROLES = ["<|user|>\n...\n<|assistant|>\n"] * 20


def train(split, special, size=420, **options):
    """A trained tokenizer whose special tokens come first, as the library's own object."""
    tokenizer = Tokenizer(models.BPE(**options))
    tokenizer.pre_tokenizer = split
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*TEXTS, *ROLES], trainer)
    return tokenizer


def gpt2_split():
    return pre_tokenizers.ByteLevel(add_prefix_space=False)


def neox(folder):
    """Pythia's shape: no BOS, and added tokens for runs of spaces."""
    tokenizer = train(gpt2_split(), ["<|endoftext|>", "<|padding|>"])
    tokenizer.add_tokens([AddedToken(" " * n, normalized=True) for n in (3, 2)])
    content = json.loads(tokenizer.to_str()) | {"normalizer": {"type": "NFC"}}
    return write(folder, content)


def llama3(folder):
    """Llama 3's shape: its regular expression, whole words first, BOS by the post-processor."""
    split = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(LLAMA3_REGEX), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])  # fmt: skip
    tokenizer = train(split, [], ignore_merges=True)
    tokenizer.add_special_tokens(["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"])
    start = "<|begin_of_text|>"
    tokenizer.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=True),
        processors.TemplateProcessing(
            single=f"{start} $A", pair=f"{start} $A {start} $B:1",
            special_tokens=[(start, tokenizer.token_to_id(start))],
        ),
    ])  # fmt: skip
    config = {"bos_token": start, "eos_token": "<|end_of_text|>", "pad_token": "<|eot_id|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return write(folder, json.loads(tokenizer.to_str()))


def llama3_instruct(folder):
    """Llama 3's shape with the special tokens of its instruct models."""
    llama3(folder)
    content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    last = max(token["id"] for token in content["added_tokens"])
    names = ("<|start_header_id|>", "<|end_header_id|>", "<|finetune_right_pad_id|>")
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    content["added_tokens"] += [
        {"id": i, "content": name, "special": True, **flags}
        for i, name in enumerate(names, last + 1)
    ]
    config = {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>", "pad_token": names[-1]}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return write(folder, content)


def gpt2(folder):
    """GPT-2's shape, without BOS."""
    return write(folder, json.loads(train(gpt2_split(), ["<|endoftext|>"]).to_str()))


def opt(folder):
    """OPT's shape: `vocab.json` and `merges.txt`, BOS and EOS one token."""
    model = json.loads(train(gpt2_split(), ["<s>", "<pad>", "</s>", "<unk>"]).to_str())["model"]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]), encoding="utf-8")
    lines = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    text = "\n".join(["#version: 0.2", *lines, ""])
    (folder / "merges.txt").write_text(text, encoding="utf-8")
    return folder


def write(folder, content):
    (folder / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def change(folder, **parts):
    """Replaces parts of the folder's `tokenizer.json`; `model__x` is the model's `x`."""
    file = folder / "tokenizer.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    for name, value in parts.items():
        outer, _, inner = name.partition("__")
        if inner:
            content[outer][inner] = value
        else:
            content[outer] = value
    return write(folder, content)
