"""A bucket as files: what is written is read whole, whatever the network does."""

import errno
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from buckets import BOTH

from tulu_jax.places import (
    Address,
    StorageError,
    check_writable,
    children,
    create,
    fetched,
    kvstore,
    local_folder,
    read_ranges,
    remove_tree,
    upload,
    write_file,
    writing,
)

pytestmark = BOTH


def test_what_is_written_is_read(bucket, tmp_path):
    folder = bucket / "runs/a b~[1]#ü%20"
    write_file(folder / "x.json", '{"ü": 1}')
    (folder / "deep" / "y").write_bytes(b"12345")
    assert (folder / "x.json").read_text() == '{"ü": 1}'
    assert [child.name for child in folder.iterdir()] == ["deep", "x.json"]
    assert folder.is_dir() and not folder.is_file() and (folder / "x.json").is_file()
    assert not (folder / "x.json").is_dir() and not (folder / "x.js").exists()
    assert (folder / "deep/y").stat().st_size == 5
    assert {name: size for name, (size, _) in folder.files().items()} == {"deep/y": 5, "x.json": 9}
    assert list(folder.files(deep=False)) == ["x.json"]
    assert [str(found) for found in bucket.glob("runs/*/x.*")] == [f"{folder}/x.json"]
    with (folder / "deep/y").open() as file:
        file.seek(-2, 2)
        assert file.read() == b"45"
    (tmp_path / "file").write_bytes(b"z" * 3_000_000)
    upload(tmp_path / "file", folder / "z")
    assert (folder / "z").read_bytes() == b"z" * 3_000_000
    (folder / "x.json").unlink()
    assert not (folder / "x.json").exists()
    remove_tree(folder)
    assert not folder.exists() and folder.files() == {}
    remove_tree(folder)


def test_what_is_not_there_is_said_as_of_files(bucket):
    nothing = bucket / "nothing"
    for look in (nothing.read_bytes, nothing.stat, nothing.unlink, nothing.iterdir, nothing.open):
        with pytest.raises(FileNotFoundError):
            look()
    with pytest.raises(FileNotFoundError):
        read_ranges(nothing, [(0, 1)])
    nothing.unlink(missing_ok=True)
    assert children(nothing) == [] and children(bucket) == []
    assert not nothing.exists() and nothing.files() == {} and list(nothing.glob("*")) == []


def test_a_folder_is_not_one_whose_name_begins_with_its_own(bucket):
    (bucket / "run2/x").write_bytes(b"2")
    run = bucket / "run"
    assert not run.exists() and run.files() == {} and children(run) == []
    (run / "x").write_bytes(b"1")
    assert list(run.files()) == ["x"] and [child.name for child in run.iterdir()] == ["x"]
    remove_tree(run)
    assert (bucket / "run2/x").read_bytes() == b"2" and not run.exists()


def test_what_others_write_is_seen_at_once(bucket, storage):
    (bucket / "run/1").write_bytes(b"1")
    assert [step.name for step in (bucket / "run").iterdir()] == ["1"]
    code = (
        "import sys; from tulu_jax.places import as_place; as_place(sys.argv[1]).write_bytes(b'')"
    )
    subprocess.run([sys.executable, "-c", code, f"{bucket}/run/2"], check=True)
    assert [step.name for step in (bucket / "run").iterdir()] == ["1", "2"]
    assert (bucket / "run/2").is_file()
    from etils import epath

    assert epath.Path(f"{bucket}/run/2").exists()
    (bucket / "run/3").write_bytes(b"")
    assert {step.name for step in epath.Path(f"{bucket}/run").iterdir()} == {"1", "2", "3"}
    assert "tensorflow" not in sys.modules or "tensorflow" not in str(type(epath.Path(f"{bucket}")))


def test_ranges_are_those_of_the_content(bucket, tmp_path):
    content = bytes(range(256)) * 100
    for place in (bucket / "x", tmp_path / "x"):
        place.write_bytes(content)
        found = read_ranges(place, [(0, 3), (25_000, 25_600), (7, 7)])
        assert found == [content[:3], content[25_000:], b""]
        with pytest.raises(OSError, match=r"bytes 25599 to 25601 are not there|OUT_OF_RANGE"):
            read_ranges(place, [(25_599, 25_601)])
    assert kvstore(tmp_path) == {"driver": "file", "path": f"{tmp_path}/"}


def test_a_file_has_its_name_when_it_is_whole(bucket, tmp_path):
    for place in (bucket / "x", tmp_path / "x"):
        with writing(place) as file:
            file.write(b"old")
            assert not place.exists()
        with pytest.raises(KeyError), writing(place) as file:
            file.write(b"n" * 20_000_000)
            raise KeyError
        assert place.read_bytes() == b"old"
        with writing(place) as file:
            file.write(b"n" * 20_000_000)
            file.write(b"!")
        assert place.read_bytes() == b"n" * 20_000_000 + b"!"


def test_of_those_that_create_at_once_one_is_told_that_it_did(bucket):
    for round_ in range(3):
        with ThreadPoolExecutor(8) as pool:
            won = list(
                pool.map(lambda n, r=round_: create(bucket / f"x{r}", f"mine {n}"), range(8))
            )
        assert sum(won) == 1
        assert (bucket / f"x{round_}").read_text() == f"mine {won.index(True)}"
        assert create(bucket / f"x{round_}", f"mine {won.index(True)}")  # the same content is ours


def test_whatever_the_network_does_nothing_is_lost_or_cut(bucket, storage, impatient):
    storage.fault(p503=0.1, preset=0.1, pdrop=0.1, pcut=0.1, seed=3)
    content = [bytes([n]) * 50_000 for n in range(12)]
    assert all(create(bucket / f"c{n}", data) for n, data in enumerate(content))
    for n, data in enumerate(content):
        with writing(bucket / f"w{n}") as file:
            file.write(data)
        assert (bucket / f"c{n}").read_bytes() == (bucket / f"w{n}").read_bytes() == data
        assert read_ranges(bucket / f"c{n}", [(0, 50_000)]) == [data]
    assert len(bucket.files()) == 24
    seen = storage.fault()
    assert min(seen["p503"], seen["preset"], seen["pdrop"], seen["pcut"]) > 0


def test_a_missing_right_is_named(bucket, storage):
    storage.fault(p403=1)
    create, get, grant = {
        "gs": ("storage.objects.create", "storage.objects.get", "grant the role"),
        "s3": ("s3:PutObject", "s3:GetObject", "grant it to"),
    }[bucket.scheme]
    for deed, right in (
        (lambda: (bucket / "x").read_bytes(), get),
        (lambda: write_file(bucket / "x", b""), create),
        (lambda: upload_one(bucket / "x"), create),
        (lambda: read_ranges(bucket / "x", [(0, 1)]), get),
    ):
        words = rf"no permission to (read|write) - got .* at {bucket}/x - expected the permission"
        with pytest.raises(StorageError, match=f"{words} {re.escape(right)} - {grant}") as got:
            deed()
        assert got.value.errno == errno.EACCES


def upload_one(place):
    with writing(place) as file:
        file.write(b"x")


def test_what_may_be_written_and_not_removed_is_found_out(bucket, storage):
    check_writable(bucket / "x")
    assert bucket.files() == {}
    storage.fault(p403=1, match="^DELETE|[?]delete")
    right = {"gs": r"storage\.objects\.delete", "s3": "s3:DeleteObject"}[bucket.scheme]
    with pytest.raises(StorageError, match=f"no permission to remove .* the permission {right}"):
        check_writable(bucket / "x")


def test_a_login_that_has_expired_is_told_of(bucket, storage, impatient):
    storage.fault(p401=1)
    for deed in (
        (bucket / "x").read_bytes,
        (bucket / "x").exists,
        lambda: children(bucket / "x"),
        lambda: write_file(bucket / "x", b""),
        lambda: upload_one(bucket / "x"),
        lambda: read_ranges(bucket / "x", [(0, 1)]),
        lambda: create(bucket / "x", b""),
    ):
        with pytest.raises(StorageError, match=r"nobody is logged in to (read|write|list)") as got:
            deed()
        assert got.value.errno == errno.EACCES
    if bucket.scheme == "s3":  # Google's library asks again with another token
        assert storage.fault()["p401"] == 9  # of an upload and of a HEAD two


def test_a_storage_that_is_gone_is_told_of(bucket, storage, impatient):
    storage.fault(p503=1)
    words = r"storage does not answer: could not {}, gave up after \d+ s - got .* at {}/x - see whe"
    with pytest.raises(StorageError, match=words.format("read", bucket)) as got:
        (bucket / "x").read_bytes()
    assert got.value.errno == errno.ETIMEDOUT
    with pytest.raises(StorageError, match=words.format("write", bucket)):
        write_file(bucket / "x", b"")
    with (
        pytest.raises(StorageError, match=words.format("write", bucket)),
        writing(bucket / "x") as f,
    ):
        f.write(b"x")
    with pytest.raises(StorageError, match=words.format("read", bucket)):
        read_ranges(bucket / "x", [(0, 1)])


def test_a_bucket_that_is_removed_is_found_out(bucket, storage, impatient):
    """What a run that waits for its last save looks for; to who reads it looks empty."""
    check_writable(bucket / "run")
    storage.fault(p404=1)
    with pytest.raises(StorageError, match="no such bucket") as told:
        check_writable(bucket / "run")
    assert told.value.errno == errno.ENOENT
    storage.calm()
    assert not children(bucket / "run")


def test_a_bucket_that_is_not_there_is_named(bucket):
    nowhere = Address(bucket.scheme, "no-such-bucket-here")
    with pytest.raises(
        StorageError, match=r"no such bucket - got no-such-bucket-here at (gs|s3)://no-such"
    ):
        write_file(nowhere / "x", b"")
    with pytest.raises(StorageError, match="no such bucket"):
        create(nowhere / "x", b"")
    with pytest.raises(StorageError, match="no such bucket"), writing(nowhere / "x") as file:
        file.write(b"x")
    assert not nowhere.exists()


def test_a_copy_is_of_what_lies_there_now_and_bounded(bucket, tmp_path, monkeypatch):
    folder = bucket / "model"
    (folder / "tokenizer.json").write_bytes(b"{}")
    (folder / "tokenizer/vocab.json").write_bytes(b"[]")
    (folder / "model.safetensors").write_bytes(b"weights")
    copy = local_folder(folder)
    assert copy.name == "model" and local_folder(str(folder)) == copy
    names = {str(path.relative_to(copy)) for path in copy.rglob("*") if path.is_file()}
    assert names == {"tokenizer.json", "tokenizer/vocab.json"}
    assert (local_folder(folder, weights=True) / "model.safetensors").read_bytes() == b"weights"
    (folder / "tokenizer.json").write_bytes(b"{ }")
    newer = local_folder(folder)
    assert newer != copy and (newer / "tokenizer.json").read_bytes() == b"{ }"
    monkeypatch.setenv("TULU_FETCHED_BYTES", "10")
    (folder / "tokenizer.json").write_bytes(b"{   }")
    local_folder(folder)
    assert copy.is_dir() and newer.is_dir()  # this process uses them
    for descriptor in fetched._held.values():
        os.close(descriptor)
    fetched._held.clear()
    (folder / "tokenizer.json").write_bytes(b"{    }")
    newest = local_folder(folder)
    assert list((tmp_path / "fetched").iterdir()) == [newest.parent]
    assert local_folder(tmp_path) == tmp_path
