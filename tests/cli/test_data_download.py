"""`tulu data download`: what it prints, and that killing it at any moment loses nothing."""

import contextlib
import gzip
import io
import random
import re
import signal
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import pytest
from forked import Forked
from thorough import THOROUGH

from tests.download.download_fixtures import BODY, rows, source, spec, tree
from tests.download.download_server import Server, cut, page, status
from tulu_jax.cli.main import main
from tulu_jax.data import mixtures, specs
from tulu_jax.data.mixtures import Component, MixtureSpec, register_mixture

ROOT = Path(__file__).parents[2]
KILLS = 50 if THOROUGH else 20


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.setenv("COLUMNS", "200")
    server = Server()
    yield server
    server.close()


@pytest.fixture
def sets(server, monkeypatch):
    """Three datasets `first`, `second` and (with no file) `inside`, and a mixture of two."""
    monkeypatch.setattr(specs, "TASK_PACKAGES", [])
    monkeypatch.setattr(specs, "_SPECS", {})
    monkeypatch.setattr(mixtures, "_MIXTURES", {})
    first = source(server.add("/1", BODY), manual="ask the authors of first")
    second = source(server.add("/2", gzip.compress(BODY)), "b.jsonl", packed="gz")
    specs.register(spec(first, name="first"))
    specs.register(spec(second, name="second"))
    specs.register(spec(name="inside"))
    parts = (Component(task="tulu_first"), Component(task="tulu_inside"))
    register_mixture(MixtureSpec(name="tulu_some", components=parts))
    return server


@pytest.fixture
def tulu(tmp_path, capsys):
    """Runs `tulu data download`; its exit status and what it printed."""

    def run(*arguments):
        code = main(["data", "download", "--raw_dir", str(tmp_path / "raw"), *arguments])
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    return run


def test_everything(sets, tulu, tmp_path):
    code, out = tulu()
    assert code == 0
    assert re.search(r"first +rows.jsonl +176.8 kB +fetched", out)
    assert re.search(r"second +b.jsonl +176.8 kB +fetched", out)
    assert f"2 of 2 files, 353.5 kB, in {tmp_path}/raw" in out
    assert set(tree(tmp_path / "raw")) == {
        "first/rows.jsonl", "first/checksums.json", "second/b.jsonl", "second/checksums.json",
    }  # fmt: skip
    code, out = tulu()
    assert code == 0 and out.count("there, verified") == 2
    assert len(sets.seen) == 2


@pytest.mark.parametrize(
    "arguments",
    [["first"], ["tulu_first"], ["tulu_some"], ["some"], ["--only", "first"],
     ["some", "--only", "tulu_first"]],
)  # fmt: skip
def test_choosing(sets, tulu, tmp_path, arguments):
    assert tulu(*arguments)[0] == 0
    assert {path.name for path in (tmp_path / "raw").iterdir()} == {"first"}


def test_names_that_do_not_exist(sets, tulu):
    code, out = tulu("frist")
    assert code == 2 and "or mixture - got 'frist'" in out and "tulu_first" in out
    code, out = tulu("first", "--only", "second")
    assert code == 2
    assert "unknown dataset in --only - got 'second' - expected first" in out


def test_nothing_to_fetch(sets, tulu):
    code, out = tulu("inside")
    assert code == 0 and "nothing to fetch: the data comes with the code, or is your own" in out


def test_dry_run(sets, tulu, tmp_path):
    del sets.files["/1"]
    code, out = tulu("--dry_run")
    assert code == 0 and not (tmp_path / "raw").exists() and not sets.gets("/2")
    assert re.search(r"first +rows.jsonl +\? +the file is gone - got 404 Not Found", out)
    size = f"{len(gzip.compress(BODY)) / 1000:.1f} kB"
    assert re.search(rf"second +b.jsonl +{size} +http://127.0.0.1:\d+/2", out)
    assert f"to fetch: {size}, and 1 of unknown size" in out
    tulu("second")
    assert re.search(r"second +b.jsonl +there", tulu("--dry_run")[1])


def test_failures(sets, tulu, tmp_path):
    sets.files["/1"].faults = [page()]
    code, out = tulu("--retries", "0")
    assert code == 2
    assert re.search(r"first +rows.jsonl +failed", out)
    assert re.search(r"second +b.jsonl +176.8 kB +fetched", out)
    assert "1 of 2 files" in out
    assert (
        "tulu data: 1 files could not be fetched:\n  first/rows.jsonl: the answer is a web" in out
    )
    assert "by hand:\n  first: ask the authors of first" in out
    assert tulu()[0] == 0


def test_a_mirror(sets, tulu, tmp_path):
    mirror = tmp_path / "mirror" / "first"
    mirror.mkdir(parents=True)
    (mirror / "rows.jsonl").write_bytes(rows(seed=3))
    code, out = tulu("--from", str(tmp_path / "mirror"))
    assert code == 0 and not sets.gets("/1")
    assert (tmp_path / "raw" / "first" / "rows.jsonl").read_bytes() == rows(seed=3)
    assert "second/b.jsonl: there is no such file - at" in out


def test_retries_are_told(sets, tulu):
    sets.files["/1"].faults = [status(503, {"Retry-After": "0"})]
    code, out = tulu("first")
    assert code == 0
    assert "first/rows.jsonl: the server is busy or broken - got 503" in out
    assert "trying again in 1 s (1/5)" in out


@pytest.mark.parametrize("flag", ["jobs", "retries", "timeout"])
def test_impossible_options(sets, tulu, flag, capsys):
    with pytest.raises(SystemExit, match="2"):
        tulu(f"--{flag}", "-1")
    assert f"--{flag}: is out of range - got -1" in capsys.readouterr().err


def test_mirrors_that_are_none(sets, tulu):
    for root, words in (("", "--from names no file"), ("gs://bucket/x", "--from is an address")):
        code, out = tulu("--from", root)
        assert code == 2 and words in out


def test_bars_in_a_terminal():
    from rich.console import Console

    from tulu_jax.cli.data.download_bars import FileBars, show_progress

    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    with show_progress(console) as progress:
        assert isinstance(progress, FileBars)
        progress.update("a/[b].json", 5_000_000, 10_000_000, "fetching")
        progress.update("a/[b].json", 5_000_000, 10_000_000, "fetching")
        progress.note("a", "a [note]")
        progress._bars.refresh()
        progress.update("a/[b].json", 7_000_000, None, "unpacking")
        progress._bars.refresh()
        assert [task.total for task in progress._bars.tasks] == [None]
        progress.finish("a/[b].json")
        progress.finish("never begun")
    text = console.file.getvalue()
    assert "a/[b].json" in text and "5.0/10.0 MB" in text and "a: a [note]" in text
    assert "7.0/? MB" in text and "unpacking" in text


CHILD = """\
import sys
from tulu_jax.data import specs
from tulu_jax.data.specs import DatasetSpec, Source

specs.TASK_PACKAGES[:] = []
text = dict.fromkeys(("description", "citation", "licence", "homepage"), "")
text.update(version="1.0.0", read=lambda *_, **__: iter(()))
url = sys.argv.pop(1)
box = dict(url=url + "/box", packed="zip")
for name, sources in {
    "plain": [Source(url + "/plain", "rows.jsonl")],
    "packed": [Source(url + "/packed", "rows.jsonl", packed="gz")],
    "folder": [Source(filename="tasks", member="m/tasks", **box),
               Source(filename="train.txt", member="m/train.txt", **box)],
}.items():
    specs.register(DatasetSpec(name=name, sources=tuple(sources), **text))
"""
RUN = CHILD + "from tulu_jax.cli.main import main\nsys.exit(main())\n"
FORKED = (
    CHILD
    + """
import contextlib, io
from tulu_jax.cli import main

def run(raw):
    return main.main(["data", "download", "--raw_dir", raw, "--jobs", "3"])

with contextlib.redirect_stdout(io.StringIO()):  # imports the rest
    main.main(["data", "download", "--raw_dir", "none", "--dry_run"])
"""
)


def serve_three(server):
    box = io.BytesIO()
    with zipfile.ZipFile(box, "w") as files:
        for n in range(8):
            files.writestr(f"m/tasks/{n}.json", rows(50, seed=n))
        files.writestr("m/train.txt", "1\n2\n")
    server.add("/plain", BODY)
    server.add("/packed", gzip.compress(BODY, mtime=0))
    server.add("/box", box.getvalue())


def child(server, code, raw, *more):
    arguments = ["data", "download", "--raw_dir", str(raw), "--jobs", "3", *more]
    return [sys.executable, "-c", code, server.url(""), *arguments]


def test_the_command_loads_nothing_heavy(server, tmp_path):
    serve_three(server)
    code = RUN.replace("sys.exit(main())", "code = main()\n" + textwrap.dedent("""
        heavy = {"jax", "tensorflow", "seqio", "flax", "grain", "torch", "numpy"}
        sys.exit(f"loaded {heavy & set(sys.modules)}" if heavy & set(sys.modules) else code)
    """))  # fmt: skip
    subprocess.run(child(server, code, tmp_path), cwd=ROOT, check=True, capture_output=True)


@pytest.fixture
def runs(server):
    forked = Forked(FORKED, server.url(""))
    yield forked
    forked.close()


def has_begun(raw):
    """Whether a part of a file is there, however busy the machine is."""
    with contextlib.suppress(FileNotFoundError):  # it was whole just now
        return any(path.stat().st_size for path in raw.glob("*/.download/*"))
    return True


@pytest.mark.slow
def test_killed_at_many_moments(server, runs, tmp_path):
    """The files end up as if nothing had happened, and nothing else lies about."""
    draw = random.Random(2)
    serve_three(server)
    runs.begin(tmp_path / "reference")
    assert runs.status() == 0
    reference = tree(tmp_path / "reference")
    assert len(reference) == 2 + 2 + 10
    server.bytes_per_s = 500_000
    kills, rounds, resumed = 0, 0, 0
    while kills < KILLS:
        raw = tmp_path / str(rounds)
        seen = len(server.seen)
        runs.begin(raw)
        ended = None
        while ended is None and len(server.seen) == seen:
            ended = runs.status(within_s=0.005)
        while ended is None and kills % 2 and not has_begun(raw):
            ended = runs.status(within_s=0.005)
        if ended is None:
            ended = runs.status(within_s=draw.uniform(0, 0.25))
        if ended is None:
            runs.kill()
            ended = runs.status()
        assert ended in (0, -signal.SIGKILL)
        kills += ended == -signal.SIGKILL
        resumed += sum("Range" in headers for _, _, headers in server.seen[seen:])
        if ended == 0:
            assert tree(raw) == reference and not list(raw.glob("*/.download"))
            rounds += 1
    runs.begin(raw)
    assert runs.status() == 0
    assert tree(raw) == reference and not list(raw.glob("*/.download"))
    assert resumed > KILLS // 5


CRASHES = (
    CHILD
    + """
import os, random
from pathlib import Path
from tests.download.download_fixtures import quick, tree
from tulu_jax.download.run import fetch

EVENTS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir"}
root, name = Path(sys.argv[1]), sys.argv[2]
spec = specs.get_spec(name)

def run(raw, stop_at=None):
    pid = os.fork()
    if pid == 0:
        count = 0
        def hook(event, arguments):
            nonlocal count
            if event in EVENTS and str(raw) in str(arguments[0]):
                count += 1
                if count == stop_at:
                    os._exit(9)
        sys.addaudithook(hook)
        fetch(spec, raw, options=quick())
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

assert run(root / "whole") == 0
expected, step = tree(root / "whole"), 0
while True:
    step += 1
    raw = root / f"step{step}"
    if run(raw, step) == 0:
        break
    if step % 3 == 0:  # and once more while it recovers
        run(raw, random.Random(step).randrange(1, 12))
    assert run(raw) == 0, step
    found = tree(raw)
    assert found == expected, (step, sorted(found.keys() ^ expected.keys()))
    assert not list(raw.rglob(".download")), step
print(step)
"""
)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["plain", "packed", "folder"])
def test_ended_before_each_step_on_disk(server, tmp_path, name):
    """As if the power of the process went at the n-th opening, renaming or removing of a file."""
    serve_three(server)
    server.files["/plain"].faults = [cut(90_000)]
    done = subprocess.run(
        [sys.executable, "-c", CRASHES, server.url(""), str(tmp_path), name],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 15
