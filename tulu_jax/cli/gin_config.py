"""gin files and `--gin.NAME=VALUE` -> a checked `TrainConfig`. The only file that knows gin."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import difflib
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import gin
from gin import config as gin_internals

import gin_configs
from tulu_jax.cli.gin_effect import check_effect
from tulu_jax.data.config import DataConfig
from tulu_jax.errors import ConfigError
from tulu_jax.files import user_path
from tulu_jax.models import FAMILIES, ComputeConfig
from tulu_jax.models.family import nested_fields
from tulu_jax.models.lora import LoraConfig
from tulu_jax.parallel import MeshConfig
from tulu_jax.train.config import OptimizerConfig, TrainConfig

CONFIGURABLES = (
    TrainConfig,
    DataConfig,
    *FAMILIES.values(),
    *(kind for family in FAMILIES.values() for kind in nested_fields(family).values()),
    ComputeConfig,
    OptimizerConfig,
    MeshConfig,
    LoraConfig,
)

MACROS = {
    "MODEL": "the model, as of a file of gin_configs/models; None takes the checkpoint's",
    "MODEL_DIR": "run folder (required)",
    "LORA": "@LoraConfig() trains adapters beside frozen weights; None trains every weight",
    "LORA_RANK": "rank of the adapters",
    "LORA_ALPHA": "the adapters' product counts LORA_ALPHA / LORA_RANK",
    "LORA_DROPOUT": "share of the adapters' inputs dropped in training",
    "LORA_TARGETS": "weights to adapt: ['q_proj', 'v_proj'] or ['all-linear']",
    "LORA_BASE_DTYPE": "'bfloat16', 'float32', 'int8' or 'nf4': what frozen weights are kept in",
    "INITIAL_CHECKPOINT_PATH": "run folder or Hugging Face folder to start from; None: random",
    "MIXTURE_OR_TASK_NAME": "a mixture, a task, the path of your own files, or several, by commas",
    "TASK_FEATURE_LENGTHS": "{'targets': tokens in a row}",
    "TOKENIZER": "folder of the tokenizer",
    "ENCODING": "'hf', or 'paper' (token for token the paper's slow tokenizer)",
    "CHAT_TEMPLATE": "'tulu', 'llama2', 'llama3', 'mistral', 'chatml', 'zephyr', 'alpaca'; or "
    "'checkpoint': the tokenizer folder's own",
    "ADD_TOKENS": "special tokens to add, or 'template': those that the chat template needs",
    "DATA_DIR": "folder of tokenized stores",
    "RAW_DIR": "folder of raw files: RAW_DIR/<dataset>/<file>",
    "PACKING": "'best_fit', or 'padded' (one example a row, as in the paper)",
    "HELDOUT_EXAMPLES": "examples of each task kept out of training to measure loss on",
    "EXCLUDE": "files of examples to leave out (`tulu data check --write_exclude`), by commas",
    "BATCH_SIZE": "rows in a global batch",
    "MICRO_BATCHES": "parts a batch is cut into to save memory",
    "TRAIN_STEPS": "optimizer steps; None trains for EPOCHS",
    "EPOCHS": "passes over the data; None trains for TRAIN_STEPS",
    "OPTIMIZER": "'adamw', or 'adafactor' (much less memory, no first moment)",
    "MOMENT_DTYPE": "'float32' or 'bfloat16': AdamW's first moment",
    "OFFLOAD_OPTIMIZER": "True keeps the optimizer's moments in the hosts' memory",
    "LEARNING_RATE": "peak learning rate",
    "WARMUP_RATIO": "share of the steps that warm up",
    "WEIGHT_DECAY": "decoupled weight decay",
    "CLIP_NORM": "gradient norm to clip at; None never",
    "LOSS_NORMALIZATION": "'token', or 'paper' (mean of per-micro-batch means)",
    "DTYPE": "'bfloat16' or 'float32' compute",
    "REMAT": "what the backward pass computes again: 'none', 'minimal', 'attention' or 'full'",
    "OFFLOAD_ACTIVATIONS": "names of activations kept in the host's memory, by commas",
    "ATTENTION": "'auto': the devices' own kernel; or dense, blockwise, splash, cudnn ...",
    "UNROLL_LAYERS": "layers traced in a row; more is faster on CPU, slower to compile",
    "MESH_DATA": "copies of the weights",
    "MESH_FSDP": "shards of the weights; -1: all devices left",
    "MESH_TENSOR": "shards of every layer's matrices",
    "MESH_SEQUENCE": "parts of every row of tokens, for long rows",
    "MESH_SLICE": "pod slices with a copy of the weights each; -1: as the devices come",
    "AXIS_RULES": "{logical axis: mesh axis, axes or None} in place of the default rules",
    "EVAL_PERIOD": "steps between held-out losses; 0 never",
    "LOG_PERIOD": "steps between log lines",
    "CHECKPOINT_PERIOD": "steps between checkpoints",
    "KEEP_CHECKPOINTS": "newest checkpoints kept",
    "STALL_FACTOR": "median steps without a step after which stacks are written; 0 never",
    "STALL_MINIMUM_SECONDS": "but not before this many seconds",
    "STALL_ENDS_RUN": "True ends a process that stalls",
    "RANDOM_SEED": "seed of data order and fresh weights",
    "WANDB": "True also logs to Weights & Biases",
    "PROFILE_STEPS": "steps to trace for xprof, from the third on; 0 none",
    "GRACE_SECONDS": "time from SIGTERM to the end of the machine",
    "PEER_TIMEOUT_SECONDS": "silence after which another process counts as dead",
    "ON_BAD_STEP": "'stop', or 'skip' steps with NaN or a gradient above BAD_GRAD_NORM",
    "BAD_STEPS_LIMIT": "skipped steps that a run may have",
    "BAD_GRAD_NORM": "gradient norm above which a step is bad; None: any finite one is good",
}
"""What `--gin.NAME=VALUE` may set, as in t5x; gin_configs/runs/finetune.gin gives the defaults."""

OVERRIDE = re.compile(r"--gin\.([A-Za-z_][\w./]*)=(.*)", re.DOTALL)


@gin.configurable
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


@gin.configurable
def demo_tokenizer() -> str:
    """The folder of the demo's tokenizer, wherever the package is installed."""
    from tasks.demo_tokenizer import folder

    return folder()


for _configurable in CONFIGURABLES:
    gin.external_configurable(_configurable, _configurable.__name__)


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
    files = [_as_given(file) for file in files]
    gin.clear_config()
    try:
        with _include_from(config_folder()):
            gin.parse_config_files_and_bindings(list(files), list(bindings), finalize_config=False)
            _check_macros(files)
            for name, value in (unset or {}).items():
                if name not in _macros() or gin.query_parameter(f"%{name}") is None:
                    gin.bind_parameter(f"{name}/gin.macro.value", value)
            _require_folder()
            _check_model()
            config = gin.get_configurable("TrainConfig")()
            check_effect(files, bindings, shipped=config_folder())
        return config
    except ConfigError as error:
        # gin appends where it was called from, which says nothing to a user.
        raise ConfigError(_first_line(error)) from None
    except OSError as error:
        missing = re.search(r"Unable to open file: (.+?)\. Searched", str(error))
        raise ConfigError(
            "gin file cannot be read",
            got=missing[1] if missing else _first_line(error),
            expected=f"a file, or one of {_run_files()}",
        ) from error
    except (ValueError, TypeError, SyntaxError, RuntimeError, AttributeError, KeyError) as error:
        raise _readable(error) from error


def _as_given(file: str) -> str:
    """The file that the user means; a name that is none is looked for among the recipes."""
    path = user_path(file, name="--gin_file")
    return str(path) if path.is_file() else file


def _check_model() -> None:
    """Refuses a model's name where its config is meant.

    Raises:
      ConfigError: MODEL is text.
    """
    model = gin.query_parameter("%MODEL") if "MODEL" in _macros() else None
    if isinstance(model, str):
        known = sorted(path.stem for path in (config_folder() / "models").glob("*.gin"))
        near = difflib.get_close_matches(model, known, n=1) or known
        raise ConfigError(
            "MODEL is a name, not a model's config",
            got=repr(model),
            expected="@LlamaConfig() and its fields, as of a file of gin_configs/models",
            do=f"add --gin_file=models/{near[0]}.gin in place of it",
        )


def _macros() -> set[str]:
    return {scope for scope, selector in gin_internals._CONFIG if selector == "gin.macro"}


@contextlib.contextmanager
def _include_from(folder: Path) -> Iterator[None]:
    """gin looks for files as given, then in `folder`, and nowhere else.

    gin's own second reader takes `runs/demo.gin` for a file of a Python package `runs`: it logs
    an error when there is none, and fails when there is any folder `runs` on Python's path.
    """
    prefixes, readers = gin_internals._LOCATION_PREFIXES, gin_internals._FILE_READERS
    gin_internals._LOCATION_PREFIXES = ["", str(folder)]
    gin_internals._FILE_READERS = [(_open_text, os.path.isfile)]
    try:
        yield
    finally:
        gin_internals._LOCATION_PREFIXES, gin_internals._FILE_READERS = prefixes, readers


def _open_text(path: str) -> IO[str]:
    """The file as text; a byte-order mark is left out."""
    return open(path, encoding="utf-8-sig")


def config_folder() -> Path:
    """The folder of the recipes that come with the project."""
    return Path(next(iter(gin_configs.__path__)))


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


def _check_macros(files: Iterable[str]) -> None:
    """Refuses macros that nothing reads: a typo would otherwise change nothing, silently."""
    defined = _macros()
    read = set(re.findall(r"%([\w./]+)", "\n".join(_texts(files))))
    for name in sorted(defined - set(MACROS) - read):
        near = difflib.get_close_matches(name.upper(), MACROS, n=3)
        raise ConfigError(
            "unknown setting", got=name, expected=" or ".join(near) or "a name of the list",
            do="`tulu train --help` lists the names",
        )  # fmt: skip


def _texts(files: Iterable[str]) -> Iterable[str]:
    for file in files:
        path = Path(file) if Path(file).exists() else config_folder() / file
        yield path.read_text(encoding="utf-8-sig") if path.is_file() else ""


def _require_folder() -> None:
    """Refuses a run without a folder, which MODEL_DIR names, or a file of resolved settings."""
    folder = None
    for name in ("%MODEL_DIR", "TrainConfig.model_dir"):
        with contextlib.suppress(ValueError):  # not bound
            value = gin.query_parameter(name)
            folder = value if isinstance(value, str | int) else folder
    if folder is None:
        raise ConfigError(
            "MODEL_DIR is not set", expected=MACROS["MODEL_DIR"], do="add --gin.MODEL_DIR=..."
        )


def _readable(error: Exception) -> ConfigError:
    """gin's own error, with the nearest names and the line that caused it."""
    text = str(error)
    where = re.search(
        r"In (?:bindings string|file \"?([^\"\n]+)\"?),? line (\d+)\s*\n\s*(.+)", text
    )
    at = None
    if where:
        place = f"{where[1]} line {where[2]}" if where[1] else "the command line"
        at = f"{place}: {where[3].strip()}"
    if found := re.search(r"Configurable '(\w+)' doesn't have a parameter named '(\w+)'", text):
        fields = {c.__name__: [f.name for f in dataclasses.fields(c)] for c in CONFIGURABLES}
        names = fields.get(found[1], [])
        near = difflib.get_close_matches(found[2], names, n=3) or names
        return ConfigError(
            "unknown setting",
            got=f"{found[1]}.{found[2]}",
            at=at,
            expected=" or ".join(near) or None,
        )
    if found := re.search(r"No configurable matching (?:reference )?'@?([\w.]+)", text):
        names = [c.__name__ for c in CONFIGURABLES]
        near = difflib.get_close_matches(found[1], names, n=3)
        return ConfigError(
            "unknown setting", got=found[1], at=at, expected=" or ".join(near or names)
        )
    if found := re.search(r"in scope '(\w+)'", text):
        near = difflib.get_close_matches(found[1], MACROS, n=3)
        return ConfigError("setting is used but not set", got=f"%{found[1]}", at=at,
                           expected=" or ".join(near) or None)  # fmt: skip
    return ConfigError("gin settings cannot be read", got=_first_line(error), at=at)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def _run_files() -> str:
    runs = sorted((config_folder() / "runs").glob("*.gin"))
    return ", ".join(str(path.relative_to(config_folder())) for path in runs)
