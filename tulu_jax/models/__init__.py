"""Language models as Flax modules, and as plain functions: `forward`, `init_params` ...

Every function takes a `ModelConfig`, whose type says the family; `FAMILIES` has them all by name.
"""

from tulu_jax.models.apply import (
    abstract_params,
    forward,
    head_weight,
    hidden_states,
    init_params,
    logical_axes,
    positions_in_segments,
)
from tulu_jax.models.config import ComputeConfig
from tulu_jax.models.families.llama import Llama, LlamaConfig, RopeScaling
from tulu_jax.models.families.neox import NeoxConfig
from tulu_jax.models.families.opt import OptConfig
from tulu_jax.models.family import (
    FAMILIES,
    ModelConfig,
    config_from_dict,
    config_to_dict,
    layer_matrices,
)
from tulu_jax.models.layers import Cache, Kernel, LayerCache, Place

__all__ = [
    "FAMILIES",
    "Cache",
    "ComputeConfig",
    "Kernel",
    "LayerCache",
    "Llama",
    "LlamaConfig",
    "ModelConfig",
    "NeoxConfig",
    "OptConfig",
    "Place",
    "RopeScaling",
    "abstract_params",
    "config_from_dict",
    "config_to_dict",
    "forward",
    "head_weight",
    "hidden_states",
    "init_params",
    "layer_matrices",
    "logical_axes",
    "positions_in_segments",
]
