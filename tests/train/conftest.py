"""Fixtures of runs in processes of their own."""

import buckets
import pytest

from train.forks import Forks


@pytest.fixture(scope="session")
def forks(tmp_path_factory):
    """A server that forks runs; all of them share compiled programs."""
    server = Forks(tmp_path_factory.mktemp("forks"))
    yield server
    server.close()


@pytest.fixture
def free_port():
    """Gives ports that nobody listens on."""
    return buckets.free_port
