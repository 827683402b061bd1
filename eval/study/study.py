"""What a study is: base models, datasets, evaluations, and which are put together. gin binds it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from eval.harness.registry import QUICK, QUICK_LIMIT, find_task, suites
from tulu_jax.console import visible
from tulu_jax.data.mixtures import all_mixtures, get_mixture, split_names
from tulu_jax.data.specs import all_specs
from tulu_jax.errors import ConfigError
from tulu_jax.fields import Check, between, check_fields, least, one_of, setting
from tulu_jax.files import user_path

Kind = Literal["prepare", "train", "export", "losses", "evaluate", "report", "annotate"]
KINDS: tuple[Kind, ...] = (
    "prepare", "train", "export", "losses", "evaluate", "report", "annotate",
)  # fmt: skip
"""Of steps, in the order in which a cell is made."""
NONE = "none"
"""In place of a dataset: the base model as it is."""
NAME = Check(
    lambda text: bool(text.strip(" .")) and not set(text) & set("/\\,:+'\"`$&|;<>*?~") and
    visible(text) == text and len(text) <= 100 and not text.startswith("-"),
    "letters, digits, '-', '_' and '.', which a folder can have as its name", "is no name",
)  # fmt: skip
NOT_NEGATIVE = Check(lambda value: value >= 0, "0 or more")
OUTPUT_DTYPES = ("float32", "bfloat16", "float16")


def whole_name(name: str) -> str:
    """The whole name of a task or mixture; a file of the user's own goes by its absolute path.

    Raises: as `get_mixture`.
    """
    known = {**all_specs(), **all_mixtures()}
    parts = [get_mixture(part).name for part in split_names(name)]
    parts = [part if part in known else str(user_path(part)) for part in parts]
    return get_mixture(",".join(parts) or name).name


@dataclass(frozen=True, kw_only=True)
class BaseModel:
    """A model to fine-tune and evaluate, or, with `engine`, one behind an endpoint to evaluate.

    Raises: ConfigError naming the field.
    """

    name: str = setting(check=NAME, help="what tables call it")
    checkpoint: str | None = setting(
        None, help="its folder, within MODELS_DIR unless absolute; None: random weights"
    )
    tokenizer: str | None = setting(None, help="likewise its tokenizer's; None: the checkpoint's")
    engine: str | None = setting(None, help="model of an OpenAI-compatible endpoint")
    gin_files: Sequence[str] = setting((), help="recipe of its training, as for `tulu train`")
    settings: Mapping[str, Any] = setting(
        factory=dict, help="settings of its training that differ: {'MICRO_BATCHES': 8}"
    )
    topology: str | None = setting(None, help="slice that its training is planned for")
    family: str | None = setting(None, help="what the paper calls the base model: 'LLaMa'")
    size: str | None = setting(None, help="and its size: '13B'")

    def __post_init__(self) -> None:
        """Checks types, and that it is one kind of model."""
        check_fields(self)
        if self.engine is not None and (self.checkpoint or self.gin_files or self.tokenizer):
            raise ConfigError(
                "a model behind an endpoint has neither weights nor a recipe here",
                got=f"engine and checkpoint, tokenizer or gin_files at BaseModel {self.name!r}",
                do="leave engine out, or the others",
            )
        if self.engine is None and self.checkpoint is None and self.tokenizer is None:
            raise ConfigError(
                "a base model has no tokenizer",
                got="checkpoint=None and tokenizer=None",
                at=f"BaseModel {self.name!r}",
                expected="a folder of one of them, or an engine",
            )

    @property
    def reads_with(self) -> str:
        """The folder of its tokenizer, as it was written."""
        return self.tokenizer or self.checkpoint or ""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Tasks that are asked together, by one `tulu eval`.

    Raises: ConfigError naming the field.
    """

    name: str = setting(check=NAME, help="what tables and folders call it")
    tasks: Sequence[str] = setting((), help="tasks of `tulu eval list`")
    suite: str | None = setting(None, help="the tasks of a suite, before those")
    limit: int | None = setting(None, least(1), help="at most so many instances of each task")
    compat: str = setting("fixed", one_of("paper", "fixed"), help="as `tulu eval --compat`")
    dtype: str = setting("float32", one_of("float32", "bfloat16"), help="of computation")
    max_length: int | None = setting(
        None, least(2), help="tokens of prompt and answer together, as `tulu eval --max_length`"
    )
    allow_code: bool = setting(False, help="run programs that models wrote, in the sandbox")
    options: Sequence[str] = setting((), help="BENCHMARK.NAME=VALUE, as `tulu eval --option`")
    judge_dollars: float | None = setting(
        None, NOT_NEGATIVE, help="what its judge costs a model, where somebody knows; 0 without one"
    )

    def __post_init__(self) -> None:
        """Checks types and names."""
        check_fields(self)
        if not self.tasks and not self.suite:
            raise ConfigError(
                "an evaluation asks nothing",
                got=f"tasks={list(self.tasks)!r} and suite={self.suite!r}",
                at=f"Evaluation {self.name!r}",
                expected="one of them",
            )
        if self.suite is not None and self.suite not in suites():
            raise ConfigError(
                "unknown suite", got=repr(self.suite), at=f"Evaluation {self.name!r}",
                expected=" or ".join(suites()),
            )  # fmt: skip
        for task in self.tasks:
            find_task(task)

    @property
    def members(self) -> list[str]:
        """The names of its tasks."""
        suite = suites()[self.suite] if self.suite else []
        return list(dict.fromkeys([*suite, *self.tasks]))

    @property
    def instances(self) -> int | None:
        """How many instances of each task are asked at most; the suite `quick` asks few."""
        return QUICK_LIMIT if self.limit is None and self.suite == QUICK else self.limit


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Every one of `models` on every one of `datasets`, each put through all `evaluations`.

    Raises: ConfigError naming the field.
    """

    models: Sequence[BaseModel] = setting(help="base models")
    datasets: Sequence[str] = setting(
        help="tasks or mixtures to train on; 'none': the base model as it is"
    )
    evaluations: Sequence[Evaluation] = setting(help="what each is put through")

    def __post_init__(self) -> None:
        """Checks types and names; makes the names of datasets whole."""
        check_fields(self)
        for field in ("models", "datasets"):
            if not getattr(self, field):
                raise ConfigError(f"Grid.{field} is empty", expected="one or more")
        whole = tuple(n if n == NONE else whole_name(n) for n in self.datasets)
        object.__setattr__(self, "datasets", whole)
        for model in self.models:
            trains = any(name != NONE for name in self.datasets)
            if trains and not model.gin_files:
                raise ConfigError(
                    "a base model has no recipe",
                    got="gin_files=()",
                    at=f"BaseModel {model.name!r}",
                    expected="gin files as for `tulu train`",
                    do="name them, or put it with the dataset 'none' only",
                )
            if model.engine is None and model.checkpoint is None and NONE in self.datasets:
                raise ConfigError(
                    "a model of random weights has nothing to evaluate before it is trained",
                    got="the dataset 'none' with checkpoint=None",
                    at=f"BaseModel {model.name!r}",
                    do="leave 'none' out, or name a checkpoint",
                )


@dataclass(frozen=True, kw_only=True)
class HumanEvaluation:
    """Pairs of cells whose answers people compare, in one web application.

    Raises: ConfigError naming the field.
    """

    name: str = setting(check=NAME, help="what its pages call it")
    pairs: Sequence[Sequence[str]] = setting(
        help="names of two cells each: [['llama-65b+v1_human_gpt', 'llama-7b+v1_human_gpt']]"
    )
    task: str = setting("alpaca_eval", help="whose answers, a task that both are put through")
    groups: Sequence[str] = setting((), help="of its instances these groups only")
    limit: int | None = setting(None, least(1), help="draw so many instances from all pairs")
    annotators: int = setting(2, between(1, 1000), help="people for each instance of the overlap")
    overlap: float = setting(0.2, between(0, 1), help="share of instances that so many annotate")

    def __post_init__(self) -> None:
        """Checks types and names."""
        check_fields(self)
        find_task(self.task)
        if not self.pairs:
            raise ConfigError("HumanEvaluation.pairs is empty", at=repr(self.name),
                              expected="one pair or more")  # fmt: skip
        for pair in self.pairs:
            if len(pair) != 2 or pair[0] == pair[1]:
                raise ConfigError("people compare two cells", got=repr(list(pair)),
                                  at=f"HumanEvaluation {self.name!r}",
                                  expected="a list of two names")  # fmt: skip
        if len({frozenset(pair) for pair in self.pairs}) < len(self.pairs):
            raise ConfigError("people compare a pair twice", got=repr(list(self.pairs)),
                              at=f"HumanEvaluation {self.name!r}", do="leave one out")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Study:
    """Grids, and where everything lies. Its macros are set by `--gin.NAME=VALUE`.

    Raises: ConfigError naming the field.
    """

    name: str = setting(check=NAME, help="what tables call it")
    folder: str = setting(path="place", macro="STUDY_DIR", help="where everything is made")
    models_dir: str = setting(path="place", macro="MODELS_DIR", help="where base models lie")
    raw_dir: str | None = setting(
        None, path=True, macro="RAW_DIR", help="raw files, a folder a dataset; None downloads them"
    )
    eval_data_dir: str = setting(
        "data/eval", path=True, macro="EVAL_DATA_DIR", help="the benchmarks' data, a folder each"
    )
    scratch_dir: str | None = setting(
        None, path=True, macro="SCRATCH_DIR",
        help="of a STUDY_DIR in a bucket the small files here (default ~/.cache/tulu_jax_studies)",
    )  # fmt: skip
    export_dtype: str = setting(
        "bfloat16", one_of(*OUTPUT_DTYPES), macro="EXPORT_DTYPE", help="of exported weights"
    )
    options: Mapping[str, Mapping[str, Any]] = setting(
        factory=dict, help="reading options by task: {'tulu_sharegpt': {'split': 'paper'}}"
    )
    names: Mapping[str, str] = setting(
        check=NAME, factory=dict,
        help="what tables call a mixture: {'tulu_cot,tulu_dolly': 'human_mix'}",
    )  # fmt: skip
    human_sheets: Sequence[str] = setting(
        (), help="files of `tulu annotate export`, for the report's human evaluation"
    )
    resources: Mapping[str, Mapping[str, Any]] = setting(
        factory=dict, help="what a step of a kind needs of a cluster, as Snakemake's resources: "
        "{'train': {'slurm_partition': 'gpu', 'gres': 'gpu:8', 'runtime': 600}}",
    )  # fmt: skip
    submit: Mapping[str, str] = setting(
        factory=dict, help="by kind the command that `tulu ...` is handed to, {name}, {key} and "
        "{topology} filled in: {'train': 'python -m eval.study.tpu --topology {topology} ...'}",
    )  # fmt: skip
    grids: Sequence[Grid] = setting(help="what is put together")
    people: Sequence[HumanEvaluation] = setting((), help="whose answers people compare")

    def __post_init__(self) -> None:
        """Checks types, and that names mean one thing each."""
        check_fields(self)
        if not self.grids:
            raise ConfigError("Study.grids is empty", expected="one grid or more")
        options = {whole_name(task): values for task, values in self.options.items()}
        object.__setattr__(self, "options", options)
        for name in ("resources", "submit"):
            for kind in getattr(self, name):
                if kind not in KINDS:
                    raise ConfigError(f"Study.{name} is of an unknown kind of step",
                                      got=repr(kind), expected=" or ".join(KINDS))  # fmt: skip
        for name in (name for found in self.resources.values() for name in found):
            if not name.isidentifier():
                raise ConfigError("a resource has a name that Snakemake cannot take",
                                  got=repr(name), at="Study.resources")  # fmt: skip
        named = {whole_name(data): name for data, name in self.names.items()}
        if len(set(named.values())) < len(named):
            raise ConfigError("two mixtures have one name", got=repr(dict(self.names)),
                              at="Study.names", do="rename one")  # fmt: skip
        object.__setattr__(self, "names", named)
        sheets = [str(user_path(one, name="Study.human_sheets")) for one in self.human_sheets]
        object.__setattr__(self, "human_sheets", tuple(sheets))
        seen: dict[str, Evaluation] = {}
        for grid in self.grids:
            for one in grid.evaluations:
                if seen.setdefault(one.name, one) != one:
                    raise ConfigError(
                        "two evaluations have one name", got=repr(one.name), at="Study.grids",
                        do="rename one",
                    )  # fmt: skip
        weights: dict[str, BaseModel] = {}
        for model in (model for grid in self.grids for model in grid.models):
            first = weights.setdefault(model.name, model)
            if (first.checkpoint, first.engine) != (model.checkpoint, model.engine):
                raise ConfigError(
                    "two base models have one name", got=repr(model.name), at="Study.grids",
                    do="rename one",
                )  # fmt: skip
