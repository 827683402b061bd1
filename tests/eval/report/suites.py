"""Suites of a few models, for the tests of the report."""

import random

from tests.eval.results import row, write_result

SHARES = {"mmlu_0shot": 0.3, "gsm_cot": 0.2, "bbh_cot": 0.4, "toxigen": 0.5}
GROUPS = ("law", "history", "économie")
MODELS = {"llama-7b": 0.0, "alpaca-7b": 0.1, "tulu-7b": 0.45}
"""How much more of the instances each gets right."""


def values(task, more, *, count=60, seed=0):
    """Right or wrong, an instance the same for every model but for what it gets right more."""
    generator = random.Random(f"{task} {seed}")
    lower = task == "toxigen"
    draws = [generator.random() for _ in range(count)]
    return [int(draw < SHARES[task] + (-more if lower else more)) for draw in draws]


def rows(task, more, **options):
    return [
        row(f"{task}/{i}", value, group=GROUPS[i % 3])
        for i, value in enumerate(values(task, more, **options))
    ]


def write_suites(folder, models=MODELS, **run):
    """A folder of suites; `run` replaces fields of every run.json."""
    for model, more in models.items():
        for task in SHARES:
            write_result(
                folder / model / task,
                rows(task, more),
                task=task,
                model=model,
                higher_is_better=task != "toxigen",
                **run,
            )
    return folder
