"""What a mixture is: named tasks, with how many examples of each or how often it is drawn.

Mixtures are registered by `tasks/mixtures.py` and found by name. A task's name is a mixture of
that task alone; names joined by commas are a mixture of them all.
"""

from __future__ import annotations

from dataclasses import dataclass

from tulu_jax.data.specs import DatasetSpec, all_specs, get_spec, unknown_name
from tulu_jax.errors import ConfigError, DataError


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

        Raises: DataError for a task that does not exist.
        """
        return [get_spec(task) for task in self.tasks]


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

    Names may leave out the prefix `tulu_`; a path that ends in `.jsonl` is a task too.

    Raises: DataError naming the nearest tasks and mixtures for an unknown one; ConfigError for an
        empty list, or a task that occurs twice.
    """
    names = [part.strip() for part in name.split(",") if part.strip()]
    found = [_entry(part) for part in names]
    if len(found) == 1:
        return found[0]
    components = tuple(c for mixture in found for c in mixture.components)
    if not components or len({c.task for c in components}) != len(components):
        raise ConfigError(
            "not a mixture", got=repr(name), expected="different tasks, joined by commas"
        )
    return MixtureSpec(name=",".join(mixture.name for mixture in found), components=components)


def _entry(name: str) -> MixtureSpec:
    mixtures = all_mixtures()
    found = mixtures.get(name) or mixtures.get("tulu_" + name)
    if found is not None:
        return found
    try:
        task = get_spec(name).task_name
    except DataError as error:
        if not str(error).startswith("unknown dataset"):
            raise
        raise unknown_name("task or mixture", name, {**all_specs(), **mixtures}) from error
    task = task if task in all_specs() else name  # a file of the user's own goes by its path
    return MixtureSpec(name=task, components=(Component(task=task),))
