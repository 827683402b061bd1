"""LLaMA as Flax modules, and as plain functions: `forward`, `init_params`, `abstract_params`."""

from tulu_jax.models.apply import (
    abstract_params,
    forward,
    hidden_states,
    init_params,
    logical_axes,
    positions_in_segments,
)
from tulu_jax.models.config import ComputeConfig, LlamaConfig
from tulu_jax.models.llama import Cache, Llama, head_weight, init_cache

__all__ = [
    "Cache",
    "ComputeConfig",
    "Llama",
    "LlamaConfig",
    "abstract_params",
    "forward",
    "head_weight",
    "hidden_states",
    "init_cache",
    "init_params",
    "logical_axes",
    "positions_in_segments",
]
