"""What a run refuses, and what it survives: signals, kills, damage, other hosts."""

import dataclasses
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest

from train import small
from train.small import (
    MODEL,
    TOKENIZER,
    assert_same_state,
    final_state,
    metric_lines,
    run,
    run_config,
    small_store,
)
from tulu_jax.data.store import write_store
from tulu_jax.errors import CheckpointError, ConfigError, GuardError
from tulu_jax.train import setup
from tulu_jax.train.config import OptimizerConfig

COMMON = {"epochs": None, "train_steps": 4, "checkpoint_period": 2, "heldout_examples": 0}


# Orbax leaves coroutines and its event loop behind when a restore or a save fails.
pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning"),
    pytest.mark.usefixtures("collect_what_orbax_leaves"),
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of four steps with checkpoints 2 and 4."""
    config = run_config(tmp_path_factory.mktemp("faults") / "run", **COMMON)
    with pytest.MonkeyPatch.context() as patch:
        run(patch, config)
    return config


@pytest.fixture
def copy(finished, tmp_path):
    """A run of its own to spoil."""
    shutil.copytree(Path(finished.model_dir).parent, tmp_path / "copy")
    folder = tmp_path / "copy" / "run"
    data = dataclasses.replace(finished.data, data_dir=str(tmp_path / "copy" / "store"))
    return dataclasses.replace(finished, model_dir=str(folder), data=data)


def refused(monkeypatch, config, message):
    with pytest.raises(CheckpointError, match=message):
        run(monkeypatch, config)


# ---- resuming what is another run ------------------------------------------------------------


def test_resume_with_another_model(monkeypatch, copy):
    model = dataclasses.replace(MODEL, norm_eps=1e-6)
    message = (
        r"checkpoint is of a run with another model - got {'norm_eps': 1e-06} now at .*/4 - "
        r"expected {'norm_eps': 1e-05}, as saved - restore the old settings, or start a new run"
    )
    refused(monkeypatch, dataclasses.replace(copy, model=model), message)
    assert (Path(copy.model_dir) / "settings.gin").read_text() == "x = 1\n"


def test_resume_with_another_tokenizer(monkeypatch, copy):
    other = small.Tokenizer(**{**vars(TOKENIZER), "fingerprint": "u" * 64})
    monkeypatch.setattr(small, "TOKENIZER", other)
    refused(monkeypatch, copy, r"checkpoint is of a run with another tokenizer - got uuu.* ttt")


def test_resume_with_other_data(monkeypatch, copy):
    shutil.rmtree(copy.data.data_dir)
    write_store(copy.data.data_dir, small.conversations(seed=9), meta=small.META)
    refused(monkeypatch, copy, r"checkpoint is of a run with another dataset - got {'tulu_small': ")


@pytest.mark.parametrize("changes", [{"batch_size": 16}, {"seed": 4}, {"packing": "padded"}])
def test_resume_with_other_rows(monkeypatch, copy, changes):
    ((name, value),) = changes.items()
    config = dataclasses.replace(copy, data=dataclasses.replace(copy.data, **changes))
    refused(monkeypatch, config, rf"another making of rows - got {{'{name}': '?{value}'?}} now")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_examples": {"tulu_small": 20}}, r"got {'max_examples': {'tulu_small': 20}, 'seeds'"),
        ({"schedule": "rates"}, r"got {'schedule': 'rates', 'rates': {'tulu_small': 60.0}, "),
    ],
)
def test_resume_with_another_choice_or_schedule(monkeypatch, copy, changes, message):
    config = dataclasses.replace(copy, data=dataclasses.replace(copy.data, **changes))
    refused(monkeypatch, config, "another making of rows - " + message)


def test_refused_resume_keeps_the_settings_of_the_run(monkeypatch, copy):
    settings = Path(copy.model_dir) / "settings.gin"
    settings.write_text("old\n")
    refused(
        monkeypatch,
        dataclasses.replace(copy, model=dataclasses.replace(MODEL, rope_theta=1e5)),
        "another model",
    )
    assert settings.read_text() == "old\n"


def test_a_changed_optimizer_is_said_aloud(monkeypatch, copy):
    config = dataclasses.replace(
        copy, train_steps=5, optimizer=OptimizerConfig(learning_rate=1e-4, clip_norm=None)
    )
    result, output = run(monkeypatch, config)
    assert result.step == 5
    assert "optimizer changed: {'learning_rate': 0.003" in output
    assert "total_steps changed: 4 when saved, 5 from now on" in output


def test_another_dtype_is_said_aloud(monkeypatch, copy):
    """It was not: a run in float32 went on in bfloat16 as if nothing were."""
    compute = dataclasses.replace(copy.compute, dtype="bfloat16")
    _, output = run(monkeypatch, dataclasses.replace(copy, train_steps=5, compute=compute))
    assert "dtype changed: float32 when saved, bfloat16 from now on" in output
    _, output = run(monkeypatch, dataclasses.replace(copy, train_steps=6, compute=compute))
    assert "dtype changed" not in output


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"seed": 7}, "seed changed: 0 when saved, 7 from now on"),
        ({"on_bad_step": "skip"}, "on_bad_step changed: stop when saved, skip from now on"),
        ({"bad_grad_norm": 5.0}, "bad_grad_norm changed: None when saved, 5.0 from now on"),
    ],
)
def test_other_settings_that_change_what_is_learnt_are_said_aloud(monkeypatch, copy, changes, said):
    _, output = run(monkeypatch, dataclasses.replace(copy, train_steps=5, **changes))
    assert said in output


def test_other_groups_of_the_papers_loss_are_said_aloud(monkeypatch, copy):
    paper = dataclasses.replace(copy, train_steps=5, loss_normalization="paper", paper_rows=4)
    _, output = run(monkeypatch, paper)
    assert "loss_normalization changed: token when saved, paper from now on" in output
    _, output = run(monkeypatch, dataclasses.replace(paper, train_steps=6, paper_rows=2))
    assert "paper_rows changed: 4 when saved, 2 from now on" in output


def test_a_checkpoint_that_does_not_say_how_it_was_trained_goes_on_quietly(
    monkeypatch, copy, tmp_path
):
    meta = setup.Run.meta

    def of_before(self):
        return {name: part for name, part in meta(self).items() if name not in setup.KEPT_LATER}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(setup.Run, "meta", of_before)
        begun = dataclasses.replace(copy, model_dir=str(tmp_path / "before"))
        run(patch, begun)
    _, output = run(monkeypatch, dataclasses.replace(begun, train_steps=6, seed=7))
    assert "seed changed" not in output and "total_steps changed: 4 when saved" in output


def test_a_run_that_goes_on_says_that_its_start_is_not_read(monkeypatch, copy, tmp_path):
    """It was silent, also of another model than the run began from."""
    first = copy.model_dir
    began = dataclasses.replace(copy, model_dir=str(tmp_path / "second"), initial_checkpoint=first)
    _, output = run(monkeypatch, began)
    assert f"Starting from the weights of {first}" in output and "is not read" not in output
    _, output = run(monkeypatch, dataclasses.replace(began, train_steps=5))
    assert "INITIAL_CHECKPOINT_PATH is not read: the run goes on with its own weights" in output
    other = str(tmp_path / "second")
    _, output = run(
        monkeypatch, dataclasses.replace(began, train_steps=6, initial_checkpoint=other)
    )
    said = f"INITIAL_CHECKPOINT_PATH does nothing here: {other}, though the run began from {first}"
    assert said in output
    _, output = run(monkeypatch, dataclasses.replace(copy, train_steps=5, initial_checkpoint=other))
    assert f"here: {other}, though the run began from fresh weights and goes on" in output


# ---- damage ----------------------------------------------------------------------------------


def test_a_step_copied_to_another_number_is_set_aside_aloud(monkeypatch, copy):
    checkpoints = Path(copy.model_dir) / "checkpoints"
    shutil.copytree(checkpoints / "2", checkpoints / "6")
    result, output = run(monkeypatch, dataclasses.replace(copy, train_steps=8))
    assert "of another step than its folder says - got step 2 in a folder 6" in output
    assert "Set aside as" in output and "Resuming from step 4" in output and result.step == 8


def truncate(folder):
    for path in (folder / "state").rglob("*"):
        if path.is_file() and "d" in path.relative_to(folder).parts:
            os.truncate(path, path.stat().st_size // 2)


def lose_marker(folder):
    (folder / "_CHECKPOINT_METADATA").unlink()


@pytest.mark.parametrize("damage", [truncate, lose_marker])
def test_damaged_checkpoint_gives_way_to_the_older_one(monkeypatch, finished, copy, damage):
    folder = Path(copy.model_dir) / "checkpoints"
    damage(folder / "4")
    result, output = run(monkeypatch, copy)
    assert result.step == 4 and "Resuming from step 2" in output
    assert "et aside as" in output and (folder / "damaged-4").is_dir()
    assert_same_state(final_state(copy, 4), final_state(finished, 4))


def test_all_checkpoints_damaged(monkeypatch, copy):
    folder = Path(copy.model_dir) / "checkpoints"
    shutil.rmtree(folder / "2")
    truncate(folder / "4")
    refused(
        monkeypatch, copy, r"checkpoint cannot be restored - got .* at .*/4 - expected all arrays"
    )
    assert (folder / "4").is_dir()


def test_checkpoint_of_another_shape_than_it_says(monkeypatch, tmp_path, copy):
    other = run_config(tmp_path / "other", **COMMON, model=dataclasses.replace(MODEL, d_ff=96))
    run(monkeypatch, other)
    folder = Path(copy.model_dir) / "checkpoints"
    shutil.rmtree(folder / "2")
    shutil.rmtree(folder / "4" / "state")
    shutil.copytree(Path(other.model_dir) / "checkpoints" / "4" / "state", folder / "4" / "state")
    refused(monkeypatch, copy, "checkpoint cannot be restored")


def test_folder_that_cannot_be_written(monkeypatch, tmp_path):
    (tmp_path / "run").write_text("a file")
    with pytest.raises(ConfigError, match=r"run folder cannot be written .* set another MODEL_DIR"):
        run(monkeypatch, run_config(tmp_path / "run"))


# ---- starting from weights -------------------------------------------------------------------


def test_initial_checkpoint_of_a_run_gives_weights_only(monkeypatch, tmp_path, copy):
    config = run_config(
        tmp_path / "next", **COMMON | {"train_steps": 5}, model=None,
        initial_checkpoint=copy.model_dir,
    )  # fmt: skip
    _, output = run(monkeypatch, config, stop_at=1)
    assert f"Starting from the weights of {copy.model_dir}" in output
    # The first step of the warm-up has rate 0: the weights are still those of the checkpoint.
    before, after = final_state(copy, 4), final_state(config, 1)
    names = [name for name in before if name.startswith("['params']")]
    assert len(names) == 12
    assert all(np.array_equal(before[name], after[name]) for name in names)


def test_initial_checkpoint_of_another_model(monkeypatch, tmp_path, copy):
    config = run_config(
        tmp_path / "next", **COMMON, model=dataclasses.replace(MODEL, d_ff=96),
        initial_checkpoint=copy.model_dir,
    )  # fmt: skip
    refused(monkeypatch, config, r"initial checkpoint is of another model - got .*d_ff=48.*d_ff=96")


# ---- NaN -------------------------------------------------------------------------------------


def test_nan_stops_naming_step_and_checkpoint(monkeypatch, copy):
    config = dataclasses.replace(copy, train_steps=8)
    start_state = setup.start_state

    def poisoned(*args):
        state = start_state(*args)
        scale = state.params["final_norm"]["scale"]
        state.params["final_norm"]["scale"] = scale.at[3].set(np.nan)
        return state

    with monkeypatch.context() as patch:
        patch.setattr(setup, "start_state", poisoned)
        with pytest.raises(
            GuardError, match=r"loss is not finite - got nan at step 5 - expected a finite "
            r"number - last good checkpoint: 4; lower LEARNING_RATE"
        ):  # fmt: skip
            run(patch, config)
    assert not (Path(copy.model_dir) / "checkpoints" / "5").exists()
    result, _ = run(monkeypatch, config)
    assert result.finished


# ---- steps that would spoil the weights ------------------------------------------------------


SKIP = {"on_bad_step": "skip", "bad_grad_norm": 1e-9, "bad_steps_limit": 2}


def test_skipped_steps_leave_the_weights_and_are_counted(monkeypatch, copy):
    """Every gradient is above the limit: nothing moves, and the third bad step ends the run."""
    before = final_state(copy, 4)
    config = dataclasses.replace(copy, train_steps=6, **SKIP)
    _, output = run(monkeypatch, config)
    assert "step 5 skipped, the weights are as before it: loss " in output
    assert "(2 of at most 2)" in output
    after = final_state(config, 6)
    assert all(np.array_equal(before[x], after[x]) for x in before if x != "['step']")
    assert [line.get("skipped") for line in metric_lines(config)][-2:] == [1, 1]
    with pytest.raises(
        GuardError, match=r"too many bad steps were skipped - got 3, the last with loss .* at step "
        r"7 - expected at most BAD_STEPS_LIMIT=2 - last checkpoint: 6; lower LEARNING_RATE"
    ):  # fmt: skip
        run(monkeypatch, dataclasses.replace(config, train_steps=8))


def test_a_gradient_above_the_limit_stops(monkeypatch, copy):
    config = dataclasses.replace(copy, train_steps=6, bad_grad_norm=1e-9)
    with pytest.raises(
        GuardError, match=r"gradient norm is above BAD_GRAD_NORM - got .* at step 5 - expected at "
        r"most 1e-09 - last good checkpoint: 4; .* skip such steps with ON_BAD_STEP='skip'"
    ):  # fmt: skip
        run(monkeypatch, config)


# ---- processes of their own ------------------------------------------------------------------


@pytest.mark.slow
def test_signals_and_a_kill_of_a_process(forks, tmp_path, monkeypatch):
    """SIGTERM, SIGINT, kill -9: the same command ends with the weights of a run that nothing
    happened to. `test_drill.py` kills more, with less of a model."""
    small_store(tmp_path / "store")
    options = {"epochs": None, "train_steps": 12, "checkpoint_period": 1, "heldout_examples": 0,
               "bare": True}  # fmt: skip
    for number, step in ((signal.SIGTERM, 2), (signal.SIGINT, 5)):
        child = forks.start(tmp_path / "run", options)
        assert child.wait_for(f"step {step}/12")
        child.kill(number)
        out = child.result()
        assert f"Stopped by {number.name}: saved step " in out and "the same command resumes" in out
        assert "s after the signal, within the grace of 30 s" in out
        assert out.splitlines()[-1].endswith(" False")
    child = forks.start(tmp_path / "run", options)
    assert child.wait_for("step 9  checkpoint")
    child.kill()
    assert child.ended(120) and child.status == -signal.SIGKILL
    out = forks.start(tmp_path / "run", options).result()
    assert "Resuming from step" in out and "RESULT 12 True" in out and "restart " in out
    del options["bare"]
    whole = run_config(tmp_path / "whole", **options)
    run(monkeypatch, whole)
    killed = run_config(tmp_path / "run", **options)
    assert_same_state(final_state(killed, 12), final_state(whole, 12))
    assert metric_lines(killed) == metric_lines(whole)


@pytest.mark.slow
def test_a_save_later_than_the_grace_is_said(forks, tmp_path):
    small_store(tmp_path / "store")
    options = {"epochs": None, "train_steps": 200, "checkpoint_period": 1000, "toy": True}
    child = forks.start(tmp_path / "run", options | {"grace_s": 0.001})
    assert child.wait_for("step 2/200")
    child.kill(signal.SIGTERM)
    out = child.result()
    assert "after SIGTERM the checkpoint is not complete: GRACE_SECONDS are over" in out
    assert "s after the signal, longer than the grace of 0.001 s" in out
    assert "Stopped by SIGTERM: saved step" in out


@pytest.mark.slow
def test_a_full_disk_ends_the_run_and_leaves_the_checkpoint_before(forks, tmp_path):
    """No file may grow beyond a few kilobytes: every save fails, as on a disk that is full."""
    small_store(tmp_path / "store")
    options = {"epochs": None, "train_steps": 4, "checkpoint_period": 2, "toy": True}
    assert "RESULT 4 True" in forks.start(tmp_path / "run", options).result()
    child = forks.start(tmp_path / "run", options | {"train_steps": 8, "file_size": 40_000})
    assert child.ended(120) and child.status == 1
    assert "refused: checkpoint cannot be written - got " in child.output
    assert "the last complete checkpoint is untouched" in child.output
    out = forks.start(tmp_path / "run", options | {"train_steps": 8}).result()
    assert "Resuming from step" in out and "RESULT 8 True" in out


@pytest.mark.slow
def test_sigterm_stops_all_processes_after_the_same_step(forks, tmp_path, free_port):
    small_store(tmp_path / "store")
    options = {"epochs": None, "train_steps": 5000, "checkpoint_period": 10**6, "toy": True,
               "heldout_examples": 0}  # fmt: skip
    port = free_port()
    pair = [forks.start(tmp_path / "run", options, port, each, 2, 1) for each in range(2)]
    assert pair[0].wait_for("step 20/5,000")
    pair[1].kill(signal.SIGTERM)
    results = [each.result().split("RESULT ")[1].split() for each in pair]
    assert results[0] == results[1] and results[0][1] == "False"
    assert "Stopped by SIGTERM: saved step" in pair[0].output


@pytest.mark.slow
def test_two_processes_train_and_hold_out_as_one(forks, tmp_path, monkeypatch, free_port):
    """Weights and more meshes: test_processes.py."""
    small_store(tmp_path / "store")
    options = {"epochs": None, "train_steps": 5, "eval_period": 5}
    port = free_port()
    hosts = [
        forks.start(tmp_path / "two", options | {"mesh": [2, 2, 1]}, port, i, 2, 2)
        for i in range(2)
    ]
    for child in hosts:
        assert "RESULT 5 True" in child.result()
    one = run_config(tmp_path / "one", **options)
    run(monkeypatch, one)
    two = metric_lines(run_config(tmp_path / "two"))
    for left, right in zip(two, metric_lines(one), strict=True):
        held_out = left.pop("heldout", {}), right.pop("heldout", {})
        assert held_out[0] == pytest.approx(held_out[1], rel=1e-5)
        assert left == pytest.approx(right, rel=1e-5)


@pytest.mark.slow
def test_two_processes_go_on_where_one_was(forks, tmp_path, free_port):
    """1 process of 1 device -> 2 of 2 devices -> 1 of 8: the same data and toy to the bit."""
    small_store(tmp_path / "store")
    options = {"epochs": None, "train_steps": 9, "checkpoint_period": 3, "heldout_examples": 0,
               "toy": True, "keep_checkpoints": 10}  # fmt: skip
    whole = forks.start(tmp_path / "whole", options)
    assert "RESULT 9 True" in whole.result()
    run_dir, port = tmp_path / "run", free_port()
    forks.start(run_dir, options | {"train_steps": 3}).result()
    pair = [
        forks.start(run_dir, options | {"train_steps": 6}, port, each, 2, 2) for each in range(2)
    ]
    assert all("RESULT 6 True" in each.result() for each in pair)
    assert "Resuming from step 6" in forks.start(run_dir, options, devices=8).result()
    names = {name: value for name, value in options.items() if name != "toy"}
    left, right = run_config(run_dir, **names), run_config(tmp_path / "whole", **names)
    assert_same_state(final_state(left, 9), final_state(right, 9), least=3)
    losses = [[x["loss"] for x in metric_lines(each)] for each in (left, right)]
    assert losses[0] == losses[1]
