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

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tulu_jax.checkpoint.far_folder import is_filled
from tulu_jax.checkpoint.hf.families import hf_family
from tulu_jax.checkpoint.hf.kinds import ADAPTER_CONFIG
from tulu_jax.checkpoint.hf.names import without_wrappers
from tulu_jax.checkpoint.hf.safetensors_io import Shard, read_header, write_shard
from tulu_jax.checkpoint.hf.tensors import TensorSpec, read_finite
from tulu_jax.checkpoint.hf.torch_file import read_torch_file
from tulu_jax.checkpoint.hf.weights import Tensor
from tulu_jax.checkpoint.peft_config import (
    NEUTRAL,
    Note,
    module_name,
    modules_of,
    patterns,
    read_adapter_config,
)
from tulu_jax.checkpoint.reader import ParamPath, tree_of
from tulu_jax.checkpoint.whole_folder import PartialFolder, whole_folder
from tulu_jax.errors import CheckpointError
from tulu_jax.files import write_json
from tulu_jax.models import ModelConfig
from tulu_jax.models.lora import LoraConfig, adapter_shapes, at
from tulu_jax.places import Address, Place, as_place, local_folder

WEIGHTS_NAME = "adapter_model.safetensors"
TORCH_NAME = "adapter_model.bin"
PREFIX = "base_model.model."
INNER_NAME = re.compile(r"(lora_[AB])\.([^.]+)\.weight$")
"""The end of a tensor's name that has the adapter's own name in it."""
F32 = np.dtype(np.float32)
BASE_WEIGHTS = "base_weights.json"
"""Beside an adapter of ours: the fingerprint of every weight of the base it was trained beside."""


def save_peft(
    path: str | Place,
    config: ModelConfig,
    lora: LoraConfig,
    adapters: Mapping[str, Any],
    *,
    base: str,
    base_weights: Mapping[str, str] | None = None,
) -> Place:
    """Writes a folder that `peft.PeftModel.from_pretrained` loads; returns it.

    Args:
      path: folder to make.
      config: the model.
      lora: the adapters' settings.
      adapters: their tree, host arrays.
      base: what PEFT shall call the base model: a path or a name on the Hub.
      base_weights: the base's fingerprints, by which `tulu adapter` knows it; others pass them by.

    Raises:
      CheckpointError: the folder is in use.
    """
    modules = modules_of(config, lora)
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
        "target_modules": sorted({module_name(holder) for holder in modules}),
        "init_lora_weights": True,
        **{name: None if value == [] else value for name, value in NEUTRAL.items()},
        **patterns(modules, lora),
    }
    shard = Shard(WEIGHTS_NAME, {name: tensor.shape for name, tensor in tensors.items()})

    def fill(partial: PartialFolder) -> None:
        write_shard(partial.place_of(WEIGHTS_NAME), shard, F32, iter(tensors.items()))
        write_json(partial.folder / ADAPTER_CONFIG, fields)
        if base_weights:
            write_json(partial.folder / BASE_WEIGHTS, dict(base_weights))

    place = as_place(path)
    if not (isinstance(place, Address) and is_filled(place, fill)):
        with whole_folder(place) as partial:
            fill(partial)
    return place


def load_peft(
    path: str | Place, config: ModelConfig, *, note: Note = lambda _: None
) -> tuple[LoraConfig, dict[str, Any]]:
    """The settings and the tree of adapters, float32 host arrays, in a folder of PEFT's.

    Args:
      path: the folder.
      config: the model they belong to.
      note: told what was understood that is not as it should be, and adapters that do nothing.

    Raises:
      CheckpointError: files are missing or damaged, the adapter is of a kind we do not have, has
        numbers that are not finite, or does not fit the model. Nothing is guessed.
    """
    folder = local_folder(path, weights=True)
    lora, ours = read_adapter_config(folder, config, note)
    modules = modules_of(config, lora)
    specs = _named_specs(folder, modules, config, note)
    tree: dict[ParamPath, dict[str, np.ndarray]] = {}
    used: set[str] = set()
    for holder in modules:
        blocks = ours and len(holder.paths) > 1
        stacked, names = _stacked(holder, config, lora, specs, len(holder.paths) if blocks else 1)
        used.update(names)
        for part, weight in enumerate(holder.paths):
            tree[weight] = _part(holder, part, config, stacked, blocks)
    more = sorted(set(specs) - used)
    if more:
        raise CheckpointError(
            "adapter has tensors that its config does not tell of",
            got=more[:3],
            at=specs[more[0]].file,
            do="merge it in PEFT (merge_and_unload) and use the whole model",
        )
    if not any(np.any(found["a"]) and np.any(found["b"]) for found in tree.values()):
        note("every product of the adapters is zero: they change nothing (saved before training?)")
    return lora, tree_of(tree)


def _named_specs(
    folder: Path, modules: list[Tensor], config: ModelConfig, note: Note
) -> dict[str, TensorSpec]:
    """The folder's tensors under the names that PEFT gives them today.

    The name of the adapter inside (`lora_A.default.weight`), wrappers, and PEFT's own prefix may
    be there or not, if they are alike in all names.
    """
    specs = _read_specs(folder)
    expected = {
        f"{name.removesuffix('.weight')}.{factor}.weight"
        for holder in modules for name in holder.hf_names(config) for factor in ("lora_A", "lora_B")
    }  # fmt: skip
    whole = hf_family(config).prefix  # what the bare model lacks
    bare = {name.removeprefix(whole) for name in expected}
    plain = {name: INNER_NAME.sub(r"\1.weight", name) for name in specs}
    inner = {match[2] for name in specs if (match := INNER_NAME.search(name))}
    if len(inner) > 1:
        raise CheckpointError(
            "file holds several adapters", got=sorted(inner), at=folder, expected="one",
            do="save the one that is meant with PEFT's save_pretrained(selected_adapters=[NAME])",
        )  # fmt: skip
    short, _ = without_wrappers(plain.values(), expected | bare)
    short = {name: whole + own if own in bare else own for name, own in short.items()}
    renamed = {name: PREFIX + short[plain[name]] for name in specs}
    if any(name != usual for name, usual in renamed.items()):
        first = min(specs)
        note(f"names of tensors are not PEFT's ({first}): taken as {renamed[first]}")
    if len(set(renamed.values())) != len(specs):
        raise CheckpointError("tensor is there twice", got=sorted(specs)[:3], at=folder)
    return {renamed[name]: spec for name, spec in specs.items()}


def _read_specs(folder: Path) -> dict[str, TensorSpec]:
    """The tensors in the folder's weights file, safetensors or torch's."""
    if (folder / WEIGHTS_NAME).is_file():
        specs = read_header(folder / WEIGHTS_NAME)
    elif (folder / TORCH_NAME).is_file():
        specs = read_torch_file(folder / TORCH_NAME)
    else:
        raise CheckpointError(
            "adapter's weights are missing",
            got=sorted(child.name for child in folder.iterdir())[:5],
            at=folder,
            expected=f"{WEIGHTS_NAME} or {TORCH_NAME}",
            do="copy the file that lay beside adapter_config.json",
        )
    if not specs:
        raise CheckpointError("adapter holds no tensors", at=folder, do="save it anew with PEFT")
    return specs


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
                    got=f"{tensor} {list(found)}" if found else f"no {tensor}, but {min(specs)}",
                    at=next(iter(specs.values())).file,
                    expected=list(wanted),
                    do="check r and target_modules of its config, and that --base is its base",
                )
        stacked[factor] = np.stack([read_finite(specs[name], name).T for name in names])
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
    return holder.own_shape(config)[-2:]


def _name(holder: Tensor) -> str:
    """The torch module that holds a tensor; `{layer}` stands for the layer's number."""
    return holder.pattern.removesuffix(".weight")
