"""Mixtures: named tasks, with how many examples of each or how often it is drawn.

Mixtures are registered by `tasks/mixtures.py` and found by name. A task's name is a mixture of
that task alone, and so is a path; names joined by commas are a mixture of them all.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tulu_jax.data.specs import (
    TASK_PREFIX,
    DatasetSpec,
    all_specs,
    find_spec,
    get_spec,
    unknown_name,
)
from tulu_jax.errors import ConfigError, DataError
from tulu_jax.files import user_path


@dataclass(frozen=True, kw_only=True)
class Component:
    """One task of a mixture, by its name or, for a file of the user's own, its path.

    `max_examples` takes so many of its examples, chosen by `seed` (None: by the run's seed); None
    takes all. `rate`, in examples, is what the task counts under the schedule `rates`; None goes
    by its size.
    """

    task: str
    max_examples: int | None = None
    rate: float | None = None
    seed: int | None = None


@dataclass(frozen=True, kw_only=True)
class MixtureSpec:
    """A named list of tasks. Anonymous ones (a task, a comma-joined list) have no description."""

    name: str
    components: tuple[Component, ...]
    description: str = ""
    citation: str = ""

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks' names, in the mixture's order."""
        return tuple(component.task for component in self.components)

    def specs(self) -> list[DatasetSpec]:
        """The datasets, in the mixture's order.

        Raises: DataError for a task that does not exist; ConfigError for two files that go by one
            task name.
        """
        found: dict[str, tuple[str, DatasetSpec]] = {}
        for task in self.tasks:
            spec = get_spec(task)
            if spec.task_name in found:
                raise ConfigError(
                    "two datasets have one task name",
                    got=f"{found[spec.task_name][0]} and {task}, both {spec.task_name}",
                    do="rename one of the files",
                )
            found[spec.task_name] = task, spec
        return [spec for _, spec in found.values()]


_MIXTURES: dict[str, MixtureSpec] = {}


def register_mixture(mixture: MixtureSpec) -> MixtureSpec:
    """The mixture itself, from now on found by `get_mixture`; its tasks need not exist yet.

    Raises: DataError when there is another mixture of that name.
    """
    known = _MIXTURES.get(mixture.name)
    if known is not None and known is not mixture:
        raise DataError("a mixture of this name exists already", got=repr(mixture.name))
    _MIXTURES[mixture.name] = mixture
    return mixture


def all_mixtures() -> dict[str, MixtureSpec]:
    """Every registered mixture by name."""
    all_specs()  # imports the packages that register
    return dict(sorted(_MIXTURES.items()))


def get_mixture(name: str) -> MixtureSpec:
    """The mixture `name`, or the one made of the tasks and mixtures that `name` joins by commas.

    Names may leave out the prefix `tulu_`; the path of a user's own files is a task too, also one
    with a comma in it.

    Raises: DataError naming the nearest tasks and mixtures for an unknown one; ConfigError for an
        empty list, or a task that occurs twice.
    """
    found = [_entry(part) for part in split_names(name)]
    if len(found) == 1:
        return found[0]
    components = tuple(c for mixture in found for c in mixture.components)
    if not components or len({c.task for c in components}) != len(components):
        raise ConfigError(
            "not a mixture", got=repr(name), expected="different tasks, joined by commas"
        )
    return MixtureSpec(name=",".join(mixture.name for mixture in found), components=components)


def split_names(joined: str) -> list[str]:
    """The names that commas join; a path that exists is one name, with the commas in it.

    Of several ways to read it the one is taken that makes the first name longest, and so on.

    >>> split_names("tulu_demo, dolly")
    ['tulu_demo', 'dolly']
    """
    parts = joined.split(",")
    names: list[str] = []
    start = 0
    while start < len(parts):
        stop = next(
            (stop for stop in range(len(parts), start + 1, -1) if _exists(parts[start:stop])),
            start + 1,
        )
        name = ",".join(parts[start:stop])
        names.append(name if _is_there(name) else name.strip())
        start = stop
    return [name for name in names if name]


def _exists(parts: list[str]) -> bool:
    joined = ",".join(parts)
    return any(_is_there(name) for name in {joined, joined.strip()})


def _is_there(name: str) -> bool:
    try:
        return user_path(name).exists()
    except (ConfigError, OSError):  # no path at all, or one that is too long
        return False


def _entry(name: str) -> MixtureSpec:
    mixtures = all_mixtures()
    found = mixtures.get(name) or mixtures.get("tulu_" + name)
    if found is not None:
        return found
    spec = find_spec(name)
    if spec is None:
        raise unknown_name("dataset or mixture", name, {**all_specs(), **mixtures})
    # A file of the user's own goes by its path
    task = spec.task_name if spec.task_name in all_specs() else name
    return MixtureSpec(name=task, components=(Component(task=task),))


TaskOptions = Mapping[str, Mapping[str, Any]]
"""Reading options by task: `{"tulu_oasst1": {"rule": "every"}}`."""


def mixture_specs(mixture: str, options: TaskOptions | None = None) -> list[DatasetSpec]:
    """The datasets of a mixture by name, each with its part of `options` laid over its own.

    Raises: DataError for an unknown task or option; ConfigError for options of a task that the
        mixture does not have.
    """
    specs = sorted(get_mixture(mixture).specs(), key=lambda spec: spec.task_name)
    chosen = by_task("options", options or {}, specs)
    return [
        dataclasses.replace(spec, options=spec.resolve_options(chosen[spec.task_name]))
        if spec.task_name in chosen
        else spec
        for spec in specs
    ]


def resolve(
    mixture: str,
    *,
    max_examples: Mapping[str, int] | None = None,
    rates: Mapping[str, float] | None = None,
    seeds: Mapping[str, int] | None = None,
    seed: int = 0,
) -> list[Component]:
    """The mixture's components by full task name, in that order, with a run's settings laid over.

    Where neither the settings nor the mixture give a task a seed, it is `seed`.

    Raises: ConfigError for a setting of a task that the mixture does not have.
    """
    found = get_mixture(mixture)
    specs = found.specs()
    given = {
        "max_examples": by_task("max_examples", max_examples or {}, specs),
        "rate": by_task("rates", rates or {}, specs),
        "seed": by_task("seeds", seeds or {}, specs),
    }
    components = []
    for spec, component in zip(specs, found.components, strict=True):
        own = {name: values.get(spec.task_name) for name, values in given.items()}
        laid = {name: value for name, value in own.items() if value is not None}
        full = dataclasses.replace(component, **{"task": spec.task_name, **laid})
        components.append(full if full.seed is not None else dataclasses.replace(full, seed=seed))
    return sorted(components, key=lambda component: component.task)


def by_task(setting: str, values: Mapping[str, Any], specs: list[DatasetSpec]) -> dict[str, Any]:
    """`values` by full task name, where keys may leave out the prefix or be paths.

    What is given for a task under two such names is joined where it is a mapping.

    Raises: ConfigError naming the setting for a task that is not among `specs`, or is named twice.
    """
    known = {name: spec.task_name for spec in specs for name in _names(spec)}
    full = {key: known.get(key) or known.get(_as_path(key) or key) for key in values}
    for key, task in full.items():
        if task is None:
            raise ConfigError(
                f"{setting} names a task that the mixture does not have",
                got=repr(key),
                expected=" or ".join(spec.task_name for spec in specs),
            )
    found: dict[str, Any] = {}
    for key, value in values.items():
        task = str(full[key])
        if task in found and not isinstance(value, Mapping):
            raise ConfigError(
                f"{setting} names a task twice", got=repr(key), expected="each task once"
            )
        found[task] = {**found.get(task, {}), **value} if isinstance(value, Mapping) else value
    return found


def _as_path(key: str) -> str | None:
    try:
        return str(user_path(key))
    except ConfigError:
        return None


def _names(spec: DatasetSpec) -> tuple[str, ...]:
    paths = tuple(source.filename for source in spec.sources)
    return (spec.task_name, spec.task_name.removeprefix(TASK_PREFIX), *paths)
