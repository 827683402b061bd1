"""Copies between arrays of any order of axes, in tiles, are those of NumPy."""

import ml_dtypes
import numpy as np
import pytest

from tulu_jax.checkpoint.hf.tensors import copy_cast

DTYPES = [np.dtype(name) for name in (np.float32, ml_dtypes.bfloat16, np.float16)]
SHAPES = [(1, 1), (3, 5), (513, 257), (1, 700), (700, 1), (2, 3, 600), (5, 300, 2, 4), (7,), ()]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_order_of_axes_on_both_sides(shape):
    rng = np.random.default_rng(0)
    for _ in range(6):
        for of in DTYPES:
            for to in DTYPES:
                source, target = _array(shape, of, rng), _array(shape, to, rng)
                wanted = source.astype(to)
                copy_cast(target, source, "w")
                assert target.tobytes() == wanted.tobytes()


def _array(shape, dtype, rng):
    """Random numbers whose axes lie in memory in random order."""
    order = rng.permutation(len(shape))
    memory = np.empty([shape[axis] for axis in order], dtype)
    memory[...] = rng.normal(size=memory.shape).astype(dtype)
    return memory.transpose(np.argsort(order)) if len(shape) else memory


def test_parts_of_larger_arrays():
    source = np.arange(40 * 50, dtype=np.float32).reshape(40, 50)
    target = np.zeros((60, 90), np.float32)
    copy_cast(target[5:30:5, 10:40:3], source.T[7:12, 20:40:2], "w")
    assert np.array_equal(target[5:30:5, 10:40:3], source.T[7:12, 20:40:2])
    assert np.count_nonzero(target) == 50
