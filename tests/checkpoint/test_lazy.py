"""Bytes on their way to a file."""

import io

import numpy as np
import pytest

from tulu_jax.checkpoint import lazy
from tulu_jax.checkpoint.lazy import write_bytes


class Hesitant(io.RawIOBase):
    """Takes no more than a few bytes at a time, as the kernel may."""

    def __init__(self, most):
        self.most = most
        self.taken = []

    def write(self, data):
        self.taken.append(bytes(data[: self.most]))
        return len(self.taken[-1])


@pytest.mark.parametrize("most", [1, 7, 10, 1000])
def test_everything_is_written_in_small_writes(monkeypatch, most):
    monkeypatch.setattr(lazy, "WRITE_BYTES", 10)
    data = np.arange(95, dtype=np.uint8)
    file = Hesitant(most)
    write_bytes(file, data)
    assert b"".join(file.taken) == data.tobytes()
    assert max(map(len, file.taken)) == min(most, 10)
