"""Buckets that may only be read: what writes is refused soon and by name, what reads is not."""

import os
import re

import pytest
from buckets import BOTH, WRITES

from tulu_jax.cli import main
from tulu_jax.cli.main import main as tulu
from tulu_jax.places import upload

from .small_model import write_model

READ_ONLY = {"p403": 1, "match": WRITES}


@pytest.fixture(scope="module")
def near(tmp_path_factory):
    """A model, a run and an adapter of it in folders."""
    root = tmp_path_factory.mktemp("near")
    run("import", "--hf", write_model(root / "hf"), "--model_dir", root / "run")
    return root


@pytest.fixture
def far(bucket, near, tmp_path, monkeypatch, storage):
    """The bucket with a model, a run and a store; from now on it may only be read."""
    monkeypatch.setenv("TULU_CACHE_DIR", "")
    for file in (near / "hf").iterdir():
        upload(file, bucket / "hf" / file.name)
    run("import", "--hf", near / "hf", "--model_dir", bucket / "run")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    storage.fault(**READ_ONLY)
    before = bucket.files()
    yield bucket
    storage.calm()
    assert os.listdir() == [] and bucket.files() == before


def run(*words, status=0):
    assert tulu([str(word) for word in words]) == status


WRITING = {
    "train": ("train", "--gin_file=runs/demo.gin", "--gin.MODEL_DIR={far}/new"),
    "prepare": ("data", "prepare", "tulu_demo", "--tokenizer", "{near}/hf", "--max_length", "128",
                "--data_dir", "{far}/stores"),
    "export": ("export", "--model_dir", "{near}/run", "--output", "{far}/exported"),
    "import": ("import", "--hf", "{near}/hf", "--model_dir", "{far}/imported"),
}  # fmt: skip


@BOTH
def test_what_writes_there_names_the_permission(far, near, capsys, monkeypatch):
    monkeypatch.setattr(main, "join_hosts", lambda args: True, raising=False)
    right = {"gs": "storage.objects.create", "s3": "s3:PutObject"}[far.scheme]
    for command, words in WRITING.items():
        run(*(word.format(far=far, near=near) for word in words), status=2)
        told = capsys.readouterr().err
        assert re.search(f"no permission to write .* the permission {re.escape(right)}", told), (
            command
        )
        assert "48000/48000" not in told


@BOTH
def test_what_reads_needs_no_more(far, near, tmp_path, storage, capsys):
    run("generate", "--model", far / "hf", "--prompt", "Hi", "--max_new_tokens", "2")
    run("generate", "--model", far / "run", "--prompt", "Hi", "--max_new_tokens", "2")
    run("import", "--hf", far / "hf", "--model_dir", tmp_path / "imported")
    run("export", "--model_dir", far / "run", "--output", tmp_path / "exported")
    run("diff", "make", "--base", far / "hf", "--tuned", far / "hf", "--output", tmp_path / "diff")
    assert storage.fault().get("p403", 0) == 0


@BOTH
def test_a_name_that_orbax_does_not_take_is_refused_before_the_data(bucket, capsys):
    run("train", "--gin_file=runs/demo.gin", f"--gin.MODEL_DIR={bucket}/what?", status=2)
    told = capsys.readouterr()
    assert "a name that Orbax takes for a pattern - got ? at" in told.err
    assert "Packing probe" not in told.out and bucket.files() == {}


@BOTH
def test_an_object_is_no_folder(bucket, near, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TULU_SCRATCH_DIR", str(tmp_path / "scratch"))
    (bucket / "x").write_bytes(b"12345")
    for command, words in WRITING.items():
        run(*(re.sub("{far}/[a-z]+", f"{bucket}/x", word).format(near=near) for word in words),
            status=2)  # fmt: skip
        told = capsys.readouterr().err
        if command == "export":
            assert f"output is a file, not a folder - at {bucket}/x - choose another" in told
        else:
            assert "a folder is wanted where an object lies - got an object of 5 bytes at" in told
    run("generate", "--model", bucket / "x", "--prompt", "Hi", status=2)
    assert f"at {bucket}/x" in capsys.readouterr().err
    assert list(bucket.files()) == ["x"]
