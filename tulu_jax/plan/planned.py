"""A run on hardware that need not be there: model, mesh, and the loop's own step."""

from __future__ import annotations

import dataclasses

from tulu_jax.axes import TENSOR_AXIS
from tulu_jax.plan.topology import Topology
from tulu_jax.train.checks import initial_model_config
from tulu_jax.train.config import TrainConfig
from tulu_jax.train.optimizer import make_optimizer
from tulu_jax.train.run import RunPlan, lay_out

ANY_STEPS = 1000
"""The number of steps only sets constants of the schedule."""


@dataclasses.dataclass(frozen=True)
class PlannedRun(RunPlan):
    """A run on a topology."""

    topology: Topology

    def mesh_size(self, axis: str = TENSOR_AXIS) -> int:
        """Devices along an axis of the mesh."""
        return self.layout.mesh.shape[axis]


def plan_run(config: TrainConfig, topology: Topology) -> PlannedRun:
    """The run that `config` describes, laid out on `topology`.

    Raises:
      ConfigError: mesh, model and batch do not fit together.
    """
    model = config.model or initial_model_config(str(config.initial_checkpoint))
    layout = lay_out(config, model, topology.devices)
    optimizer = make_optimizer(config.optimizer, ANY_STEPS)
    return PlannedRun(config, model, layout, optimizer, ANY_STEPS, topology)
