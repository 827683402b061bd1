"""`tulu bench train`: what it prints, and that it needs no data library."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tulu_jax.cli.bench import mesh_sizes
from tulu_jax.cli.gin_config import load_model, load_train_config
from tulu_jax.cli.gin_files import config_folder
from tulu_jax.cli.main import main
from tulu_jax.errors import ConfigError

ROOT = Path(__file__).parent.parent.parent
ABSENT = (
    "tensorflow",
    "seqio",
    "grain",
    "sentencepiece",
    "tokenizers",
    "jaxtyping",
    "torch",
)


@pytest.mark.parametrize("name", ["llama_7b", "llama31_8b", "opt_125m", "pythia_70m"])
def test_presets_are_those_of_gin(name, tmp_path):
    settings = [f"MODEL_DIR = '{tmp_path}'", "MIXTURE_OR_TASK_NAME = 'x'", "TOKENIZER = 'y'",
                "EPOCHS = 1"]  # fmt: skip
    config = load_train_config(["runs/finetune.gin", f"models/{name}.gin"], settings)
    assert load_model(name) == config.model


def test_every_preset_can_be_read():
    names = [path.stem for path in (config_folder() / "models").glob("*.gin")]
    assert len(names) > 20 and all(load_model(name).num_params > 0 for name in names)


def test_unknown_model():
    with pytest.raises(ConfigError, match=r"unknown model - got llama_8x - expected .*llama_58m"):
        load_model("llama_8x")


def test_mesh_sizes():
    assert mesh_sizes("data=2, fsdp=4") == {"data": 2, "fsdp": 4} and mesh_sizes("") == {}
    with pytest.raises(ConfigError, match=r"--mesh is not understood - got fsdp - expected data=2"):
        mesh_sizes("fsdp")


def test_rows_must_divide(capsys):
    assert main(["bench", "train", "--model", "llama_tiny", "--rows", "3", "--mesh", "fsdp=8"]) == 2
    assert "--rows / --micro_batches cannot be split over the devices" in capsys.readouterr().err


@pytest.mark.slow
def test_where_only_jax_flax_optax_orbax_gin_and_numpy_exist():
    """The same command through benchmarks/step.py, every other import refused."""
    script = (
        "import sys\n"
        f"for name in {ABSENT}: sys.modules[name] = None\n"
        "import runpy\n"
        "sys.argv = ['step.py', *sys.argv[1:]]\n"
        "runpy.run_path('benchmarks/step.py', run_name='__main__')\n"
    )
    env = os.environ | {
        "XLA_FLAGS": "",
        "PYTHONPATH": str(ROOT),
        "GLIBC_TUNABLES": "glibc.malloc.x=1",
    }
    done = subprocess.run(
        [sys.executable, "-c", script, "--model", "llama_tiny", "--rows", "2", "--length", "32",
         "--steps", "2", "--warmup", "0", "--json"],
        cwd=ROOT, env=env, capture_output=True, text=True, timeout=250, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    assert found["tokens_per_s"] > found["loss_tokens_per_s"] > 0 and found["mfu"] > 0
    assert found["step_memory_gib"] > 0.01 and found["peak_memory_gib"] > found["step_memory_gib"]
    assert found["rows"] == 2 and found["length"] == 32 and found["weights"] == 3_426_560
    assert "6 x layer weights" in found["mfu_formula"]
