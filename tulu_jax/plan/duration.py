"""How long a whole run takes, from a step's roofline and an openly stated guess."""

from __future__ import annotations

import dataclasses

from tulu_jax.plan.planned import PlannedRun
from tulu_jax.plan.roofline import Roofline, Work

EFFICIENCY = 0.6
"""Share of the roofline's speed that is assumed to be reached, unless said otherwise."""


@dataclasses.dataclass(frozen=True)
class Schedule:
    """What a run trains on, counted or estimated."""

    steps: int
    examples: int | None
    """Conversations in an epoch; None where the run does not count in epochs."""
    tokens: float
    """Tokens in a step that are not padding."""
    loss_tokens: float
    notes: tuple[str, ...]
    """Where the numbers come from."""

    @property
    def work(self) -> Work:
        """A step's share."""
        return Work(self.tokens, self.loss_tokens)


@dataclasses.dataclass(frozen=True)
class Duration:
    """The time of all steps, without start-up, held-out losses and checkpoints."""

    step_seconds: float
    hours: float
    chip_hours: float
    tokens_per_second: float
    efficiency: float


def full_rows(run: PlannedRun) -> Work:
    """A batch without padding whose every token has loss: the most work there can be."""
    positions = run.config.data.batch_size * run.config.data.length
    return Work(positions, positions)


def duration(
    run: PlannedRun, roof: Roofline, schedule: Schedule, *, efficiency: float = EFFICIENCY
) -> Duration:
    """The time to train, if steps reach `efficiency` of the roofline's speed."""
    seconds = roof.seconds / efficiency
    hours = seconds * schedule.steps / 3600
    return Duration(
        step_seconds=seconds,
        hours=hours,
        chip_hours=hours * len(run.topology.devices),
        tokens_per_second=schedule.tokens / seconds,
        efficiency=efficiency,
    )
