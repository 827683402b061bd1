"""Work shared among processes comes back in order; locks tell of each other."""

import doctest
import errno
import fcntl
import os
import signal

import pytest

from tulu_jax import processes
from tulu_jax.errors import DataError
from tulu_jax.processes import Pool, all_cores, chunked, map_chunks, try_lock


def double(chunk):
    return [2 * item for item in chunk]


def make_double(factor):
    return lambda chunk: [factor * item for item in chunk]


def fail(chunk):
    raise DataError("bad item", got=chunk[0])


def make_fail():
    return fail


@pytest.mark.parametrize("num_processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_chunks_come_in_order(num_processes):
    streams = {"a": range(7), "b": [], "c": iter([9])}
    found = map_chunks(
        make_double_twice, (2,), streams=streams, size=3, num_processes=num_processes
    )
    assert list(found) == [
        ("a", [0, 2, 4]), ("a", [6, 8, 10]), ("a", [12]), ("c", [18])]  # fmt: skip
    failing = map_chunks(
        make_fail, (), streams={"a": range(50)}, size=1, num_processes=num_processes
    )
    with pytest.raises(DataError, match=r"bad item - got 0"):
        next(failing)


def end_process(chunk):
    os.kill(os.getpid(), signal.SIGKILL)


def make_end():
    return end_process


@pytest.mark.slow
def test_a_process_that_is_killed_is_told():
    killed = map_chunks(make_end, (), streams={"a": range(3)}, size=1, num_processes=2)
    with pytest.raises(DataError, match=r"that works on the data died - .* fewer --num_proc"):
        list(killed)


def make_double_twice(factor):
    assert factor == 2
    return double


def test_items_are_read_no_faster_than_results_are_taken():
    read = []
    items = (read.append(i) or i for i in range(100))
    found = map_chunks(make_double, (2,), streams={"a": items}, size=5)
    next(found)
    assert len(read) == 5 and list(chunked([], 3)) == []


@pytest.mark.slow
def test_a_pool_works_on_one_stream_after_the_other():
    with Pool(make_double, (3,), num_processes=2) as pool:
        assert list(pool.map([[1], [2], [3]])) == [[3], [6], [9]]
        assert list(pool.map([])) == [] and list(pool.map([[4]])) == [[12]]
        assert list(pool.map([[5], [6]])) == [[15], [18]]


def test_one_process_at_a_time_has_a_lock(tmp_path, monkeypatch):
    first, second = (os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT) for _ in range(2))
    assert try_lock(first) is True and try_lock(second) is False
    os.close(first)
    assert try_lock(second) is True

    def refuse(*_):
        raise OSError(code, "refused")

    monkeypatch.setattr(fcntl, "flock", refuse)
    code = errno.ENOLCK
    assert try_lock(second) is None
    code = errno.EIO
    with pytest.raises(OSError, match="refused"):
        try_lock(second)
    os.close(second)


def test_docstring_examples():
    assert doctest.testmod(processes).failed == 0


def test_cores(monkeypatch):
    assert all_cores() >= 1
    monkeypatch.delattr(processes.os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(processes.os, "cpu_count", lambda: None)
    assert all_cores() == 1
