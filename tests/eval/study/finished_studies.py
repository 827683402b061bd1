"""A study as if it had been run: results and losses in the places of its steps."""

import json
import random

from eval.study.cells import LOSSES, Recipe, results, trained_tasks
from eval.study.compiled import compile_study
from eval.study.study import NONE, Grid
from tests.eval.results import row, write_result
from tests.eval.study.small_studies import ALPACA, DOLLY, base, evaluation, study

CODE = "tulu_code_alpaca"
MIX = f"{CODE},{DOLLY},{ALPACA}"
TASKS = {"mmlu_0shot": 0.3, "gsm_cot": 0.2, "toxigen": 0.5, "alpaca_eval_unique_tokens": 0.4}
HELPS = {ALPACA: "gsm_cot", DOLLY: "mmlu_0shot", CODE: "alpaca_eval_unique_tokens"}
"""Which task each dataset helps, by a half of the instances."""


def small_study(tmp_path, **fields):
    """Two sizes of one family, three datasets and their mixture, four tasks."""
    small = base("small", family="toy", size="60K")
    large = base("large", family="toy", size="7B")
    one = evaluation("all", tasks=tuple(TASKS))
    grids = (
        Grid(models=(small,), datasets=(NONE, ALPACA, DOLLY, CODE, MIX), evaluations=(one,)),
        Grid(models=(large,), datasets=(MIX,), evaluations=(one,)),
    )
    return study(tmp_path, **{"grids": grids, "names": {MIX: "mix"}, **fields})


def small_table(tmp_path, **fields):
    return compile_study(
        small_study(tmp_path, **fields),
        lambda model: Recipe(f"{list(model.gin_files)}", 512, "hf", heldout=4),
    )


def finish(table, only=None):
    """Writes what the steps of all cells, or of those named, would have made."""
    for cell in table.cells:
        if only is not None and cell.name not in only:
            continue
        for step in cell.steps:
            folder = table.root / step.folder
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "done.json").write_text('{"status": 0}')
            if step.kind == "evaluate":
                for task in step.settings["tasks"]:
                    write_task(table.root / results(step) / task, cell, task)
            if step.kind == "losses":
                found = losses_of(cell, trained_tasks(table.study))
                (folder / LOSSES).write_text(json.dumps(found))
    return table


def share(cell, task):
    share = TASKS[task]
    if HELPS.get(cell.dataset) == task:
        share += 0.5
    if cell.dataset == MIX:
        share += 0.3
    return share + (0.1 if cell.model.name == "large" else 0.0)


def write_task(folder, cell, task, count=60):
    generator = random.Random(task)
    right = [int(generator.random() < share(cell, task)) for _ in range(count)]
    rows = [row(f"{task}/{i}", value) for i, value in enumerate(right)]
    benchmark = "alpaca_farm" if task.startswith("alpaca") else task.split("_")[0]
    write_result(
        folder, rows, task=task, model=cell.name, benchmark=benchmark,
        higher_is_better=task != "toxigen",
    )  # fmt: skip
    run = json.loads((folder / "run.json").read_text())
    metrics = {run["metric"]: run["value"], "n": count}
    if task.startswith("alpaca"):
        unique = 20 + 100 * sum(right) / count
        metrics |= {
            "judge": "unique_tokens", "unique_of": "tokens", "win_rate": 100 * sum(right) / count,
            "lengths": {"unique": {"mean": unique}}, "bias": {"unique": {"r": 0.5}},
        }  # fmt: skip
    (folder / "metrics.json").write_text(json.dumps(metrics))


def losses_of(cell, tasks):
    """Lower where the cell was trained on it."""
    tasks = {
        task: {"examples": [[f"{task}/{i}", (2.0 + i / 10 - 0.5 * (task in cell.dataset)) * 3, 3]
                            for i in range(4)]}
        for task in tasks
    }  # fmt: skip
    for one in tasks.values():
        one["loss"] = sum(nll for _, nll, _ in one["examples"]) / 12
    return {"unit": "nats a trained token", "seed": 42, "tasks": tasks}
