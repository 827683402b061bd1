"""The compiled step of training, and that of a held-out batch."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float

from tulu_jax.axes import Batch
from tulu_jax.parallel.rules import Layout
from tulu_jax.train.config import TrainConfig
from tulu_jax.train.loss import (
    loss_in_parts,
    loss_weights,
    part_names,
    position_nll,
    targets_and_mask,
)
from tulu_jax.train.state import TrainState, abstract_state
from tulu_jax.train.trained import Trained

Metrics = dict[str, Float[Array, ""]]

TPU_OPTIONS = {"xla_jf_bf16_propagation": False}
"""Options for libtpu: its pass of that name turns what a loop takes in float32, and casts inside,
into bfloat16 before the loop, and so keeps a second copy of all layers' weights for the whole step:
1.4 of 29.4 GiB at 7B on four chips. What is sent between chips is cast by the model's own code."""


def make_train_step(
    config: TrainConfig,
    trained: Trained,
    optimizer: optax.GradientTransformation,
    layout: Layout,
    *,
    traced: Callable[[], object] = lambda: None,
) -> Callable[..., tuple[TrainState, Metrics]]:
    """A jitted `step(state, batch, *frozen) -> (state, metrics)`; the state passed in is consumed.

    Metrics are sums over the global batch: `loss` (as it is minimised), `grad_norm` (before
    clipping), `tokens` (not padding), `loss_tokens`; where the loss has terms, its `nll` and each
    `terms/NAME` without its factor; and `skipped`, 1 for a bad step left out: of that weights and
    moments stay as they were, bit for bit; only `step` goes on.

    `traced` is called whenever JAX traces the step, which it should do once.
    """
    shardings = _shardings(abstract_state(trained, optimizer, layout))

    def step(state: TrainState, batch: Batch, *frozen: Any) -> tuple[TrainState, Metrics]:
        traced()
        # ---- loss and gradients ----------------------------------------------------------
        # What a position counts is settled before the batch is cut, so that cuts change nothing:
        # a mean of micro-batches' means would count tokens of rows with few answers for more.
        _, mask = targets_and_mask(batch)
        weights = loss_weights(
            mask, normalization=config.loss_normalization, paper_rows=config.paper_rows
        )
        loss_of = _loss_of(config, trained, frozen, state.step)
        (loss, made_of), grads = _accumulate(
            loss_of, config.loss_terms, state.params, batch, weights, config.micro_batches
        )
        norm = optax.tree.norm(grads)

        # ---- update ----------------------------------------------------------------------
        # Clipping is the optimizer's: `norm` is of the gradients as they are, which tells more.
        moments = _fetched(state.opt_state, shardings.opt_state, layout)
        updates, opt_state = optimizer.update(grads, moments, state.params)
        params = optax.apply_updates(state.params, updates)

        # ---- undo a step that would spoil the weights; the host learns of it steps later -----
        skipped = jnp.zeros((), bool)
        if config.on_bad_step == "skip":
            skipped = _is_bad(loss, norm, config.bad_grad_norm)
            params, opt_state = _unless(skipped, (params, opt_state), (state.params, moments))
        opt_state = _sent_back(opt_state, shardings.opt_state, layout)
        metrics = {"loss": loss, "grad_norm": norm, "skipped": skipped.astype(jnp.float32)}
        metrics |= made_of | _counts(batch, mask)
        return TrainState(state.step + 1, params, opt_state), metrics

    # Layouts are named on both sides: XLA neither moves the state nor picks another for it.
    return jax.jit(
        step,
        in_shardings=(shardings, layout.rows, *_shardings(trained.frozen(layout))),
        out_shardings=(shardings, layout.replicated),
        donate_argnums=0,
        compiler_options=compiler_options(layout),
    )


def _loss_of(
    config: TrainConfig, trained: Trained, frozen: tuple[Any, ...], step: Array
) -> Callable[..., tuple[Array, Metrics]]:
    """The loss of a micro-batch, and what it is made of, as a function of what is trained."""

    def loss_of(params: Any, batch: Batch, weights: Array, part: Array) -> tuple[Array, Metrics]:
        params = trained.weights(params, frozen, (config.seed, step, part))
        return loss_in_parts(
            trained.model, config.compute, params, batch, weights, config.loss_terms
        )

    return loss_of


def _shardings(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf.sharding, tree)


def _counts(batch: Batch, mask: Array) -> Metrics:
    """Tokens of a global batch, and those with loss."""
    tokens = jnp.sum(batch["segment_ids"] > 0).astype(jnp.float32)
    return {"tokens": tokens, "loss_tokens": jnp.sum(mask)}


def compiler_options(layout: Layout) -> dict[str, bool]:
    """Those of `TPU_OPTIONS` that this version of libtpu knows; none for other devices."""
    if layout.platform != "tpu":
        return {}
    scalar = jax.ShapeDtypeStruct((), jnp.float32, sharding=layout.replicated)
    known = {}
    for name, value in TPU_OPTIONS.items():
        probe = jax.jit(lambda x: x, compiler_options={name: value}).lower(scalar)
        try:
            with described_devices():
                probe.compile()
        except jax.errors.JaxRuntimeError as error:
            if name not in str(error):
                raise
        else:
            known[name] = value
    return known


@contextlib.contextmanager
def described_devices() -> Iterator[None]:
    """Compiles without a warning for TPUs that are only described.

    They cannot read a program back from JAX's cache, which says so and makes it again.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Error reading persistent compilation")
        yield


def _is_bad(loss: Float[Array, ""], norm: Float[Array, ""], limit: float | None) -> Bool[Array, ""]:
    """Whether loss or gradient norm is not finite, or the norm above its limit."""
    limit = jnp.inf if limit is None else limit
    return ~(jnp.isfinite(loss) & jnp.isfinite(norm) & (norm <= limit))


def _unless(skipped: Bool[Array, ""], new: Any, old: Any) -> Any:
    """`new`, or `old` if skipped: chosen, not multiplied by 0 or 1, as NaN times 0 is NaN."""
    return jax.tree.map(partial(jnp.where, skipped), old, new)


def _fetched(opt_state: Any, shardings: Any, layout: Layout) -> Any:
    """The optimizer's state in device memory, where it computes; the hosts keep their copy."""
    if not layout.offload_optimizer:
        return opt_state
    on_devices = jax.tree.map(lambda where: where.with_memory_kind("device"), shardings)
    return jax.device_put(opt_state, on_devices)


def _sent_back(opt_state: Any, shardings: Any, layout: Layout) -> Any:
    """The new optimizer state on its way to where it lies."""
    return jax.device_put(opt_state, shardings) if layout.offload_optimizer else opt_state


def _accumulate(
    loss_of: Callable[..., tuple[Array, Metrics]],
    terms: Mapping[str, float],
    params: Any,
    batch: Batch,
    weights: Array,
    parts: int,
) -> tuple[tuple[Array, Metrics], Any]:
    """What `loss_of` gives for the whole batch, a loss with `terms`, and its gradients.

    The `parts` micro-batches come one after another.

    Row i goes to micro-batch i % parts, so that every device keeps its own rows.
    """
    value_and_grad = jax.value_and_grad(loss_of, has_aux=True)
    # Without a loop for one part: XLA would keep a second tree of gradients for the sums.
    if parts == 1:
        return value_and_grad(params, batch, weights, jnp.zeros((), jnp.int32))

    def split(rows: Array) -> Array:
        return rows.reshape(-1, parts, *rows.shape[1:]).swapaxes(0, 1)

    def add(sums: Any, part: tuple[Batch, Array, Array]) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, sums, value_and_grad(params, *part)), None

    nothing = jnp.zeros(()), {name: jnp.zeros(()) for name in part_names(terms)}
    zero = nothing, jax.tree.map(jnp.zeros_like, params)
    parted = (*jax.tree.map(split, (batch, weights)), jnp.arange(parts))
    sums, _ = jax.lax.scan(add, zero, parted)
    return sums


def make_eval_step(
    config: TrainConfig, trained: Trained, layout: Layout
) -> Callable[..., tuple[Float[Array, ""], Float[Array, ""]]]:
    """A jitted `step(params, batch, *frozen)` -> (sum of nll in nats, number of loss tokens)."""

    def step(params: Any, batch: Batch, *frozen: Any) -> tuple[Array, Array]:
        params = trained.weights(params, frozen)
        nll, mask = position_nll(trained.model, config.compute, params, batch)
        return jnp.sum(nll), jnp.sum(mask)

    params, *frozen = _shardings((trained.abstract(layout), *trained.frozen(layout)))
    return jax.jit(
        step,
        in_shardings=(params, layout.rows, *frozen),
        out_shardings=layout.replicated,
    )
