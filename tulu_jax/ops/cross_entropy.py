"""Cross-entropy that touches only the positions that carry loss, a chunk of them at a time.

The head of a small LLaMA costs as much as most of its layers, and `[B, T, vocab]` logits are the
largest array of a training step. Positions without loss (prompts, padding) are sorted behind those
with loss, and a loop runs over as many chunks as there are loss positions, not over the rest. The
gradients are made in the same pass, while a chunk's logits are at hand, so nothing of vocabulary
size is kept or computed twice.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int

from tulu_jax.axes import BATCH_AXES, SEQUENCE_AXIS, TENSOR_AXIS

LOGITS = 2**25
"""Logits that exist at one time on a device at most, 134 MB in float32."""

EMBED_AXES = ("fsdp", SEQUENCE_AXIS)
"""Mesh axes over which the gradient of the head is split along D, as the head itself lies."""

POSITION_AXES = (*BATCH_AXES, SEQUENCE_AXIS)
"""Mesh axes over which the positions of a batch are spread."""

ROWS = P(BATCH_AXES, SEQUENCE_AXIS)
"""The layout of arrays [B, T] over them."""

NEVER = -1e30
"""Logit of a column that belongs to no token."""


def token_nll(
    hidden: Float[Array, "B T D"],
    head: Float[Array, "D V"],
    targets: Int[Array, "B T"],
    weights: Float[Array, "B T"],
) -> Float[Array, "B T"]:
    """Negative log-likelihood in nats of each target whose weight is not 0; 0 elsewhere.

    For reports that need losses token by token; training uses `weighted_nll`.
    """

    def local(hidden: Array, head: Array, targets: Array, weights: Array) -> Array:
        flat = _compact(hidden, targets, weights, head.shape[1])

        def add_chunk(start: Array, size: int, nll: Array) -> Array:
            part = flat.take(start, size)
            _, chunk_nll, _ = _chunk_nll(part.hidden, head, part.targets, vocab)
            return jax.lax.dynamic_update_slice(nll, chunk_nll * (part.weights != 0), (start,))

        nll = _each_chunk(flat, add_chunk, jnp.zeros_like(flat.weights))
        return flat.restore(nll).reshape(targets.shape)

    vocab = _Vocab.of(head)
    narrow = vocab.pad(head).astype(hidden.dtype)
    return _per_shard(local, ROWS, vocab)(hidden, narrow, targets, weights)


@jax.custom_vjp
def weighted_nll(
    hidden: Float[Array, "B T D"],
    head: Float[Array, "D V"],
    targets: Int[Array, "B T"],
    weights: Float[Array, "B T"],
) -> Float[Array, ""]:
    """The sum over positions of weight x negative log-likelihood of the target, in nats.

    With the logits below (given directly: hidden = logits, head = identity) and weights that leave
    out the first position:

        logits         target   nll     weight
        2.0 0.0 0.0    1        2.2395  0
        0.0 1.0 0.0    1        0.5514  0.5
        0.0 0.0 0.0    2        1.0986  0.5
        sum of weight x nll     0.8250

    Args:
      hidden: final states, after the last norm.
      head: output embedding; the work on V is split over the tensor axis of the mesh, for which V
        is padded where it does not divide.
      targets: the token each position must predict, in [0, V).
      weights: what each position counts, >= 0; 0 leaves it out of all work. Constants: no
        gradient flows into them.
    """
    return _forward(hidden, head, targets, weights, with_grads=False)[0]


def _forward_and_grads(
    hidden: Array, head: Array, targets: Array, weights: Array
) -> tuple[Array, tuple[Array, Array]]:
    loss, hidden_grad, head_grad = _forward(hidden, head, targets, weights, with_grads=True)
    return loss, (hidden_grad, head_grad)


def _scale_grads(grads: tuple[Array, Array], upstream: Array) -> tuple[Array, Array, None, None]:
    hidden_grad, head_grad = grads
    return (
        hidden_grad * upstream.astype(hidden_grad.dtype),
        head_grad * upstream.astype(head_grad.dtype),
        None,
        None,
    )


weighted_nll.defvjp(_forward_and_grads, _scale_grads)


def _forward(
    hidden: Array, head: Array, targets: Array, weights: Array, *, with_grads: bool
) -> tuple[Array, ...]:
    """Loss, and if asked its gradients by hidden states and head, over all shards."""
    vocab = _Vocab.of(head)

    def local(hidden: Array, head: Array, targets: Array, weights: Array) -> tuple[Array, ...]:
        flat = _compact(hidden, targets, weights, head.shape[1])

        def chunk_sums(start: Array, size: int) -> tuple[Array, ...]:
            part = flat.take(start, size)
            logits, nll, lse = _chunk_nll(part.hidden, head, part.targets, vocab)
            loss = jnp.sum(nll * part.weights)
            if not with_grads:
                return (loss,)
            hidden_grad, head_grad = _chunk_grads(part, logits, lse, head, vocab)
            return loss, hidden_grad.astype(hidden.dtype), head_grad

        def add_chunk(start: Array, size: int, sums: tuple[Array, ...]) -> tuple[Array, ...]:
            part = chunk_sums(start, size)
            if not with_grads:
                return (sums[0] + part[0],)
            hidden_grad = jax.lax.dynamic_update_slice(sums[1], part[1], (start, 0))
            return sums[0] + part[0], hidden_grad, sums[2] + part[2]

        # The first chunk outside the loop: there is nothing yet to add it to.
        first = chunk_sums(jnp.zeros((), jnp.int32), flat.chunk)
        if with_grads:
            rest = len(flat.weights) - flat.chunk
            first = (first[0], jnp.pad(first[1], ((0, rest), (0, 0))), first[2])
        loss, *grads = _each_chunk(flat, add_chunk, first, begin=flat.chunk)
        loss = _sum_over(loss, POSITION_AXES)
        if not with_grads:
            return (loss,)
        hidden_grad, head_grad = grads
        if vocab.axis:
            hidden_grad = _sum_over(hidden_grad, (vocab.axis,))
        hidden_grad = flat.restore(hidden_grad).reshape(hidden.shape)
        return loss, hidden_grad, _sum_head(head_grad)

    head_grad_spec = P(_head_rows(head.shape[0]) or None, vocab.axis)
    split = (P(), P(*ROWS, None), head_grad_spec) if with_grads else (P(),)
    # Cast before it is gathered from the devices: half the bytes.
    narrow = vocab.pad(head).astype(hidden.dtype)
    loss, *grads = _per_shard(local, split, vocab)(hidden, narrow, targets, weights)
    return (loss, grads[0], grads[1][:, : vocab.size].astype(head.dtype)) if with_grads else (loss,)


class _Compact(NamedTuple):
    """Positions with loss first, then the others, cut into chunks."""

    hidden: Float[Array, "P D"]
    targets: Int[Array, " P"]
    weights: Float[Array, " P"]
    order: Int[Array, " P0"]
    count: Int[Array, ""]
    chunk: int

    def take(self, start: Array, size: int) -> _Compact:
        """The `size` positions that begin at `start`."""
        return self._replace(
            hidden=jax.lax.dynamic_slice_in_dim(self.hidden, start, size),
            targets=jax.lax.dynamic_slice_in_dim(self.targets, start, size),
            weights=jax.lax.dynamic_slice_in_dim(self.weights, start, size),
        )

    def restore(self, values: Array) -> Array:
        """`values` of the sorted positions, back in the order of the rows."""
        back = jnp.zeros_like(self.order).at[self.order].set(jnp.arange(len(self.order)))
        return values[back]


def _compact(hidden: Array, targets: Array, weights: Array, columns: int) -> _Compact:
    flat_weights = weights.reshape(-1).astype(jnp.float32)
    positions = len(flat_weights)
    chunk = chunk_size(positions, columns)
    order = jnp.argsort(flat_weights == 0, stable=True)
    padded = jnp.pad(order, (0, -positions % chunk))
    sorted_weights = jnp.where(jnp.arange(len(padded)) < positions, flat_weights[padded], 0.0)
    return _Compact(
        hidden=hidden.reshape(positions, -1)[padded],
        targets=targets.reshape(-1)[padded],
        weights=sorted_weights,
        order=order,
        count=jnp.sum(flat_weights != 0),
        chunk=chunk,
    )


def chunk_size(positions: int, columns: int) -> int:
    """Positions of a chunk on a device that has `positions` in all and `columns` of the vocabulary.

    As many as `LOGITS` allows, and a multiple of 128 if there are so many. Of many positions:

    columns    32,000  8,000  128,256
    positions   1,024  4,096      256
    """
    size = max(1, LOGITS // columns)
    return min(positions, size - size % 128 if size >= 128 else size)


def _each_chunk(
    flat: _Compact, add_chunk: Callable[[Array, int, Any], Any], sums: Any, *, begin: int = 0
) -> Any:
    """`sums` after `add_chunk(start, size, sums)` of all positions with loss from `begin` on.

    In whole chunks while they are full, the rest in quarters: of 1,390 positions in chunks of 1,024
    the second would be two thirds empty, two quarters leave out a tenth.
    """
    if begin >= len(flat.weights):
        return sums

    def run(start: Array, size: int, full: int, sums: Any) -> tuple[Array, Any]:
        """Chunks of `size` as long as `full` more positions have loss."""
        return jax.lax.while_loop(
            lambda state: state[0] + full <= flat.count,
            lambda state: (state[0] + size, add_chunk(state[0], size, state[1])),
            (start, sums),
        )

    start = jnp.asarray(begin, jnp.int32)
    quarter = flat.chunk // 4 if flat.chunk % 4 == 0 else flat.chunk
    if quarter < flat.chunk:
        start, sums = run(start, flat.chunk, flat.chunk, sums)
    return run(start, quarter, 1, sums)[1]


class _Vocab(NamedTuple):
    """The split of the vocabulary over the tensor axis, if there is one, and its padding."""

    size: int
    """Tokens there are; columns of the head from here on belong to none."""
    parts: int

    @staticmethod
    def of(head: Array) -> _Vocab:
        """That of a whole head [D, V] under the current mesh."""
        mesh = _mesh()
        return _Vocab(head.shape[1], 1 if mesh is None else mesh.shape[TENSOR_AXIS])

    @property
    def axis(self) -> str | None:
        """The mesh axis that the columns of the head are split over."""
        return TENSOR_AXIS if self.parts > 1 else None

    @property
    def head_spec(self) -> P:
        """The layout of the padded head."""
        return P(None, self.axis)

    def pad(self, head: Array) -> Array:
        """The head with columns of zeros up to a multiple of the parts.

        A vocabulary of 32,001 cannot be cut in 4: without this every device of a tensor group
        would make all logits. Weights, optimizer and checkpoints keep the 32,001.
        """
        return jnp.pad(head, ((0, 0), (0, -self.size % self.parts)))

    def first(self, head: Array) -> Array | int:
        """The token of a shard's first column."""
        return jax.lax.axis_index(TENSOR_AXIS) * head.shape[1] if self.axis else 0

    def hide_padding(self, logits: Array, head: Array) -> Array:
        """A shard's logits, with probability 0 for columns that belong to no token."""
        if self.size % self.parts == 0:
            return logits
        tokens = self.first(head) + jnp.arange(head.shape[1])
        return jnp.where(tokens < self.size, logits, NEVER)


def _chunk_nll(
    hidden: Array, head: Array, targets: Array, vocab: _Vocab
) -> tuple[Array, Array, Array]:
    """Logits, the NLL of each target, and the logarithm of the sum of exp(logits)."""
    logits = vocab.hide_padding(_dot(hidden, head, ((1,), (0,))), head)
    top = jax.lax.stop_gradient(jnp.max(logits, axis=1))
    if vocab.axis:
        top = jax.lax.pmax(top, vocab.axis)
    normaliser = jnp.sum(jnp.exp(logits - top[:, None]), axis=1)
    column = targets - vocab.first(head)
    inside = (column >= 0) & (column < head.shape[1])
    picked = jnp.take_along_axis(logits, jnp.clip(column, 0, head.shape[1] - 1)[:, None], axis=1)
    target_logit = jnp.where(inside, picked[:, 0], 0.0)
    if vocab.axis:
        normaliser = jax.lax.psum(normaliser, vocab.axis)
        target_logit = jax.lax.psum(target_logit, vocab.axis)
    lse = jnp.log(normaliser) + top
    return logits, lse - target_logit, lse


def _chunk_grads(
    part: _Compact, logits: Array, lse: Array, head: Array, vocab: _Vocab
) -> tuple[Array, Array]:
    """The gradients of a chunk's weighted NLL by its hidden states [P, D] and the head [D, V]."""
    hit = jnp.arange(head.shape[1]) == (part.targets - vocab.first(head))[:, None]
    errors = (jnp.exp(logits - lse[:, None]) - hit) * part.weights[:, None]
    errors = errors.astype(part.hidden.dtype)
    return _dot(errors, head, ((1,), (1,))), _dot(part.hidden, errors, ((0,), (0,)))


def _dot(left: Array, right: Array, contract: tuple[tuple[int], tuple[int]]) -> Array:
    """A matrix product accumulated in float32."""
    return jax.lax.dot_general(
        left, right, (contract, ((), ())), preferred_element_type=jnp.float32
    )


def _mesh() -> jax.sharding.AbstractMesh | None:
    mesh = jax.sharding.get_abstract_mesh()
    return None if mesh.empty else mesh


def _sum_over(value: Array, axes: tuple[str, ...]) -> Array:
    """The sum over those axes of the mesh; XLA on CPU would copy the array for an axis of one."""
    mesh = _mesh()
    split = tuple(axis for axis in axes if mesh is not None and mesh.shape[axis] > 1)
    return jax.lax.psum(value, split) if split else value


def _sum_head(head_grad: Array) -> Array:
    """The sum over all positions of the batch, each device keeping its own rows of D if it can.

    That moves half of what giving the whole sum to every device would, and needs half the memory.
    """
    scattered = _head_rows(head_grad.shape[0])
    if scattered:
        head_grad = jax.lax.psum_scatter(head_grad, scattered, scatter_dimension=0, tiled=True)
    return _sum_over(head_grad, tuple(axis for axis in POSITION_AXES if axis not in scattered))


def _head_rows(width: int) -> tuple[str, ...]:
    """The mesh axes that D is split over in the gradient of the head: all, or none."""
    mesh = _mesh()
    parts = 1 if mesh is None else math.prod(mesh.shape[axis] for axis in EMBED_AXES)
    return EMBED_AXES if parts > 1 and width % parts == 0 else ()


def _per_shard(local, out_specs, vocab: _Vocab):  # noqa: ANN001, ANN202
    """`local` run on every device's own positions under the mesh in force, or directly."""
    if _mesh() is None:
        return local
    specs = (P(*ROWS, None), vocab.head_spec, ROWS, ROWS)
    return jax.shard_map(local, in_specs=specs, out_specs=out_specs, check_vma=False)
