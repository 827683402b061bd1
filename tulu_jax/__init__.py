"""tulu-jax: instruction fine-tuning of language models on TPU pods and GPUs, in JAX.

Importing this package loads nothing heavy: every room (`tulu_jax.chat`, `tulu_jax.data`,
`tulu_jax.models`, ...) is imported where it is used.
"""

__version__ = "0.1.0"
