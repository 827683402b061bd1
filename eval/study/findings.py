"""Findings of a study, computed from its numbers: nothing here is written beforehand.

A *skill* is a group of benchmarks (`eval.report.tasks`); a model's gain in it is the mean over its
benchmarks of the difference from another model, instance by instance, in points. Intervals are of
95 %, from standard errors that take tasks as independent.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from eval.harness import statistics
from eval.report.board import difference
from eval.report.grid import Cell, Grid
from eval.report.tasks import Average, Number, task_of
from eval.study.results import (
    QUANTILE,
    Findings,
    Interval,
    Outcome,
    data_name,
    loss_difference,
    size_of,
)
from eval.study.tables import (
    Section,
    average_of,
    interval,
    is_mixture,
    is_single,
    words,
)
from tulu_jax.data.mixtures import get_mixture

CHANCE = 0.05


@dataclass
class Differences:
    """Paired differences of cells by task, each computed once."""

    known: dict[tuple[str, str, str], tuple[float, float, float]] = field(default_factory=dict)

    def task(self, a: Outcome, b: Outcome, task: str) -> tuple[float, float, float]:
        """How much better b is than a, in points, its standard error, and p."""
        key = a.name, b.name, task
        if key not in self.known:
            value, error, p = difference(a.model, b.model, task, [])
            up = a.model.results[task].higher_is_better
            self.known[key] = (value if up else -value, error, p)
        return self.known[key]

    def skill(self, a: Outcome, b: Outcome, tasks: Sequence[str]) -> Interval:
        """The same over tasks: the mean over benchmarks of that over their settings."""
        groups: dict[str, list[str]] = {}
        for task in tasks:
            groups.setdefault(a.model.results[task].benchmark, []).append(task)
        average = Average("", "", tuple(map(tuple, groups.values())))
        found = {task: self.task(a, b, task) for task in tasks}
        number = average.of({t: Number(value, e, None) for t, (value, e, _) in found.items()})
        assert number is not None
        return _interval(number.value, number.stderr)


def _interval(value: float, error: float) -> Interval:
    """The interval of a difference; none where all instances differ alike, which says no error.

    >>> _interval(100.0, 0.0)  # of two instances, say
    (100.0, nan, nan)
    """
    if error == 0:
        return value, math.nan, math.nan
    return value, value - QUANTILE * error, value + QUANTILE * error


def is_found(one: Interval) -> bool:
    """Whether its interval leaves out zero; not where it has none."""
    _, low, high = one
    return low > 0 or high < 0


def findings(found: Findings) -> list[Section]:
    """Those that the study has the cells for."""
    differences = Differences()
    made: list[Section | None] = []
    for base in dict.fromkeys(one.cell.model.name for one in found.tuned):
        mine = [one for one in found.tuned if one.cell.model.name == base]
        singles = [one for one in mine if is_single(one)]
        mixtures = [one for one in mine if is_mixture(one)]
        if len(singles) > 1:
            made.append(skills(base, singles, found, differences))
            made.append(best_everywhere(base, singles, differences))
            if mixtures:
                made.append(mixing(base, singles, mixtures, differences))
    made += [base_models(found, differences), sizes(found, differences), losses(found)]
    return [one for one in made if one is not None]


def common_tasks(outcomes: Sequence[Outcome]) -> list[str]:
    """The tasks that all of them have a number of, in the order of the first."""
    first, *others = outcomes
    return [
        task for task in first.model.results
        if all(task in one.model.numbers for one in (first, *others))
    ]  # fmt: skip


# ---- datasets ------------------------------------------------------------------------------------
def skills(
    base: str, singles: list[Outcome], found: Findings, differences: Differences
) -> Section | None:
    """Which dataset helps which skill most."""
    vanilla = found.base_of(singles[0])
    tasks = common_tasks([*singles, *([vanilla] if vanilla else [])])
    groups: dict[str, list[str]] = {}
    for task in tasks:
        groups.setdefault(task_of(task).skill, []).append(task)
    rows: list[tuple[str, list[Cell]]] = []
    text: list[str] = []
    for skill, members in groups.items():
        origin = vanilla or singles[0]
        gains = {one.name: differences.skill(origin, one, members) for one in singles}
        ordered = sorted(singles, key=lambda one: -gains[one.name][0])
        best, second = ordered[:2]
        lead = differences.skill(second, best, members)
        gain = gains[best.name]
        rows.append((skill, [
            words(str(len(members))), words(best.data),
            words(interval(gain) if vanilla else "–"), words(second.data),
            words(interval(lead)),
        ]))  # fmt: skip
        text.append(_most_helpful(skill, best, second, gain if vanilla else None, lead))
    if not rows:
        return None
    columns = ["tasks", "most helpful", f"over {base} as it is", "next", "most over next"]
    grid = Grid("skill", columns, rows, None, False, len(rows), ["points, with intervals of 95 %"])
    return Section(
        f"skills-{base}", f"Which dataset helps which skill most, on {base}", (*text,), (grid,)
    )


def _most_helpful(
    skill: str, best: Outcome, second: Outcome, gain: Interval | None, lead: Interval
) -> str:
    name, other = best.data, second.data
    said = f"{skill}: {name}, {interval(lead)} points over {other} ({_sure(lead)})"
    if gain is None:
        return f"{said}."
    return f"{said}; {interval(gain)} over the base model as it is ({_sure(gain)})."


def best_everywhere(base: str, singles: list[Outcome], differences: Differences) -> Section | None:
    """Whether one dataset is best in all tasks, or cannot be told from the best."""
    tasks = common_tasks(singles)
    if not tasks:
        return None
    tied: dict[str, set[str]] = {}
    rows: list[tuple[str, list[Cell]]] = []
    names = {one.name: one.data for one in singles}
    for task in tasks:
        best = best_of(singles, task)
        p = {one.name: differences.task(best, one, task)[2] for one in singles if one is not best}
        tied[task] = statistics.tied_with_best(best.name, p)
        others = [names[one.name] for one in singles
                  if one.name in tied[task] and one is not best]  # fmt: skip
        rows.append((task_of(task).title, [
            words(names[best.name]), words(", ".join(others) or "nobody"),
        ]))  # fmt: skip
    counts = {name: sum(name in found for found in tied.values()) for name in names}
    wins = {one.name: sum(alone_best(singles, t) is one for t in tasks) for one in singles}
    everywhere = [names[name] for name, count in counts.items() if count == len(tasks)]
    most = max(wins, key=lambda name: wins[name])
    first = (
        f"No dataset is best, or tied with the best, in all {len(tasks)} tasks."
        if not everywhere
        else f"In all {len(tasks)} tasks best, or not told from the best: {', '.join(everywhere)}."
    )
    second = f"Alone highest in most tasks: {names[most]}, in {wins[most]} of {len(tasks)}."
    text = (first, second) if wins[most] else (first, "None is alone the highest in any task.")
    grid = Grid("task", ["highest", "tied with it"], rows, None, False, len(rows),
                ["tied: paired tests at 5 %, Holm over the datasets"])  # fmt: skip
    return Section(f"best-{base}", f"Is one dataset best everywhere, on {base}?", text, (grid,))


def best_of(outcomes: Sequence[Outcome], task: str) -> Outcome:
    """The one with the best number, the first of several."""
    up = 1 if outcomes[0].model.results[task].higher_is_better else -1
    return max(outcomes, key=lambda one: up * one.model.numbers[task].value)


def alone_best(outcomes: Sequence[Outcome], task: str) -> Outcome | None:
    """The one with the best number; None where several have it."""
    best = best_of(outcomes, task)
    top = best.model.numbers[task].value
    return best if sum(one.model.numbers[task].value == top for one in outcomes) == 1 else None


def mixing(
    base: str, singles: list[Outcome], mixtures: list[Outcome], differences: Differences
) -> Section | None:
    """What a mixture gives up in single tasks, and gains over all of them."""
    tasks = common_tasks([*singles, *mixtures])
    average = average_of([*singles, *mixtures])
    if not tasks or average is None:
        return None
    rows: list[tuple[str, list[Cell]]] = []
    text = []
    averages = {one.name: _value(average, one) for one in (*singles, *mixtures)}
    top = max(singles, key=lambda one: averages[one.name])
    for mixture in mixtures:
        behind = [task for task in tasks if _is_behind(mixture, singles, task, differences)]
        over = differences.skill(top, mixture, _members(average))
        name = mixture.data
        rows.append((name, [
            words(f"{averages[mixture.name]:.1f}"),
            words(f"{top.data}, {averages[top.name]:.1f}"),
            words(interval(over)), words(f"{len(behind)} of {len(tasks)}"),
        ]))  # fmt: skip
        text.append(
            f"{name}: {interval(over)} points of the {average.title} over the best single dataset, "
            f"{top.data} ({_sure(over)}); behind the task's best single dataset beyond "
            f"chance in {len(behind)} of {len(tasks)} tasks."
        )
    columns = [average.title, "best single dataset", "mixture over it", "tasks behind the best"]
    grid = Grid("mixture", columns, rows, None, False, len(rows), [])
    return Section(f"mixing-{base}", f"What mixtures trade, on {base}", (*text,), (grid,))


def _is_behind(
    mixture: Outcome, singles: list[Outcome], task: str, differences: Differences
) -> bool:
    value, _, p = differences.task(best_of(singles, task), mixture, task)
    return value < 0 and p <= CHANCE


def _value(average: Average, one: Outcome) -> float:
    number = average.of(one.model.numbers)
    return math.nan if number is None else number.value


# ---- base models ---------------------------------------------------------------------------------
@dataclass(frozen=True)
class _Ends:
    """The best and the worst, or the smallest and the largest, of several models."""

    name: str
    ends: tuple[str, str]
    more: Interval
    """By how much one is over the other."""
    said: str


def base_models(found: Findings, differences: Differences) -> Section | None:
    """Which base model is best where several were trained on the same data."""
    lines: list[_Ends] = []
    for dataset in dict.fromkeys(one.cell.dataset for one in found.tuned):
        ones = [one for one in found.tuned if one.cell.dataset == dataset]
        average = average_of(ones) if len(ones) > 1 else None
        if average is None:
            continue
        ones.sort(key=lambda one, of=average: -_value(of, one))
        best, worst = ones[0], ones[-1]
        more = differences.skill(worst, best, _members(average))
        ends = [f"{one.cell.model.name}: {_value(average, one):.1f}" for one in (best, worst)]
        lines.append(_Ends(
            best.data, (ends[0], ends[1]), more,
            f"On {best.data} {best.cell.model.name} is highest of {len(ones)} base "
            f"models, {interval(more)} points over {worst.cell.model.name} ({_sure(more)}).",
        ))  # fmt: skip
    return _ends_section("bases", "What the base model matters", "trained on",
                         ("highest", "lowest"), lines)  # fmt: skip


def _members(average: Average) -> list[str]:
    return [task for group in average.benchmarks for task in group]


def sizes(found: Findings, differences: Differences) -> Section | None:
    """The largest against the smallest model of a family on the same data."""
    lines: list[_Ends] = []
    keys = dict.fromkeys((one.cell.model.family, one.cell.dataset) for one in found.scored)
    for family, dataset in keys:
        ones = [
            one for one in found.scored
            if (one.cell.model.family, one.cell.dataset) == (family, dataset)
            and size_of(one.cell.model.size) < math.inf
        ]  # fmt: skip
        ones.sort(key=lambda one: size_of(one.cell.model.size))
        average = average_of(ones) if family and len(ones) > 1 else None
        if average is None or ones[0].cell.model.size == ones[-1].cell.model.size:
            continue
        small, large = ones[0], ones[-1]
        more = differences.skill(small, large, _members(average))
        ends = [f"{one.cell.model.size}: {_value(average, one):.1f}" for one in (small, large)]
        name = f"{family}, {small.data}"
        lines.append(_Ends(
            name, (ends[0], ends[1]), more,
            f"{name}: {large.cell.model.size} is {interval(more)} points from "
            f"{small.cell.model.size} ({_sure(more)}).",
        ))  # fmt: skip
    return _ends_section("sizes", "What size matters", "family and data",
                         ("smallest", "largest"), lines)  # fmt: skip


def _ends_section(
    name: str, title: str, corner: str, columns: tuple[str, str], lines: list[_Ends]
) -> Section | None:
    if not lines:
        return None
    rows: list[tuple[str, list[Cell]]] = [
        (one.name, [*map(words, one.ends), words(interval(one.more))]) for one in lines
    ]
    grid = Grid(corner, [*columns, "difference"], rows, None, False, len(rows),
                ["points of the average that all have"])  # fmt: skip
    return Section(name, title, tuple(one.said for one in lines), (grid,))


def _sure(one: Interval) -> str:
    return "beyond chance" if is_found(one) else "not beyond chance"


# ---- held-out losses -----------------------------------------------------------------------------
def losses(found: Findings) -> Section | None:
    """Whether each dataset's own model knows its conversations best."""
    rows: list[tuple[str, list[Cell]]] = []
    text: list[str] = []
    for base in dict.fromkeys(one.cell.model.name for one in found.measured):
        singles = [o for o in found.measured if o.cell.model.name == base and is_single(o)]
        if len(singles) < 2:
            continue
        own = sure = 0
        tasks = [task for task in found.losses if all(task in one.losses for one in singles)]
        trained = [t for t in tasks if any(_trained_on(one, t) for one in singles)]
        for task in trained:
            mine = next(one for one in singles if _trained_on(one, task))
            others = sorted(
                (o for o in singles if o is not mine), key=lambda o: o.losses[task].loss
            )
            lead = loss_difference(mine.losses[task], others[0].losses[task])
            own += lead[0] > 0
            sure += lead[1] > 0
            rows.append((f"{base}: {data_name(task)}", [
                words(f"{mine.losses[task].loss:.3f}"),
                words(f"{others[0].data}, {others[0].losses[task].loss:.3f}"),
                words(interval(lead, 3)),
            ]))  # fmt: skip
        text.append(
            f"{base}: on {own} of {len(trained)} datasets the model trained on that dataset has "
            f"the lowest held-out loss of the {len(singles)} trained on one dataset, on {sure} of "
            "them beyond chance."
        )
    if not rows:
        return None
    columns = ["its own model", "best of the others", "others' loss is higher by"]
    grid = Grid("conversations of", columns, rows, None, False, len(rows),
                ["nats a trained token, with intervals of 95 % over conversations"])  # fmt: skip
    return Section("own-losses", "Does each dataset teach its own kind best?", (*text,), (grid,))


def _trained_on(one: Outcome, task: str) -> bool:
    return list(get_mixture(one.cell.dataset).tasks) == [task]
