"""Files written past the page cache hold what was written, whatever its size and place."""

import errno
import hashlib
import os

import numpy as np
import pytest

from tulu_jax.checkpoint import direct
from tulu_jax.checkpoint.direct import ALIGNMENT, DirectFile, aligned_empty, sync, write_file

PIECES = {
    "nothing": [0],
    "one byte": [1],
    "a page": [ALIGNMENT],
    "pages and a bit": [3 * ALIGNMENT + 5],
    "bits": [7, 1, 4088, 13, 0, ALIGNMENT],
    "header, then pages": [ALIGNMENT, 5 * ALIGNMENT, 2 * ALIGNMENT, 9],
    "larger than the stage": [5, 3 * ALIGNMENT, 40_000],
}


def drawn(size, *, aligned):
    data = np.random.default_rng(size).integers(0, 256, size, dtype=np.uint8)
    if aligned:
        place = aligned_empty((size,), np.dtype(np.uint8))
        place[:] = data
        return place
    return np.concatenate([data[:1], data])[1:]


@pytest.mark.parametrize("checksum", [False, True])
@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("name", PIECES)
def test_a_file_holds_the_pieces_one_after_another(tmp_path, monkeypatch, name, aligned, checksum):
    monkeypatch.setattr(direct, "STAGE_BYTES", 4 * ALIGNMENT)
    pieces = [drawn(size, aligned=aligned) for size in PIECES[name]]
    with DirectFile(tmp_path / "x", checksum=checksum) as file:
        for piece in pieces:
            file.write(piece)
    wanted = b"".join(piece.tobytes() for piece in pieces)
    assert (tmp_path / "x").read_bytes() == wanted
    if checksum:
        assert file.checksum == hashlib.sha256(wanted).hexdigest()


def test_arrays_of_any_shape_and_order(tmp_path):
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    assert write_file(tmp_path / "x", array.T) == tmp_path / "x"
    sync(tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == array.T.tobytes()
    write_file(tmp_path / "x", np.array(1.5))
    assert np.frombuffer((tmp_path / "x").read_bytes()) == 1.5


def test_aligned_memory():
    for shape in ((), (0,), (3, 5), (1000, 1000)):
        array = aligned_empty(shape, np.dtype(np.float32))
        assert (array.shape, array.dtype) == (shape, np.float32)
        assert array.ctypes.data % ALIGNMENT == 0 or not array.size


@pytest.mark.parametrize("when", ["opened", "written"])
def test_file_systems_that_cannot_write_directly(tmp_path, monkeypatch, when):
    real_open, real_write, refused = os.open, os.pwrite, []

    def opened(path, flags, mode=0o777):
        if flags & os.O_DIRECT:
            refused.append(path)
            raise OSError(errno.EINVAL, "not here")
        return real_open(path, flags, mode)

    def written(file, data, place):
        if not refused:
            refused.append(place)
            raise OSError(errno.EINVAL, "not aligned enough")
        return real_write(file, data, place)

    if when == "opened":
        monkeypatch.setattr(direct.os, "open", opened)
    else:
        monkeypatch.setattr(direct.os, "pwrite", written)
    data = drawn(3 * ALIGNMENT + 1, aligned=True)
    write_file(tmp_path / "x", data)
    assert (tmp_path / "x").read_bytes() == data.tobytes()
    assert len(refused) == 1


@pytest.mark.parametrize("checksum", [False, True])
def test_a_full_disk_is_told_of_and_the_file_is_closed(tmp_path, monkeypatch, checksum):
    def full(file, data, place):
        raise OSError(errno.ENOSPC, "No space left on device")

    before = len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(direct.os, "pwrite", full)
    with (
        pytest.raises(OSError, match="No space left"),
        DirectFile(tmp_path / "x", checksum=checksum) as file,
    ):
        for _ in range(4):
            file.write(drawn(2 * ALIGNMENT, aligned=True))
    assert len(os.listdir("/proc/self/fd")) == before


def test_what_comes_in_small_writes_is_whole(tmp_path, monkeypatch):
    real = os.pwrite
    monkeypatch.setattr(direct.os, "pwrite", lambda f, data, at: real(f, data[:ALIGNMENT], at))
    data = drawn(5 * ALIGNMENT, aligned=True)
    write_file(tmp_path / "x", data)
    assert (tmp_path / "x").read_bytes() == data.tobytes()
