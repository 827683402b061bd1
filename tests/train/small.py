"""A tiny model, a store of made-up conversations and a run over them that takes seconds."""

import contextlib
import dataclasses
import io
import json
import os
import signal
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import weights
from rich.console import Console

from tasks import demo
from tulu_jax.chat import TEMPLATES
from tulu_jax.data.config import DataConfig
from tulu_jax.data.ensure import TrainingData, assemble
from tulu_jax.data.mixtures import Component
from tulu_jax.data.store import Example, Store, open_store, write_store
from tulu_jax.inspect.report import print_training_data
from tulu_jax.models import LlamaConfig, ModelConfig
from tulu_jax.parallel import MeshConfig, layout_for, make_mesh
from tulu_jax.train import checks, feed, loop, metrics, reporter, setup
from tulu_jax.train import run as plans
from tulu_jax.train.config import OptimizerConfig, TrainConfig
from tulu_jax.train.run import RunPlan

MODEL = LlamaConfig(
    vocab_size=64,
    d_model=32,
    d_ff=48,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    max_length=64,
    norm_eps=1e-5,
)
LENGTH = 32
BATCH = 8


class Tokenizer(SimpleNamespace):
    """As much of a tokenizer as a run looks at."""

    def fitting(self, vocab_size: int) -> "Tokenizer":
        """Itself: it has no token to leave out."""
        return self


TOKENIZER = Tokenizer(
    vocab_size=64,
    bos_id=1,
    bos_in_front=1,
    bos_once=True,
    eos_id=2,
    pad_id=0,
    template=TEMPLATES["tulu"],
    fingerprint="t" * 64,
    path=Path(demo.TOKENIZER_DIR) / "tokenizer.model",
)
META = {
    "task": "tulu_small",
    "split": "train",
    "vocab_size": 64,
    "expected_examples": None,
    "counts": {"read": 0, "truncated": 0, "dropped": {}},
}
MESHES = {
    "data": MeshConfig(data=8, fsdp=1),
    "fsdp": MeshConfig(fsdp=8),
    "tensor": MeshConfig(fsdp=1, tensor=4, data=2),
    "mixed": MeshConfig(data=2, fsdp=2, tensor=2),
    "sequence": MeshConfig(slice=2, fsdp=2, sequence=2),
}


def conversations(count: int = 60, seed: int = 0) -> list[Example]:
    """BOS, a prompt without loss, an answer with loss that ends in EOS; 6 to 30 tokens."""
    rng = np.random.default_rng(seed)
    found = []
    for number in range(count):
        prompt, answer = rng.integers(2, 14), rng.integers(2, 16)
        middle = rng.integers(3, 64, prompt + answer)
        tokens = np.concatenate([[1], middle, [2]]).astype(np.int32)
        found.append(Example(f"c{number}", tokens, np.arange(len(tokens)) > prompt))
    return found


def random_params(config: LlamaConfig = MODEL, seed: int = 0) -> dict:
    """Weights as NumPy arrays, large enough that every mistake shows."""
    return weights.random_params(config, seed)


def small_store(folder: Path, **options) -> Store:
    """The store of `conversations()` at `folder`, written once."""
    if folder.exists():
        return open_store(folder)
    return write_store(folder, conversations(**options), meta=META)


def training_data(config: DataConfig) -> TrainingData:
    """What `open_training_data` would give, over the store at `config.data_dir`."""
    store = small_store(Path(config.data_dir))
    cap = config.max_examples.get("tulu_small")
    part = Component(task="tulu_small", max_examples=cap, seed=config.seed)
    return assemble(config, [part], {"tulu_small": {"train": store}}, TOKENIZER)


def model_of(config: TrainConfig) -> ModelConfig:
    """What `check_before_data` gives; the small store has no tokenizer's files to look at."""
    checks.refuse_imported(config.model_dir)
    return config.model or checks.initial_model_config(config.initial_checkpoint)


def run_config(folder: Path, **changes) -> TrainConfig:
    """A run in `folder` over the store beside it; changes may name fields of DataConfig too."""
    names = {field.name for field in dataclasses.fields(DataConfig)} - {"seed"}
    data = {
        "mixture": "tulu_small",
        "tokenizer": "tok",
        "length": LENGTH,
        "batch_size": BATCH,
        "seed": 3,
        "heldout_examples": 6,
        "epochs": 2,
        "data_dir": str(folder.parent / "store"),
    }
    train = {
        "model": MODEL,
        "optimizer": OptimizerConfig(learning_rate=3e-3, warmup_ratio=0.2),
        "log_period": 1,
        "eval_period": 0,
        "checkpoint_period": 1000,
        "keep_checkpoints": 100,
    }
    for name, value in changes.items():
        (data if name in names else train)[name] = value
    return TrainConfig(model_dir=str(folder), data=DataConfig(**data), **train)


def leave_out_what_others_test(set_attribute) -> None:
    """The packing probe, the measured peak and the plot take most of a run of a few steps."""
    set_attribute(setup, "probe_packing", lambda *args, **options: 0.0)
    set_attribute(loop, "find_peak", lambda dtype: metrics.Peak(1e12, "nothing"))
    set_attribute(reporter, "plot_losses", lambda *args: None)


def on_devices(set_attribute, count: int) -> None:
    """Lets runs have so many of the eight devices."""
    few = jax.devices()[:count]
    set_attribute(plans, "make_mesh", lambda mesh, _: make_mesh(mesh, few))


@contextlib.contextmanager
def patched(monkeypatch, *, devices: int | None = 1):
    """Runs read the small store, on `devices` devices (None: all)."""
    with monkeypatch.context() as patch:
        patch.setattr(setup, "open_training_data", training_data)
        patch.setattr(setup, "check_before_data", model_of)
        if devices is not None:
            on_devices(patch.setattr, devices)
        yield patch


def run(
    monkeypatch,
    config: TrainConfig,
    *,
    devices: int | None = 1,
    stop_at: int | None = None,
    bare: bool = True,
    evaluate=None,
):
    """The result of a run and what it printed; `stop_at`: SIGTERM while that step is under way.

    `bare` leaves out what `leave_out_what_others_test` says.
    """
    console = Console(file=io.StringIO(), width=200)
    check = feed.check_batch

    def check_and_stop(batch, *, step, **ids):
        check(batch, step=step, **ids)
        if step == stop_at:  # looked at while the step before it runs
            os.kill(os.getpid(), signal.SIGTERM)

    with patched(monkeypatch, devices=devices) as patch:
        patch.setattr(feed, "check_batch", check_and_stop)
        if bare:
            leave_out_what_others_test(patch.setattr)
        result = loop.train(
            config,
            settings="x = 1\n",
            console=console,
            show_data=lambda data: print_training_data(data, config.data, console),
            evaluate=evaluate,
        )
    return result, console.file.getvalue()


def final_state(config: TrainConfig, step: int) -> dict[str, np.ndarray]:
    """Every array of a checkpoint by its path, as saved, whatever the mesh was."""
    import orbax.checkpoint as ocp

    path = Path(config.model_dir).absolute() / "checkpoints" / str(step) / "state"
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
        tree = reader.metadata(path).item_metadata.tree
        args = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
        restored = reader.restore(path, args=ocp.args.PyTreeRestore(restore_args=args))
    leaves = jax.tree_util.tree_leaves_with_path(restored)
    return {jax.tree_util.keystr(keys): np.asarray(leaf) for keys, leaf in leaves}


def assert_same_state(left: dict, right: dict, *, least: int = 10) -> None:
    """Two states of more than `least` arrays are equal bit for bit."""
    assert left.keys() == right.keys() and len(left) > least
    for name in left:
        assert left[name].dtype == right[name].dtype
        assert left[name].tobytes() == right[name].tobytes(), name


def metric_lines(config: TrainConfig) -> list[dict]:
    """Lines of metrics.jsonl without the fields that tell time."""
    lines = (Path(config.model_dir) / "metrics.jsonl").read_text().splitlines()
    timed = (
        "tokens_per_s",
        "loss_tokens_per_s",
        "step_s",
        "mfu",
        "goodput",
        "seconds",
        "step_times",
    )
    rows = [{k: v for k, v in json.loads(line).items() if k not in timed} for line in lines]
    return [row for row in rows if len(row) > 1]


def layout_on(mesh: MeshConfig | None, model: LlamaConfig = MODEL):
    """A layout on all 8 devices in that mesh, or on one device."""
    if mesh is None:
        return layout_for(model, make_mesh(MeshConfig(fsdp=1), jax.devices()[:1]))
    return layout_for(model, make_mesh(mesh))


def plan_on(layout, optimizer, model: ModelConfig = MODEL, **changes) -> RunPlan:
    """A run of six steps with that layout and optimizer; changes as of `run_config`."""
    config = run_config(Path("unused"), model=model, **changes)
    return RunPlan(config, model, layout, optimizer, 6)


def batch_of(examples: list[list[Example]], length: int = LENGTH) -> dict[str, np.ndarray]:
    """Rows that hold these examples, one list a row."""
    names = ("tokens", "loss_mask", "segment_ids", "positions")
    batch = {name: np.zeros((len(examples), length), np.int32) for name in names}
    for row, group in enumerate(examples):
        start = 0
        for number, example in enumerate(group):
            place = (row, slice(start, start + len(example.tokens)))
            batch["tokens"][place] = example.tokens
            batch["loss_mask"][place] = example.loss_mask
            batch["segment_ids"][place] = number + 1
            batch["positions"][place] = np.arange(len(example.tokens))
            start += len(example.tokens)
    return batch


def two_a_row(rows: int = BATCH, seed: int = 0) -> dict[str, np.ndarray]:
    """A batch of two conversations a row, with very unequal numbers of loss tokens."""
    rng = np.random.default_rng(seed)
    groups = []
    for row in range(rows):
        group = []
        for part in range(2):
            prompt, answer = int(rng.integers(2, 5)), int(rng.integers(1, 3 + row % 8))
            tokens = np.concatenate([[1], rng.integers(3, 64, prompt + answer), [2]])
            mask = np.arange(len(tokens)) > prompt
            group.append(Example(f"{row}/{part}", tokens.astype(np.int32), mask))
        groups.append(group)
    return batch_of(groups)
