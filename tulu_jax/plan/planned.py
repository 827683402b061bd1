"""A run as far as it can be set up without data: model, mesh, and the loop's own step."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax

from tulu_jax.axes import BATCH_KEYS, TENSOR_AXIS
from tulu_jax.models import ModelConfig
from tulu_jax.parallel import Layout, layout_for, make_mesh
from tulu_jax.plan.topology import Topology
from tulu_jax.train.budget import frozen_weights, local_positions
from tulu_jax.train.checks import initial_model_config
from tulu_jax.train.config import TrainConfig
from tulu_jax.train.optimizer import make_optimizer
from tulu_jax.train.setup import Run, make_steps
from tulu_jax.train.state import abstract_state

ANY_STEPS = 1000
"""The number of steps only sets constants of the schedule."""


@dataclasses.dataclass(frozen=True)
class PlannedRun:
    """A run on a topology, as shapes: nothing of it is allocated."""

    config: TrainConfig
    model: ModelConfig
    layout: Layout
    optimizer: optax.GradientTransformation
    topology: Topology

    @property
    def positions(self) -> int:
        """Positions of a micro-batch whose activations lie on one device."""
        return local_positions(self)

    def mesh_size(self, axis: str = TENSOR_AXIS) -> int:
        """Devices along an axis of the mesh."""
        return self.layout.mesh.shape[axis]

    def state(self) -> Any:
        """The state of training as shapes and shardings."""
        return abstract_state(self.model, self.optimizer, self.layout, lora=self.config.lora)

    def frozen(self) -> tuple[Any, ...]:
        """With LoRA, the weights that are not trained, as the step takes them; else nothing."""
        return frozen_weights(self)

    def batch(self) -> dict[str, jax.ShapeDtypeStruct]:
        """A global batch as shapes and shardings."""
        shape = (self.config.data.batch_size, self.config.data.length)
        rows = jax.ShapeDtypeStruct(shape, jnp.int32, sharding=self.layout.rows)
        return dict.fromkeys(BATCH_KEYS, rows)

    def step(self) -> Any:
        """The very step that the training loop runs."""
        nothing: Any = None
        run = Run(
            self.config, self.model, nothing, self.layout, self.optimizer, ANY_STEPS, settings=""
        )
        return make_steps(run)[0]


def plan_run(config: TrainConfig, topology: Topology) -> PlannedRun:
    """The run that `config` describes, laid out on `topology`.

    Raises:
      ConfigError: mesh, model and batch do not fit together.
    """
    model = config.model or initial_model_config(str(config.initial_checkpoint))
    mesh = make_mesh(config.mesh, topology.devices)
    layout = layout_for(
        model,
        mesh,
        rules=config.mesh.axis_rules,
        offload_optimizer=config.mesh.offload_optimizer,
    )
    layout.check_rows(
        config.data.batch_size // config.micro_batches, name="BATCH_SIZE / MICRO_BATCHES"
    )
    layout.check_length(config.data.length)
    optimizer = make_optimizer(config.optimizer, ANY_STEPS)
    return PlannedRun(config, model, layout, optimizer, topology)
