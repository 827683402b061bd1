"""Runs, stores and exports in a bucket whose processes are killed at any request.

Every time on an empty machine, and under faults of the network. `TULU_KILLS` says how many: half of
them of runs, the others of the publishing of stores and of exports.
"""

import json
import os
import shutil
import signal

import numpy as np
import pytest
from buckets import BOTH, free_port
from thorough import THOROUGH

from train import far_jobs
from train.far_runs import fetched, fetched_state
from train.small import (
    assert_same_state,
    final_state,
    metric_lines,
    run_config,
    small_store,
)
from tulu_jax.checkpoint import hf
from tulu_jax.checkpoint.arrays import COMMIT_FILE, complete_steps
from tulu_jax.checkpoint.whole_folder import MARKER
from tulu_jax.data.store import open_store
from tulu_jax.errors import CheckpointError
from tulu_jax.places import download

KILLS = int(os.environ.get("TULU_KILLS", "4"))
FAULTS = {"p503": 0.05, "preset": 0.02, "pdrop": 0.02, "pcut": 0.02, "latency_ms": 30, "seed": 1}
TOY = {"epochs": None, "train_steps": 8, "checkpoint_period": 1, "heldout_examples": 0,
       "keep_checkpoints": 3, "toy": True, "peer_timeout_s": 20.0}  # fmt: skip


@pytest.fixture(scope="module")
def toy(forks, tmp_path_factory):
    """A run of a model that remembers every batch in its order, in a folder."""
    folder = tmp_path_factory.mktemp("toy")
    small_store(folder / "store")
    assert "RESULT 8 True" in forks.start(folder / "run", TOY).result()
    return folder


class Machines:
    """Starts processes, each on a machine of its own, where nothing lies but the toy's store."""

    def __init__(self, forks, storage, toy, folder):
        self.forks, self.storage, self.toy, self.folder = forks, storage, toy, folder
        self.children = []

    def start(self, place, options, *cluster):
        home = self.folder / f"host{len(self.children)}"
        shutil.copytree(self.toy / "store", home / "store")
        environment = {"HOME": home, "TULU_SCRATCH_DIR": home / "s", "TULU_FETCHED_DIR": home / "f"}
        options = options | {"hurry": True}
        if "toy" in options:
            options |= {"data_dir": str(home / "store")}
        environment |= self.storage.environment()
        self.children.append(self.forks.start(place, options, *cluster, **environment))
        return self.children[-1]

    def close(self):
        """Leaves no process and no connection, also where a test has failed."""
        for child in self.children:
            child.kill()
            child.ended(60)


@pytest.fixture
def machines(forks, storage, bucket, toy, tmp_path):
    machines = Machines(forks, storage, toy, tmp_path)
    yield machines
    machines.close()


class Run:
    """A training run."""

    requests = 400
    """About as many are made from its start, or while it goes on for some steps."""

    def __init__(self, place, toy, folder):
        self.place, self.toy, self.folder, self.options = place, toy, folder, TOY
        self.newest = 0

    def look_after_kill(self):
        steps = complete_steps(str(self.place))
        assert (steps or [0])[-1] >= self.newest
        self.newest = (steps or [0])[-1]

    def look_at_end(self):
        wanted = final_state(run_config(self.toy / "run"), 8)
        assert_same_state(fetched_state(self.place, 8, self.folder), wanted, least=3)
        (self.folder / "lines").mkdir(exist_ok=True)
        download(self.place / "metrics.jsonl", self.folder / "lines" / "metrics.jsonl")
        found = metric_lines(run_config(self.folder / "lines"))
        assert found == metric_lines(run_config(self.toy / "run"))
        names = (self.place / "checkpoints").files()  # SeaweedFS lists empty folders, too
        steps = {name.partition("/")[0] for name in names if name[0].isdecimal()}
        assert steps and all(f"{step}/{COMMIT_FILE}" in names for step in steps)


class Store:
    """A store that is published."""

    requests = 12

    def __init__(self, place, toy, folder):
        self.place, self.options, self.folder = place, {"far_job": "publish"}, folder
        self.near = far_jobs.publish(folder / "near", {})

    def stored(self):
        names = [name for name in self.place.files() if name.endswith("meta.json")]
        assert len(names) < 2
        return [self.place / name.removesuffix("/meta.json") for name in names]

    def look_after_kill(self):
        for place in self.stored():  # with its meta.json it is whole
            open_store(fetched(place, self.folder / "store"), verify=True)

    def look_at_end(self):
        (place,) = self.stored()
        found = fetched(place, self.folder / "store")
        for name in self.near.meta["files"]:
            assert (found / name).read_bytes() == (self.near.path / name).read_bytes()
        assert json.loads((place / "meta.json").read_text())["files"] == self.near.meta["files"]


class Export:
    """A model that is exported."""

    requests = 40

    def __init__(self, place, toy, folder):
        self.place, self.folder = place, folder
        run = small_run(folder / "imported")
        self.options = {"far_job": "export", "run": str(run)}
        far_jobs.export(folder / "near", self.options)

    def look_after_kill(self):
        names = set(self.place.files())
        whole = "config.json" in names and MARKER not in names  # killed after its last request
        if names and not whole:
            with pytest.raises(CheckpointError, match="is not complete"):
                hf.open_folder(self.place)

    def look_at_end(self):
        near = {path.name: path.read_bytes() for path in (self.folder / "near").iterdir()}
        found = {path.name: path.read_bytes() for path in self.place.iterdir()}
        assert found == near and len(near) > 6


def small_run(folder):
    """A run that was imported from a small model."""
    from cli.small_model import tulu, write_model

    tulu("import", "--hf", write_model(folder / "hf"), "--model_dir", folder / "run")
    return folder / "run"


@BOTH
@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("kind", "share"), [(Run, 0.5), (Store, 0.25), (Export, 0.25)])
def test_killed_at_any_request_it_is_the_same(
    kind, share, machines, storage, bucket, toy, tmp_path, capsys
):
    rng, kills, rounds = np.random.default_rng(5), 0, 0
    wanted = max(1, round(KILLS * share))
    while kills < wanted:
        rounds += 1
        folder = tmp_path / f"round{rounds}"
        folder.mkdir()
        job = kind(bucket / f"round{rounds}", toy, folder)
        done = False
        while not done:
            child = machines.start(job.place, job.options)
            at = int(rng.integers(1, kind.requests))
            storage.fault(**FAULTS, **({"kill": child.pid, "at": at} if kills < wanted else {}))
            assert child.ended(300), child.output[-3000:]
            done = child.status == 0
            storage.calm()
            if not done:
                assert child.status == -signal.SIGKILL, child.output[-3000:]
                kills += 1
                job.look_after_kill()
        job.look_at_end()
    with capsys.disabled():
        if "TULU_KILLS" in os.environ:
            print(f"\n{kind.__name__} in {bucket.scheme}://: {kills} kills, {rounds} rounds")


@BOTH
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_processes_without_a_common_folder_go_on_as_fewer(machines, bucket, toy, tmp_path):
    """Two, then one; or four, two, one: four processes of JAX on two busy cores take minutes."""
    run = Run(bucket / "run", toy, tmp_path)
    for count, step in ((4, 3), (2, 5)) if THOROUGH else ((2, 4),):
        port = free_port()
        children = [machines.start(run.place, TOY, port, each, count, 1) for each in range(count)]
        came = children[0].wait_for(f"step {step}  checkpoint")
        assert came, "\n\n".join(each.output for each in children)
        children[-1].kill(signal.SIGKILL)
        assert all(each.ended(120) for each in children)
        run.look_after_kill()
        assert run.newest >= step - 1
    assert "RESULT 8 True" in machines.start(run.place, TOY).result()
    run.look_at_end()
