"""A run whose MODEL_DIR is in a bucket is the run that it would be in a folder."""

import json
import os
import shutil
import time

import pytest
from buckets import BOTH

from train.far_runs import fetched_state
from train.small import (
    MODEL,
    assert_same_state,
    final_state,
    metric_lines,
    random_params,
    run,
    run_config,
    small_store,
)
from tulu_jax.checkpoint import hf, lease
from tulu_jax.checkpoint.arrays import complete_steps
from tulu_jax.checkpoint.manager import Checkpoints
from tulu_jax.errors import CheckpointError
from tulu_jax.models.lora import LoraConfig
from tulu_jax.places import download, read_marked, upload
from tulu_jax.train.mirror import Mirror

pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning"),
    pytest.mark.usefixtures("collect_what_orbax_leaves"),
]

STEPS = 4
SMALL = {"epochs": None, "train_steps": STEPS, "checkpoint_period": 1, "keep_checkpoints": 2}


@pytest.fixture
def scratch(tmp_path, monkeypatch):
    monkeypatch.setenv("TULU_SCRATCH_DIR", str(tmp_path / "scratch"))
    monkeypatch.setattr(lease, "BEAT_S", 0.2)
    monkeypatch.setattr(lease, "WATCH_S", 1.0)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    yield tmp_path / "scratch"
    assert os.listdir(tmp_path / "here") == []


@pytest.fixture(scope="module")
def near(tmp_path_factory):
    """The run in a folder, and the store of all runs."""
    folder = tmp_path_factory.mktemp("near")
    small_store(folder / "store")
    with pytest.MonkeyPatch.context() as patch:
        run(patch, run_config(folder / "run", **SMALL))
    return folder


def far_config(near, place, **changes):
    return run_config(place, **SMALL | {"data_dir": str(near / "store")} | changes)


def assert_is_near(near, place, tmp_path):
    wanted = final_state(run_config(near / "run"), STEPS)
    assert_same_state(fetched_state(place, STEPS, tmp_path), wanted)
    for name in ("metrics.jsonl", "settings.gin", "goodput.json"):
        assert (place / name).is_file(), name
    lines = tmp_path / "lines"
    lines.mkdir(exist_ok=True)
    download(place / "metrics.jsonl", lines / "metrics.jsonl")
    assert metric_lines(run_config(lines)) == metric_lines(run_config(near / "run"))


@BOTH
def test_it_is_the_local_run_bit_for_bit(monkeypatch, bucket, near, scratch, tmp_path):
    place = bucket / "runs/a"
    _, printed = run(monkeypatch, far_config(near, place))
    assert complete_steps(str(place)) == [3, 4]
    assert_is_near(near, place, tmp_path)
    assert "Done: step 4" in printed
    assert {child.name for child in place.iterdir()} >= {"checkpoints", "tensorboard", "tokenizer"}
    assert read_marked(place / ".owner").content is None
    shutil.rmtree(scratch)
    _, printed = run(monkeypatch, far_config(near, place))
    assert "Resuming from step 4" in printed
    assert_is_near(near, place, tmp_path)


def test_stopped_and_resumed_elsewhere_it_is_the_same(monkeypatch, bucket, near, scratch, tmp_path):
    place = bucket / "run"
    run(monkeypatch, far_config(near, place), stop_at=2)
    assert complete_steps(str(place))[-1] < STEPS
    shutil.rmtree(scratch)  # another machine
    _, printed = run(monkeypatch, far_config(near, place))
    assert "Resuming from step" in printed
    assert_is_near(near, place, tmp_path)


@BOTH
def test_a_step_without_its_commit_file_is_no_step(
    monkeypatch, bucket, near, scratch, storage, impatient
):
    place = bucket / "run"
    storage.fault(block=r"checkpoints/3/commit_success")
    with pytest.raises(CheckpointError, match="checkpoint cannot be written"):
        run(monkeypatch, far_config(near, place))
    storage.calm()
    assert 3 not in complete_steps(str(place)) and complete_steps(str(place))
    assert (place / "checkpoints/3").is_dir()
    _, printed = run(monkeypatch, far_config(near, place))
    assert "Resuming from step 2" in printed
    assert complete_steps(str(place)) == [3, 4]


def test_a_damaged_step_is_set_aside(monkeypatch, bucket, near, scratch, tmp_path):
    place = bucket / "run"
    run(monkeypatch, far_config(near, place))
    meta = place / "checkpoints/4/meta/metadata"
    meta.write_text(json.dumps({**json.loads(meta.read_text()), "total_steps": 5}))
    _, printed = run(monkeypatch, far_config(near, place))
    assert "damaged-4" in printed and "Resuming from step 3" in printed
    assert (place / "checkpoints/damaged-4").is_dir()
    assert_is_near(near, place, tmp_path)


def test_a_storage_that_is_gone_ends_the_run_and_it_goes_on_later(
    monkeypatch, bucket, near, scratch, storage, impatient, tmp_path
):
    place = bucket / "run"
    saved = Checkpoints.save

    def save(self, state, meta):
        if int(state.step) == 3:
            self.wait()
            storage.fault(p503=1)
        saved(self, state, meta)

    monkeypatch.setattr(Checkpoints, "save", save)
    words = r"checkpoint cannot be written .* the last complete checkpoint is untouched: step 2"
    with pytest.raises(CheckpointError, match=words):
        run(monkeypatch, far_config(near, place))
    storage.calm()
    monkeypatch.setattr(Checkpoints, "save", saved)
    _, printed = run(monkeypatch, far_config(near, place))
    assert "Resuming from step" in printed
    assert_is_near(near, place, tmp_path)


@BOTH
@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("p401", r"nobody is logged in to .* the last complete checkpoint is untouched: step"),
        ("p403", r"no permission to .* the last complete checkpoint is untouched: step"),
        ("p404", r"no such bucket .* the last complete checkpoint went with it: step"),
    ],
)
def test_a_right_or_bucket_that_is_lost_on_the_way_is_named(
    monkeypatch, bucket, near, scratch, storage, impatient, tmp_path, fault, words
):
    monkeypatch.setattr(lease, "BEAT_S", 60.0)  # else it may be the lease that sees it first
    place, sent = bucket / "run", Mirror.send

    def send(self):
        if complete_steps(str(place)):
            time.sleep(1)  # a save that has begun is done then
            storage.fault(**{fault: 1})
        sent(self)

    monkeypatch.setattr(Mirror, "send", send)
    with pytest.raises(CheckpointError, match=f"cannot be written - got {words}") as error:
        run(monkeypatch, far_config(near, place))
    storage.calm()
    whole = complete_steps(str(place))
    assert int(str(error.value).rpartition(" ")[2]) in whole
    monkeypatch.setattr(Mirror, "send", sent)
    _, printed = run(monkeypatch, far_config(near, place))
    assert f"Resuming from step {whole[-1]}" in printed
    assert_is_near(near, place, tmp_path)


def test_a_bucket_that_goes_within_a_save_ends_the_process(
    forks, storage, bucket, tmp_path, monkeypatch
):
    """TensorStore would try to write to it for ever."""
    small_store(tmp_path / "store")
    options = {"epochs": None, "train_steps": 400, "heldout_examples": 0, "toy": True,
               "checkpoint_period": 1, "data_dir": str(tmp_path / "store")}  # fmt: skip
    environment = storage.environment() | {"TULU_SCRATCH_DIR": str(tmp_path / "scratch")}
    child = forks.start(bucket / "run", options, **environment)
    assert child.wait_for("step 2  checkpoint"), child.output
    storage.fault(p404=1)
    assert child.ended(60), child.output[-3000:]
    storage.calm()
    assert child.status not in (0, None) and "went with it" in child.output


def test_adapters_are_trained_beside_a_base_in_the_bucket(
    monkeypatch, bucket, near, scratch, tmp_path
):
    hf.save(tmp_path / "base", MODEL, random_params())
    for file in (tmp_path / "base").iterdir():
        upload(file, bucket / "base" / file.name)
    lora = {"lora": LoraConfig(rank=2, alpha=4, dropout=0.0), "model": None}
    place, local = bucket / "run", tmp_path / "near" / "run"
    far = far_config(near, place, initial_checkpoint=f"{bucket}/base", **lora)
    run(monkeypatch, far)
    config = far_config(near, local, initial_checkpoint=str(tmp_path / "base"), **lora)
    run(monkeypatch, config)
    assert_same_state(
        fetched_state(place, STEPS, tmp_path), final_state(run_config(local), STEPS), least=3
    )


def test_programs_are_compiled_once_for_all_hosts(forks, storage, bucket, tmp_path):
    small_store(tmp_path / "store")
    options = {"epochs": None, "train_steps": 1, "heldout_examples": 0, "toy": True}
    environment = storage.environment() | {"TULU_CACHE_DIR": f"{bucket}/programs"}
    first = forks.start(tmp_path / "first", options, **environment).result()
    kept = (bucket / "programs").files()
    assert kept and "CACHE HITS 0" in first
    second = forks.start(tmp_path / "second", options, **environment).result()
    assert (bucket / "programs").files().keys() == kept.keys()
    assert int(second.partition("CACHE HITS ")[2].split()[0]) > 0
