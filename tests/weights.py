"""Random weights of a model, for whatever is compared with another implementation."""

import dataclasses

import jax
import numpy as np

from tulu_jax.models import ModelConfig, abstract_params


def random_params(config: ModelConfig, seed: int = 0) -> dict:
    """Weights large enough that a wrong sign or order shows, as NumPy arrays."""
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        if path[-1].key == "scale":
            return rng.uniform(0.5, 1.5, leaf.shape).astype(np.float32)
        return (rng.normal(size=leaf.shape) * 0.15).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, abstract_params(with_plain_numbers(config)))


def with_plain_numbers(config: ModelConfig) -> ModelConfig:
    """The config without what no shape depends on, so that shapes are found once for many."""
    plain = {"norm_eps": 1e-5, "rope_theta": 1e4, "rope_scaling": None}
    names = {field.name for field in dataclasses.fields(config)}
    return dataclasses.replace(config, **{k: v for k, v in plain.items() if k in names})
