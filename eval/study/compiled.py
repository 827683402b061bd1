"""The table of a study compiled: which steps make each cell, with the command of each."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eval.study.cells import (
    LOSSES,
    Cell,
    Recipe,
    Step,
    Table,
    at_home,
    exported,
    options_of,
    place,
    results,
    run_folder,
    trained_tasks,
)
from eval.study.people import people_of
from eval.study.study import NONE, BaseModel, Evaluation, Study
from tulu_jax.data.mixtures import get_mixture
from tulu_jax.errors import ConfigError


def compile_study(study: Study, recipe: Callable[[BaseModel], Recipe]) -> Table:
    """The table of a study; nothing is read but what `recipe` reads.

    Raises: ConfigError where two grids train one cell in two ways, or two cells have one name.
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
    _check_names(cells)
    return Table(study, cells, people_of(study, cells))


def _check_names(cells: Sequence[Cell]) -> None:
    seen: dict[str, Cell] = {}
    for cell in cells:
        first = seen.setdefault(cell.name, cell)
        if first is not cell:
            raise ConfigError(
                "two cells have one name", got=cell.name, at=f"{first.dataset} and {cell.dataset}",
                do="give one of the datasets another name in Study.names",
            )  # fmt: skip


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
        *("--max_length", str(recipe.length), "--data_dir", at_home(study, "data")),
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
        "MODEL_DIR": run_folder(study, draft),
        "INITIAL_CHECKPOINT_PATH": place(study, model.checkpoint) if model.checkpoint else None,
        "TOKENIZER": place(study, model.reads_with),
        "MIXTURE_OR_TASK_NAME": cell.dataset,
        "DATA_DIR": at_home(study, "data"),
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
        *("export", "--model_dir", run_folder(study, train)),
        *("--output", exported(study, draft), "--dtype", study.export_dtype, "--overwrite"),
    )
    return Step("export", cell.name, draft.settings, draft.parents, argv)


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
        who = ["--model", exported(study, parents[0])]
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
        *("--model", exported(study, tuned) if tuned else place(study, model.checkpoint or "")),
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
