"""The paper's run files: each loads, fits its mesh, and says what the generator would write."""

import importlib.util
import json
import sys
import types
from pathlib import Path

import jax
import numpy as np
import pytest

from tulu_jax.axes import MESH_AXES
from tulu_jax.cli.gin_config import load_train_config
from tulu_jax.cli.gin_files import config_folder
from tulu_jax.data.mixtures import get_mixture
from tulu_jax.errors import TuluError
from tulu_jax.parallel import layout_for

ROOT = Path(__file__).parents[2]


def load_generator():
    spec = importlib.util.spec_from_file_location("paper_runs", ROOT / "benchmarks/paper_runs.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


GENERATOR = load_generator()
RUNS = {run.name: run for run in GENERATOR.all_runs()}
NAMES = [f"{kind}/{name}" for kind in ("paper", "fast") for name in RUNS]
WEIGHTS = ["MODEL_DIR = 'x'", "INITIAL_CHECKPOINT_PATH = 'llama'"]


def load(name, bindings=WEIGHTS):
    return load_train_config([f"runs/{name}.gin"], bindings)


def test_every_run_of_the_paper_has_its_file():
    assert len(RUNS) == 12 + 2 * 4 + 2
    for kind, shared in (("paper", {"paper", "large"}), ("fast", {"fast"})):
        found = {path.stem for path in (config_folder() / "runs" / kind).glob("*.gin")}
        assert found == {*RUNS, *shared}


def test_the_files_are_what_the_generator_writes():
    found = json.loads(GENERATOR.RESULTS.read_text())["plans"]
    for path, text in GENERATOR.files(found).items():
        assert (config_folder() / "runs" / path).read_text(encoding="utf-8") == text, path


@pytest.mark.parametrize("name", NAMES)
def test_a_run_fits_its_mesh_and_keeps_the_papers_settings(name):
    kind, _, stem = name.partition("/")
    run, config = RUNS[stem], load(name)
    data, place = config.data, run.place
    assert get_mixture(data.mixture).specs()
    assert (data.epochs, config.optimizer.warmup_ratio, config.optimizer.weight_decay) == (
        2,
        0.03,
        0,
    )
    assert config.optimizer.learning_rate == (1e-5 if run.large else 2e-5)
    assert data.length == (1024 if run.large else 2048)
    assert data.tokenizer == str(Path("llama").absolute())
    assert config.compute.dtype == "bfloat16"
    assert data.encoding == ("hf" if "pythia" in name else "paper")
    padded = kind == "paper"
    assert data.packing == ("padded" if padded else "best_fit")
    assert config.loss_normalization == ("paper" if padded else "token")
    if padded:
        assert data.batch_size == 128
    assert config.model.max_length >= data.length
    sizes = config.mesh.resolve(place.chips)
    devices = np.asarray(jax.devices()[:1])
    mesh = types.SimpleNamespace(shape=dict(zip(MESH_AXES, sizes, strict=True)), devices=devices)
    layout = layout_for(config.model, mesh)
    assert layout.num_row_shards == place.row_shards
    layout.check_rows(data.batch_size // config.micro_batches)


@pytest.mark.parametrize("stem", RUNS)
def test_a_packed_twin_sees_the_same_tokens(stem):
    paper, fast = load(f"paper/{stem}"), load(f"fast/{stem}")
    for field in ("mixture", "encoding", "length", "options", "epochs", "seed", "tokenizer"):
        assert getattr(paper.data, field) == getattr(fast.data, field), field
    assert paper.optimizer == fast.optimizer
    assert paper.model == fast.model
    conversations = (
        fast.data.batch_size * fast.data.length / GENERATOR.mean_tokens(fast.data.mixture)
    )
    assert 60 < conversations < 260


def test_without_weights_a_paper_run_refuses_to_start():
    with pytest.raises(TuluError, match="tokenizer is not set"):
        load("paper/tulu_7b", ["MODEL_DIR = 'x'"])
