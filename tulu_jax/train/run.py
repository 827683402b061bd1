"""One plan of a run: what training, `tulu plan` and `tulu bench` make their steps of."""

from __future__ import annotations

import dataclasses
import importlib.metadata
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax

from tulu_jax.axes import BATCH_KEYS, SEQUENCE_AXIS
from tulu_jax.data.ensure import TrainingData
from tulu_jax.models import ModelConfig, config_to_dict
from tulu_jax.parallel import Layout, layout_for, make_mesh
from tulu_jax.places import as_place
from tulu_jax.train.checks import row_settings
from tulu_jax.train.config import TrainConfig
from tulu_jax.train.metrics import train_flops
from tulu_jax.train.mirror import run_folder
from tulu_jax.train.optimizer import state_form
from tulu_jax.train.state import TrainState, abstract_state
from tulu_jax.train.step import make_eval_step, make_train_step
from tulu_jax.train.trained import Trained, what_is_trained


@dataclasses.dataclass(frozen=True)
class RunPlan:
    """A run as far as it needs no data: what is trained, on which devices, in which steps."""

    config: TrainConfig
    model: ModelConfig
    layout: Layout
    optimizer: optax.GradientTransformation
    total_steps: int
    """They only set constants of the schedule."""

    @cached_property
    def trained(self) -> Trained:
        """All weights, or adapters."""
        return what_is_trained(self.model, self.config.lora)

    def state(self) -> TrainState:
        """The state of training as shapes and shardings."""
        return abstract_state(self.trained, self.optimizer, self.layout)

    def start(self, params: Any = None) -> TrainState:
        """The state at step 0, every array born on the devices that it will live on.

        `params` are weights to start from, sharded, float32; fresh ones are the same on any mesh.
        """
        where = jax.tree.map(lambda leaf: leaf.sharding, self.state())
        if params is None:
            fresh = jax.jit(self.trained.fresh, out_shardings=where.params)
            params = fresh(jax.random.key(self.config.seed))
        opt_state = jax.jit(self.optimizer.init, out_shardings=where.opt_state)(params)
        step = jax.device_put(jnp.zeros((), jnp.int32), where.step)
        return TrainState(step, params, opt_state)

    def frozen(self) -> tuple[Any, ...]:
        """The weights that are not trained, if any, as shapes and shardings."""
        return self.trained.frozen(self.layout)

    def batch(self) -> dict[str, jax.ShapeDtypeStruct]:
        """A global batch as shapes and shardings."""
        shape = (self.config.data.batch_size, self.config.data.length)
        rows = jax.ShapeDtypeStruct(shape, jnp.int32, sharding=self.layout.rows)
        return dict.fromkeys(BATCH_KEYS, rows)

    def step(self, traced: Callable[[], object] = lambda: None) -> Callable[..., Any]:
        """The jitted `step(state, batch, *frozen)`; see `make_train_step`."""
        return make_train_step(
            self.config, self.trained, self.optimizer, self.layout, traced=traced
        )

    def eval_step(self) -> Callable[..., Any]:
        """The jitted `step(params, batch, *frozen)`; see `make_eval_step`."""
        return make_eval_step(self.config, self.trained, self.layout)

    @property
    def positions(self) -> int:
        """Positions of a micro-batch whose activations lie on one device."""
        data = self.config.data
        rows = data.batch_size // self.config.micro_batches // self.layout.num_row_shards
        return rows * data.length // self.layout.mesh.shape[SEQUENCE_AXIS]

    def flops(self, tokens: float, loss_tokens: float) -> float:
        """Floating-point operations that training on so many tokens needs."""
        return train_flops(
            self.model,
            tokens=tokens,
            loss_tokens=loss_tokens,
            length=self.config.data.length,
            adapter_params=self.trained.adapter_params,
        )


@dataclasses.dataclass(frozen=True)
class Run(RunPlan):
    """A checked run with its data: what the loop works on."""

    data: TrainingData
    settings: str
    """The resolved gin settings, as saved and printed."""
    generation: dict[str, Any]
    """The `generation_config.json` of the model it starts from, which its exports keep."""
    frozen_weights: dict[str, str] | None = None
    """The fingerprint of every frozen weight, once they are read."""

    @cached_property
    def folder(self) -> Path:
        """The run folder; of one in a bucket, that of this machine."""
        return run_folder(self.config.model_dir)

    @cached_property
    def row_share(self) -> dict[str, int]:
        """Which part of every batch this process reads."""
        index, count = self.layout.row_share()
        return {"process_index": index, "process_count": count}

    def meta(self) -> dict[str, Any]:
        """What every checkpoint says about itself, as JSON values."""
        data = self.config.data
        optimizer = dataclasses.asdict(self.config.optimizer)
        _, frozen_path = self.trained.paths(self.config.initial_checkpoint)
        return {
            "model": config_to_dict(self.model),
            "tokenizer": self.data.tokenizer.fingerprint,
            "stores": {store.name: store.fingerprint for store in self.data.stores},
            "rows": {**row_settings(data), **self.data.mixing},
            "exclude_files": self.data.exclusion.files_record(),
            "chat_template": self.data.tokenizer.template.name,
            "tokenizer_path": str(as_place(data.tokenizer).absolute()),
            "encoding": data.encoding,
            "total_steps": self.total_steps,
            "dtype": self.config.compute.dtype,
            "loss_normalization": self.config.loss_normalization,
            "paper_rows": self.config.paper_rows,
            "loss_terms": dict(self.config.loss_terms),
            "seed": self.config.seed,
            "on_bad_step": self.config.on_bad_step,
            "bad_grad_norm": self.config.bad_grad_norm,
            "initial_checkpoint": self.config.initial_checkpoint,
            "optimizer": optimizer,
            "optimizer_form": state_form(optimizer),
            "settings": self.settings,
            "lora": self.trained.meta(self.frozen_weights),
            "base_path": frozen_path and str(as_place(frozen_path).absolute()),
            "generation": self.generation,
            "versions": {
                name: importlib.metadata.version(name)
                for name in ("jax", "flax", "optax", "orbax-checkpoint")
            },
        }


def lay_out(
    config: TrainConfig,
    model: ModelConfig,
    devices: Sequence[Any] | None = None,
    *,
    rows: str = "BATCH_SIZE / MICRO_BATCHES",
) -> Layout:
    """Where everything of the run lies on `devices` (default: all that are here).

    Args:
      config: the run.
      model: its model.
      devices: may be of a topology that is only described.
      rows: what the number of rows is called in messages.

    Raises:
      ConfigError: mesh, model and batch do not fit together.
    """
    layout = layout_for(
        model,
        make_mesh(config.mesh, devices),
        rules=config.mesh.axis_rules,
        offload_optimizer=config.mesh.offload_optimizer,
    )
    layout.check_rows(config.data.batch_size // config.micro_batches, name=rows)
    layout.check_length(config.data.length)
    return layout
