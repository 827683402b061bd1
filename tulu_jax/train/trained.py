"""What a run trains: every weight, or adapters beside frozen ones. Nothing else asks which."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
from flax.linen import spmd
from jaxtyping import Array

from tulu_jax.checkpoint.fingerprint import tree_fingerprints
from tulu_jax.models import ModelConfig, init_params
from tulu_jax.models.lora import (
    LoraConfig,
    abstract_adapters,
    adapt,
    adapter_axes,
    adapter_shapes,
    init_adapters,
    num_adapter_params,
    quantize_base,
    scale_sharding,
)
from tulu_jax.ops import QuantizedWeight, quantize
from tulu_jax.parallel import Layout
from tulu_jax.parallel.rules import abstract_sharded_params
from tulu_jax.train.metrics import ADAPTER_FLOP_FORMULA, FLOP_FORMULA


@dataclasses.dataclass(frozen=True)
class Trained:
    """Every weight of the model is trained; nothing lies beside them.

    Frozen weights, where there are any, are what a step takes after state and batch: so they come
    as a tuple, here an empty one.
    """

    model: ModelConfig

    name = "weights"
    flop_formula = FLOP_FORMULA

    @property
    def adapter_params(self) -> int | None:
        """Number of weights in adapters; None where there are none."""
        return None

    @property
    def matmul_params(self) -> int:
        """Number of weights in matrices whose gradients devices send one another."""
        return self.model.num_matmul_params

    @property
    def matmul_dtype(self) -> str:
        """What the model's matrices are kept in."""
        return "float32"

    def abstract(self, layout: Layout) -> Any:
        """What is trained, as shapes, dtypes and shardings."""
        return abstract_sharded_params(self.model, layout)

    def fresh(self, key: Array) -> Any:
        """What is trained, before anything is learnt."""
        return init_params(self.model, key)

    def weights(self, trained: Any, frozen: tuple[Any, ...], dropout: Any = None) -> Any:
        """The weights that the model runs with.

        Args:
          trained: as `fresh` gives it.
          frozen: as `read_frozen` gives it.
          dropout: (seed, step, micro-batch), which decide what is dropped; None drops nothing.
        """
        return trained

    def frozen(self, layout: Layout) -> tuple[Any, ...]:
        """The frozen weights as shapes, dtypes and shardings."""
        return ()

    def paths(self, checkpoint: str | None) -> tuple[str | None, str | None]:
        """Of INITIAL_CHECKPOINT_PATH: where weights to start from lie, and where frozen ones do.

        The latter are read again when the run goes on.
        """
        return checkpoint, None

    def read_frozen(
        self, read: Callable[[str], Any]
    ) -> tuple[tuple[Any, ...], dict[str, str] | None]:
        """The frozen weights, and their fingerprints; `read` gives the model's in a dtype."""
        return (), None

    def meta(self, fingerprints: dict[str, str] | None) -> dict[str, Any] | None:
        """What of this must be the same when the run goes on, as JSON values."""
        return None

    def lines(self, frozen_path: str | None) -> list[str]:
        """What the user is told at the start."""
        return []


@dataclasses.dataclass(frozen=True)
class Adapters(Trained):
    """Low-rank adapters, made fresh, are trained beside the weights of INITIAL_CHECKPOINT_PATH.

    These are frozen: in the dtype that they are read in, or (QLoRA) in 8 or 4 bits.
    """

    lora: LoraConfig

    name = "adapters"
    flop_formula = ADAPTER_FLOP_FORMULA

    @property
    def adapter_params(self) -> int:
        """Number of weights in adapters."""
        return num_adapter_params(self.model, self.lora)

    @property
    def matmul_params(self) -> int:
        """None to speak of: adapters are so small that sending their gradients takes no time."""
        return 0

    @property
    def matmul_dtype(self) -> str:
        """What the frozen matrices are kept in."""
        return self.lora.base_dtype

    def abstract(self, layout: Layout) -> Any:
        """The adapters; the rank is never split."""
        axes = adapter_axes(self.model, self.lora)
        return jax.tree.map(
            lambda leaf, where: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where),
            abstract_adapters(self.model, self.lora),
            spmd.logical_to_mesh_sharding(axes, layout.mesh, layout.rules),
        )

    def fresh(self, key: Array) -> Any:
        """Adapters that change nothing yet."""
        return init_adapters(self.model, self.lora, key)

    def weights(self, trained: Any, frozen: tuple[Any, ...], dropout: Any = None) -> Any:
        """The frozen weights with the adapters beside them."""
        key = None if dropout is None else _dropout_key(*dropout)
        return adapt(self.model, self.lora, frozen[0], trained, key)

    def frozen(self, layout: Layout) -> tuple[Any, ...]:
        """The model's weights, those quantised that `quantize_base` quantises.

        Raises:
          ConfigError: they are to be quantised, and qwix is not installed.
        """
        frozen = abstract_sharded_params(self.model, layout, dtype=self.lora.read_dtype)
        if not self.lora.quantized:
            return (frozen,)
        shapes = adapter_shapes(self.model, self.lora)

        def small(path: Any, weight: Any) -> Any:
            shape = shapes.get(tuple(entry.key for entry in path))
            if shape is None:
                return weight
            kind, (inputs, outputs) = self.lora.base_dtype, (shape.a[1], shape.b[2])
            made = jax.eval_shape(
                partial(quantize, kind=kind, inputs=inputs, outputs=outputs), weight
            )
            values, scale = made.values.dtype, made.scale
            return QuantizedWeight(
                jax.ShapeDtypeStruct(weight.shape, values, sharding=weight.sharding),
                jax.ShapeDtypeStruct(
                    scale.shape, scale.dtype, sharding=scale_sharding(weight, shape)
                ),
                kind,
            )

        return (jax.tree_util.tree_map_with_path(small, frozen),)

    def paths(self, checkpoint: str | None) -> tuple[str | None, str | None]:
        """Nothing to start from."""
        return None, checkpoint

    def read_frozen(
        self, read: Callable[[str], Any]
    ) -> tuple[tuple[Any, ...], dict[str, str] | None]:
        """The model's weights, quantised if need be; fingerprints are of them as they were read."""
        base = read(self.lora.read_dtype)
        fingerprints = tree_fingerprints(base)
        if self.lora.quantized:
            base = quantize_base(self.model, self.lora, base)
        return (base,), fingerprints

    def meta(self, fingerprints: dict[str, str] | None) -> dict[str, Any] | None:
        """The adapters' settings, and the weights they stand beside."""
        fields = {**dataclasses.asdict(self.lora), "targets": sorted(self.lora.weights)}
        return {**fields, "base_weights": fingerprints}

    def lines(self, frozen_path: str | None) -> list[str]:
        """How many weights are trained, on what, beside which."""
        return [
            f"LoRA: {self.adapter_params:,} weights in adapters of rank {self.lora.rank} on "
            f"{', '.join(sorted(self.lora.weights))}"
            f"; base {frozen_path}, frozen, {self.lora.base_dtype}"
        ]


def what_is_trained(model: ModelConfig, lora: LoraConfig | None) -> Trained:
    """Every weight, or with `lora` adapters."""
    return Trained(model) if lora is None else Adapters(model, lora)


def _dropout_key(seed: int, step: Array, part: Array) -> Array:
    """The key of one micro-batch's dropout: a pure function of the run's seed, step and part.

    So a resumed run drops the very inputs that the run that was never stopped does.
    """
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), step), part)
