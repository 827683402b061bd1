"""Fifty annotators at once, on SQLite and PostgreSQL, and servers that are killed."""

import asyncio
import tempfile
from pathlib import Path

import pytest

from tests.eval.annotate.crowd import Server, Servers, check_all, everybody, gather, while_killed

pytestmark = pytest.mark.slow
PEOPLE, EACH = 50, 40
MEMORY = Path("/dev/shm")
"""A file there is as safe from a kill of a process as any; on a disk, each answer waits for it."""


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    return tmp_path_factory.mktemp("crowd") / "log.txt"


@pytest.fixture(scope="module")
def servers(log):
    with open(log, "w") as stream:
        found = Servers(stream)
        yield found
        found.close()


@pytest.fixture
def served(log, servers):
    """Starts the server of a study, which is gone at the end."""
    started = []

    def start(where):
        started.append(Server(where, servers))
        started[-1].start()
        return started[-1]

    yield start
    for one in started:
        one.stop()
    text = log.read_text()
    assert "Traceback" not in text and "fault" not in text


@pytest.fixture
def folder(tmp_path):
    if not MEMORY.is_dir():
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=MEMORY, prefix="tulu-crowd-") as made:
        yield Path(made)


def test_fifty_at_once_on_sqlite_while_the_server_is_killed_ten_times(folder, served):
    where = folder / "s.db"
    members = gather(where, PEOPLE, EACH)
    seen = asyncio.run(while_killed(members, served(where), EACH, kills=10))
    assert len(seen) == 10 and len(seen[-1]) > len(seen[0]) > 100
    check_all(where, members, EACH)


def test_fifty_at_once_on_postgresql(postgres_database, served):
    members = gather(postgres_database, PEOPLE, EACH)
    asyncio.run(everybody(members, served(postgres_database).port, EACH))
    check_all(postgres_database, members, EACH)
