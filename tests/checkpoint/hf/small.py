"""A LLaMA of a few thousand weights, as a Hugging Face folder that tests may spoil."""

import dataclasses
import json
import struct
from pathlib import Path

import jax
import numpy as np

from tulu_jax.checkpoint import hf
from tulu_jax.models import LlamaConfig, abstract_params

CONFIG = LlamaConfig(
    vocab_size=50,
    d_model=16,
    d_ff=24,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=6,
    max_length=32,
    norm_eps=1e-5,
)
TIED = dataclasses.replace(CONFIG, tie_embeddings=True, num_kv_heads=4, pad_id=0)


def random_params(config: LlamaConfig, seed: int = 0) -> dict:
    """Weights as NumPy arrays; the norms too, so that a lost one shows."""
    rng = np.random.default_rng(seed)

    def draw(leaf):
        return rng.normal(size=leaf.shape).astype(np.float32)

    return jax.tree.map(draw, abstract_params(config))


def write_folder(path: Path, config: LlamaConfig = CONFIG, **options) -> Path:
    """A good folder; `options` go to `hf.save`."""
    hf.save(path, config, random_params(config), **options)
    return path


def read_tensors(file: Path) -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file

    return load_file(file)


def write_tensors(file: Path, tensors: dict[str, np.ndarray]) -> None:
    from safetensors.numpy import save_file

    save_file({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, file)


def edit_config(folder: Path, **changes) -> None:
    """Sets fields of config.json; a field set to ... is removed."""
    path = folder / "config.json"
    fields = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({k: v for k, v in fields.items() if v is not ...}))


def write_raw(file: Path, header: bytes, data: bytes = b"", length: int | None = None) -> None:
    """A safetensors file with this header, and its length as told."""
    file.write_bytes(struct.pack("<Q", len(header) if length is None else length) + header + data)
