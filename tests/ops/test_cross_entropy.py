"""Chunked cross-entropy against full logits in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tulu_jax.ops import cross_entropy, token_nll, weighted_nll
from tulu_jax.parallel import MeshConfig, make_mesh


def full_nll(hidden, head, targets):
    logits = np.float64(hidden) @ np.float64(head)
    logits -= logits.max(-1, keepdims=True)
    picked = np.take_along_axis(logits, np.asarray(targets)[..., None], -1)[..., 0]
    return np.log(np.exp(logits).sum(-1)) - picked


def example(seed=0, rows=3, length=10, width=8, vocab=17, share=0.4):
    rng = np.random.default_rng(seed)
    hidden = jnp.float32(rng.normal(size=(rows, length, width)))
    head = jnp.float32(rng.normal(size=(width, vocab)))
    targets = jnp.asarray(rng.integers(0, vocab, (rows, length)))
    weights = jnp.float32(rng.random((rows, length)) * (rng.random((rows, length)) < share))
    return hidden, head, targets, weights


def test_docstring_example():
    logits = jnp.array([[[2.0, 0, 0], [0, 1.0, 0], [0, 0, 0]]])
    targets, weights = jnp.array([[1, 1, 2]]), jnp.array([[0, 0.5, 0.5]])
    nll = full_nll(logits, np.eye(3), targets)[0]
    np.testing.assert_allclose(nll, [2.2395, 0.5514, 1.0986], atol=1e-4)
    np.testing.assert_allclose(
        weighted_nll(logits, jnp.eye(3), targets, weights), 0.8250, atol=1e-4
    )


@functools.cache
def in_chunks_of(positions):
    """Loss with its gradients, and the loss of each token, compiled once for chunks this long."""

    def both(*arguments):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(cross_entropy, "LOGITS", positions * 17)
            with_gradients = jax.value_and_grad(weighted_nll, argnums=(0, 1))(*arguments)
            return with_gradients, token_nll(*arguments)

    return jax.jit(both)


@jax.jit
@functools.partial(jax.value_and_grad, argnums=(0, 1))
def from_all_logits(hidden, head, targets, weights):
    """The loss and its gradients without chunks."""
    logp = jax.nn.log_softmax(hidden @ head)
    return -jnp.sum(jnp.take_along_axis(logp, targets[..., None], -1)[..., 0] * weights)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 10_000), st.sampled_from([1, 3, 8, 30, 64]), st.sampled_from([0, 0.1, 0.5, 1])
)
def test_loss_and_gradients_equal_full_logits(seed, chunk, share):
    hidden, head, targets, weights = example(seed, share=share)

    expected, wanted = from_all_logits(hidden, head, targets, weights)
    (got, grads), nll = in_chunks_of(chunk)(hidden, head, targets, weights)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)
    for left, right in zip(grads, wanted, strict=True):
        np.testing.assert_allclose(left, right, atol=1e-5)
    np.testing.assert_allclose(nll, full_nll(hidden, head, targets) * (weights != 0), atol=1e-5)


def test_huge_logits_stay_finite():
    hidden = jnp.array([[[1e4, 0.0]]])
    value, grad = jax.value_and_grad(weighted_nll)(
        hidden, jnp.eye(2), jnp.array([[1]]), jnp.ones((1, 1))
    )
    assert float(value) == 1e4 and bool(jnp.isfinite(grad).all())


def test_no_array_of_all_positions_and_vocabulary_is_made():
    hidden, head, targets, weights = example(rows=8, length=64, vocab=997)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cross_entropy, "LOGITS", 16 * 997)
        text = jax.jit(jax.value_and_grad(weighted_nll)).lower(hidden, head, targets, weights)
    assert "16x997" in text.as_text() and "512x997" not in text.as_text()
    assert "8x64x997" not in text.as_text()


@pytest.mark.parametrize(("count", "rows"), [(33, 16 + 16 + 4), (16, 16), (64, 64)])
def test_only_chunks_and_quarters_with_loss_are_computed(count, rows):
    """Of 64 positions in chunks of 16: 33 take two chunks and a quarter, none a third chunk."""
    hidden, head, targets, _ = example(rows=4, length=16)
    weights = jnp.zeros(64).at[jnp.arange(count)].set(1.0).reshape(4, 16)
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cross_entropy, "LOGITS", 16 * 17)
        chunk_nll = cross_entropy._chunk_nll

        def counted(hidden, *others):
            jax.debug.callback(lambda _: seen.append(hidden.shape[0]), hidden[0, 0])
            return chunk_nll(hidden, *others)

        patch.setattr(cross_entropy, "_chunk_nll", counted)
        jax.block_until_ready(weighted_nll(hidden, head, targets, weights))
        jax.effects_barrier()
    assert sum(seen) == rows


@pytest.mark.parametrize(("vocab", "tensor"), [(17, 2), (5, 4), (32_001, 4)])
def test_a_vocabulary_that_the_mesh_does_not_divide(vocab, tensor):
    """Equal loss and gradients as without a mesh, and the logits of a device are a share of all."""
    hidden, head, targets, weights = example(rows=4, width=8, vocab=vocab)
    loss = jax.jit(jax.value_and_grad(weighted_nll, argnums=(0, 1)))
    expected, wanted = loss(hidden, head, targets, weights)
    nll = token_nll(hidden, head, targets, weights)
    with jax.set_mesh(make_mesh(MeshConfig(data=8 // tensor, fsdp=1, tensor=tensor))):
        lowered = loss.lower(hidden, head, targets, weights).as_text()
        share = -(-vocab // tensor)
        assert f"x{share}xf32>" in lowered
        got, grads = loss(hidden, head, targets, weights)
        np.testing.assert_allclose(
            jax.jit(token_nll)(hidden, head, targets, weights), nll, rtol=1e-5, atol=1e-5
        )
    np.testing.assert_allclose(got, expected, rtol=1e-5)
    assert grads[1].shape == head.shape
    for left, right in zip(grads, wanted, strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-5, atol=1e-6)


def test_chunk_size_docstring_example():
    sizes = [cross_entropy.chunk_size(10_000, columns) for columns in (32_000, 8_000, 128_256)]
    assert sizes == [1024, 4096, 256]
    assert cross_entropy.chunk_size(100, 32_000) == 100
    assert cross_entropy.chunk_size(10, 2**26) == 1


@pytest.mark.parametrize(
    ("mesh", "width"),
    [
        (MeshConfig(data=2, fsdp=2, tensor=2), 8),
        (MeshConfig(fsdp=2, sequence=2, tensor=2), 8),
        (MeshConfig(fsdp=4, data=2), 6),  # D is not split: it does not divide
    ],
    ids=str,
)
def test_sharded_loss_and_gradients(mesh, width):
    """Positions and vocabulary split over devices; the head's gradient lies as the head does."""
    hidden, head, targets, weights = example(rows=8, length=6, width=width, vocab=18)
    loss = jax.jit(jax.value_and_grad(weighted_nll, argnums=(0, 1)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cross_entropy, "LOGITS", 4 * 9)
        expected, wanted = loss(hidden, head, targets, weights)
        with jax.set_mesh(make_mesh(mesh)):
            got, grads = loss(hidden, head, targets, weights)
            compiled = loss.lower(hidden, head, targets, weights).compile().as_text()
    np.testing.assert_allclose(got, expected, rtol=1e-5)
    for left, right in zip(grads, wanted, strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-5, atol=1e-6)
    assert ("reduce-scatter" in compiled) == (width == 8)
    # The head is gathered at most once, before the loop; no logits of all positions anywhere.
    assert compiled.count(" all-gather(") <= 1
    assert f"f32[{hidden.shape[0] * hidden.shape[1]},18]" not in compiled


def test_nothing_is_sent_where_there_is_one_device():
    """XLA on CPU copies the head's gradient for every sum over an axis of one."""
    loss = jax.jit(jax.grad(weighted_nll, argnums=(0, 1)))
    with jax.set_mesh(make_mesh(MeshConfig(), jax.devices()[:1])):
        text = loss.lower(*example()).compile().as_text()
    assert "all-reduce" not in text and "reduce-scatter" not in text
