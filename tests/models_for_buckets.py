"""A model wide enough that what is read of its files can be counted."""

from pathlib import Path
from typing import Any

from weights import random_params

from tulu_jax.checkpoint import hf
from tulu_jax.models import LlamaConfig
from tulu_jax.parallel import MeshConfig, layout_for, make_mesh


def wide_model(folder: Path) -> tuple[LlamaConfig, Any, Any]:
    """Written to `folder`; its config, how it is laid out over eight devices, and their mesh."""
    config = LlamaConfig(
        vocab_size=64, d_model=256, d_ff=512, num_layers=2, num_heads=8, num_kv_heads=8,
        head_dim=32, max_length=64, norm_eps=1e-5,
    )  # fmt: skip
    hf.save(folder, config, random_params(config))
    mesh = make_mesh(MeshConfig(fsdp=8))
    return config, layout_for(config, mesh).params(config), mesh
