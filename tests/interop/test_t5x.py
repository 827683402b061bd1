"""Our models and mixtures under t5x; most of it without t5x, which is not on PyPI."""

import importlib.util
import json
import os
import subprocess
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.linen.partitioning import AxisMetadata

import gin_configs
from tests.cli.small_model import write_model
from tulu_jax.checkpoint import hf
from tulu_jax.errors import CheckpointError, ConfigError
from tulu_jax.models import (
    ComputeConfig,
    LlamaConfig,
    NeoxConfig,
    OptConfig,
    abstract_params,
    logical_axes,
)
from tulu_jax.train.config import OptimizerConfig
from tulu_jax.train.loss import weighted_loss

pytest.importorskip("seqio", reason="SeqIO is not installed")

needs_t5x = pytest.mark.skipif(
    importlib.util.find_spec("t5x") is None, reason="t5x is not installed: docs/t5x.md"
)
pytestmark = pytest.mark.filterwarnings("ignore")  # t5x's own, of which there are many

CONFIG = LlamaConfig(
    vocab_size=96,
    d_model=16,
    d_ff=24,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=4,
    max_length=64,
    norm_eps=1e-5,
)


@pytest.fixture
def adapter(monkeypatch):
    """The adapter, on top of t5x or, where that is absent, of empty base classes."""
    if importlib.util.find_spec("t5x") is None:
        fake = types.ModuleType("t5x")
        for name, base in (("models", "DecoderOnlyModel"), ("trainer", "Trainer")):
            module = types.ModuleType(f"t5x.{name}")
            setattr(module, base, type(base, (), {}))
            setattr(fake, name, module)
            monkeypatch.setitem(sys.modules, f"t5x.{name}", module)
        fake.optimizers = types.ModuleType("t5x.optimizers")
        fake.optimizers.OptaxWrapper = fake.optimizers.OptimizerDef = object
        monkeypatch.setitem(sys.modules, "t5x.optimizers", fake.optimizers)
        monkeypatch.setitem(sys.modules, "t5x", fake)
    monkeypatch.delitem(sys.modules, "tulu_jax.interop.t5x", raising=False)
    from tulu_jax.interop import t5x

    yield t5x
    sys.modules.pop("tulu_jax.interop.t5x", None)


def test_without_t5x_the_way_to_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "t5x", None)
    monkeypatch.delitem(sys.modules, "tulu_jax.interop.t5x", raising=False)
    with pytest.raises(ModuleNotFoundError, match=r"not on PyPI - install it as docs/t5x\.md says"):
        import tulu_jax.interop.t5x  # noqa: F401


def small_configs():
    sizes = {"vocab_size": 96, "d_model": 16, "d_ff": 24, "num_layers": 2, "num_heads": 4}
    opt = OptConfig(**sizes, max_length=64, word_dim=6)
    neox = NeoxConfig(**sizes, max_length=64, norm_eps=1e-5, rotary_share=0.5)
    return [CONFIG, opt, neox]


@pytest.mark.parametrize("config", small_configs(), ids=lambda config: config.family)
def test_every_weight_has_axes_and_every_axis_a_rule(adapter, config):
    named = {
        "/".join(str(key.key) for key in path)
        for path, _ in jax.tree_util.tree_leaves_with_path(
            adapter.params_axes(config), is_leaf=lambda leaf: isinstance(leaf, AxisMetadata)
        )
    }
    weights = {
        "/".join(str(key.key) for key in path) + "_axes"
        for path, _ in jax.tree_util.tree_leaves_with_path(abstract_params(config))
    }
    assert named == weights
    rules = dict(adapter.logical_axis_rules(config, 2))
    spec_leaves = jax.tree.leaves(logical_axes(config), is_leaf=lambda x: not isinstance(x, dict))
    assert {axis for spec in spec_leaves for axis in spec} <= set(rules)


def test_names_are_those_of_the_models_own_axes(adapter):
    axes = adapter.params_axes(CONFIG)
    assert axes["final_norm"] == {"scale_axes": AxisMetadata(("embed",))}
    assert axes["layers"]["attention"]["key_axes"].names == (
        "layers",
        "embed",
        "kv_heads",
        "head_dim",
    )


def test_what_does_not_divide_stays_whole_or_is_refused(adapter):
    rules = dict(adapter.logical_axis_rules(CONFIG, 4))
    assert (rules["heads"], rules["kv_heads"], rules["vocab"]) == ("model", None, "model")
    assert rules["embed"] is None
    assert dict(adapter.logical_axis_rules(CONFIG, 2))["kv_heads"] == "model"
    both = adapter.logical_axis_rules(CONFIG, 2, parameter_partitioning_dims=2)
    assert dict(both)["embed"] == "data"
    with pytest.raises(ConfigError, match=r"num_partitions=3, num_heads=4"):
        adapter.logical_axis_rules(CONFIG, 3)


def test_a_tokenizer_larger_than_the_model_is_refused(adapter):
    vocabulary = types.SimpleNamespace(vocab_size=97)
    with pytest.raises(ConfigError, match="tokenizer has more pieces than the model - got 97"):
        adapter.TuluModel(CONFIG, vocabulary, optimizer_def=None)


def test_decoding_is_refused(adapter):
    with pytest.raises(NotImplementedError, match="use `tulu generate`"):
        adapter.TuluModel.predict_batch_with_aux(None, {}, {})


def test_a_folder_that_is_no_t5x_checkpoint_is_refused(adapter, tmp_path):
    with pytest.raises(CheckpointError, match="t5x checkpoint cannot be read"):
        adapter.read_params(tmp_path / "checkpoint_4")


def packed_batch(vocab_size):
    """A row of two conversations and padding, as `TuluFeatureConverter` gives it, and as we do."""
    tokens = np.random.default_rng(0).integers(3, vocab_size, (2, 12)).astype(np.int32)
    segments = np.array([[1] * 5 + [2] * 5 + [0] * 2] * 2, np.int32)
    positions = np.array([[*range(5), *range(5), 0, 0]] * 2, np.int32)
    mask = np.array([[0, 0, 0, 1, 1] * 2 + [0] * 2] * 2, np.int32)
    tokens, ours_mask = tokens * (segments > 0), mask
    left = np.pad(tokens, ((0, 0), (0, 1)))[:, 1:]
    weights = np.pad(mask, ((0, 0), (0, 1)))[:, 1:]
    same = np.pad(segments, ((0, 0), (0, 1)))[:, 1:] == segments
    theirs = {
        "decoder_input_tokens": tokens,
        "decoder_target_tokens": left * same,
        "decoder_loss_weights": weights * same,
        "decoder_segment_ids": segments,
        "decoder_positions": positions,
    }
    ours = {
        "tokens": tokens,
        "loss_mask": ours_mask,
        "segment_ids": segments,
        "positions": positions,
    }
    return theirs, ours


@needs_t5x
def test_the_loss_is_that_of_our_own_trainer(adapter):
    theirs, ours = packed_batch(CONFIG.vocab_size)
    model = adapter.TuluModel(
        CONFIG,
        types.SimpleNamespace(vocab_size=96),
        optimizer_def=adapter.adamw(OptimizerConfig(), 10),
    )
    params = model.get_initial_variables(jax.random.key(0), {})["params"]
    loss, _ = model.loss_fn(params, theirs, None)
    mask = theirs["decoder_loss_weights"]
    weights = jnp.asarray(mask / mask.sum())
    assert float(loss) == pytest.approx(
        float(weighted_loss(CONFIG, ComputeConfig(), dict(params), ours, weights)), rel=1e-6
    )


def train(tmp_path, folder, steps):
    """Runs `python -m t5x.train` on two virtual devices; returns its log."""
    settings = {
        "MODEL_DIR": str(tmp_path / "run"),
        "INITIAL_CHECKPOINT_PATH": str(folder),
        "MIXTURE_OR_TASK_NAME": "tulu_stanford_alpaca",
        "TASK_FEATURE_LENGTHS": {"targets": 64},
        "RAW_DIR": str(tmp_path / "raw"),
        "DATA_DIR": str(tmp_path / "data"),
        "TRAIN_STEPS": steps,
        "CHECKPOINT_PERIOD": 2,
        "BATCH_SIZE": 2,
        "LEARNING_RATE": 0.01,
        "NUM_PARTITIONS": 2,
        "DTYPE": "float32",
        "REMAT": "none",
    }
    words = [f"--gin.{name}={value!r}" for name, value in settings.items()]
    done = subprocess.run(
        [sys.executable, "-m", "t5x.train", "--gin_file=t5x/finetune.gin",
         f"--gin_search_paths={gin_configs.__path__[0]}", "--alsologtostderr", *words],
        env={**os.environ, "JAX_PLATFORMS": "cpu",
             "XLA_FLAGS": "--xla_force_host_platform_device_count=2"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stderr


@needs_t5x
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_t5x_trains_from_imported_weights_and_goes_on(adapter, tmp_path):
    folder = write_model(tmp_path / "hf")
    raw = tmp_path / "raw" / "stanford_alpaca"
    raw.mkdir(parents=True)
    rows = [{"instruction": f"Say {n}.", "input": "", "output": f"{n}."} for n in range(40)]
    (raw / "alpaca_data.json").write_text(json.dumps(rows))
    train(tmp_path, folder, 2)
    log = train(tmp_path, folder, 4)
    assert "checkpoint_2" in log
    config, before = hf.load(folder)
    after = adapter.read_params(tmp_path / "run" / "checkpoint_4")
    gap = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), before, after)
    assert 0 < max(jax.tree.leaves(gap)) < 0.05, "imported weights, a few steps later"
    hf.save(tmp_path / "exported", config, after)
    assert hf.load(tmp_path / "exported")[0] == config
