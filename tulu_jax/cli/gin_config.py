"""Settings as gin files and `--gin.NAME=VALUE` give them -> a checked `TrainConfig`."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import gin

from tulu_jax.cli.gin_effect import check_effect
from tulu_jax.cli.gin_files import (
    MACRO,
    Binding,
    bindable,
    config_folder,
    first_line,
    read_bindings,
)
from tulu_jax.data.config import DataConfig
from tulu_jax.errors import ConfigError
from tulu_jax.models import FAMILIES, ComputeConfig, ModelConfig
from tulu_jax.models.family import nested_fields
from tulu_jax.models.lora import LoraConfig
from tulu_jax.parallel import MeshConfig
from tulu_jax.train.config import OptimizerConfig, TrainConfig

SETTINGS = (TrainConfig, LoraConfig, DataConfig, OptimizerConfig, ComputeConfig, MeshConfig)
MODELS = (
    *FAMILIES.values(),
    *(kind for family in FAMILIES.values() for kind in nested_fields(family).values()),
)

MACROS: dict[str, str] = {}
"""What `--gin.NAME=VALUE` may set, as in t5x; gin_configs/runs/finetune.gin gives the defaults."""

MACRO_FIELDS: dict[str, list[str]] = {}
"""The fields that a macro is meant for, as `OptimizerConfig.name`."""

for _kind in (*SETTINGS, *MODELS):
    bindable(_kind)
    for _field in dataclasses.fields(_kind):
        if _macro := _field.metadata.get("macro"):
            MACROS.setdefault(_macro, _field.metadata["help"])
            MACRO_FIELDS.setdefault(_macro, []).append(f"{_kind.__name__}.{_field.name}")

_LACKING = re.compile(r"missing .*\n(?:.*\n)*?  In call to configurable '(\w+)'")
"""Python's words for fields without a value, and what gin appends to them."""

OVERRIDE = re.compile(r"--gin\.([A-Za-z_][\w./]*)=(.*)", re.DOTALL)


def row_length(feature_lengths: dict[str, int]) -> int:
    """Tokens in a row, from t5x's TASK_FEATURE_LENGTHS.

    Raises:
      ConfigError: it does not say how long `targets` are.
    """
    if not isinstance(feature_lengths, dict) or set(feature_lengths) != {"targets"}:
        raise ConfigError(
            "TASK_FEATURE_LENGTHS is not understood",
            got=feature_lengths,
            expected="{'targets': tokens in a row}",
        )
    return feature_lengths["targets"]


def demo_tokenizer() -> str:
    """The folder of the demo's tokenizer, wherever the package is installed."""
    from tasks.demo_tokenizer import folder

    return folder()


bindable(row_length)
bindable(demo_tokenizer)


def parse_overrides(arguments: Sequence[str]) -> list[str]:
    """gin bindings from arguments of the form `--gin.NAME=VALUE`.

    VALUE is a gin value (`2e-5`, `None`, `%OTHER`, `@LlamaConfig()`); anything else is text and
    needs no quotes of its own: `--gin.MODEL_DIR=runs/first`.

    Raises:
      ConfigError: an argument of another form.
    """
    bindings = []
    for argument in arguments:
        match = OVERRIDE.fullmatch(argument)
        if match is None:
            raise ConfigError(
                "unknown argument", got=repr(argument), expected="--gin.NAME=VALUE",
                do="see `tulu train --help`",
            )  # fmt: skip
        bindings.append(f"{match[1]} = {_gin_value(match[2])}")
    return bindings


def _gin_value(text: str) -> str:
    if text.startswith(("@", "%")):
        return text
    try:
        ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return repr(text)
    return text


def load_train_config(
    files: Sequence[str], bindings: Sequence[str], *, unset: Mapping[str, str] | None = None
) -> TrainConfig:
    """The run that gin files and later bindings describe.

    Files are looked for as given, then in the repository's gin_configs/. `unset` has values for
    macros that are None after all that.

    Raises:
      ConfigError: a file that is not there, malformed gin, an unknown name (the nearest ones are
        given), or a value out of range.
    """
    try:
        found = list(read_bindings(files, bindings))
        macros = bind(found)
        _check_macros(found, macros)
        for name, value in (unset or {}).items():
            if macros.get(name) is None:
                macros[name] = value
                gin.bind_parameter((name, "gin.macro", "value"), value)
        _check_values(macros, found)
        config = gin.get_configurable("TrainConfig")()
        check_effect(found, MACRO_FIELDS)
        return config
    except ConfigError as error:
        raise ConfigError(first_line(error)) from None
    except (ValueError, TypeError, RuntimeError, AttributeError, KeyError) as error:
        raise not_made(error) from error


def not_made(error: Exception) -> ConfigError:
    """The error of settings of which gin or Python could not make a config."""
    made = _LACKING.search(str(error))
    kind = next((k for k in (*SETTINGS, *MODELS) if made and k.__name__ == made[1]), None)
    lacking = [] if kind is None else _without_value(kind)
    if kind is None or not lacking:
        return ConfigError("gin settings cannot be read", got=first_line(error))
    do = f"set --gin.{kind.__name__}.{lacking[0]}=... and the like"
    if kind in MODELS:
        do = "add --gin_file=models/NAME.gin, a file of gin_configs/models, or set them all"
    return ConfigError(
        f"{kind.__name__} lacks settings that have no default",
        got=f"nothing for {', '.join(lacking)}",
        expected="a value for each",
        do=do,
    )


def _without_value(kind: Any) -> list[str]:
    """The fields of a config that have neither a default nor a binding."""
    bound, none = {}, dataclasses.MISSING
    for field in dataclasses.fields(kind):
        with contextlib.suppress(ValueError):
            bound[field.name] = gin.query_parameter(f"{kind.__name__}.{field.name}")
    return [
        field.name for field in dataclasses.fields(kind)
        if field.default is none and field.default_factory is none and field.name not in bound
    ]  # fmt: skip


def load_model(name: str) -> ModelConfig:
    """The model config of `gin_configs/models/NAME.gin`.

    Raises:
      ConfigError: no such file.
    """
    known = _model_names()
    if name not in known:
        raise ConfigError("unknown model", got=name, expected=", ".join(known))
    macros = bind(read_bindings([f"models/{name}.gin"], []))
    return macros["MODEL"].scoped_configurable_fn()


def load_gin_model(files: Sequence[str], bindings: Sequence[str]) -> ModelConfig:
    """The model that gin files and later bindings describe by MODEL.

    Raises:
      ConfigError: a file that is not there, malformed gin, a value out of range, or no model.
    """
    try:
        found = bind(read_bindings(files, bindings)).get("MODEL")
        model = found and found.scoped_configurable_fn()
    except ConfigError as error:
        raise ConfigError(first_line(error)) from None
    except (ValueError, TypeError, RuntimeError, AttributeError, KeyError) as error:
        raise not_made(error) from error
    if model is None:
        raise ConfigError(
            "there is no model to plan for",
            got="MODEL=None",
            do="add --gin_file=models/llama_7b.gin or the like",
        )
    return model


def bind(bindings: Iterable[Binding]) -> dict[str, Any]:
    """Hands settings to gin, in place of all before them; the values of the macros."""
    gin.clear_config()
    macros = {}
    for one in bindings:
        kind = "gin.macro" if one.kind == MACRO else one.kind
        gin.bind_parameter((one.scope, kind, one.field), one.value)
        if one.kind == MACRO:
            macros[one.scope] = one.value
    return macros


def _check_macros(bindings: Sequence[Binding], macros: Mapping[str, Any]) -> None:
    """Refuses macros that nothing reads, since a typo would change nothing, or nothing sets."""
    read = {name for one in bindings for name in one.macros}
    for name in sorted(macros.keys() - MACROS.keys() - read):
        near = difflib.get_close_matches(name.upper(), MACROS, n=3)
        raise ConfigError(
            "unknown setting", got=name, expected=" or ".join(near) or "a name of the list",
            do="`tulu train --help` lists the names",
        )  # fmt: skip
    for one in bindings:
        for name in one.macros:
            if name not in macros:
                near = difflib.get_close_matches(name, MACROS, n=3)
                raise ConfigError("setting is used but not set", got=f"%{name}", at=one.at,
                                  expected=" or ".join(near) or None)  # fmt: skip


def _check_values(macros: Mapping[str, Any], bindings: Iterable[Binding]) -> None:
    """Refuses a run without a folder, and a model's name where its config is meant."""
    folders = [one.value for one in bindings if one.name == "TrainConfig.model_dir"]
    if not any(isinstance(value, str | int) for value in (*folders, macros.get("MODEL_DIR"))):
        raise ConfigError(
            "MODEL_DIR is not set", expected=MACROS["MODEL_DIR"], do="add --gin.MODEL_DIR=..."
        )
    model = macros.get("MODEL")
    if isinstance(model, str):
        near = difflib.get_close_matches(model, _model_names(), n=1) or _model_names()
        raise ConfigError(
            "MODEL is a name, not a model's config",
            got=repr(model),
            expected="@LlamaConfig() and its fields, as of a file of gin_configs/models",
            do=f"add --gin_file=models/{near[0]}.gin in place of it",
        )


def _model_names() -> list[str]:
    return sorted(path.stem for path in (config_folder() / "models").glob("*.gin"))


def to_gin(config: Any) -> str:
    """A whole config as gin text that loads to an equal one: every field, no macros."""
    lines: list[str] = []
    _write(config, lines)
    return "\n".join(lines) + "\n"


def _write(config: Any, lines: list[str]) -> None:
    name = type(config).__name__
    nested = []
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            nested.append(value)
            lines.append(f"{name}.{field.name} = @{type(value).__name__}()")
        else:
            lines.append(f"{name}.{field.name} = {value!r}")
    for value in nested:
        lines.append("")
        _write(value, lines)
