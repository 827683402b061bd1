"""`adapter_config.json` of PEFT: which adapters there are, or why they cannot be read.

The rule of `config.json`: each field is read once and checked; fields that change nothing are
listed; whatever else says something is refused by name.

Source: peft 0.21 `tuners/lora/{config,layer}.py`, `tuners/tuners_utils.py`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tulu_jax.checkpoint.hf.fields import Fields
from tulu_jax.checkpoint.hf.kinds import ADAPTER_CONFIG, folder_inside
from tulu_jax.checkpoint.hf.names import tensors_of
from tulu_jax.checkpoint.hf.weights import Tensor
from tulu_jax.errors import CheckpointError, TuluError
from tulu_jax.files import read_json
from tulu_jax.models import ModelConfig
from tulu_jax.models.lora import LoraConfig, adapter_shapes

Note = Callable[[str], None]
"""Told what is worth telling people."""

NEUTRAL: dict[str, Any] = {
    "bias": "none",
    "fan_in_fan_out": False,
    "use_rslora": False,
    "use_dora": False,
    "use_qalora": False,
    "lora_bias": False,
    "modules_to_save": [],
    "layers_to_transform": [],
    "layer_replication": [],
    "rank_pattern": {},
    "alpha_pattern": {},
    "target_parameters": [],
    "trainable_token_indices": [],
    "alora_invocation_tokens": [],
    "exclude_modules": [],
}
"""Fields of PEFT's config that would change the arithmetic -> the value at which they do not."""

HARMLESS = frozenset(
    """
    peft_version auto_mapping base_model_name_or_path revision task_type inference_mode
    megatron_config megatron_core qalora_group_size runtime_config layers_pattern
    ensure_weight_tying loftq_config eva_config corda_config lora_ga_config
    unsloth_version unsloth_fixed
    """.split()  # noqa: SIM905
)
"""Fields that do not change what an adapter computes: bookkeeping, where it came from, how it was
begun, and what only matters beside fields of NEUTRAL."""

PLAIN_STARTS = (True, False, "gaussian", "eva", "orthogonal", "mica")
"""Values of `init_lora_weights` that leave the base as it is. The others (PiSSA, OLoRA, CorDA,
LoftQ, LoRA-GA) take the adapter's start out of the base's weights: the adapter alone is then not
what was trained."""


CONVERTIBLE = ("pissa", "olora", "corda", "lora_ga")
"""Starts whose adapters PEFT makes into plain ones."""
CONVERT = (
    "in PEFT convert it: save_pretrained(DIR, path_initial_model_for_weight_conversion=START), "
    "START being the adapter saved before training"
)


def read_adapter_config(folder: Path, config: ModelConfig, note: Note) -> tuple[LoraConfig, bool]:
    """The adapters' settings, and whether they are ours of a module that holds several weights.

    Raises:
      CheckpointError: no such file, or naming the field that is missing, malformed or not one of
        ours.
    """
    at = folder / ADAPTER_CONFIG
    found = read_json(
        at,
        CheckpointError,
        expected="an adapter's folder: adapter_config.json beside adapter_model.safetensors",
        do=folder_inside(folder)
        or "give the folder that PEFT's save_pretrained wrote; a whole "
        "model is taken by tulu import --hf",
    )
    fields = Fields(found, at, file=ADAPTER_CONFIG, harmless=HARMLESS)
    _only(fields, "peft_type", "LORA")
    _check_start(fields)
    rank = fields.integer("r")
    alpha = fields.number("lora_alpha")
    dropout = fields.as_number("lora_dropout", fields.take("lora_dropout", 0.0))
    modules = _targets(fields, config, at, note)
    try:
        own = tuple(sorted({path[-1] for holder in modules for path in holder.paths}))
        lora = LoraConfig(
            rank=rank, alpha=alpha, dropout=dropout, targets=own, base_dtype="float32"
        )
    except TuluError as error:
        raise CheckpointError("adapter's config is not understood", got=error, at=at) from error
    fused = _patterns_fit(found, modules, lora)
    for name, neutral in NEUTRAL.items():
        if not (name in ("rank_pattern", "alpha_pattern") and fused is not None):
            _only(fields, name, neutral)
        fields.take(name, None)
    fields.finish()
    return lora, bool(fused)


def patterns(modules: list[Tensor], lora: LoraConfig) -> dict[str, dict[str, Any]]:
    """PEFT's fields for modules whose adapter has another rank, and the same scale."""
    fused = {module_name(holder): len(holder.paths) for holder in modules if len(holder.paths) > 1}
    return {
        "rank_pattern": {name: count * lora.rank for name, count in fused.items()},
        "alpha_pattern": {name: count * lora.alpha for name, count in fused.items()},
    }


def modules_of(config: ModelConfig, lora: LoraConfig) -> list[Tensor]:
    """The tensors of the modules with an adapter: those that hold a weight with one."""
    adapted = adapter_shapes(config, lora)
    return [holder for holder in tensors_of(config) if any(p in adapted for p in holder.paths)]


def module_name(holder: Tensor) -> str:
    """The last part of the name of the torch module that holds a tensor."""
    return holder.pattern.removesuffix(".weight").rsplit(".", 1)[1]


def _only(fields: Fields, name: str, good: Any) -> None:
    """Passes for the one value; older PEFT writes null for what is not set."""
    value = fields.take(name, None)
    if value is not None and not (value == good and type(value) is type(good)):
        raise fields.refusal(f"{name} of the adapter", repr(value), expected=repr(good))


def _check_start(fields: Fields) -> None:
    """Refuses an adapter that was trained beside a base that its start had changed."""
    start = fields.take("init_lora_weights", True)
    plain = start.lower() if isinstance(start, str) else start
    if isinstance(plain, bool | str) and plain in PLAIN_STARTS:
        return
    merge = "merge it in PEFT into the base that its start left, and use the whole model"
    raise fields.refusal(
        "init_lora_weights of the adapter",
        repr(start),
        expected="true, false or 'gaussian': this start changes the base's weights, so that the "
        "adapter beside the base as it was is another model",
        do=f"{CONVERT}; or {merge}" if str(plain).startswith(CONVERTIBLE) else merge,
    )


def _targets(fields: Fields, config: ModelConfig, at: Path, note: Note) -> list[Tensor]:
    """The tensors of the modules that `target_modules` means, as PEFT matches names.

    A list names modules by the end of their dotted names, a text is a regular expression for the
    whole name.
    """
    every = modules_of(config, LoraConfig(targets=("all-linear",), base_dtype="float32"))
    value = fields.take("target_modules", None)
    if value == "all-linear":
        return every
    texts = [value] if isinstance(value, str) else value
    if not texts or not isinstance(texts, list) or not all(isinstance(x, str) for x in texts):
        raise _malformed(repr(value)[:100], at)
    match = _by_expression(value, at) if isinstance(value, str) else _by_end
    chosen, unmatched = [], set(texts)
    for holder in tensors_of(config):
        layers = [name.removesuffix(".weight") for name in holder.hf_names(config)]
        hits = [{text for text in texts if match(text, name)} for name in layers]
        unmatched -= set().union(*hits)
        if any(hits) and holder not in every:
            if holder.pattern.endswith(".bias"):
                continue
            raise CheckpointError(
                "target_modules of the adapter is not supported", got=layers[0], at=at,
                expected=f"matrices of the layers: {', '.join(map(module_name, every))}",
                do="merge it in PEFT and use the whole model",
            )  # fmt: skip
        if any(hits) and not all(hits):
            raise CheckpointError(
                "target_modules of the adapter is not supported",
                got=f"{module_name(holder)} in {sum(map(bool, hits))} of {len(layers)} layers",
                at=at,
                expected="the same modules in every layer",
            )
        if any(hits):
            chosen.append(holder)
    if not chosen:
        raise CheckpointError(
            "target_modules of the adapter names no module of the base",
            got=repr(value)[:200],
            at=at,
            expected=f"some of {', '.join(map(module_name, every))}",
            do="check that --base is the model it was trained beside",
        )
    if unmatched:
        note(f"target_modules names {', '.join(sorted(unmatched))}: the base has no such matrices")
    return chosen


def _malformed(found: str, at: Path) -> CheckpointError:
    return CheckpointError(
        "target_modules of the adapter is malformed",
        got=found,
        at=at,
        expected="a list of names of modules, or one regular expression",
    )


def _by_end(text: str, name: str) -> bool:
    return name == text or name.endswith("." + text)


def _by_expression(text: str, at: Path) -> Callable[[str, str], bool]:
    """Whether a name is matched whole, as PEFT does with a text."""
    try:
        compiled = re.compile(text)
    except re.error as error:
        raise _malformed(f"{text[:100]!r}: {error}", at) from error
    return lambda _, name: compiled.fullmatch(name) is not None


def _patterns_fit(found: Mapping[str, Any], modules: list[Tensor], lora: LoraConfig) -> bool | None:
    """True: they are what we write for modules of several weights; False: they say nothing new.

    None: they say something else.
    """
    ours = patterns(modules, lora)
    if ours["rank_pattern"] and all(found.get(name) == value for name, value in ours.items()):
        return True
    plain = {"rank_pattern": lora.rank, "alpha_pattern": lora.alpha}
    for name, value in plain.items():
        pattern = found.get(name) or {}
        if not isinstance(pattern, dict) or any(other != value for other in pattern.values()):
            return None
    return False
