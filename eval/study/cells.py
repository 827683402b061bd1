"""A study as a table: cells, and the steps that make each, named by what they depend on."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eval.study.state import RUN
from eval.study.study import KINDS, NONE, BaseModel, HumanEvaluation, Kind, Study
from tulu_jax.data.mixtures import get_mixture, split_names
from tulu_jax.files import json_sha256, sha256
from tulu_jax.places import Place, as_place, is_address

KEY_LENGTH = 16
LONGEST_NAME = 120
"""Bytes of a dataset's name, where a folder is to have it."""


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

    @functools.cached_property
    def name(self) -> str:
        """What tables call it: `llama-13b+dolly`, or the base model's own name."""
        parts = [os.path.basename(part).removeprefix("tulu_") for part in split_names(self.dataset)]
        data = self.called or "_".join(parts)
        if len(data.encode()) > LONGEST_NAME:
            data = f"{data[:40]}..{sha256(data)[:8]}"
        return self.model.name if self.dataset == NONE else f"{self.model.name}+{data}"

    def of(self, kind: Kind) -> list[Step]:
        """Its steps of a kind."""
        return [step for step in self.steps if step.kind == kind]


@dataclass(frozen=True)
class People:
    """Pairs of cells whose answers people compare, and the step that makes it a web application."""

    asked: HumanEvaluation
    pairs: list[tuple[Cell, Cell]]
    step: Step


@dataclass(frozen=True)
class Table:
    """All cells of a study; `steps` has each step once, parents first."""

    study: Study
    cells: list[Cell]
    people: list[People] = field(default_factory=list)

    @functools.cached_property
    def steps(self) -> list[Step]:
        """See the class."""
        every = {step.key: step for cell in self.cells for step in cell.steps}
        every |= {one.step.key: one.step for one in self.people}
        return sorted(every.values(), key=lambda step: KINDS.index(step.kind))

    @functools.cached_property
    def home(self) -> Place:
        """The study's folder."""
        return as_place(self.study.folder)

    @functools.cached_property
    def root(self) -> Path:
        """The folder that its steps run in: the study's, or of one in a bucket the one here."""
        return self.home if isinstance(self.home, Path) else scratch(self.study)


def trained_tasks(study: Study) -> list[str]:
    """The tasks of all datasets that a study trains on, in the order of its grids."""
    datasets = [name for grid in study.grids for name in grid.datasets if name != NONE]
    return list(dict.fromkeys(task for name in datasets for task in get_mixture(name).tasks))


def scratch(study: Study) -> Path:
    """The folder of this machine that a study in a bucket has."""
    name = sha256(study.folder)[:KEY_LENGTH]
    return Path(study.scratch_dir or Path.home() / ".cache" / "tulu_jax_studies") / name


def place(study: Study, folder: str) -> str:
    """Where a base model or tokenizer lies that a study names."""
    if is_address(folder):
        return folder
    return os.path.join(study.models_dir, os.path.expanduser(folder))


def at_home(study: Study, path: str) -> str:
    """What lies in the study's folder, as a step's command is told of it."""
    return f"{study.folder}/{path}" if is_address(study.folder) else path


def options_of(study: Study, mixture: str) -> dict[str, dict[str, Any]]:
    """The study's reading options of the tasks of a mixture."""
    tasks = get_mixture(mixture).tasks
    return {task: dict(study.options[task]) for task in tasks if task in study.options}


def run_folder(study: Study, step: Step) -> str:
    """The run folder of a training."""
    return at_home(study, f"{step.folder}/{RUN}")


def exported(study: Study, step: Step) -> str:
    """The folder of an exported model: its last part is what results call the model."""
    return at_home(study, f"{step.folder}/{step.name}")


def results(step: Step) -> str:
    """The folder of an evaluation's results."""
    return f"{step.folder}/results"


LOSSES = "losses.json"
