"""`config.json` and `generation_config.json` of a LLaMA, to and from `LlamaConfig`.

Whatever would change the arithmetic and is not implemented is refused by name; nothing that the
arithmetic depends on is guessed. The norm's epsilon in particular has no default: LLaMA 1 uses
1e-6, its 65B and LLaMA 2 use 1e-5, and the wrong one gives text that is only slightly worse.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tulu_jax.errors import CheckpointError, TuluError
from tulu_jax.models import LlamaConfig

ARCHITECTURE = "LlamaForCausalLM"
DEFAULT_ROPE_THETA = 10_000.0


def read_config(folder: Path) -> LlamaConfig:
    """The model that the folder's `config.json` describes.

    Raises:
      CheckpointError: the file is missing, malformed, or describes a model we do not have.
    """
    path = folder / "config.json"
    return from_hf(read_json(path), at=path)


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file of a Hugging Face folder.

    Raises:
      CheckpointError: no such file, not UTF-8, not JSON, or not an object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{path.name} is missing",
            at=path.parent,
            expected="a folder in Hugging Face format",
            do="give the folder that holds config.json and *.safetensors",
        ) from error
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{path.name} is unreadable",
            got=error,
            at=path,
            expected="a JSON object in UTF-8",
            do="download the file again",
        ) from error
    if not isinstance(value, dict):
        raise CheckpointError(
            f"{path.name} is malformed", got=type(value).__name__, at=path, expected="a JSON object"
        )
    return value


def from_hf(fields: Mapping[str, Any], at: object = "config.json") -> LlamaConfig:
    """The model that the fields of a `config.json` describe.

    Args:
      fields: the parsed file, as transformers 4 or 5 wrote it.
      at: where it came from, for messages.

    Raises:
      CheckpointError: another architecture, a field missing or of the wrong type, or a feature
        that is not implemented (rope scaling, biases, quantised weights, other activations).
    """
    _check_supported(fields, at)
    d_model = _integer(fields, "hidden_size", at)
    num_heads = _integer(fields, "num_attention_heads", at)
    sizes: dict[str, Any] = {
        "num_kv_heads": _integer(fields, "num_key_value_heads", at, default=num_heads),
        "head_dim": _integer(fields, "head_dim", at, default=_even_share(d_model, num_heads, at)),
    }
    length = "max_position_embeddings"
    if length not in fields and "max_sequence_length" in fields:
        length = "max_sequence_length"
    try:
        return LlamaConfig(
            vocab_size=_integer(fields, "vocab_size", at),
            d_model=d_model,
            d_ff=_integer(fields, "intermediate_size", at),
            num_layers=_integer(fields, "num_hidden_layers", at),
            num_heads=num_heads,
            max_length=_integer(fields, length, at),
            norm_eps=_number(fields, "rms_norm_eps", at),
            rope_theta=_rope_theta(fields, at),
            tie_embeddings=_flag(fields, "tie_word_embeddings", at),
            bos_id=_token(fields, "bos_token_id", at, default=1),
            eos_id=_token(fields, "eos_token_id", at, default=2),
            pad_id=_pad_id(fields, at),
            **sizes,
        )
    except CheckpointError:
        raise
    except TuluError as error:
        raise CheckpointError(f"{error}", at=at) from error


def to_hf(config: LlamaConfig, dtype: str) -> dict[str, Any]:
    """The fields of `config.json` as transformers 4 and 5, vLLM and llama.cpp read them.

    Args:
      config: the model.
      dtype: of the weights beside it: float32, bfloat16 or float16.
    """
    return {
        "architectures": [ARCHITECTURE],
        "model_type": "llama",
        "vocab_size": config.vocab_size,
        "hidden_size": config.d_model,
        "intermediate_size": config.d_ff,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": config.max_length,
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope_theta,
        "rope_scaling": None,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "mlp_bias": False,
        "initializer_range": 0.02,
        "pretraining_tp": 1,
        "tie_word_embeddings": config.tie_embeddings,
        "bos_token_id": config.bos_id,
        "eos_token_id": config.eos_id,
        "pad_token_id": config.pad_id,
        "torch_dtype": dtype,
        "use_cache": True,
    }


def generation_config(config: LlamaConfig) -> dict[str, Any]:
    """The fields of `generation_config.json`: where generation starts and stops."""
    return {
        "bos_token_id": config.bos_id,
        "eos_token_id": config.eos_id,
        "pad_token_id": config.pad_id,
    }


def _check_supported(fields: Mapping[str, Any], at: object) -> None:
    names = fields.get("architectures")
    if names != [ARCHITECTURE]:
        found = f"architectures={names}, model_type={fields.get('model_type')!r}"
        raise CheckpointError("unknown architecture", got=found, at=at, expected=f"{ARCHITECTURE}")
    for name, wanted in (
        ("model_type", "llama"),
        ("hidden_act", "silu"),
        ("attention_bias", False),
        ("mlp_bias", False),
        ("rope_scaling", None),
        ("quantization_config", None),
    ):
        value = fields.get(name, wanted)
        if name == "rope_scaling" and _is_plain_rope(value):
            continue
        if value != wanted:
            raise CheckpointError(
                f"{name} is not supported", got=repr(value), at=at, expected=json.dumps(wanted)
            )


def _is_plain_rope(value: Any) -> bool:
    """Whether a rope dict of transformers 5 only says what the default is."""
    known = {"rope_theta", "rope_type", "type"}
    return (
        isinstance(value, Mapping)
        and set(value) <= known
        and value.get("rope_type", value.get("type", "default")) == "default"
    )


def _rope_theta(fields: Mapping[str, Any], at: object) -> float:
    rope = fields.get("rope_parameters")
    if rope is not None and not _is_plain_rope(rope):
        raise CheckpointError(
            "rope_parameters is not supported",
            got=json.dumps(rope),
            at=at,
            expected='{"rope_theta": ..., "rope_type": "default"}',
        )
    for source in (rope or {}, fields, fields.get("rope_scaling") or {}):
        if source.get("rope_theta") is not None:
            return _number(source, "rope_theta", at)
    return DEFAULT_ROPE_THETA


def _even_share(d_model: int, num_heads: int, at: object) -> int | None:
    if num_heads > 0 and d_model % num_heads == 0:
        return d_model // num_heads
    return None


def _missing(name: str, at: object) -> CheckpointError:
    return CheckpointError(
        f"{name} is missing",
        at=at,
        expected=f"config.json to name {name}: it is not guessed",
        do="copy it from the model's original config.json",
    )


def _integer(fields: Mapping[str, Any], name: str, at: object, default: int | None = None) -> int:
    value = fields.get(name)
    if value is None:
        value = default
    if value is None:
        raise _missing(name, at)
    if isinstance(value, bool) or not isinstance(value, int):
        raise _wrong_type(name, value, at, "an integer")
    return value


def _number(fields: Mapping[str, Any], name: str, at: object) -> float:
    value = fields.get(name)
    if value is None:
        raise _missing(name, at)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _wrong_type(name, value, at, "a number")
    return float(value)


def _flag(fields: Mapping[str, Any], name: str, at: object) -> bool:
    value = fields.get(name, False)
    if not isinstance(value, bool):
        raise _wrong_type(name, value, at, "true or false")
    return value


def _token(fields: Mapping[str, Any], name: str, at: object, default: int) -> int:
    value = fields.get(name, default)
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise _wrong_type(name, value, at, "one token id")
    return value


def _pad_id(fields: Mapping[str, Any], at: object) -> int | None:
    """The pad token; early LLaMA conversions wrote -1 for none."""
    if fields.get("pad_token_id") in (None, -1):
        return None
    return _token(fields, "pad_token_id", at, default=0)


def _wrong_type(name: str, value: Any, at: object, expected: str) -> CheckpointError:
    return CheckpointError(f"{name} is malformed", got=repr(value), at=at, expected=expected)
