"""Adapters in PEFT's format: `adapter_config.json` and `adapter_model.safetensors`.

    layers/attention/query/a [L, D, r]    <->  ...layers.{i}.self_attn.q_proj.lora_A.weight [r, D]
    layers/attention/query/b [L, r, N*H]  <->  ...layers.{i}.self_attn.q_proj.lora_B.weight [N*H, r]

GPT-NeoX keeps query, key and value in one module, for which PEFT has one adapter of one rank. Ours
are three: with A one below the other and each B in rows and columns of its own, one adapter of
three times the rank has the same product, exactly. For one head of one channel and r = 1:

    A [3, D]  aq      B [3, 3]  bq  0  0
              ak                0  bk  0
              av                0   0  bv

PEFT's own adapter of such a module, where the three share an A, is read as three with equal A.

Source: peft 0.21 `tuners/lora/{config,layer}.py`, `utils/save_and_load.py`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tulu_jax.checkpoint.hf.config import read_json
from tulu_jax.checkpoint.hf.load import param_shapes, put
from tulu_jax.checkpoint.hf.names import tensors_of
from tulu_jax.checkpoint.hf.safetensors_io import Shard, read_header, write_shard
from tulu_jax.checkpoint.hf.tensors import TensorSpec, read_tensor
from tulu_jax.checkpoint.hf.weights import Tensor
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
      CheckpointError: the folder is in use.
    """
    modules = _modules(config, lora)
    tensors: dict[str, np.ndarray] = {}
    for holder in modules:
        factors = _joined(holder, config, lora, adapters)
        for layer in range(config.num_layers):
            start = PREFIX + _name(holder).format(layer=layer)
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
        "target_modules": sorted({_module(holder) for holder in modules}),
        "init_lora_weights": True,
        **{name: values[0] for name, values in NEUTRAL.items()},
        **_patterns(modules, lora),
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
    tree, used = {}, set()
    for holder in _modules(config, lora):
        blocks = bool(fields.get("rank_pattern")) and len(holder.paths) > 1
        stacked, names = _stacked(holder, config, lora, specs, len(holder.paths) if blocks else 1)
        used.update(names)
        for part, weight in enumerate(holder.paths):
            put(tree, weight, _part(holder, part, config, stacked, blocks))
    more = sorted(set(specs) - used)
    if more:
        raise CheckpointError(
            "adapter has tensors that its config does not tell of",
            got=more[:3],
            at=folder / WEIGHTS_NAME,
        )
    return lora, tree


def _stacked(
    holder: Tensor,
    config: ModelConfig,
    lora: LoraConfig,
    specs: Mapping[str, TensorSpec],
    count: int,
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Both factors of a module, the layers stacked, and the names of their tensors."""
    stacked, used = {}, []
    wide, rank = holder.hf_shape(config), lora.rank * count
    for factor, name, wanted in (
        ("a", "lora_A", (rank, wide[1])),
        ("b", "lora_B", (wide[0], rank)),
    ):
        start = f"{PREFIX}{_name(holder)}.{name}.weight"
        names = [start.format(layer=layer) for layer in range(config.num_layers)]
        for tensor in names:
            found = specs[tensor].shape if tensor in specs else None
            if found != wanted:
                raise CheckpointError(
                    "adapter does not fit the model",
                    got=f"{tensor} {None if found is None else list(found)}",
                    at=next(iter(specs.values())).file if specs else None,
                    expected=list(wanted),
                )
        stacked[factor] = np.stack([read_tensor(specs[name]).astype(F32).T for name in names])
        used += names
    return stacked, used


def _joined(
    holder: Tensor, config: ModelConfig, lora: LoraConfig, adapters: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """Both factors [L, ...] of the adapter of a module, from those of the weights in it."""
    shapes, count = adapter_shapes(config, lora), len(holder.paths)
    if count == 1:
        return {name: np.asarray(at(adapters, holder.paths[0])[name], F32) for name in "ab"}
    layers, width = config.num_layers, config.d_model
    a = np.zeros((layers, width, count * lora.rank), F32)
    blocks = np.zeros((count, layers, count * lora.rank, *_heads(holder, config)), F32)
    for part, weight in enumerate(holder.paths):
        if weight in shapes:
            own = slice(part * lora.rank, (part + 1) * lora.rank)
            a[..., own] = at(adapters, weight)["a"]
            factor = np.asarray(at(adapters, weight)["b"], F32)
            blocks[part][:, own] = factor.reshape(layers, lora.rank, *_heads(holder, config))
    shape = (holder.hf_shape(config)[0], count * lora.rank)
    b = [holder.order.give(list(blocks[:, layer]), shape).T for layer in range(layers)]
    return {"a": a, "b": np.stack(b)}


def _part(
    holder: Tensor, part: int, config: ModelConfig, stacked: Mapping[str, np.ndarray], blocks: bool
) -> dict[str, np.ndarray]:
    """Both factors of one weight of a module, from those of the module.

    Raises:
      CheckpointError: factors said to be blocks have numbers outside of them.
    """
    a, b = stacked["a"], stacked["b"]
    if len(holder.paths) == 1:
        return {"a": a, "b": b}
    shape = (b.shape[1], *_heads(holder, config))
    taken = [holder.order.take(layer.T, part, shape).reshape(len(layer), -1) for layer in b]
    b = np.stack(taken)
    if blocks:
        rank = b.shape[1] // len(holder.paths)
        own = slice(part * rank, (part + 1) * rank)
        rest = np.delete(b, np.r_[own], axis=1)
        if np.any(rest):
            raise CheckpointError(
                "adapter of query, key and value is not one of ours",
                got=f"{np.count_nonzero(rest)} numbers outside the blocks",
                at=_name(holder),
                expected="three adapters, each in rows and columns of its own",
            )
        a, b = a[..., own], b[:, own]
    return {"a": a, "b": b}


def _heads(holder: Tensor, config: ModelConfig) -> tuple[int, ...]:
    return param_shapes(config)[holder.paths[0]][-2:]


def _patterns(modules: list[Tensor], lora: LoraConfig) -> dict[str, dict[str, Any]]:
    """PEFT's fields for modules whose adapter has another rank, and the same scale."""
    fused = {_module(holder): len(holder.paths) for holder in modules if len(holder.paths) > 1}
    return {
        "rank_pattern": {name: count * lora.rank for name, count in fused.items()},
        "alpha_pattern": {name: count * lora.alpha for name, count in fused.items()},
    }


def _lora_from(fields: Mapping[str, Any], config: ModelConfig, where: Path) -> LoraConfig:
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
        patterns = _patterns(_modules(config, lora), lora)
    except (KeyError, TypeError, TuluError) as error:
        raise CheckpointError("adapter's config is not understood", got=error, at=where) from error
    ours = all(fields.get(name) == value for name, value in patterns.items())
    allowed = {"peft_type": ("LORA",), **NEUTRAL}
    for name, values in allowed.items():
        found = fields.get(name, values[0])
        if found not in values and not (ours and name in patterns):
            raise CheckpointError(
                f"{name} of the adapter is not supported", got=repr(found), at=where,
                expected=repr(values[0]),
            )  # fmt: skip
    return lora


def _modules(config: ModelConfig, lora: LoraConfig) -> list[Tensor]:
    """The tensors of the modules with an adapter: those that hold a weight with one."""
    adapted = adapter_shapes(config, lora)
    return [holder for holder in tensors_of(config) if any(p in adapted for p in holder.paths)]


def _name(holder: Tensor) -> str:
    """The torch module that holds a tensor; `{layer}` stands for the layer's number."""
    return holder.pattern.removesuffix(".weight")


def _module(holder: Tensor) -> str:
    return _name(holder).rsplit(".", 1)[1]
