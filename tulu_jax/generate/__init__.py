"""Text and log-probabilities from a model: `Engine`."""

from tulu_jax.generate.engine import Engine
from tulu_jax.generate.front import Front
from tulu_jax.generate.replicas import Replicas
from tulu_jax.generate.requests import Completion, Request, Score
from tulu_jax.generate.sample import Sampling, check_seed

__all__ = [
    "Completion",
    "Engine",
    "Front",
    "Replicas",
    "Request",
    "Sampling",
    "Score",
    "check_seed",
]
