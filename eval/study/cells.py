"""A study as a table: cells, and the steps that make each, named by what they depend on."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eval.study.study import KINDS, NONE, BaseModel, Evaluation, Kind, Study
from tulu_jax.data.mixtures import get_mixture
from tulu_jax.errors import ConfigError
from tulu_jax.files import json_sha256

KEY_LENGTH = 16


@dataclass(frozen=True)
class Recipe:
    """A base model's training as far as a step depends on it."""

    text: str
    """Every setting but paths and data, in a form that is the same for the same run."""
    length: int
    encoding: str
    chat_template: str = "tulu"
    add_tokens: tuple[str, ...] = ()
    heldout: int = 0
    """Examples of each dataset that training does not see, to measure losses on."""
    seed: int = 42
    """By which they are chosen."""


@dataclass(frozen=True)
class Step:
    """One `tulu` command. `settings` and the parents' keys are what `key` is the hash of."""

    kind: Kind
    name: str
    settings: Mapping[str, Any]
    parents: tuple[Step, ...]
    argv: tuple[str, ...]
    """The command without `tulu`; paths within the study are relative to its folder."""

    @functools.cached_property
    def key(self) -> str:
        """What names its folder."""
        found = {"kind": self.kind, "settings": self.settings, "parents": self.parent_keys}
        return json_sha256(found)[:KEY_LENGTH]

    @property
    def parent_keys(self) -> list[str]:
        """The keys of the steps that it needs."""
        return [parent.key for parent in self.parents]

    @property
    def folder(self) -> str:
        """Its folder within the study's."""
        return f"{self.kind}/{self.key}"


@dataclass(frozen=True)
class Cell:
    """A base model on a dataset, with what makes and measures it."""

    model: BaseModel
    dataset: str
    steps: list[Step] = field(default_factory=list)
    called: str | None = None
    """What the study calls its dataset."""

    @property
    def name(self) -> str:
        """What tables call it: `llama-13b+dolly`, or the base model's own name."""
        parts = [part.removeprefix("tulu_") for part in self.dataset.split(",")]
        data = self.called or "_".join(parts).replace("/", "_")
        return self.model.name if self.dataset == NONE else f"{self.model.name}+{data}"

    def of(self, kind: Kind) -> list[Step]:
        """Its steps of a kind."""
        return [step for step in self.steps if step.kind == kind]


@dataclass(frozen=True)
class Table:
    """All cells of a study; `steps` has each step once, parents first."""

    study: Study
    cells: list[Cell]

    @functools.cached_property
    def steps(self) -> list[Step]:
        """See the class."""
        every = {step.key: step for cell in self.cells for step in cell.steps}
        return sorted(every.values(), key=lambda step: KINDS.index(step.kind))

    @property
    def root(self) -> Path:
        """The study's folder."""
        return Path(self.study.folder)


def compile_study(study: Study, recipe: Callable[[BaseModel], Recipe]) -> Table:
    """The table of a study; nothing is read but what `recipe` reads.

    Raises: ConfigError where two grids train one cell in two ways.
    """
    wanted: dict[tuple[str, str], tuple[BaseModel, dict[str, Evaluation]]] = {}
    for grid in study.grids:
        for model in grid.models:
            for dataset in grid.datasets:
                first, tasks = wanted.setdefault((model.name, dataset), (model, {}))
                if dataset != NONE and first != model:
                    raise ConfigError(
                        "one cell is trained in two ways",
                        got=f"{model.name} on {dataset}",
                        at="Study.grids",
                        do="name one of the base models otherwise, or leave it out of one grid",
                    )
                tasks.update({one.name: one for one in grid.evaluations})
    maker = _Maker(study, recipe, {})
    cells = [
        maker.cell(Cell(model, dataset, called=study.names.get(dataset)), tasks)
        for (_, dataset), (model, tasks) in wanted.items()
    ]
    return Table(study, cells)


def trained_tasks(study: Study) -> list[str]:
    """The tasks of all datasets that a study trains on, in the order of its grids."""
    datasets = [name for grid in study.grids for name in grid.datasets if name != NONE]
    return list(dict.fromkeys(task for name in datasets for task in get_mixture(name).tasks))


@dataclass(frozen=True)
class _Maker:
    """Makes the steps of cells; those of `prepared` are shared by them."""

    study: Study
    recipe: Callable[[BaseModel], Recipe]
    prepared: dict[str, Step]

    def cell(self, cell: Cell, tasks: Mapping[str, Evaluation]) -> Cell:
        """Adds the steps of a cell."""
        study, model = self.study, cell.model
        found = self.recipe(model) if model.gin_files else None
        parents: tuple[Step, ...] = ()
        if cell.dataset != NONE:
            assert found is not None  # a grid trains no model without a recipe
            stores = self.stores(model, get_mixture(cell.dataset).tasks, found)
            train = _train(study, cell, found, stores)
            export = _export(study, cell, train)
            cell.steps.extend([*stores, train, export])
            parents = (export,)
        evaluations = [_evaluate(study, cell, one, parents) for one in tasks.values()]
        cell.steps.extend(evaluations)
        if found is not None and found.heldout and (parents or model.checkpoint):
            stores = self.stores(model, trained_tasks(study), found)
            own = {step.key for step in cell.steps}
            cell.steps.extend(step for step in stores if step.key not in own)
            cell.steps.append(_losses(study, cell, found, (*parents, *stores)))
        if evaluations:
            cell.steps.append(_report(cell, tuple(evaluations)))
        return cell

    def stores(self, model: BaseModel, tasks: Sequence[str], found: Recipe) -> tuple[Step, ...]:
        """The steps that prepare tasks for a model."""
        made = (_prepare(self.study, model, task, found) for task in tasks)
        return tuple(self.prepared.setdefault(step.key, step) for step in made)


def place(study: Study, folder: str) -> str:
    """Where a base model or tokenizer lies that a study names."""
    return os.path.join(study.models_dir, os.path.expanduser(folder))


def options_of(study: Study, mixture: str) -> dict[str, dict[str, Any]]:
    """The study's reading options of the tasks of a mixture."""
    tasks = get_mixture(mixture).tasks
    own = {get_mixture(task).tasks[0]: dict(options) for task, options in study.options.items()}
    return {task: own[task] for task in tasks if task in own}


def _prepare(study: Study, model: BaseModel, task: str, recipe: Recipe) -> Step:
    options = options_of(study, task)
    settings = {
        "task": task,
        "tokenizer": model.reads_with,
        "length": recipe.length,
        "encoding": recipe.encoding,
        "chat_template": recipe.chat_template,
        "add_tokens": recipe.add_tokens,
        "options": options,
    }
    argv = ("data", "prepare", task, *_reading(study, model, recipe, options))
    return Step("prepare", task, settings, (), argv)


def _reading(
    study: Study, model: BaseModel, recipe: Recipe, options: Mapping[str, Mapping[str, Any]]
) -> list[str]:
    """The flags that say how datasets are read and encoded."""
    return [
        *("--tokenizer", place(study, model.reads_with)),
        *("--encoding", recipe.encoding, "--chat_template", recipe.chat_template),
        *("--max_length", str(recipe.length), "--data_dir", "data"),
        *(word for token in recipe.add_tokens for word in ("--add_tokens", token)),
        *(("--raw_dir", study.raw_dir) if study.raw_dir else ()),
        *(
            word
            for name, values in options.items()
            for key, value in values.items()
            for word in ("--option", f"{name}.{key}={value}")
        ),
    ]


def _train(study: Study, cell: Cell, recipe: Recipe, stores: tuple[Step, ...]) -> Step:
    model = cell.model
    options = options_of(study, cell.dataset)
    settings = {
        "recipe": recipe.text,
        "dataset": cell.dataset,
        "checkpoint": model.checkpoint,
        "tokenizer": model.reads_with,
        "options": options,
    }
    draft = Step("train", cell.name, settings, stores, ())
    bindings: dict[str, Any] = {
        **model.settings,
        "MODEL_DIR": f"{draft.folder}/run",
        "INITIAL_CHECKPOINT_PATH": place(study, model.checkpoint) if model.checkpoint else None,
        "TOKENIZER": place(study, model.reads_with),
        "MIXTURE_OR_TASK_NAME": cell.dataset,
        "DATA_DIR": "data",
        "RAW_DIR": study.raw_dir,
    }
    if options:
        bindings["DataConfig.options"] = options
    files = [f"--gin_file={_recipe_path(file)}" for file in model.gin_files]
    argv = [
        "train",
        *files,
        *(f"--gin.{name}={gin_text(value)}" for name, value in bindings.items()),
    ]
    return Step("train", cell.name, settings, stores, tuple(argv))


def gin_text(value: Any) -> str:
    """The value as `--gin.NAME=VALUE` takes it; references such as '@LoraConfig()' are text."""
    return value if isinstance(value, str) and value[:1] in ("@", "%") else repr(value)


def _recipe_path(file: str) -> str:
    """A gin file as a command in another folder finds it: a recipe of ours by its name."""
    return os.path.abspath(file) if os.path.isfile(file) else file


def _export(study: Study, cell: Cell, train: Step) -> Step:
    settings = {"dtype": study.export_dtype, "name": cell.name}
    draft = Step("export", cell.name, settings, (train,), ())
    argv = (
        *("export", "--model_dir", f"{train.folder}/run"),
        *("--output", exported(draft), "--dtype", study.export_dtype, "--overwrite"),
    )
    return Step("export", cell.name, draft.settings, draft.parents, argv)


def exported(step: Step) -> str:
    """The folder of an exported model: its last part is what results call the model."""
    return f"{step.folder}/{step.name}"


def _evaluate(study: Study, cell: Cell, asked: Evaluation, parents: tuple[Step, ...]) -> Step:
    model = cell.model
    settings = {
        "tasks": asked.members,
        "limit": asked.instances,
        "compat": asked.compat,
        "dtype": asked.dtype,
        **({"max_length": asked.max_length} if asked.max_length else {}),
        "options": list(asked.options),
        "model": None if parents else [model.checkpoint, model.tokenizer, model.engine],
    }
    draft = Step("evaluate", f"{cell.name}: {asked.name}", settings, parents, ())
    if parents:
        who = ["--model", exported(parents[0])]
    elif model.engine:
        who = ["--engine", model.engine]
    else:
        who = ["--model", place(study, model.checkpoint or "")]
        who += ["--tokenizer", place(study, model.tokenizer)] if model.tokenizer else []
    argv = [
        *("eval", *asked.members, *who),
        *("--save_dir", results(draft), "--data_dir", study.eval_data_dir),
        *("--compat", asked.compat, "--dtype", asked.dtype),
        *(("--limit", str(asked.instances)) if asked.instances else ()),
        *(("--max_length", str(asked.max_length)) if asked.max_length and not model.engine else ()),
        *(("--allow_code_execution",) if asked.allow_code else ()),
        *(word for option in asked.options for word in ("--option", option)),
    ]
    return Step("evaluate", draft.name, settings, parents, tuple(argv))


def results(step: Step) -> str:
    """The folder of an evaluation's results."""
    return f"{step.folder}/results"


LOSSES = "losses.json"


def _losses(study: Study, cell: Cell, recipe: Recipe, parents: tuple[Step, ...]) -> Step:
    """The loss on the held-out rows of every dataset that the study trains on."""
    model, tasks = cell.model, trained_tasks(study)
    tuned = next((step for step in parents if step.kind == "export"), None)
    settings = {
        "tasks": tasks,
        "heldout": recipe.heldout,
        "seed": recipe.seed,
        "model": None if tuned else [model.checkpoint, model.tokenizer],
    }
    draft = Step("losses", cell.name, settings, parents, ())
    options = {name: values for task in tasks for name, values in options_of(study, task).items()}
    argv = (
        *("study", "losses", *tasks),
        *("--model", exported(tuned) if tuned else place(study, model.checkpoint or "")),
        *("--heldout", str(recipe.heldout), "--seed", str(recipe.seed)),
        *_reading(study, model, recipe, options),
        *("--output", f"{draft.folder}/{LOSSES}"),
    )
    return Step("losses", cell.name, settings, parents, argv)


def _report(cell: Cell, evaluations: tuple[Step, ...]) -> Step:
    draft = Step("report", cell.name, {}, evaluations, ())
    folders = [results(step) for step in evaluations]
    argv = ("report", *folders, "--html", f"{draft.folder}/report.html")
    return Step("report", cell.name, {}, evaluations, argv)
