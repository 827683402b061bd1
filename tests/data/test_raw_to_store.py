"""Raw files to stores, by several processes and without TensorFlow."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tasks import demo
from tulu_jax.data import parts
from tulu_jax.data.keys import PrepareOptions
from tulu_jax.data.prepare import prepare, prepare_each
from tulu_jax.errors import DataError

ROOT = Path(__file__).parents[2]
COUNT = 700


def write_raw(folder, bad=()):
    """Dolly's and Alpaca's files with `COUNT` rows each; Dolly's lines in `bad` are malformed."""
    rows = [
        {"instruction": f"Count {i}, \u00e9 \U0001f42a", "context": "", "response": f"{i} cups"}
        for i in range(COUNT)
    ]
    lines = [json.dumps(row)[: 20 if i in bad else None] for i, row in enumerate(rows)]
    (folder / "dolly").mkdir(parents=True)
    (folder / "dolly" / "databricks-dolly-15k.jsonl").write_text("\n".join(lines))
    alpaca = [{"instruction": f"Add {i}", "input": "", "output": f"{i}"} for i in range(COUNT)]
    (folder / "stanford_alpaca").mkdir()
    (folder / "stanford_alpaca" / "alpaca_data.json").write_text(json.dumps(alpaca))
    return folder


@pytest.fixture(scope="module")
def raw_dir(tmp_path_factory):
    return write_raw(tmp_path_factory.mktemp("raw"), bad={6})


def options(folder, raw_dir, **changes):
    raw_dir = None if raw_dir is None else str(raw_dir)
    arguments = {"max_length": 128, "data_dir": str(folder), "raw_dir": raw_dir}
    return PrepareOptions(tokenizer=str(demo.TOKENIZER_DIR), **arguments, **changes)


def test_several_processes_read_and_encode_several_datasets(tmp_path, raw_dir):
    stores = {}
    for processes in (1, 2):
        chosen = options(tmp_path / str(processes), raw_dir, num_processes=processes)
        stores[processes] = prepare("tulu_dolly,tulu_stanford_alpaca", chosen)
    for one, two in zip(stores[1], stores[2], strict=True):
        assert one.meta == two.meta and one.ids == two.ids
        for name in ("tokens.array_record", "index.npz", "meta.json"):
            assert (one.path / name).read_bytes() == (two.path / name).read_bytes()
    counts = stores[1][0].meta["counts"]
    assert counts["read"] == COUNT - 1 and counts["skipped"] == 1
    assert "databricks-dolly-15k.jsonl, line 7" in counts["messages"][0]

    for changes, expected in ({}, False), ({"max_length": 64}, True):
        chosen = options(tmp_path / "1", raw_dir)
        chosen = PrepareOptions(**{**vars(chosen), **changes})
        assert [p.made for p in prepare_each("tulu_dolly", chosen)] == [expected]


def test_the_first_bad_record_stops_a_strict_prepare(tmp_path, raw_dir):
    with pytest.raises(DataError, match=r"line 7"):
        prepare("tulu_dolly", options(tmp_path, raw_dir, strict=True, num_processes=2))


def test_too_many_bad_records(tmp_path):
    raw_dir = write_raw(tmp_path / "raw", bad=range(8))
    with pytest.raises(DataError, match=r"too many bad records - got 8 of 700; first: .*line 1"):
        prepare("tulu_dolly", options(tmp_path / "data", raw_dir))
    assert not list((tmp_path / "data").glob("tulu_dolly/*"))


def test_raw_files_are_fetched_unless_they_were_put_there(tmp_path, raw_dir, monkeypatch):
    asked = []

    def fetch(spec, raw_root, **_):
        asked.append((spec.name, raw_root))
        return raw_dir / spec.name

    monkeypatch.setattr("tulu_jax.download.run.fetch", fetch)
    (fetched,) = prepare("tulu_dolly", options(tmp_path / "a", None))
    assert asked == [("dolly", str(tmp_path / "a" / "raw"))]
    assert fetched.meta["raw_files"] == "download" and len(fetched) == COUNT - 1
    write_raw(tmp_path / "b" / "raw" / "manual", bad={6})
    (found,) = prepare("tulu_dolly", options(tmp_path / "b", None))
    assert len(asked) == 1 and found.fingerprint == fetched.fingerprint


def test_the_process_that_prepares_sees_no_tensorflow(tmp_path, raw_dir):
    script = f"""
import sys
from tulu_jax.data.keys import PrepareOptions
from tulu_jax.data.prepare import prepare
if __name__ == "__main__":
    prepare("tulu_dolly", {options(tmp_path, raw_dir, num_processes=2)!r})
    loaded = {{"tensorflow", "seqio", "tensorflow_datasets", "torch"}} & set(sys.modules)
    sys.exit(f"loaded {{loaded}}" if loaded else 0)
"""
    (tmp_path / "script.py").write_text(script)
    command = [sys.executable, str(tmp_path / "script.py")]
    done = subprocess.run(command, env={"PYTHONPATH": str(ROOT)}, check=False, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert "tulu_dolly train" in done.stdout.decode() and "699/699" in done.stdout.decode()


def test_parts_are_small_enough_to_share_out():
    assert COUNT > parts.PART_CONVERSATIONS
