"""Checkpoints of a run: what is saved, what is found, and what happens to damaged ones."""

import dataclasses
import os
import shutil
import subprocess
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from train.small import MODEL, layout_on, random_params

from tulu_jax.checkpoint.arrays import CheckpointReader, save_params
from tulu_jax.checkpoint.manager import (
    FINGERPRINTS,
    SEAL,
    Checkpoints,
    is_run,
    restore_params,
)
from tulu_jax.checkpoint.trouble import DamagedCheckpointError
from tulu_jax.errors import CheckpointError

# Orbax leaves coroutines and its event loop behind when a restore or a save fails.
pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning"),
    pytest.mark.usefixtures("collect_what_orbax_leaves"),
]


SEALS = {SEAL, FINGERPRINTS}


class State(NamedTuple):
    step: Any
    params: Any


def state_of(step, size=1000):
    values = np.random.default_rng(step).normal(size=size).astype(np.float32)
    return State(jnp.int32(step), {"a": jnp.asarray(values), "b": {"c": jnp.ones((2, 3)) * step}})


def target(size=1000):
    one = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=one), state_of(0, size)
    )


def write(run, steps, **options):
    with Checkpoints(run, keep=10) as checkpoints:
        for step in steps:
            checkpoints.save(state_of(step, **options), {"note": f"step {step}"})


def assert_is(state, step):
    for left, right in zip(jax.tree.leaves(state), jax.tree.leaves(state_of(step)), strict=True):
        assert np.array_equal(left, right) and left.dtype == right.dtype


def data_files(folder):
    """Files that hold arrays, largest first."""
    files = [path for path in (folder / "state").rglob("*") if path.is_file() and "d" in path.parts]
    return sorted(files, key=lambda path: -path.stat().st_size)


def test_round_trip(tmp_path):
    write(tmp_path, [3, 7])
    with Checkpoints(tmp_path, keep=10) as checkpoints:
        assert checkpoints.latest() == 7 and checkpoints.oldest() == 3
        assert checkpoints.set_aside_at_start == []
        for step in (3, 7):
            meta = checkpoints.meta(step)
            assert meta["note"] == f"step {step}" and meta.keys() == {"note", *SEALS}
            restored = checkpoints.restore(step, target())
            assert isinstance(restored, State)
            assert_is(restored, step)


def test_nothing_there(tmp_path):
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        assert checkpoints.latest() is None and checkpoints.oldest() is None


def test_only_the_newest_are_kept(tmp_path):
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        for step in range(5):
            checkpoints.save(state_of(step), {})
        checkpoints.wait()
        assert (checkpoints.oldest(), checkpoints.latest()) == (3, 4)


def test_steps_after_a_save_do_not_change_what_is_saved(tmp_path):
    """The state is donated to the next step while the save still runs in the background."""
    advance = jax.jit(
        lambda state: State(state.step + 1, jax.tree.map(lambda x: x * 2, state.params)),
        donate_argnums=0,
    )
    state = state_of(1, size=2_000_000)
    wanted = np.array(state.params["a"])
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        checkpoints.save(state, {})
        for _ in range(5):
            state = advance(state)
        jax.block_until_ready(state)
        checkpoints.wait()
        assert np.array_equal(checkpoints.restore(1, target(2_000_000)).params["a"], wanted)


@pytest.mark.parametrize("lost", ["_CHECKPOINT_METADATA", "state/manifest.ocdbt", "meta/metadata"])
def test_half_written_checkpoint_is_set_aside(tmp_path, lost):
    write(tmp_path, [1, 2])
    (tmp_path / "checkpoints" / "2" / lost).unlink()
    with Checkpoints(tmp_path, keep=10) as checkpoints:
        assert checkpoints.latest() == 1
        assert checkpoints.set_aside_at_start == [tmp_path / "checkpoints" / "damaged-2"]
        checkpoints.save(state_of(2), {"note": "again"})
        checkpoints.wait()
        assert checkpoints.latest() == 2
        assert_is(checkpoints.restore(2, target()), 2)
    assert (tmp_path / "checkpoints" / "damaged-2").is_dir()


def test_half_deleted_checkpoint_is_deleted(tmp_path):
    """Killed while the oldest of more than `keep` went; what is within `keep` is damage."""
    write(tmp_path, [1, 2, 3, 4])
    folder = tmp_path / "checkpoints"
    for step in (1, 3):
        (folder / str(step) / "_CHECKPOINT_METADATA").unlink()
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        assert checkpoints.set_aside_at_start == [folder / "damaged-3"]
    assert sorted(path.name for path in folder.iterdir()) == ["2", "4", "damaged-3"]


def test_killed_save_leaves_nothing_that_is_found(tmp_path):
    write(tmp_path, [1])
    left = tmp_path / "checkpoints" / "2.orbax-checkpoint-tmp"
    (left / "state").mkdir(parents=True)
    with Checkpoints(tmp_path, keep=10) as checkpoints:
        assert checkpoints.latest() == 1
        checkpoints.save(state_of(2), {})
        checkpoints.wait()
        assert checkpoints.latest() == 2


def test_truncated_arrays_are_noticed_and_can_be_set_aside(tmp_path):
    write(tmp_path, [1, 2])
    for path in data_files(tmp_path / "checkpoints" / "2"):
        os.truncate(path, path.stat().st_size // 2)
    with Checkpoints(tmp_path, keep=10) as checkpoints:
        assert checkpoints.latest() == 2
        with pytest.raises(
            DamagedCheckpointError, match=r"checkpoint cannot be restored - got .* at .*/2 - "
            r"expected all arrays of this model .* move this one's folder away"
        ):  # fmt: skip
            checkpoints.restore(2, target())
        checkpoints.set_aside(2)
        assert checkpoints.latest() == 1
        assert_is(checkpoints.restore(1, target()), 1)
        checkpoints.save(state_of(2), {})
        checkpoints.wait()
        assert_is(checkpoints.restore(2, target()), 2)


def test_a_step_under_another_name_is_refused(tmp_path):
    """Exports and answers took a copy of step 1 called 2 for step 2."""
    layout = layout_on(None)
    params = jax.tree.map(jnp.asarray, random_params())
    with Checkpoints(tmp_path, keep=9) as checkpoints:
        checkpoints.save(State(jnp.int32(1), params), {"model": dataclasses.asdict(MODEL)})
    shutil.copytree(tmp_path / "checkpoints" / "1", tmp_path / "checkpoints" / "2")
    said = r"of another step than its folder says - got step 1 in a folder 2 at .*/2 - expected a"
    for step in (2, None):
        with pytest.raises(DamagedCheckpointError, match=said):
            CheckpointReader(tmp_path, step)
    assert CheckpointReader(tmp_path, 1).step == 1
    with pytest.raises(DamagedCheckpointError, match=said):
        restore_params(tmp_path, MODEL, layout)
    (tmp_path / "checkpoints" / "2").rename(tmp_path / "checkpoints" / "0")
    assert CheckpointReader(tmp_path).step == 1
    with pytest.raises(DamagedCheckpointError, match="got step 1 in a folder 0"):
        CheckpointReader(tmp_path, 0)


def test_an_import_under_another_name_is_refused(tmp_path):
    save_params(tmp_path, random_params(), {"model": dataclasses.asdict(MODEL), "step": 0})
    (tmp_path / "checkpoints" / "0").rename(tmp_path / "checkpoints" / "7")
    with pytest.raises(DamagedCheckpointError, match="got step 0 in a folder 7"):
        CheckpointReader(tmp_path)


def test_unreadable_meta_is_damage(tmp_path):
    write(tmp_path, [1])
    (tmp_path / "checkpoints" / "1" / "meta" / "metadata").write_text("{")
    with (
        Checkpoints(tmp_path, keep=1) as checkpoints,
        pytest.raises(DamagedCheckpointError, match="metadata is not a JSON object"),
    ):
        checkpoints.meta(1)


def test_setting_aside_twice_loses_nothing(tmp_path):
    write(tmp_path, [1, 2])
    with Checkpoints(tmp_path, keep=10) as checkpoints:
        checkpoints.set_aside(2)
        checkpoints.save(state_of(2), {})
        checkpoints.wait()
        assert checkpoints.set_aside(2).name == "damaged-2-2"
    assert {"1", "damaged-2", "damaged-2-2"} <= {
        p.name for p in (tmp_path / "checkpoints").iterdir()
    }


@pytest.mark.parametrize("size", [999, 1001])
def test_wrong_shape_is_refused(tmp_path, size):
    write(tmp_path, [1])
    with (
        Checkpoints(tmp_path, keep=1) as checkpoints,
        pytest.raises(CheckpointError, match=r"checkpoint cannot be restored"),
    ):
        checkpoints.restore(1, target(size))


def test_missing_array_is_refused(tmp_path):
    write(tmp_path, [1])
    wanted = target()
    wanted.params["new"] = wanted.params["a"]
    with (
        Checkpoints(tmp_path, keep=1) as checkpoints,
        pytest.raises(CheckpointError, match=r"checkpoint cannot be restored"),
    ):
        checkpoints.restore(1, wanted)


def test_save_below_a_later_step_is_not_silently_skipped(tmp_path):
    with Checkpoints(tmp_path, keep=10) as checkpoints:
        checkpoints.save(state_of(5), {})
        with pytest.raises(
            CheckpointError, match=r"was not written - got step 4, though later steps"
        ):
            checkpoints.save(state_of(4), {})


def test_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "checkpoints").write_text("a file")
    with pytest.raises(
        CheckpointError, match=r"checkpoint cannot be written - got .* at .*checkpoints - expected "
        r"a writable folder .* set another MODEL_DIR"
    ):  # fmt: skip
        Checkpoints(tmp_path, keep=1)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 3 MB, where the tests may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("may not mount a file system here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_full_disk_leaves_the_older_checkpoint(small_disk):
    write(small_disk, [1], size=250_000)
    with (
        pytest.raises(
            CheckpointError,
            match=r"checkpoint cannot be written - got .* at .* free some space, or",
        ),
        Checkpoints(small_disk, keep=10) as checkpoints,
    ):
        for step in range(2, 6):
            checkpoints.save(state_of(step, size=250_000), {})
        checkpoints.wait()
    with Checkpoints(small_disk, keep=10) as checkpoints:
        latest = checkpoints.latest()
        assert 1 <= latest < 5
        restored = checkpoints.restore(latest, target(250_000))
        assert np.array_equal(restored.params["a"], state_of(latest, 250_000).params["a"])


def test_weights_alone(tmp_path):
    layout = layout_on(None)
    params = jax.tree.map(jnp.asarray, random_params())
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        checkpoints.save(State(jnp.int32(4), params), {"model": dataclasses.asdict(MODEL)})
    assert is_run(tmp_path) and not is_run(tmp_path / "checkpoints")
    assert CheckpointReader(tmp_path).config == MODEL
    restored = restore_params(tmp_path, MODEL, layout)
    for left, right in zip(jax.tree.leaves(restored), jax.tree.leaves(params), strict=True):
        assert np.array_equal(left, right)
    with pytest.raises(CheckpointError, match="checkpoint cannot be restored"):
        restore_params(tmp_path, dataclasses.replace(MODEL, d_ff=96), layout)


def test_checkpoint_that_names_no_model(tmp_path):
    write(tmp_path, [1])
    with pytest.raises(
        CheckpointError,
        match=r"checkpoint does not say which model it is of - got 'model' at .*meta",
    ):
        _ = CheckpointReader(tmp_path).config


def test_no_checkpoint_to_take_a_model_from(tmp_path):
    with pytest.raises(CheckpointError, match="no complete checkpoint"):
        CheckpointReader(tmp_path)
