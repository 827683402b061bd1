"""Two results side by side, instance by instance: whether one model is better, and how much."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from eval.harness import statistics
from eval.harness.reading import Result, Unit, read_suite
from tulu_jax.errors import DataError

SEED = 0
"""Of the bootstrap: the same two results always give the same p."""
NO_MATTER = frozenset(
    ("judge_base_url", "judge_concurrency", "judge_requests_per_minute", "max_cost", "price_in",
     "price_out", "classifier_batch_size", "classifier_device")
)  # fmt: skip
"""Settings that change no score."""


@dataclass(frozen=True)
class TaskComparison:
    """One task of two models over the instances that both have a score of.

    Means, difference (b - a), errors and effects are in the unit in which they are shown: per cent
    for shares. `unpaired` instances of one have no partner in the other. `p_holm` is adjusted for
    how many tasks were compared.
    """

    task: str
    metric: str
    n: int
    clusters: int
    unpaired: int
    mean_a: float
    mean_b: float
    difference: float
    stderr: float
    test: Literal["mcnemar", "bootstrap"]
    p: float
    p_holm: float
    detectable: float
    higher_is_better: bool
    unit: str
    improved: tuple[str, ...]
    worsened: tuple[str, ...]
    warnings: tuple[str, ...]
    pairs: dict[str, tuple[Unit, Unit]] = field(repr=False, compare=False)
    results: tuple[Result, Result] = field(repr=False, compare=False)

    def as_json(self) -> dict[str, Any]:
        """Plain values; what is not known is None."""
        names = ("task", "metric", "n", "clusters", "unpaired", "mean_a", "mean_b", "difference",
                 "stderr", "test", "p", "p_holm", "detectable", "higher_is_better",
                 "unit")  # fmt: skip
        plain = {name: _plain(getattr(self, name)) for name in names}
        lists = ("improved", "worsened", "warnings")
        return plain | {name: list(getattr(self, name)) for name in lists}


@dataclass(frozen=True)
class Comparison:
    """Two models over the tasks that both have results of."""

    a: str
    b: str
    tasks: tuple[TaskComparison, ...]
    warnings: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "a": self.a,
            "b": self.b,
            "tasks": [task.as_json() for task in self.tasks],
            "warnings": list(self.warnings),
        }


def compare(a: Path, b: Path) -> Comparison:
    """The models whose results lie in `a` and `b` (result or suite folders), task by task.

    Raises: DataError for results that cannot be read, or when no task has instances in common.
    """
    (first, left_out_a), (second, left_out_b) = read_suite(a), read_suite(b)
    warnings = left_out_a + left_out_b
    if len(first) == len(second) == 1 and first[0].task != second[0].task:
        raise DataError("the two results are of different tasks",
                        got=f"{first[0].task!r} and {second[0].task!r}", at=f"{a} and {b}",
                        expected="one task")  # fmt: skip
    others = {result.task: result for result in second}
    pairs = [(one, others[one.task]) for one in first if one.task in others]
    for results, where in ((first, b), (second, a)):
        alone = sorted({r.task for r in results} - {one.task for one, _ in pairs})
        if alone:
            warnings.append(f"not compared: {', '.join(alone)} - no result in {where}")
    tasks = []
    for one, other in pairs:
        try:
            tasks.append(compare_results(one, other))
        except NothingInCommon as error:
            warnings.append(str(error))
    if not tasks:
        raise DataError("nothing to compare", got="; ".join(warnings) or None, at=f"{a} and {b}",
                        expected="results of the same tasks")  # fmt: skip
    return Comparison(_name(first), _name(second), _adjust(tasks), tuple(warnings))


class NothingInCommon(DataError):
    """Two results without an instance that both have a score of."""


def compare_results(a: Result, b: Result) -> TaskComparison:
    """Two results of one task; `p_holm` is `p`, as of one task alone.

    Raises: NothingInCommon, or DataError where the two do not measure the same.
    """
    if (a.metric, a.unit) != (b.metric, b.unit):
        raise DataError(f"the two results of {a.task} do not measure the same",
                        got=f"{a.metric} ({a.unit}) and {b.metric} ({b.unit})",
                        at=f"{a.folder} and {b.folder}")  # fmt: skip
    left, right = a.units, b.units
    pairs = {name: (left[name], right[name]) for name in left if name in right}
    if not pairs:
        raise NothingInCommon(
            f"{a.task}: no instance has a score in both",
            got=f"{len(left):,} and {len(right):,} with scores", at=f"{a.folder} and {b.folder}",
        )  # fmt: skip
    groups = _groups(pairs) if is_macro(a, left.values()) else None
    warnings = _pairing((a, b), (left, right), pairs, groups)
    unpaired = len(left.keys() ^ right.keys())
    return _measured(a, b, pairs, groups, unpaired=unpaired, warnings=tuple(warnings))


def _measured(
    a: Result,
    b: Result,
    pairs: dict[str, tuple[Unit, Unit]],
    groups: list[str | None] | None,
    *,
    unpaired: int,
    warnings: tuple[str, ...],
) -> TaskComparison:
    names = list(pairs)
    first, second = np.array([[one.value, two.value] for one, two in pairs.values()]).T
    clusters = [one.cluster for one, _ in pairs.values()]
    difference, stderr = _mean_and_error(second - first, clusters, groups)
    binary = all(one.binary and two.binary for one, two in pairs.values())
    p = (
        statistics.mcnemar(first, second)
        if binary
        else statistics.bootstrap_p(first, second, clusters, seed=SEED)
    )
    gain = (second - first) * (1 if a.higher_is_better else -1)
    return TaskComparison(
        task=a.task,
        metric=a.metric,
        n=len(pairs),
        clusters=len(set(clusters)),
        unpaired=unpaired,
        mean_a=a.scale * _mean_and_error(first, clusters, groups)[0],
        mean_b=a.scale * _mean_and_error(second, clusters, groups)[0],
        difference=a.scale * difference,
        stderr=a.scale * stderr,
        test="mcnemar" if binary else "bootstrap",
        p=p,
        p_holm=p,
        detectable=a.scale * statistics.detectable_effect(stderr),
        higher_is_better=a.higher_is_better,
        unit=a.unit,
        improved=tuple(names[i] for i in np.flatnonzero(gain > 0)),
        worsened=tuple(names[i] for i in np.flatnonzero(gain < 0)),
        warnings=warnings,
        pairs=pairs,
        results=(a, b),
    )


def is_macro(result: Result, found: Collection[Unit]) -> bool:
    """Whether the result's value is the mean over its groups of their means (BBH, TydiQA).

    Where run.json does not say: the value is that mean and not the mean of the instances.
    """
    groups = [unit.group for unit in found]
    if result.value is None or None in groups or len(set(groups)) < 2:
        return False
    if isinstance(said := result.run.get("macro"), bool):
        return said
    values = np.array([unit.value for unit in found])
    close = 1e-6 * max(1.0, abs(result.value))
    macro, _ = _mean_and_error(values, None, groups)
    return abs(macro - result.value) < close < abs(float(values.mean()) - result.value)


def _groups(pairs: dict[str, tuple[Unit, Unit]]) -> list[str | None]:
    return [one.group for one, _ in pairs.values()]


def _mean_and_error(
    values: NDArray[np.float64],
    clusters: Sequence[str] | None,
    groups: Sequence[str | None] | None,
) -> tuple[float, float]:
    """The mean and its standard error; with `groups`, of the mean of their means."""
    if groups is None:
        return statistics.mean(values), statistics.standard_error(values, clusters)
    inside: dict[str | None, list[int]] = defaultdict(list)
    for i, group in enumerate(groups):
        inside[group].append(i)
    means, errors = [], []
    for members in inside.values():
        chosen = [clusters[i] for i in members] if clusters is not None else None
        means.append(statistics.mean(values[members]))
        errors.append(statistics.standard_error(values[members], chosen))
    return statistics.mean(means), math.hypot(*errors) / len(errors)


def _pairing(
    results: tuple[Result, Result],
    sides: tuple[dict[str, Unit], dict[str, Unit]],
    pairs: dict[str, tuple[Unit, Unit]],
    groups: list[str | None] | None,
) -> list[str]:
    """What is noteworthy about which instances are paired."""
    said = []
    for result in results:
        if result.failed:
            said.append(f"{result.model}: {len(result.failed):,} failed in the machinery, left out")
        fewest = min((len(unit.instances) for unit in result.units.values()), default=0)
        if result.k is not None and fewest < result.k:
            said.append(
                f"{result.model}: {result.metric} with {fewest} samples of a problem: "
                f"compared by pass@{fewest} there"
            )
    (a, b), (left, right) = results, sides
    said += unlike({"A": a, "B": b})
    if len(pairs) < max(len(left), len(right)):
        said.append(
            f"only the {len(pairs):,} instances that both have are compared: {a.model} has "
            f"{len(left):,}, {b.model} {len(right):,}"
        )
    other = [name for name, (one, two) in pairs.items() if one.prompt != two.prompt]
    if other:
        said.append(f"{len(other):,} of {len(pairs):,} prompts differ, the first {other[0]!r}")
    for side, result in enumerate(results):
        values = np.array([pair[side].value for pair in pairs.values()])
        mean, _ = _mean_and_error(values, None, groups)
        if result.value is not None and abs(mean - result.value) * result.scale > 0.05:
            said.append(
                f"{result.model}: {result.metric} of these instances is {result.scale * mean:.1f}, "
                f"in its run.json {result.scale * result.value:.1f}"
            )
    return said


def unlike(results: Mapping[str, Result]) -> list[str]:
    """How results of one task, by a name, were not run the same, so that they compare badly."""
    said = []
    for name, word in (("compat", "--compat"), ("data_sha256", "data"), ("metric", "metrics")):
        found = {who: str(result.run.get(name))[:16] for who, result in results.items()}
        if len(set(found.values())) > 1:
            said.append(f"run with other {word} - {_each(found)}")
    quirks = {who: _mapping(result.run.get("quirks")) for who, result in results.items()}
    for quirk in dict.fromkeys(name for one in quirks.values() for name in one):
        found = {who: str(one.get(quirk)) for who, one in quirks.items()}
        if len(set(found.values())) > 1:
            said.append(f"run with another quirk {quirk} - {_each(found)}")
    versions = {who: _mapping(result.run.get("versions")) for who, result in results.items()}
    found = {who: str(one["tulu_jax"]) for who, one in versions.items() if "tulu_jax" in one}
    if len(set(found.values())) > 1:
        said.append(f"run by other versions of tulu-jax - {_each(found)}")
    settings = {who: _mapping(result.run.get("settings")) for who, result in results.items()}
    for name in dict.fromkeys(name for one in settings.values() for name in one):
        # A version that did not have the setting yet says nothing of it.
        found = {who: _plainly(one[name]) for who, one in settings.items() if name in one}
        if name not in NO_MATTER and len(set(found.values())) > 1:
            said.append(f"run with another setting {name} - {_each(found)}")
    return said


def _plainly(value: Any) -> str:
    """A setting as text; a path by its last part, for folders move."""
    return value.rstrip("/").rpartition("/")[2] if isinstance(value, str) else str(value)


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _each(found: Mapping[str, str]) -> str:
    return ", ".join(f"{who}: {value}" for who, value in found.items())


def _adjust(tasks: Iterable[TaskComparison]) -> tuple[TaskComparison, ...]:
    tasks = list(tasks)
    adjusted = statistics.holm([task.p for task in tasks])
    return tuple(replace(task, p_holm=p) for task, p in zip(tasks, adjusted, strict=True))


def _name(results: list[Result]) -> str:
    return " / ".join(dict.fromkeys(result.model for result in results))


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value
