"""Advice by cause: a full disk, rights, other folders; and what is no damage is not called so."""

import errno
import os

import numpy as np
import pytest

from tulu_jax.checkpoint.arrays import CheckpointReader, save_params
from tulu_jax.checkpoint.hf.save import save
from tulu_jax.checkpoint.manager import Checkpoints
from tulu_jax.checkpoint.trouble import DamagedCheckpointError, how_to_write, unreadable
from tulu_jax.checkpoint.whole_folder import whole_folder
from tulu_jax.errors import CheckpointError, ConfigError

from .hf.small import CONFIG, random_params, write_folder
from .test_manager import state_of, target, write

ONE = {"w": np.ones((2, 2), np.float32)}


def failure(code):
    return OSError(code, os.strerror(code))


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (failure(errno.ENOSPC), "free some space, or choose another folder"),
        (ValueError("RESOURCE: write failed: No space left on device [x]"), "free some space, or"),
        (failure(errno.EACCES), "make it writable, or"),
        (failure(errno.EROFS), "choose a place that is not read-only, or"),
        (failure(errno.ENOTDIR), "move away the file that is in place of a folder, or"),
        (failure(errno.ENOENT), "see who takes folders away while they are written to, or"),
        (failure(errno.ELOOP), "take away the link that leads in a circle, or"),
        (failure(errno.EIO), "try again, or"),
        (ValueError("something else"), "try again, or"),
    ],
)
def test_advice_follows_the_cause(error, advice):
    assert how_to_write(error).startswith(advice)
    assert ("space" in how_to_write(error)) == ("space" in str(error))


@pytest.mark.parametrize(
    "error",
    [failure(errno.EACCES), failure(errno.EMFILE), MemoryError(),
     RuntimeError("RESOURCE_EXHAUSTED: 12 GB"), ValueError('"x": Permission denied [y]')],
)  # fmt: skip
def test_rights_and_memory_are_no_damage(tmp_path, monkeypatch, error):
    """A run would set a damaged checkpoint aside: not this one."""
    found = unreadable(tmp_path, error)
    assert not isinstance(found, DamagedCheckpointError)
    assert "nothing says that it is damaged" in str(found)
    write(tmp_path, [1])
    with Checkpoints(tmp_path, keep=1) as checkpoints:

        def fail(*_, **__):
            raise error

        monkeypatch.setattr(checkpoints._manager, "restore", fail)
        with pytest.raises(CheckpointError, match="cannot be restored now - got") as raised:
            checkpoints.restore(1, target())
    assert not isinstance(raised.value, DamagedCheckpointError)


@pytest.mark.parametrize("error", [failure(errno.ENOENT), failure(errno.EIO), ValueError("x")])
def test_other_failures_are_damage(tmp_path, error):
    assert isinstance(unreadable(tmp_path, error), DamagedCheckpointError)


def test_steps_up_in_a_path_are_no_damage(tmp_path):
    """TensorStore takes `..` for no path; users were sent away from good checkpoints."""
    (tmp_path / "here").mkdir()
    run = tmp_path / "here" / ".." / "run"
    save_params(run, ONE, {})
    np.testing.assert_array_equal(CheckpointReader(run).read(("w",)), ONE["w"])
    with Checkpoints(tmp_path / "here" / ".." / "other", keep=1) as checkpoints:
        checkpoints.save(state_of(3), {})
        checkpoints.wait()
        assert int(checkpoints.restore(3, target()).step) == 3


def test_home_and_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    save_params("~/run", ONE, {})
    assert (tmp_path / "run" / "checkpoints" / "0").is_dir()
    with pytest.raises(ConfigError, match="run folder names no file or folder - got ''"):
        save_params("", ONE, {})


def test_a_step_is_advised_only_if_there_is_one(tmp_path):
    write(tmp_path / "two", [1, 4])
    write(tmp_path / "one", [4])
    for run, advice in (("two", "use an older one, --step 1"), ("one", "there is no older one")):
        reader = CheckpointReader(tmp_path / run)
        with pytest.raises(CheckpointError, match=f"cannot be read .* damaged.*{advice}"):
            reader._reading(("w",), lambda _: int("x"))


def test_folders_that_are_no_runs_are_named(tmp_path):
    model = write_folder(tmp_path / "hf")
    save_params(tmp_path / "run", ONE, {})
    (tmp_path / "peft").mkdir()
    (tmp_path / "peft" / "adapter_config.json").touch()
    for path, message in (
        (model, "no complete checkpoint - got .* a Hugging Face folder: tulu import --hf"),
        (tmp_path / "peft", "an adapter of PEFT's: tulu adapter --peft"),
        (tmp_path / "none", r"no complete checkpoint - got no such folder at .*/none - expected"),
        (tmp_path / "run" / "checkpoints", r"give the run's folder: .*/run$"),
        (tmp_path / "run" / "checkpoints" / "0", r"give the run's folder: .*/run$"),
    ):
        with pytest.raises(CheckpointError, match=message):
            CheckpointReader(path)
    with pytest.raises(CheckpointError, match=r"of step=7 - got .* leave --step out, or take one"):
        CheckpointReader(tmp_path / "run", 7)


def test_a_model_s_folder_becomes_no_run(tmp_path):
    with pytest.raises(CheckpointError, match=r"holds a Hugging Face model already .* --model_dir"):
        save_params(write_folder(tmp_path / "hf"), ONE, {})


def test_outputs_that_are_files(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "x"):
        wanted = "output is a file, not a folder - at|move away the file that is in place of a fold"
        with pytest.raises(CheckpointError, match=wanted):
            save(path, CONFIG, random_params(CONFIG))
        with pytest.raises(CheckpointError, match=wanted), whole_folder(path):
            pass
    with pytest.raises(CheckpointError, match=r"not be written - got .* move away the file that"):
        save_params(tmp_path / "file", ONE, {})
