"""Studies for the tests of human evaluation, whose passwords are hashed quickly."""

import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import buckets
import pytest

pytest.importorskip("argon2", reason="the extra annotate is not installed")
import psycopg

from eval.annotate.store import accounts
from tests.eval.annotate import studies


@pytest.fixture(autouse=True)
def quick_hashes(monkeypatch):
    monkeypatch.setattr(accounts, "HASHER", studies.QUICK)


@pytest.fixture
def study(tmp_path):
    """A study of six instances for two people each: ada leads, bob and eve annotate."""
    database = studies.make(tmp_path / "study.db")
    studies.add_user(database, "ada", accounts.ADMIN)
    for name in ("bob", "eve"):
        studies.add_user(database, name)
    yield database
    database.close()


@pytest.fixture(scope="session")
def postgres():
    """The address of a server of PostgreSQL of our own, without a database's name at its end."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    initdb = shutil.which("initdb") or (str(found[-1]) if found else None)
    if initdb is None:
        pytest.skip("no PostgreSQL: initdb is not installed")
    with tempfile.TemporaryDirectory(prefix="tulu-postgres-") as folder:
        yield from _run_postgres(Path(initdb).parent, Path(folder))


def _run_postgres(programs, folder):
    options = {"stdout": subprocess.DEVNULL, "stderr": subprocess.STDOUT, "cwd": folder}
    if os.getuid() == 0:  # it refuses to run as root
        nobody = pwd.getpwnam("nobody")
        os.chown(folder, nobody.pw_uid, nobody.pw_gid)
        options.update(user=nobody.pw_uid, group=nobody.pw_gid, extra_groups=[])
    data = folder / "data"
    subprocess.run(
        [programs / "initdb", "-D", data, "-U", "tulu", "-A", "trust", "-E", "UTF8", "--no-sync"],
        check=True, **options,
    )  # fmt: skip
    port = buckets.free_port()
    server = subprocess.Popen(
        [programs / "postgres", "-D", data, "-p", str(port), "-h", "127.0.0.1", "-k", folder,
         "-c", "max_connections=120", "-c", "fsync=off"], **options,
    )  # fmt: skip
    try:
        address = f"postgresql://tulu@127.0.0.1:{port}"
        _wait_for(f"{address}/postgres", server)
        yield address
    finally:
        server.send_signal(signal.SIGQUIT)  # at once: nothing of it is kept
        server.wait(120)


def _wait_for(address, server):
    """Returns once the server takes connections; the machine may be busy."""
    end = time.monotonic() + 120
    while True:
        try:
            psycopg.connect(address).close()
        except psycopg.OperationalError:
            if server.poll() is not None or time.monotonic() > end:
                raise
            time.sleep(0.05)
        else:
            return


@pytest.fixture
def postgres_database(postgres):
    """The address of a new, empty database."""
    name = f"study_{secrets.token_hex(4)}"
    with psycopg.connect(f"{postgres}/postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return f"{postgres}/{name}"
