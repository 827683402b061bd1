"""Runs of the loop: a run stopped and resumed is the run that was never stopped, bit for bit."""

import dataclasses
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from train.small import (
    MESHES,
    assert_same_state,
    final_state,
    metric_lines,
    run,
    run_config,
    training_data,
)
from tulu_jax.train import feed, loop, setup
from tulu_jax.train.terms import TERMS

STEPS = 10
EPOCH_END = 4.625
"""37 rows an epoch in batches of 8: the second epoch begins within the fifth batch."""


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """A run of two epochs that was never stopped, with a checkpoint of each step."""
    with pytest.MonkeyPatch.context() as patch:
        config = run_config(tmp_path_factory.mktemp("whole") / "run", checkpoint_period=1,
                            eval_period=5)  # fmt: skip
        result, output = run(patch, config, bare=False)
    return config, result, output


def copy_of(config, folder, *, step):
    """The run as it would lie there had it been killed after the checkpoint of `step`."""
    source = Path(config.model_dir)
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("tensorboard"))
    for child in (folder / "checkpoints").iterdir():
        if child.name.isdecimal() and int(child.name) > step:
            shutil.rmtree(child)
    return dataclasses.replace(config, model_dir=str(folder))


def test_a_run_ends_with_all_its_files(uninterrupted):
    config, result, output = uninterrupted
    assert result.step == STEPS and result.finished
    assert training_data(config.data).train.num_rows / config.data.batch_size == EPOCH_END
    folder = Path(config.model_dir)
    assert (folder / "settings.gin").read_text() == "x = 1\n"
    assert (folder / "loss.png").stat().st_size > 5_000
    assert any((folder / "tensorboard").iterdir())
    for part in (
        "small train",
        "Attention kernel: blockwise, the fastest on cpu",
        "Packing probe: packed and apart agree",
        "Devices:",
        "MFU = (6 x",
        "First step done",
        f"step {STEPS}/{STEPS}",
        "loss tok/s",
        "held-out loss: tulu_small",
        f"Done: step {STEPS}",
        "Step time over ",
        "Goodput ",
        " s in steps; the rest: ",
    ):
        assert part in output
    assert "compiled again" not in output
    assert result.heldout["tulu_small"] > 0


def test_metric_lines_say_everything(uninterrupted):
    config = uninterrupted[0]
    text = (Path(config.model_dir) / "metrics.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    steps = [line for line in lines if "loss" in line]
    assert [line["step"] for line in steps] == list(range(1, STEPS + 1))
    assert set(steps[-1]) == {
        "step", "loss", "grad_norm", "learning_rate", "tokens_per_s", "loss_tokens_per_s",
        "padding_share", "step_s", "mfu",
    }  # fmt: skip
    assert "step_s" not in steps[0]  # it waited for compilation
    assert [line["step"] for line in lines if "heldout" in line] == [0, 5, 10]


def test_the_last_line_accounts_for_the_time(uninterrupted):
    folder = Path(uninterrupted[0].model_dir)
    last = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
    assert set(last) == {"step", "goodput", "seconds", "step_times"}
    assert 0 < last["goodput"] < 1 and last["seconds"]["checkpoint"] > 0
    assert last["goodput"] == pytest.approx(
        last["seconds"]["steps"] / sum(last["seconds"].values())
    )
    # Neither the first step, which compiles, nor a step after a checkpoint waits for others.
    assert last["step_times"]["steps"] == STEPS - 1
    assert sum(last["step_times"]["counts"]) == STEPS - 1


def test_steps_are_traced_on_demand(tmp_path, monkeypatch):
    config = run_config(tmp_path / "run", epochs=None, train_steps=5, profile_steps=2,
                        heldout_examples=0, eval_period=2)  # fmt: skip
    _, output = run(monkeypatch, config)
    assert "No rows are held out: EVAL_PERIOD has no effect (HELDOUT_EXAMPLES sets some)." in output
    assert "Trace of 2 steps in " in output
    assert list((tmp_path / "run" / "profile").rglob("*.xplane.pb"))


def test_a_run_whose_loss_has_a_term_shows_it(tmp_path, monkeypatch):
    monkeypatch.setitem(TERMS, "counted", lambda b, t, weights, x, head: weights.sum())
    config = run_config(tmp_path / "run", epochs=None, train_steps=2, log_period=1,
                        heldout_examples=0, loss_terms={"counted": 0.5})  # fmt: skip
    _, output = run(monkeypatch, config, bare=False)
    assert "loss mean by token + 0.5 x counted; data seed" in output
    lines = [line for line in metric_lines(config) if "loss" in line]
    assert len(lines) == 2
    for line in lines:
        assert line["terms"] == {"counted": pytest.approx(1.0)}
        assert line["loss"] == pytest.approx(line["nll"] + 0.5)
        assert f"loss {line['loss']:.4f}  (nll {line['nll']:.4f}, counted 1.0000)" in output
    events = next((tmp_path / "run" / "tensorboard").iterdir()).read_bytes()
    assert b"terms/counted" in events and b"nll" in events


def test_loss_falls(uninterrupted):
    held_out = [
        x["heldout"]["tulu_small"] for x in metric_lines(uninterrupted[0]) if "heldout" in x
    ]
    assert held_out[-1] < held_out[0]


@pytest.mark.slow
@pytest.mark.parametrize("step", [1, 4, 5, 9])
def test_resumed_after_any_checkpoint_is_bit_equal(uninterrupted, tmp_path, monkeypatch, step):
    """Steps 4 and 5 lie before and after the end of the first epoch."""
    whole = uninterrupted[0]
    shutil.copytree(Path(whole.data.data_dir), tmp_path / "store")
    config = copy_of(whole, tmp_path / "run", step=step)
    result, output = run(monkeypatch, config)
    assert f"Resuming from step {step}" in output and result.finished
    assert_same_state(final_state(config, STEPS), final_state(whole, STEPS))
    assert metric_lines(config) == metric_lines(whole)
    assert result.heldout == uninterrupted[1].heldout


@pytest.mark.slow
@pytest.mark.parametrize("stop_at", [1, 6])
def test_signal_saves_and_the_same_command_resumes(uninterrupted, tmp_path, monkeypatch, stop_at):
    whole = uninterrupted[0]
    shutil.copytree(Path(whole.data.data_dir), tmp_path / "store")
    config = dataclasses.replace(whole, model_dir=str(tmp_path / "run"), checkpoint_period=1000)
    result, output = run(monkeypatch, config, stop_at=stop_at)
    assert (result.step, result.finished) == (stop_at, False)
    assert f"Stopped by SIGTERM: saved step {stop_at}; the same command resumes" in output
    result, _ = run(monkeypatch, config)
    assert result.finished
    assert_same_state(final_state(config, STEPS), final_state(whole, STEPS))
    steps = [line for line in metric_lines(config) if "loss" in line]
    assert steps == [line for line in metric_lines(whole) if "loss" in line]


def test_finished_run_has_nothing_left_to_do(uninterrupted, monkeypatch):
    config = uninterrupted[0]
    before = final_state(config, STEPS)
    result, output = run(monkeypatch, config)
    assert result.finished and f"Resuming from step {STEPS}" in output
    assert f"Steps {STEPS} to {STEPS}" in output
    assert_same_state(final_state(config, STEPS), before)


@pytest.mark.slow
def test_resumed_on_other_meshes(tmp_path, monkeypatch):
    """1 device -> 8 fsdp -> 2 x 2 x 2: the same state to the bit, and the next 20 losses agree."""
    common = {"epochs": None, "train_steps": 22, "checkpoint_period": 2}
    one = run_config(tmp_path / "one", **common)
    run(monkeypatch, one)
    losses = [line["loss"] for line in metric_lines(one) if "loss" in line]
    config = copy_of(one, tmp_path / "other", step=2)
    config = dataclasses.replace(config, mesh=MESHES["fsdp"], checkpoint_period=1000)
    result, _ = run(monkeypatch, config, devices=None, stop_at=4)
    assert result.step == 4
    config = dataclasses.replace(config, mesh=MESHES["mixed"])
    states = []
    start_state = setup.start_state

    def keep(*args):
        states.append(start_state(*args))
        return states[-1]

    with monkeypatch.context() as patch:
        patch.setattr(setup, "start_state", lambda *args: keep(*args))
        patch.setattr(loop, "_print_plan", lambda *args: states.append(
            jax.device_get(states[0]._asdict())))  # fmt: skip
        run(monkeypatch, config, devices=None)
    saved = final_state(config, 4)
    restored = {
        jax.tree_util.keystr(keys): leaf
        for keys, leaf in jax.tree_util.tree_leaves_with_path(states[1]["params"])
    }
    assert restored
    for name, leaf in restored.items():
        assert np.array_equal(saved[f"['params']{name}"], leaf)
    again = [line["loss"] for line in metric_lines(config) if "loss" in line]
    assert len(again) == 22
    np.testing.assert_allclose(again[2:], losses[2:], rtol=1e-5)


def test_recompile_is_reported(tmp_path, monkeypatch):
    """The third batch has masks of another dtype: the step is traced for them, and once more."""
    put, calls = feed.put_batch, []

    def other_dtype_once(rows, sharding):
        calls.append(1)
        if len(calls) == 3:
            rows = {**rows, "loss_mask": rows["loss_mask"].astype("int8")}
        return put(rows, sharding)

    monkeypatch.setattr(feed, "put_batch", other_dtype_once)
    config = run_config(tmp_path / "run", epochs=None, train_steps=6, log_period=2)
    _, output = run(monkeypatch, config)
    assert output.count("The training step was compiled again before step 3") == 1
    assert output.count("compiled again") == 1
