"""LLaMA weights in Hugging Face format: `load` and `save`, without torch."""

from tulu_jax.checkpoint.hf.config import from_hf, to_hf
from tulu_jax.checkpoint.hf.load import HfFolder, load, open_folder
from tulu_jax.checkpoint.hf.save import Saved, save

__all__ = ["HfFolder", "Saved", "from_hf", "load", "open_folder", "save", "to_hf"]
