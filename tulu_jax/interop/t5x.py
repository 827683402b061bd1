"""Trains our models and mixtures with t5x: `python -m t5x.train --gin_file=t5x/finetune.gin`.

The gin file binds everything here; docs/t5x.md says how to install t5x and shows a run.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax.core
import jax
import numpy as np
import optax
import orbax.checkpoint as ocp
import seqio
from etils import epath
from flax.linen.partitioning import AxisMetadata
from jaxtyping import Array, Float

from tulu_jax.checkpoint.hf import open_folder
from tulu_jax.checkpoint.sharded import read_sharded
from tulu_jax.data import seqio_glue
from tulu_jax.errors import CheckpointError, ConfigError
from tulu_jax.models import (
    ComputeConfig,
    ModelConfig,
    forward,
    init_params,
    logical_axes,
)
from tulu_jax.train.config import OptimizerConfig
from tulu_jax.train.optimizer import learning_rate_schedule, make_optimizer

try:
    from t5x import models as t5x_models  # pyright: ignore[reportAttributeAccessIssue]
    from t5x import optimizers as t5x_optimizers  # pyright: ignore[reportAttributeAccessIssue]
    from t5x import trainer as t5x_trainer  # pyright: ignore[reportAttributeAccessIssue]
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"t5x cannot be imported (no module {error.name}) - it is not on PyPI - "
        "install it as docs/t5x.md says",
        name=error.name,
    ) from error


def params_axes(config: ModelConfig) -> dict[str, Any]:
    """The collection from which t5x learns where weights lie: `<name>_axes` for each weight.

    params       {"final_norm": {"scale": [D]}}
    params_axes  {"final_norm": {"scale_axes": AxisMetadata(("embed",))}}
    """
    return _renamed(logical_axes(config))


def _renamed(tree: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name if isinstance(child, Mapping) else f"{name}_axes": (
            _renamed(child) if isinstance(child, Mapping) else AxisMetadata(tuple(child))
        )
        for name, child in tree.items()
    }


def logical_axis_rules(
    config: ModelConfig, num_partitions: int = 1, *, parameter_partitioning_dims: int = 1
) -> list[tuple[str, str | None]]:
    """Our logical axes on t5x's mesh axes `data` and `model`, for its PjitPartitioner.

    Heads, feed-forward and vocabulary are split over `model`; `parameter_partitioning_dims=2` also
    splits each weight over `data`. Key/value heads and vocabulary stay whole if they do not divide.

    Raises:
      ConfigError: `num_partitions` does not divide heads or d_ff.
    """
    for name, size in (("num_heads", config.num_heads), ("d_ff", config.d_ff)):
        if size % num_partitions:
            raise ConfigError(
                "num_partitions does not divide the model",
                got=f"num_partitions={num_partitions}, {name}={size}",
                expected=f"num_partitions to divide {name}",
                do="choose another NUM_PARTITIONS",
            )
    return [
        ("batch", "data"),
        ("length", None),
        ("activation_embed", None),
        ("layers", None),
        ("embed", "data" if parameter_partitioning_dims == 2 else None),
        ("word_embed", None),
        ("positions", None),
        ("heads", "model"),
        ("kv_heads", None if config.num_kv_heads % num_partitions else "model"),
        ("head_dim", None),
        ("mlp", "model"),
        ("vocab", None if config.vocab_size % num_partitions else "model"),
    ]


def vocabulary(
    mixture: str, *, tokenizer: str, encoding: str = "hf", data_dir: str, raw_dir: str | None = None
) -> seqio.Vocabulary:
    """The vocabulary of a mixture; tells its tasks, which t5x makes by name, what they need."""
    seqio_glue.configure(tokenizer=tokenizer, encoding=encoding, data_dir=data_dir, raw_dir=raw_dir)
    return seqio.get_mixture_or_task(mixture).output_features["targets"].vocabulary


def model_config(folder: str) -> ModelConfig:
    """The config of the model in a Hugging Face folder."""
    return open_folder(folder).config


def adamw(config: OptimizerConfig, total_steps: int) -> t5x_optimizers.OptaxWrapper:
    """The optimizer of `tulu train`, its schedule inside.

    t5x's own rate (`Trainer.learning_rate_fn`) reaches no optax optimizer: it is only logged. Give
    it `learning_rate` with the same arguments.
    """
    return t5x_optimizers.OptaxWrapper(make_optimizer(config, total_steps))


def learning_rate(config: OptimizerConfig, total_steps: int) -> optax.Schedule:
    """The rate that `adamw` uses at each step."""
    return learning_rate_schedule(config, total_steps)


class TuluModel(t5x_models.DecoderOnlyModel):
    """A model of ours as t5x trains it, on our own features and with the loss of `tulu train`.

    The loss is the mean over all trained tokens of the batch. Decoding is not supported.
    """

    FEATURE_CONVERTER_CLS = seqio_glue.TuluFeatureConverter

    def __init__(
        self,
        config: ModelConfig,
        vocabulary: seqio.Vocabulary,
        *,
        optimizer_def: t5x_optimizers.OptimizerDef,
        compute: ComputeConfig | None = None,
    ) -> None:
        """Refuses a vocabulary with more pieces than the model has."""
        if vocabulary.vocab_size > config.vocab_size:
            raise ConfigError(
                "tokenizer has more pieces than the model",
                got=vocabulary.vocab_size,
                expected=f"at most {config.vocab_size}",
                do="give the model's own TOKENIZER",
            )
        self.config = config
        self.compute = compute or ComputeConfig()
        super().__init__(
            module=config.decoder(self.compute),
            vocabulary=vocabulary,
            optimizer_def=optimizer_def,
            loss_normalizing_factor="NUM_REAL_TARGET_TOKENS",
        )

    def get_initial_variables(
        self, rng: Array, input_shapes: Mapping[str, Any], input_types: Any = None
    ) -> flax.core.FrozenDict:
        """Fresh weights, and the names of their axes."""
        del input_shapes, input_types
        variables = {
            "params": init_params(self.config, rng),
            "params_axes": params_axes(self.config),
        }
        return flax.core.freeze(variables)

    def _compute_logits(
        self, params: Any, batch: Mapping[str, Array], dropout_rng: Any = None, **unused: Any
    ) -> Float[Array, "B T V"]:
        del dropout_rng
        if unused.get("mutable"):
            raise NotImplementedError("the model has no intermediates to return")
        return forward(
            self.config,
            flax.core.unfreeze(params),
            batch["decoder_input_tokens"],
            batch["decoder_segment_ids"],
            batch["decoder_positions"],
            compute=self.compute,
        )

    def predict_batch_with_aux(self, *args: Any, **kwargs: Any) -> Any:
        """Refuses: t5x's decoding is not supported."""
        raise NotImplementedError(
            "t5x decoding is not supported: our mixtures have no `inputs` feature to continue - "
            "export the checkpoint (docs/t5x.md) and use `tulu generate`"
        )


class Trainer(t5x_trainer.Trainer):
    """t5x's trainer, which starts from the weights in a Hugging Face folder."""

    def __init__(
        self, *, initial_weights: str | None = None, train_state: Any, **kwargs: Any
    ) -> None:
        """Loads `initial_weights` unless the run goes on from a checkpoint of its own."""
        if initial_weights is not None and int(train_state.step) == 0:
            train_state = _start_from(initial_weights, train_state, kwargs["model"].config)
        super().__init__(train_state=train_state, **kwargs)


def _start_from(folder: str, train_state: Any, config: ModelConfig) -> Any:
    """The state with the folder's weights, laid out over the devices as its own were."""
    source = open_folder(folder)
    if source.config != config:
        raise CheckpointError(
            "initial weights are of another model", got=source.config, at=folder, expected=config
        )
    frozen = train_state.params
    shardings = jax.tree.map(lambda leaf: leaf.sharding, flax.core.unfreeze(frozen))
    params = read_sharded(source, shardings)
    frozen_too = isinstance(frozen, flax.core.FrozenDict)
    return train_state.replace_params(flax.core.freeze(params) if frozen_too else params)


def read_params(checkpoint: str | Path) -> dict[str, Any]:
    """The weights in a t5x checkpoint (`MODEL_DIR/checkpoint_<step>`), for `checkpoint.hf.save`.

    Raises:
      CheckpointError: it is incomplete, damaged, or holds no weights.
    """
    handler = ocp.PyTreeCheckpointHandler()
    state = epath.Path(checkpoint).absolute() / "state"
    try:
        tree = handler.metadata(state).tree["target"]
        as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
        args = ocp.args.PyTreeRestore(
            item={"target": jax.tree.map(lambda _: 0, tree)},
            restore_args={"target": as_numpy},
            partial_restore=True,
        )
        return handler.restore(state, args=args)["target"]
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise CheckpointError(
            "t5x checkpoint cannot be read",
            got=f"{type(error).__name__}: {str(error)[:300]}",
            at=checkpoint,
            expected="a folder MODEL_DIR/checkpoint_<step> that t5x finished",
        ) from error
