"""LLaMA, OPT and GPT-NeoX as Flax modules, and as plain functions: `forward`, `init_params` ...

Every function takes a `ModelConfig`, whose type says the family.
"""

from tulu_jax.models.apply import (
    abstract_params,
    decoder,
    forward,
    head_weight,
    hidden_states,
    init_params,
    logical_axes,
    positions_in_segments,
)
from tulu_jax.models.config import ComputeConfig
from tulu_jax.models.families import (
    LlamaConfig,
    ModelConfig,
    NeoxConfig,
    OptConfig,
    RopeScaling,
    config_from_dict,
    config_to_dict,
)
from tulu_jax.models.layers import Cache, init_cache
from tulu_jax.models.llama import Llama

__all__ = [
    "Cache",
    "ComputeConfig",
    "Llama",
    "LlamaConfig",
    "ModelConfig",
    "NeoxConfig",
    "OptConfig",
    "RopeScaling",
    "abstract_params",
    "config_from_dict",
    "config_to_dict",
    "decoder",
    "forward",
    "head_weight",
    "hidden_states",
    "init_cache",
    "init_params",
    "logical_axes",
    "positions_in_segments",
]
