"""Pairs of cells whose answers people compare: the step that makes their web application."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from eval.study.cells import Cell, People, Step, results
from eval.study.study import HumanEvaluation, Study
from tulu_jax.errors import ConfigError

DATABASE = "study.db"


def people_of(study: Study, cells: Sequence[Cell]) -> list[People]:
    """The study's human evaluations.

    Raises: ConfigError for a cell that the study lacks, or one that is not asked what is compared.
    """
    return [_people(study, asked, cells) for asked in study.people]


def database(step: Step) -> str:
    """The file that people's answers go to, within the study's folder."""
    return f"{step.folder}/{DATABASE}"


def _people(study: Study, asked: HumanEvaluation, cells: Sequence[Cell]) -> People:
    pairs = [(_cell(a, asked, cells), _cell(b, asked, cells)) for a, b in asked.pairs]
    sources = [(_source(a, asked), _source(b, asked)) for a, b in pairs]
    settings = {
        "name": asked.name,
        "pairs": [[a.name, b.name] for a, b in pairs],
        "task": asked.task,
        "groups": list(asked.groups),
        "limit": asked.limit,
        "annotators": asked.annotators,
        "overlap": asked.overlap,
    }
    parents = tuple({step.key: step for pair in sources for step in pair}.values())
    draft = Step("annotate", asked.name, settings, parents, ())
    argv = [
        *("annotate", "make", "--db", database(draft), "--if_absent", "--name", asked.name),
        *("--annotators", str(asked.annotators), "--overlap", str(asked.overlap)),
        *(word for group in asked.groups for word in ("--group", group)),
        *(("--limit", str(asked.limit)) if asked.limit else ()),
    ]
    for (a, b), (one, other) in zip(pairs, sources, strict=True):
        argv += ["--predictions", *(f"{results(step)}/{asked.task}" for step in (one, other))]
        argv += ["--names", a.name, b.name]
    return People(asked, pairs, Step("annotate", asked.name, settings, parents, tuple(argv)))


def _cell(name: str, asked: HumanEvaluation, cells: Sequence[Cell]) -> Cell:
    for cell in cells:
        if cell.name == name:
            return cell
    near = difflib.get_close_matches(name, [cell.name for cell in cells], 3, 0.4)
    raise ConfigError(
        "people are to compare a cell that the study lacks", got=repr(name),
        at=f"HumanEvaluation {asked.name!r}",
        expected=" or ".join(near) or "the name of a cell, see tulu study plan",
    )  # fmt: skip


def _source(cell: Cell, asked: HumanEvaluation) -> Step:
    """The evaluation whose answers are compared."""
    for step in cell.of("evaluate"):
        if asked.task in step.settings["tasks"]:
            return step
    raise ConfigError(
        "people are to compare answers that nobody asks for", got=f"{asked.task} of {cell.name}",
        at=f"HumanEvaluation {asked.name!r}", do="put the task into an Evaluation of its grid",
    )  # fmt: skip
