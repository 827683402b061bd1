"""A run whose MODEL_DIR is in a bucket is the run that it would be in a folder."""

import json
import os
import shutil
import signal

import numpy as np
import pytest

from train.small import (
    assert_same_state,
    final_state,
    metric_lines,
    run,
    run_config,
    small_store,
)
from tulu_jax.checkpoint import lease
from tulu_jax.checkpoint.arrays import COMMIT_FILE, complete_steps
from tulu_jax.checkpoint.manager import Checkpoints
from tulu_jax.errors import CheckpointError
from tulu_jax.places import as_place, download

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


def fetched_state(place, step, folder):
    """As `final_state`, of a checkpoint in a bucket, copied to a folder."""
    source = as_place(str(place)) / "checkpoints" / str(step)
    target = folder / "copy" / "checkpoints" / str(step)
    shutil.rmtree(folder / "copy", ignore_errors=True)
    for name in source.files():
        download(source / name, target / name)
    return final_state(run_config(folder / "copy"), step)


def assert_is_near(near, place, tmp_path):
    wanted = final_state(run_config(near / "run"), STEPS)
    assert_same_state(fetched_state(place, STEPS, tmp_path), wanted)
    for name in ("metrics.jsonl", "settings.gin", "goodput.json"):
        assert (place / name).is_file(), name
    lines = tmp_path / "lines"
    lines.mkdir(exist_ok=True)
    download(place / "metrics.jsonl", lines / "metrics.jsonl")
    assert metric_lines(run_config(lines)) == metric_lines(run_config(near / "run"))


def test_it_is_the_local_run_bit_for_bit(monkeypatch, bucket, near, scratch, tmp_path):
    place = bucket / "runs/a"
    _, printed = run(monkeypatch, far_config(near, place))
    assert complete_steps(str(place)) == [3, 4]
    assert_is_near(near, place, tmp_path)
    assert "Done: step 4" in printed
    assert {child.name for child in place.iterdir()} >= {"checkpoints", "tensorboard", "tokenizer"}
    assert not (place / ".owner").exists()
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


TOY = {"epochs": None, "train_steps": 8, "checkpoint_period": 1, "heldout_examples": 0,
       "keep_checkpoints": 3, "toy": True, "peer_timeout_s": 10.0}  # fmt: skip
KILLS = 4
MOMENTS = ("First step done", "step {}  checkpoint", "RESTORING", "step {}  checkpoint")


@pytest.fixture(scope="module")
def toy(forks, tmp_path_factory):
    """A run of a model that remembers every batch in its order, in a folder."""
    folder = tmp_path_factory.mktemp("toy")
    small_store(folder / "store")
    assert "RESULT 8 True" in forks.start(folder / "run", TOY).result()
    return folder


class Hosts:
    """Runs in processes of their own, each with its own home, scratch folder and store."""

    def __init__(self, forks, storage, place, toy, folder):
        self.forks, self.storage, self.place = forks, storage, place
        self.toy, self.folder, self.children = toy, folder, []

    def start(self, *cluster):
        """A process on a machine where nothing of the run is."""
        home = self.folder / f"host{len(self.children)}"
        shutil.copytree(self.toy / "store", home / "store")
        environment = {"HOME": home, "TULU_SCRATCH_DIR": home / "scratch"}
        options = TOY | {"data_dir": str(home / "store")}
        child = self.forks.start(
            self.place, options, *cluster, **self.storage.environment(), **environment
        )
        self.children.append(child)
        return child

    def close(self):
        """Leaves no process and no connection, also where a test has failed."""
        for child in self.children:
            child.kill()
            child.ended(60)

    def newest(self):
        return (complete_steps(str(self.place)) or [0])[-1]

    def assert_is_the_toy(self):
        wanted = final_state(run_config(self.toy / "run"), 8)
        assert_same_state(fetched_state(self.place, 8, self.folder), wanted, least=3)
        download(self.place / "metrics.jsonl", self.folder / "lines" / "metrics.jsonl")
        found = metric_lines(run_config(self.folder / "lines"))
        assert found == metric_lines(run_config(self.toy / "run"))
        steps = [s.name for s in (self.place / "checkpoints").iterdir() if s.name.isdecimal()]
        assert all((self.place / "checkpoints" / s / COMMIT_FILE).is_file() for s in steps)


@pytest.fixture
def hosts(forks, storage, bucket, toy, tmp_path):
    hosts = Hosts(forks, storage, bucket / "run", toy, tmp_path)
    yield hosts
    hosts.close()


@pytest.mark.slow
@pytest.mark.timeout(900)  # 140 s on two idle cores
def test_killed_again_and_again_under_faults_it_is_the_same(hosts, storage):
    """At moments of starts, saves, mirrors and restores; every time on an empty machine."""
    rng = np.random.default_rng(0)
    storage.fault(p503=0.03, preset=0.02, pdrop=0.02, pcut=0.02, latency_ms=5, seed=1)
    killed, child = 0, hosts.start()
    while killed < KILLS:
        newest = hosts.newest()
        moment = MOMENTS[killed % len(MOMENTS)] if newest else MOMENTS[killed % 2]
        if not child.wait_for(moment.format(min(newest + 2, 8))):
            break  # it came to its end first
        child.ended(float(rng.uniform(0, 0.3)))
        child.kill(signal.SIGKILL)
        assert child.ended(60)
        killed += 1
        assert hosts.newest() >= newest
        child = hosts.start()
    assert killed >= 3
    assert "RESULT 8 True" in child.result()
    storage.calm()
    hosts.assert_is_the_toy()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_processes_without_a_common_folder_go_on_with_another_number(hosts, free_port):
    port = free_port()
    pair = [hosts.start(port, each, 2, 1) for each in range(2)]
    assert pair[0].wait_for("step 3  checkpoint"), [each.output[-3000:] for each in pair]
    pair[1].kill(signal.SIGKILL)
    assert pair[1].ended(60) and pair[0].ended(60)
    assert hosts.newest() >= 2
    assert "RESULT 8 True" in hosts.start().result()
    hosts.assert_is_the_toy()
