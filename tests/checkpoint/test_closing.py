"""Waiting for saves that may never end."""

import threading

import pytest

from tulu_jax.checkpoint import closing
from tulu_jax.checkpoint.closing import wait_while_there


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setattr(closing, "LOOK_S", 0.01)


def test_a_save_that_ends_is_waited_for_with_looks_between():
    ready, looks = threading.Event(), []

    def look():
        looks.append(1)
        if len(looks) == 3:
            ready.set()

    wait_while_there(lambda: ready.wait(60), look)
    assert len(looks) >= 3


def test_what_the_save_raises_is_raised():
    def fail():
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        wait_while_there(fail, lambda: None)


def test_a_bucket_that_is_gone_ends_the_waiting():
    never = threading.Event()

    def look():
        raise ConnectionError("no such bucket")

    with pytest.raises(ConnectionError, match="no such bucket"):
        wait_while_there(never.wait, look)
    never.set()
