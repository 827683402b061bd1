"""A real pretrained LLaMA (260K parameters, grouped heads, tied embeddings), end to end."""

import json
import shutil

import jax
import numpy as np
import pytest
import torch
import transformers

from tulu_jax.chat import encode, encode_prompt, load_tokenizer
from tulu_jax.checkpoint import hf
from tulu_jax.checkpoint.arrays import CheckpointReader, save_params
from tulu_jax.checkpoint.reader import TreeReader
from tulu_jax.generate import Engine
from tulu_jax.models import forward

from .reference import max_diff

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

OPENINGS = [
    "Once upon a time", "One day, a girl named Lily", "The little dog", "Tom and Mia went to",
    "There was a big red ball", "In the park,", "A small bird", "Mom said", "The sun was",
    "Ben had a toy car", "Once there was a cat. The cat", "The boy was sad", "It was cold.",
    "She saw a frog and", "They played all day.", "A fish lived in", "The old man", "He found",
    "Sara liked to draw", "One night, the moon",
]  # fmt: skip


@pytest.fixture(scope="module")
def stories(shared):
    return shared / "models" / "stories260k"


@pytest.fixture(scope="module")
def ours(stories):
    return hf.load(stories)


@pytest.fixture(scope="module")
def theirs(stories):
    model = transformers.LlamaForCausalLM.from_pretrained(stories, attn_implementation="eager")
    return model.float().eval()


@pytest.fixture(scope="module")
def tokenizer(stories):
    return load_tokenizer(stories)


@pytest.fixture(scope="module")
def exported(stories, ours, tokenizer, tmp_path_factory):
    """The model after import into a run folder and export out of it."""
    root = tmp_path_factory.mktemp("stories")
    folder = hf.open_folder(stories)
    save_params(root / "run", folder.lazy_params(), {})
    reader = CheckpointReader(root / "run")
    return hf.save(
        root / "out", folder.config, reader, tokenizer=tokenizer, max_shard_bytes=3e5
    ).folder


@pytest.fixture(scope="module")
def prompts(tokenizer):
    assert len(OPENINGS) == 20
    return [[tokenizer.bos_id, *tokenizer.encode_text(text)] for text in OPENINGS]


def test_logits(ours, theirs):
    tokens = np.random.default_rng(0).integers(0, 512, (4, 128)).astype(np.int32)
    logits = theirs(torch.tensor(tokens, dtype=torch.long)).logits
    assert max_diff(jax.jit(forward, static_argnums=0)(*ours, tokens), logits) <= 1e-4


def by_transformers(model, prompts, count):
    """Greedy continuations by transformers, in one batch padded on the left."""
    width = max(map(len, prompts))
    rows = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    result = model.generate(
        rows, attention_mask=mask, max_new_tokens=count, do_sample=False, pad_token_id=0
    )
    return result[:, width:].tolist()


def test_greedy_tokens(ours, theirs, prompts):
    found = Engine(*ours).generate(prompts, max_new_tokens=64)
    answers = [one.tokens for one in found]
    expected = by_transformers(theirs, prompts, 64)
    assert answers == [row[: row.index(2)] if 2 in row else row for row in expected]
    assert min(map(len, answers)) == 64


def test_import_and_export_are_bit_exact(stories, exported, ours):
    before, after = hf.load(stories), hf.load(exported)
    assert before[0] == after[0]
    left, right = TreeReader(before[1]), TreeReader(after[1])
    assert set(left.paths()) == set(right.paths())
    for path in left.paths():
        assert left.read(path).tobytes() == right.read(path).tobytes()
    original = json.loads((stories / "config.json").read_text())
    written = json.loads((exported / "config.json").read_text())
    assert {name: written[name] for name in original} == original


def test_tensors_of_the_export_equal_the_original_file(stories, exported):
    from safetensors.numpy import load_file

    original = load_file(stories / "model.safetensors")
    shards = sorted(exported.glob("*.safetensors"))
    assert len(shards) > 1
    written = {name: array for shard in shards for name, array in load_file(shard).items()}
    assert set(written) == set(original)
    for name, array in original.items():
        assert array.tobytes() == written[name].tobytes()


def test_transformers_loads_the_export(exported, theirs):
    model, report = transformers.AutoModelForCausalLM.from_pretrained(
        exported, output_loading_info=True, attn_implementation="eager"
    )
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert model.dtype == torch.float32
    assert model.generation_config.eos_token_id == 2
    tokens = torch.arange(100)[None] % 512
    assert torch.equal(model(tokens).logits, theirs(tokens).logits)


@pytest.fixture(scope="module")
def conversations(shared):
    """Every golden conversation: (messages, max_length, tokens); short rows repeat the messages."""
    path = shared / "data" / "golden" / "encodings" / "llama.jsonl"
    found, last = [], None
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        last = row["messages"] or last
        if row["messages"]:
            found.append((row["id"], last, row["max_length"], row["input_ids"]))
    assert len(found) > 400
    return found


def exported_tokens(tokenizer, messages):
    return tokenizer.apply_chat_template(messages, return_dict=True)["input_ids"]


LITERAL = ("<s>", "</s>", "<unk>", "<pad>")
"""Text that transformers takes for special tokens, where `encode` keeps it text."""


def is_literal(messages):
    return any(piece in message["content"] for message in messages for piece in LITERAL)


def test_tokenizer_of_the_export_gives_our_tokens(exported, tokenizer, conversations):
    theirs = transformers.AutoTokenizer.from_pretrained(exported)
    compared = 0
    for name, messages, _, _ in conversations:
        if is_literal(messages):
            continue
        assert exported_tokens(theirs, messages) == encode(messages, tokenizer).tokens.tolist(), (
            name
        )
        compared += 1
    assert compared == len(conversations) - 1
    opening = [{"role": "user", "content": "Tell me a story."}]
    prompt = theirs.apply_chat_template(opening, add_generation_prompt=True, return_dict=True)
    assert prompt["input_ids"] == encode_prompt(opening, tokenizer).tolist()


def test_llama_tokenizer_of_an_export_gives_the_golden_tokens(
    shared, stories, tmp_path, conversations
):
    """With the real LLaMA tokenizer in the folder; the weights do not matter here."""
    from tulu_jax.chat import save_tokenizer_files

    save_tokenizer_files(load_tokenizer(shared / "tokenizers" / "llama"), tmp_path)
    shutil.copy(stories / "config.json", tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    compared = 0
    for name, messages, max_length, tokens in conversations:
        if is_literal(messages):
            continue
        assert exported_tokens(theirs, messages)[:max_length] == tokens, name
        compared += 1
    assert compared == len(conversations) - 1
