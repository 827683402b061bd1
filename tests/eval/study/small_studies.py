"""Studies for tests: two base models, two datasets, one evaluation; nothing of them is run."""

import dataclasses

from eval.study.cells import Recipe
from eval.study.compiled import compile_study
from eval.study.study import BaseModel, Evaluation, Grid, Study

ALPACA, DOLLY = "tulu_stanford_alpaca", "tulu_dolly"


def base(name="small", **fields):
    values = {"checkpoint": name, "gin_files": ("runs/finetune.gin",), **fields}
    return BaseModel(name=name, **values)


def evaluation(name="knowledge", **fields):
    return Evaluation(name=name, **({"tasks": ("mmlu_0shot", "gsm_cot")} | fields))


def study(tmp_path, *, models=None, datasets=("none", ALPACA, DOLLY), **fields):
    """A study with one grid, unless `fields` say otherwise."""
    models = models or (base("small"), base("large"))
    one = Grid(models=models, datasets=datasets, evaluations=(evaluation(),))
    values = {"name": "toy", "folder": str(tmp_path / "study"), "grids": (one,)}
    return Study(**{**values, "models_dir": str(tmp_path / "models"), **fields})


def recipe(model):
    """A recipe that depends on the files, settings and nothing else."""
    return Recipe(f"{list(model.gin_files)} {dict(model.settings)}", 512, "hf")


def table(tmp_path, **fields):
    return compile_study(study(tmp_path, **fields), recipe)


def changed(study, **fields):
    """The study with another base model in place of its first."""
    grid = study.grids[0]
    first, *others = grid.models
    models = (dataclasses.replace(first, **fields), *others)
    return dataclasses.replace(study, grids=(dataclasses.replace(grid, models=models),))
