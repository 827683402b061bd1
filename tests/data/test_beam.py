"""Encoding on Apache Beam makes the same stores, byte for byte."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tasks import demo
from tulu_jax.data.keys import PrepareOptions
from tulu_jax.data.prepare import parts_folder, prepare, prepare_each
from tulu_jax.errors import ConfigError

BEAM = importlib.util.find_spec("apache_beam") is not None
needs_beam = pytest.mark.skipif(not BEAM, reason="apache-beam is not installed: extra `beam`")
ROOT = Path(__file__).parents[2]

pytestmark = [
    pytest.mark.slow,  # importing TensorFlow alone takes seconds
    pytest.mark.filterwarnings("ignore"),
]


def options(folder, **changes):
    arguments = {"tokenizer": str(demo.TOKENIZER_DIR), "max_length": 128, "data_dir": str(folder)}
    return PrepareOptions(**{**arguments, **changes})


def rows(count):
    for i in range(count):
        messages = [
            {"role": "user", "content": f"What comes after {i}?"},
            {"role": "assistant", "content": f"{i + 1}. " + "a cup " * (i % 50)},
        ]
        yield {"dataset": "d", "id": f"d_{i}", "messages": messages}


def files_of(store):
    return {p.name: p.read_bytes() for p in store.path.iterdir() if p.name != ".verified"}


@needs_beam
def test_beam_makes_the_same_store(tmp_path):
    def reader(spec, split):
        return rows(1250)

    (plain,) = prepare("tulu_dolly", options(tmp_path / "plain"), reader=reader)
    beam = options(tmp_path / "beam", beam_runner="DirectRunner")
    (made,) = prepare_each("tulu_dolly", beam, reader=reader)
    assert files_of(made.store) == files_of(plain)
    assert (made.made, made.parts, made.parts_found) == (True, 3, 0)
    assert not parts_folder(made.store.path).exists()
    (kept,) = prepare_each("tulu_dolly", beam, reader=reader)
    assert not kept.made


@needs_beam
def test_beam_from_raw_files_and_the_command_line(tmp_path):
    with open(tmp_path / "databricks-dolly-15k.jsonl", "w") as stream:
        for i in range(1100):
            row = {"instruction": f"Count {i}", "context": "", "response": f"{i} cups"}
            print(json.dumps(row), file=stream)
    stores = []
    for name, more in (("plain", []), ("beam", ["--beam_runner", "DirectRunner"])):
        command = [sys.executable, "-m", "tulu_jax", "data", "prepare", "tulu_dolly", *more]
        command += ["--tokenizer", str(demo.TOKENIZER_DIR), "--raw_dir", str(tmp_path)]
        command += ["--data_dir", str(tmp_path / name), "--num_processes", "1"]
        got = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert got.returncode == 0, got.stderr
        (folder,) = (tmp_path / name / "tulu_dolly").iterdir()
        stores.append({p.name: p.read_bytes() for p in folder.iterdir() if p.name != ".verified"})
    assert stores[0] == stores[1]


@needs_beam
def test_an_unknown_runner(tmp_path):
    beam = options(tmp_path, beam_runner="NoRunner")
    with pytest.raises(ConfigError, match=r"knows no such runner - got 'NoRunner' .* DirectRunner"):
        prepare("tulu_dolly", beam, reader=lambda spec, split: rows(3))


def test_without_beam(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    beam = options(tmp_path, beam_runner="DirectRunner")
    with pytest.raises(ConfigError, match=r"is not installed .* pip install 'tulu-jax\[beam\]"):
        prepare("tulu_dolly", beam, reader=lambda spec, split: rows(3))
