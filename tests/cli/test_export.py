"""`tulu export`."""

import json
import subprocess
import sys

import numpy as np
import pytest

from tulu_jax.checkpoint.arrays import CheckpointReader, save_params
from tulu_jax.cli.exporter import parse_size
from tulu_jax.errors import CheckpointError, ConfigError, TokenizerError

from .small_model import tulu, write_model

ONE = {"embedding": np.ones((2, 2), np.float32)}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("run")
    tulu("import", "--hf", write_model(root / "hf"), "--model_dir", root / "run")
    return root / "run"


def export(run, output, *words):
    return tulu("export", "--model_dir", run, "--output", output, *words)


def test_export_undoes_import(run, tmp_path, capsys):
    assert export(run, tmp_path / "x") == 0
    for path in (run.parent / "hf").iterdir():
        assert (tmp_path / "x" / path.name).read_bytes() == path.read_bytes(), path.name
    printed = capsys.readouterr().out
    assert printed.count("xxh128 ") == len(list((tmp_path / "x").iterdir())) - 1
    assert "step 0" in printed


def test_dtype_and_shards(run, tmp_path):
    export(run, tmp_path / "x", "--dtype", "bfloat16", "--max_shard_size", "20KB")
    assert len(list((tmp_path / "x").glob("*.safetensors"))) > 1
    assert (tmp_path / "x" / "model.safetensors.index.json").is_file()
    assert json.loads((tmp_path / "x" / "config.json").read_text())["torch_dtype"] == "bfloat16"


def test_vocabulary_at_its_true_size_unless_asked(run, tmp_path):
    export(run, tmp_path / "x", "--pad_vocab_to", "100")
    assert json.loads((tmp_path / "x" / "config.json").read_text())["vocab_size"] == 900
    assert CheckpointReader(run).shape(("embedding",))[0] == 896


def test_output_in_use(run, tmp_path):
    export(run, tmp_path / "x")
    with pytest.raises(CheckpointError, match="output folder is not empty"):
        export(run, tmp_path / "x")
    assert export(run, tmp_path / "x", "--overwrite") == 0
    with pytest.raises(CheckpointError, match="does not look like an exported model"):
        export(run, run, "--overwrite")
    assert (run / "checkpoints" / "0").is_dir()


@pytest.mark.parametrize("name", ["checkpoints", "checkpoints/5", "checkpoints/../checkpoints/hf"])
def test_outputs_among_the_checkpoints(run, name):
    before = sorted((run / "checkpoints").iterdir())
    with pytest.raises(ConfigError, match=r"--output lies among the run's checkpoints - got .*run"):
        export(run, run / name, "--overwrite")
    assert sorted((run / "checkpoints").iterdir()) == before


def test_step_that_is_not_there(run, tmp_path):
    with pytest.raises(CheckpointError, match="no complete checkpoint of step=7"):
        export(run, tmp_path / "x", "--step", "7")


def test_half_written_checkpoint(run, tmp_path):
    other = tmp_path / "run"
    step = save_params(other, ONE, CheckpointReader(run).meta)
    (step / "state" / "_METADATA").unlink()
    with pytest.raises(CheckpointError, match="no complete checkpoint"):
        export(other, tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_checkpoint_that_does_not_say_its_model(tmp_path):
    save_params(tmp_path / "a", ONE, {})
    with pytest.raises(CheckpointError, match="does not say which model it is of - got 'model'"):
        export(tmp_path / "a", tmp_path / "x", "--tokenizer", "none")
    save_params(tmp_path / "b", ONE, {"model": {"width": 3}})
    with pytest.raises(
        CheckpointError, match=r"does not say which model it is of - got .*vocab_size"
    ):
        export(tmp_path / "b", tmp_path / "x", "--tokenizer", "none")


def with_meta(run, other, **changes):
    """A copy of the run whose metadata differs."""
    reader = CheckpointReader(run)
    params = {"embedding": reader.read(("embedding",))}
    save_params(other, params, {**reader.meta, **changes})
    return other


def test_tokenizer_is_found_or_asked_for(run, tmp_path):
    bare = with_meta(run, tmp_path / "bare")
    with pytest.raises(ConfigError, match=r"no tokenizer - at .* give --tokenizer PATH"):
        export(bare, tmp_path / "x")
    told = with_meta(run, tmp_path / "told", tokenizer_path=str(run / "tokenizer"))
    with pytest.raises(CheckpointError, match="weights do not fit"):  # past the tokenizer
        export(told, tmp_path / "x")
    wrong = with_meta(run, tmp_path / "wrong", tokenizer="0" * 64)
    with pytest.raises(TokenizerError, match="not the one the model was trained with - got finge"):
        export(wrong, tmp_path / "x", "--tokenizer", run / "tokenizer")
    assert export(run, tmp_path / "x", "--tokenizer", "none") == 0
    assert not (tmp_path / "x" / "tokenizer.model").exists()


@pytest.mark.parametrize(
    ("text", "size"), [("5GB", 5 * 10**9), ("1.5kb", 1500), ("7", 7), ("2M", 2 * 10**6)]
)
def test_sizes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "5XB", "0"])
def test_bad_sizes(text):
    with pytest.raises(ConfigError, match="--max_shard_size is not a size"):
        parse_size(text)


def test_neither_import_nor_export_loads_torch(run, tmp_path):
    code = (
        "import sys\nfrom tulu_jax.cli.main import main\n"
        f"assert main(['export', '--model_dir', {str(run)!r}, '--output', {str(tmp_path / 'x')!r}])"
        " == 0\nassert not {'torch', 'transformers', 'tensorflow'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
