"""Data that is not prepared yet is prepared by the run; the trainer sees no TensorFlow."""

import json
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from tasks import demo
from tulu_jax.data import ensure
from tulu_jax.data.config import DataConfig
from tulu_jax.errors import DataError


@pytest.fixture(scope="module")
def raw_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("raw")
    (folder / "dolly").mkdir()
    rows = [
        {"instruction": f"What is {i} plus 1?", "context": "", "response": str(i + 1)}
        for i in range(50)
    ]
    path = folder / "dolly" / "databricks-dolly-15k.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return folder


def config(folder, raw_dir, **changes):
    arguments = {
        "mixture": "tulu_dolly",
        "tokenizer": str(demo.TOKENIZER_DIR),
        "length": 256,
        "batch_size": 2,
        "heldout_examples": 5,
        "data_dir": str(folder / "data"),
        "raw_dir": str(raw_dir),
    }
    return DataConfig(**{**arguments, **changes})


@pytest.mark.slow
def test_missing_data_is_prepared(tmp_path, raw_dir, capfd):
    chosen = config(tmp_path, raw_dir)
    data = ensure.open_training_data(chosen)
    assert "dolly train" in capfd.readouterr().out
    assert len(data.stores) == 1 and len(data.stores[0]) == 50
    assert len(data.train.examples) == 45 and len(data.heldout["tulu_dolly"].examples) == 5
    assert not set(data.train.examples) & set(data.heldout["tulu_dolly"].examples)
    assert data.train.batch(0, 2)["tokens"].shape == (2, 256)

    again = ensure.open_training_data(chosen)  # found now
    assert capfd.readouterr().out == ""
    assert np.array_equal(again.train.batch(0, 2)["tokens"], data.train.batch(0, 2)["tokens"])
    assert ensure.open_training_data(config(tmp_path, raw_dir, heldout_examples=0)).heldout == {}

    script = f"""
        import sys
        from tulu_jax.data.config import DataConfig
        from tulu_jax.data.ensure import open_training_data
        from tulu_jax.data.loader import open_batches
        data = open_training_data({chosen!r})
        next(open_batches(data.train, batch_size=2))
        loaded = {{"tensorflow", "seqio", "tensorflow_datasets", "torch"}} & set(sys.modules)
        sys.exit(f"loaded {{loaded}}" if loaded else 0)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True)


@pytest.mark.slow
def test_paths_and_reading_options_are_kept(tmp_path, raw_dir, capfd):
    path = tmp_path / "own.jsonl"
    path.write_text('{"prompt": "a", "completion": "b", "source": "me"}\n')
    options = {"dolly": {"num_examples": 7}}
    chosen = config(
        tmp_path, raw_dir, mixture=f"tulu_dolly,{path}", options=options, num_processes=1
    )
    stores = ensure.ensure_prepared(chosen)
    assert len(stores["tulu_dolly"]["train"]) == 7 and len(stores["tulu_jsonl_own"]["train"]) == 1
    printed = capfd.readouterr()
    assert "not used: source (1)" in printed.out and "own.jsonl" in printed.err


def test_what_is_wrong_with_the_data_is_said(tmp_path):
    (tmp_path / "dolly").mkdir()
    (tmp_path / "dolly" / "databricks-dolly-15k.jsonl").write_text("[]")
    with pytest.raises(DataError, match="too many bad records"):
        ensure.ensure_prepared(config(tmp_path, tmp_path))
