"""A study and its recipes as gin files give them."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import gin

from tulu_jax.cli.gin_config import bind, load_train_config, parse_overrides, to_gin
from tulu_jax.cli.gin_effect import check_effect
from tulu_jax.cli.gin_files import bindable, first_line, read_bindings
from tulu_jax.errors import ConfigError

if TYPE_CHECKING:
    from eval.study.cells import Recipe, Table
    from eval.study.study import BaseModel, Study
    from tulu_jax.train.config import TrainConfig

ANYWHERE = "/"
"""In place of paths, which a recipe does not depend on."""
ANY_DATA = "tulu_demo"
SHARED = "TULU_SHARED"
"""The variable that names the folder of samples that tests use, too."""
ENDING = ".gin"


@functools.cache
def _macros() -> dict[str, list[str]]:
    """The fields that a macro is meant for; makes everything of a study known to gin."""
    import dataclasses

    from eval.study.study import BaseModel, Evaluation, Grid, HumanEvaluation, Study

    bindable(shared_folder)
    found: dict[str, list[str]] = {}
    for kind in (BaseModel, Evaluation, Grid, HumanEvaluation, Study):
        bindable(kind)
        for field in dataclasses.fields(kind):
            if macro := field.metadata.get("macro"):
                found.setdefault(macro, []).append(f"{kind.__name__}.{field.name}")
    return found


def shared_folder(name: str) -> str:
    """The folder of this name within the one that TULU_SHARED names.

    Raises: ConfigError where it is not set.
    """
    shared = os.environ.get(SHARED)
    if not shared:
        raise ConfigError(
            f"{SHARED} is not set", expected=f"a folder that holds {name}",
            do="set it, or give --gin.MODELS_DIR=, --gin.RAW_DIR= and --gin.EVAL_DATA_DIR=",
        )  # fmt: skip
    return os.path.join(os.path.abspath(shared), name)


def load_study(file: str, overrides: Sequence[str]) -> Study:
    """The study of a gin file, with later `--gin.NAME=VALUE`.

    Raises: ConfigError for a file that is not there, malformed gin, an unknown name, or a value
      that cannot be.
    """
    macros = _macros()
    file = file if file.endswith(ENDING) or os.path.isfile(file) else f"{file}{ENDING}"
    try:
        found = list(read_bindings([file], parse_overrides(overrides)))
        bound = bind(found)
        read = {name for one in found for name in one.macros}
        for one in found:
            for name in one.macros:
                if name not in bound:
                    raise ConfigError(
                        "setting is used but not set", got=f"%{name}", at=one.at,
                        do=f"add --gin.{name}=...",
                    )  # fmt: skip
        for name in sorted(bound.keys() - read):
            raise ConfigError(
                "unknown setting", got=name, expected=" or ".join(sorted({*macros, *read}))
            )
        study = gin.get_configurable("Study")()
        check_effect(found, macros)
        return study
    except ConfigError as error:
        raise ConfigError(first_line(error)) from None
    except (ValueError, TypeError, RuntimeError, AttributeError, KeyError) as error:
        raise ConfigError("the study cannot be read", got=first_line(error), at=file) from error


def load_table(file: str, overrides: Sequence[str]) -> Table:
    """The compiled study of a gin file.

    Raises: as `load_study`, for its recipes too.
    """
    from eval.study.compiled import compile_study

    return compile_study(load_study(file, overrides), recipe_of)


def recipe_of(model: BaseModel) -> Recipe:
    """The recipe of a base model.

    Raises: ConfigError for its gin files or settings.
    """
    start = ANYWHERE if model.checkpoint else None
    return _recipe(tuple(model.gin_files), repr(dict(model.settings)), start, _Settings(model))


@functools.cache
def _recipe(files: tuple[str, ...], said: str, initial: str | None, settings: _Settings) -> Recipe:
    from eval.study.cells import Recipe

    config = _config(files, said, initial, settings)
    data = config.data
    added = data.add_tokens
    return Recipe(
        text=to_gin(config),
        length=data.length,
        encoding=data.encoding,
        chat_template=data.chat_template,
        add_tokens=(added,) if isinstance(added, str) else tuple(added),
        heldout=data.heldout_examples,
        seed=data.seed,
    )


def config_of(model: BaseModel, initial: str | None = ANYWHERE) -> TrainConfig:
    """The training of a base model, with any data and paths.

    `initial` is the folder of its weights, where somebody wants to read it.

    Raises: ConfigError for its gin files or settings.
    """
    start = initial if model.checkpoint else None
    return _config(tuple(model.gin_files), repr(dict(model.settings)), start, _Settings(model))


class _Settings(dict[str, Any]):
    """A model's settings, which a cache may hold: what they are is in the other arguments."""

    def __init__(self, model: BaseModel) -> None:
        super().__init__(model.settings)

    def __hash__(self) -> int:  # type: ignore[override]
        return 0


@functools.cache
def _config(
    files: tuple[str, ...], _said: str, initial: str | None, settings: _Settings
) -> TrainConfig:
    from eval.study.compiled import gin_text

    paths = dict.fromkeys(("MODEL_DIR", "TOKENIZER", "DATA_DIR", "EVAL_DATA_DIR"), ANYWHERE)
    bindings = {**settings, **paths, "RAW_DIR": None, "INITIAL_CHECKPOINT_PATH": initial}
    bindings["MIXTURE_OR_TASK_NAME"] = ANY_DATA
    return load_train_config(
        files, [f"{name} = {gin_text(value)}" for name, value in bindings.items()]
    )
