"""`config.json`, to and from the config of a family.

Whatever would change the arithmetic and is not implemented is refused by name, and so is a field
that is not known; nothing that the arithmetic depends on is guessed. The norm's epsilon in
particular has no default: LLaMA 1 uses 1e-6, its 65B and LLaMA 2 use 1e-5, and the wrong one gives
text that is only slightly worse.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tulu_jax.checkpoint.hf.families import hf_family
from tulu_jax.checkpoint.hf.family import REGISTRY
from tulu_jax.checkpoint.hf.fields import Fields, check_vocabulary
from tulu_jax.checkpoint.hf.kinds import no_model
from tulu_jax.errors import CheckpointError, TuluError
from tulu_jax.files import read_json
from tulu_jax.models import ModelConfig
from tulu_jax.places import Place


def read_config(folder: Place) -> ModelConfig:
    """The model that the folder's `config.json` describes.

    Raises:
      CheckpointError: the file is missing, malformed, or describes a model we do not have.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise no_model(folder)
    return from_hf(read_json(path, CheckpointError), at=path)


def from_hf(fields: Mapping[str, Any], at: object = "config.json") -> ModelConfig:
    """The model that the fields of a `config.json` describe.

    Args:
      fields: the parsed file, as transformers 4 or 5 wrote it.
      at: where it came from, for messages.

    Raises:
      CheckpointError: another architecture, a field missing or of the wrong type, a feature that
        is not implemented, or a field that is not known.
    """
    names = fields.get("architectures")
    name = names[0] if isinstance(names, list) and len(names) == 1 else None
    known = {known: family for family in REGISTRY.values() for known in family.architectures}
    family = known.get(name) if isinstance(name, str) else None
    if name is None or family is None:
        raise CheckpointError(
            "unknown architecture",
            got=f"architectures={names}, model_type={fields.get('model_type')!r}",
            at=at,
            expected=" or ".join(known),
        )
    reader = Fields(fields, at)
    reader.only("model_type", family.architectures[name])
    for unused in ("quantization_config", "pruned_heads"):
        if value := reader.take(unused, default=None):
            raise reader.refusal(unused, repr(value), expected="null")
    try:
        config = family.from_hf(reader)
    except CheckpointError:
        raise
    except TuluError as error:
        raise CheckpointError(f"{error}", at=at) from error
    reader.finish()
    for name, ids in (
        ("eos_token_id", config.stop_ids),
        ("bos_token_id", (config.bos_id,)),
        ("pad_token_id", (config.pad_id,)),
    ):
        check_vocabulary(name, ids, config.vocab_size, at)
    return config


def to_hf(config: ModelConfig, dtype: str) -> dict[str, Any]:
    """The fields of `config.json` as transformers 4 and 5, vLLM and llama.cpp read them.

    Args:
      config: the model.
      dtype: of the weights beside it: float32, bfloat16 or float16.
    """
    return {**hf_family(config).to_hf(config), "torch_dtype": dtype, "use_cache": True}
