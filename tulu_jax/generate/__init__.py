"""Text from a model: `Generator` continues token prompts, `Sampling` says how."""

from tulu_jax.generate.engine import Generator
from tulu_jax.generate.sample import Sampling, keep_top_k, keep_top_p, next_tokens

__all__ = ["Generator", "Sampling", "keep_top_k", "keep_top_p", "next_tokens"]
