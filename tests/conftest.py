"""What every test may use."""

import gc
import importlib.util
import os
import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import buckets
import pytest
import quick_xla

from tulu_jax.places import Address

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("EPATH_USE_TF", "false")  # else Orbax reads buckets by TensorFlow where it is
# Google's libraries look at these when they are imported, maybe by a test without a bucket.
os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
os.environ.setdefault("NO_GCE_CHECK", "true")
os.environ.setdefault("XLA_FLAGS", quick_xla.flags(devices=8))
# Tests and their child processes compile the same small steps: once is enough.
_CACHE = str(Path(__file__).parent.parent / ".pytest_cache" / "jax")
os.environ.setdefault("TULU_CACHE_DIR", _CACHE)
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", _CACHE)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
NO_BROWSER = "no chromium and chromedriver"
NO_BWRAP = "no bubblewrap, and code that models write is not run without"
NO_POSTGRES = "no PostgreSQL: initdb is not installed"
_TORCH = re.compile(r"^(import|from) (torch|transformers|parity)\b", re.MULTILINE)
# Newest Pythons and libraries are tried without torch, whose builds for them are huge.
_NO_TORCH = importlib.util.find_spec("torch") is None
collect_ignore = [
    str(path)
    for path in Path(__file__).parent.rglob("*.py")
    if _NO_TORCH and (path.parent.name == "parity" or _TORCH.search(path.read_text()))
]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says last, where it is seen, what this machine could not test and what brings it."""
    left_out = []
    skipped = [str(report.longrepr) for report in terminalreporter.stats.get("skipped", [])]
    if collect_ignore:
        more = sum("No module named 'torch'" in reason for reason in skipped)
        files = len(collect_ignore)
        left_out.append(f"torch: {files} files and {more} tests that compare with it - make test")
    if any(NO_BROWSER in reason for reason in skipped):
        left_out.append("web pages: no browser - apt-get install chromium chromium-driver")
    if any(NO_BWRAP in reason for reason in skipped):
        left_out.append("the sandbox and HumanEval: no bwrap - apt-get install bubblewrap")
    if any(NO_POSTGRES in reason for reason in skipped):
        left_out.append("studies in PostgreSQL: no initdb - apt-get install postgresql")
    if any(buckets.NO_EMULATOR in reason for reason in skipped):
        left_out.append("buckets: no emulator - pip install 'tulu-jax[test-base]'")
    if any("no snakemake" in reason for reason in skipped):
        left_out.append("runs of studies: no snakemake - docs/study.md, TULU_SNAKEMAKE names it")
    for line in left_out:
        terminalreporter.write_line(f"NOT TESTED HERE: {line}", yellow=True, bold=True)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data, tokenizers and models that `TULU_SHARED` names."""
    path = os.environ.get("TULU_SHARED")
    if not path:
        pytest.skip("TULU_SHARED is unset: it names the folder of real data and reference outputs")
    return Path(path).resolve()


@pytest.fixture(scope="session")
def bwrap() -> str:
    """The path of bubblewrap; without it tests that run code are skipped, as the end says."""
    path = shutil.which("bwrap")
    if path is None:
        pytest.skip(NO_BWRAP)
    return path


@pytest.fixture(scope="session")
def torch() -> ModuleType:
    """The package; a test that needs it is skipped without, which the end of the run says."""
    return pytest.importorskip("torch")


def pytest_make_parametrize_id(config: pytest.Config, val: object, argname: str) -> str | None:
    """Names bytes by their length: gzip writes the second into them, and workers would differ."""
    return f"{len(val)}_bytes" if isinstance(val, bytes) else None


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Imports without the garbage collector, which takes a third of the time and finds nothing."""
    gc.disable()
    yield
    gc.freeze()  # what stays for the whole session is never looked at again
    gc.set_threshold(10_000)  # by default it takes a tenth of the time of some rooms
    gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first: at the end both workers then have something to do."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Lets a worker end in its own time: execnet sends Ctrl-C after 5 s, which JAX would print."""
    if hasattr(session.config, "workerinput"):
        signal.signal(signal.SIGINT, signal.SIG_IGN)


@pytest.fixture(scope="module")
def older_objects_left_alone() -> Iterator[None]:
    """A collection then takes milliseconds, not the second that all of a session takes."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def collect_what_orbax_leaves(older_objects_left_alone: None) -> Iterator[None]:
    """Now, and not within the next test."""
    yield
    gc.collect()


def _storage(kind: type[buckets.Storage], folder: Path) -> Iterator[buckets.Storage]:
    lacking, program = buckets.missing(kind), kind.find()
    if lacking or program is None:
        pytest.skip(str(lacking))
    found = kind(program, folder)
    yield found
    found.stop()


@pytest.fixture(scope="session")
def gs_storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[buckets.Storage]:
    """An emulator of Google's storage, of this process alone, behind a proxy that makes faults."""
    yield from _storage(buckets.Google, tmp_path_factory.mktemp("gs") / "root")


@pytest.fixture(scope="session")
def s3_storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[buckets.Storage]:
    """The same of Amazon's."""
    yield from _storage(buckets.Amazon, tmp_path_factory.mktemp("s3") / "root")


@pytest.fixture
def storage(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> buckets.Storage:
    """Google's, or by `buckets.BOTH` each in turn; clients go to it as long as the test runs."""
    found = request.getfixturevalue(f"{getattr(request, 'param', 'gs')}_storage")
    for name, value in found.environment().items():
        monkeypatch.setenv(name, value)
    return found


@pytest.fixture
def bucket(storage: buckets.Storage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Address:
    """An empty bucket; faults of tests before are over."""
    storage.calm()
    monkeypatch.setenv("TULU_FETCHED_DIR", str(tmp_path / "fetched"))
    return Address(storage.scheme, storage.new_bucket())


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Clients of buckets that give up soon, where they would try for half a minute."""
    from tulu_jax.places import amazon, kvstores

    buckets.hurry(monkeypatch.setattr, monkeypatch.setitem)
    yield
    for cached in (kvstores._bucket, amazon.bucket):
        cached.cache_clear()
