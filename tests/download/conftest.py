"""A server that misbehaves as it is told, and one file fetched from it."""

import pytest

from tests.download.download_fixtures import BODY, NAME, quick, source, spec
from tests.download.download_server import Server
from tulu_jax.download.run import fetch


@pytest.fixture(name="server")
def _server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    server = Server()
    yield server
    server.close()


@pytest.fixture
def get(server, tmp_path):
    """Serves BODY with these faults and fetches it once; the bytes that arrived."""

    def run(*faults, body=BODY, progress=None, sha=None, options=None, **how):
        url = server.add("/rows.jsonl", body, faults=faults, **how)
        fetched = spec(source(url, sha256=sha))
        folder = fetch(fetched, tmp_path, progress=progress, options=options or quick())
        assert not (folder / ".download").exists()
        return (folder / NAME).read_bytes()

    return run
