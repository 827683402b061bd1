"""Disks that fill up while data are prepared or checked: words, whatever is being written.

A limit on the size of files stands for the disk: the kernel refuses a write just so, to Python,
ArrayRecord and TensorFlow alike.
"""

import contextlib
import errno
import json
import os
import resource
import tempfile

import pytest

from tasks import demo
from tests.inspect.test_check_run import clean
from tulu_jax.cli.main import main
from tulu_jax.data.exclude_file import write_exclusion
from tulu_jax.data.store_format import unwritable
from tulu_jax.errors import DataError
from tulu_jax.files import advice, disk_error, write_whole
from tulu_jax.inspect.check import examine
from tulu_jax.inspect.check.language import LanguageFinder
from tulu_jax.inspect.check.run import check_mixture
from tulu_jax.inspect.html import write_report

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::ResourceWarning"),
]


@contextlib.contextmanager
def files_of_at_most(size):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture(scope="module")
def raw_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("raw")
    rows = [{"instruction": f"Count to {i}. " * 9, "response": f"{i} " * 9} for i in range(300)]
    (folder / "dolly").mkdir()
    text = "\n".join(map(json.dumps, rows))
    (folder / "dolly" / "databricks-dolly-15k.jsonl").write_text(text)
    lines = [
        json.dumps({"prompt": row["instruction"], "completion": row["response"]}) for row in rows
    ]
    (folder / "chat.jsonl").write_text("\n".join(lines))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("size", [0, 1_000, 20_000, 60_000, 100_000])
@pytest.mark.parametrize("task", ["dolly", "own"])
def test_preparing_ends_in_words_and_goes_on_when_there_is_room(
    tmp_path, raw_dir, capsys, task, size
):
    mixture = "dolly" if task == "dolly" else str(raw_dir / "chat.jsonl")
    arguments = ["data", "prepare", mixture, "--raw_dir", str(raw_dir), "--max_length", "128"]
    arguments += ["--tokenizer", str(demo.TOKENIZER_DIR), "--data_dir", str(tmp_path / "data")]
    arguments += ["--num_processes", "1"]
    with files_of_at_most(size):
        assert main(arguments) == 2
    error = capsys.readouterr().err
    assert "File too large" in error and "Traceback" not in error
    assert not list(tmp_path.rglob("meta.json"))
    assert main(arguments) == 0
    assert len(list(tmp_path.rglob("meta.json"))) == 1


@pytest.mark.parametrize("model", [False, True])
def test_checking_ends_in_words(tmp_path, monkeypatch, model):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    if not model:  # which is unpacked into a temporary file
        finder = LanguageFinder()
        monkeypatch.setattr(examine, "LanguageFinder", lambda: finder)
    with (
        files_of_at_most(1_000),
        pytest.raises(
            DataError, match=r"cannot keep its temporary files - got File too large .*set TMPDIR to"
        ),
    ):
        check_mixture("x", {"x": list(clean())})
    assert list(tmp_path.iterdir()) == []


def test_files_are_whole_or_not_there(tmp_path):
    path = tmp_path / "new" / "x.html"
    with files_of_at_most(100):
        with pytest.raises(DataError, match=r"cannot write the report - got File too large at"):
            write_report(path, title="x")
        with pytest.raises(DataError, match=r"cannot write the exclude file - .* raise the limit"):
            write_exclusion(path.with_name("x"), {}, [{"id": "y" * 50}] * 9)
        with pytest.raises(OSError, match="File too large"):
            write_whole(path, "x" * 1_000)
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.ENOSPC, r"free some space or choose another folder with --data_dir \(DATA_DIR in t"),
        (errno.EDQUOT, "a quota is used up"),
        (errno.EACCES, "make it writable or choose"),
        (errno.EROFS, "choose a place that is not read-only"),
        (errno.ENOTDIR, "move away the file that is in place of a folder"),
        (errno.EIO, "Input/output error at x - choose another folder"),
    ],
)
def test_the_advice_fits_the_error(tmp_path, code, words):
    with pytest.raises(DataError, match=f"cannot write the store - got .*{words}"):
        raise unwritable("x", OSError(code, os.strerror(code)))


def test_what_libraries_tell_of_a_disk():
    told = disk_error(RuntimeError("write() failed: Disk quota exceeded; at byte 0"))
    assert told is not None and told.errno == errno.EDQUOT
    assert disk_error(RuntimeError("tensor of rank 3")) is None
    assert advice(OSError("no number")) is None


def test_text_goes_through_pipes_and_links(tmp_path):
    reader, writer = os.pipe()
    write_whole(tmp_path.joinpath(f"/dev/fd/{writer}"), "a\ud800")
    os.close(writer)
    with open(reader) as stream:
        assert stream.read() == "a\\ud800"
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    write_whole(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real").read_text() == "new"
