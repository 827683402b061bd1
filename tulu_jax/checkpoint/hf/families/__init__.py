"""One file a family, found by being here: its `config.json` and its table of tensors."""

import importlib
import pkgutil

from tulu_jax.checkpoint.hf.family import REGISTRY, HfFamily
from tulu_jax.models import ModelConfig

for _module in pkgutil.iter_modules(__path__, prefix=f"{__name__}."):
    importlib.import_module(_module.name)


def hf_family(config: ModelConfig) -> HfFamily:
    """Hugging Face's side of the config's family."""
    return REGISTRY[config.family]
