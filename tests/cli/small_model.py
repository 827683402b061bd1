"""A random model with the demo's tokenizer, as a Hugging Face folder, for the command tests."""

import argparse
import io
from pathlib import Path

import jax
import numpy as np

from tasks import demo
from tulu_jax.chat import load_tokenizer
from tulu_jax.checkpoint import hf
from tulu_jax.cli import chat, exporter, generate, importer
from tulu_jax.models import LlamaConfig, abstract_params


def write_model(folder: Path) -> Path:
    tokenizer = load_tokenizer(demo.TOKENIZER_DIR)
    config = LlamaConfig(
        vocab_size=tokenizer.vocab_size,
        d_model=16,
        d_ff=24,
        num_layers=2,
        num_heads=2,
        num_kv_heads=1,
        head_dim=8,
        max_length=128,
        norm_eps=1e-5,
        bos_id=tokenizer.bos_id,
        eos_id=tokenizer.eos_id,
        pad_id=tokenizer.pad_id,
    )
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: (rng.normal(size=leaf.shape) * 0.5).astype(np.float32), abstract_params(config)
    )
    hf.save(folder, config, params, tokenizer=tokenizer)
    return folder


def tulu(*words: str) -> int:
    """Runs one of this room's commands as `tulu WORDS` does, errors passing through."""
    parser = argparse.ArgumentParser("tulu")
    subparsers = parser.add_subparsers()
    for command in (importer, exporter, generate, chat):
        command.add_parser(subparsers)
    args = parser.parse_args([str(word) for word in words])
    return args.func(args)


def typed(monkeypatch, text: str) -> None:
    """Makes `text` the standard input."""
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
