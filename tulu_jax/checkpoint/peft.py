"""Adapters in PEFT's format: `adapter_config.json` and `adapter_model.safetensors`.

    layers/attention/query/a [L, D, r]    <->  ...layers.{i}.self_attn.q_proj.lora_A.weight [r, D]
    layers/attention/query/b [L, r, N*H]  <->  ...layers.{i}.self_attn.q_proj.lora_B.weight [N*H, r]

Source: peft 0.21 `tuners/lora/{config,layer}.py`, `utils/save_and_load.py`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tulu_jax.checkpoint.arrays import ParamPath
from tulu_jax.checkpoint.hf.config import read_json
from tulu_jax.checkpoint.hf.names import tensors_of
from tulu_jax.checkpoint.hf.safetensors_io import Shard, read_header, write_shard
from tulu_jax.checkpoint.hf.tensors import read_tensor
from tulu_jax.checkpoint.whole_folder import whole_folder
from tulu_jax.errors import CheckpointError, TuluError
from tulu_jax.models import ModelConfig
from tulu_jax.models.lora import LoraConfig, adapter_shapes, at

CONFIG_NAME = "adapter_config.json"
WEIGHTS_NAME = "adapter_model.safetensors"
PREFIX = "base_model.model."
F32 = np.dtype(np.float32)

NEUTRAL: dict[str, tuple[Any, ...]] = {
    "bias": ("none",),
    "fan_in_fan_out": (False,),
    "use_rslora": (False,),
    "use_dora": (False,),
    "use_qalora": (False,),
    "lora_bias": (False,),
    "modules_to_save": (None, []),
    "layers_to_transform": (None, []),
    "layer_replication": (None, []),
    "rank_pattern": ({}, None),
    "alpha_pattern": ({}, None),
    "target_parameters": (None, []),
    "trainable_token_indices": (None, []),
}
"""Fields of PEFT's config that would change the arithmetic -> values at which they do not."""


def save_peft(
    path: str | Path,
    config: ModelConfig,
    lora: LoraConfig,
    adapters: Mapping[str, Any],
    *,
    base: str,
) -> Path:
    """Writes a folder that `peft.PeftModel.from_pretrained` loads; returns it.

    Args:
      path: folder to make.
      config: the model.
      lora: the adapters' settings.
      adapters: their tree, host arrays.
      base: what PEFT shall call the base model: a path or a name on the Hub.

    Raises:
      CheckpointError: the folder is in use, or PEFT has no such adapter (GPT-NeoX's fused query,
        key and value).
    """
    modules = _modules(config, lora)
    tensors: dict[str, np.ndarray] = {}
    for weight, module in modules.items():
        factors = {name: np.asarray(at(adapters, weight)[name], F32) for name in "ab"}
        for layer in range(config.num_layers):
            start = PREFIX + module.format(layer=layer)
            tensors[f"{start}.lora_A.weight"] = factors["a"][layer].T
            tensors[f"{start}.lora_B.weight"] = factors["b"][layer].T
    fields = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "inference_mode": True,
        "r": lora.rank,
        "lora_alpha": int(lora.alpha) if float(lora.alpha).is_integer() else lora.alpha,
        "lora_dropout": lora.dropout,
        "target_modules": sorted({module.rsplit(".", 1)[1] for module in modules.values()}),
        "init_lora_weights": True,
        **{name: values[0] for name, values in NEUTRAL.items()},
    }
    with whole_folder(path) as folder:
        shard = Shard(WEIGHTS_NAME, {name: tensor.shape for name, tensor in tensors.items()})
        write_shard(folder / WEIGHTS_NAME, shard, F32, iter(tensors.items()))
        (folder / CONFIG_NAME).write_text(json.dumps(fields, indent=2) + "\n", encoding="utf-8")
    return Path(path)


def load_peft(path: str | Path, config: ModelConfig) -> tuple[LoraConfig, dict[str, Any]]:
    """The settings and the tree of adapters, float32 host arrays, in a folder of PEFT's.

    Raises:
      CheckpointError: files are missing or damaged, the adapter is of a kind we do not have, or it
        does not fit the model. Nothing is guessed.
    """
    folder = Path(path)
    fields = read_json(folder / CONFIG_NAME)
    lora = _lora_from(fields, config, folder / CONFIG_NAME)
    specs = read_header(folder / WEIGHTS_NAME)
    shapes, tree, used = adapter_shapes(config, lora), {}, set()
    for weight, module in _modules(config, lora).items():
        stacked = {}
        for factor, name in (("a", "lora_A"), ("b", "lora_B")):
            wanted = getattr(shapes[weight], factor)
            names = [
                f"{PREFIX}{module.format(layer=layer)}.{name}.weight"
                for layer in range(config.num_layers)
            ]
            used.update(names)
            for tensor in names:
                found = list(specs[tensor].shape) if tensor in specs else None
                if found != [*wanted[:0:-1]]:
                    raise CheckpointError(
                        "adapter does not fit the model",
                        got=f"{tensor} {found}",
                        at=folder / WEIGHTS_NAME,
                        expected=[*wanted[:0:-1]],
                    )
            layers = [read_tensor(specs[tensor]).astype(F32).T for tensor in names]
            stacked[factor] = np.stack(layers)
        place = tree
        for name in weight[:-1]:
            place = place.setdefault(name, {})
        place[weight[-1]] = stacked
    more = sorted(set(specs) - used)
    if more:
        raise CheckpointError(
            "adapter has tensors that its config does not tell of",
            got=more[:3],
            at=folder / WEIGHTS_NAME,
        )
    return lora, tree


def _lora_from(fields: Mapping[str, Any], config: ModelConfig, where: Path) -> LoraConfig:
    for name, values in {"peft_type": ("LORA",), **NEUTRAL}.items():
        found = fields.get(name, values[0])
        if found not in values:
            raise CheckpointError(
                f"{name} of the adapter is not supported", got=repr(found), at=where,
                expected=repr(values[0]),
            )  # fmt: skip
    targets = fields.get("target_modules")
    targets = [targets] if isinstance(targets, str) else targets
    try:
        lora = LoraConfig(
            rank=fields["r"],
            alpha=float(fields["lora_alpha"]),
            dropout=float(fields.get("lora_dropout", 0.0)),
            targets=tuple(targets or ()),
            base_dtype="float32",
        )
        adapter_shapes(config, lora)
    except (KeyError, TypeError, TuluError) as error:
        raise CheckpointError("adapter's config is not understood", got=error, at=where) from error
    return lora


def _modules(config: ModelConfig, lora: LoraConfig) -> dict[ParamPath, str]:
    """Weight with an adapter -> name of the torch module that holds it."""
    holders = {weight: t for t in tensors_of(config) for weight in t.paths}
    found = {}
    for path in adapter_shapes(config, lora):
        tensor = holders[path]
        if len(tensor.paths) > 1:
            raise CheckpointError(
                "PEFT has one adapter where we have several",
                got="/".join(path),
                at=tensor.pattern,
                expected="a weight that is a tensor of its own",
                do="leave query, key and value out of LORA_TARGETS, or export with --merge",
            )
        found[path] = tensor.pattern.removesuffix(".weight")
    return found
