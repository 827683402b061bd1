"""Questions asked during training: when, of which weights, and that they change nothing."""

import dataclasses
import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from tensorboardX.proto import event_pb2

from train.small import (
    MESHES,
    MODEL,
    assert_same_state,
    final_state,
    metric_lines,
    random_params,
    run,
    run_config,
)
from tulu_jax.checkpoint import hf
from tulu_jax.errors import ConfigError
from tulu_jax.generate import Engine
from tulu_jax.models.lora import LoraConfig
from tulu_jax.train import loop
from tulu_jax.train.plot import plot_losses
from tulu_jax.train.watchdog import Watch

STEPS = 6
SHORT = {"epochs": None, "train_steps": STEPS}
PROMPTS = [[1, 5, 9], [1, *range(3, 23)], [1]]


class Asking:
    """Answers with the engine, which is made once; keeps what it was asked for and answered."""

    def __init__(self):
        self.engine, self.answers = None, {}

    def __call__(self, params, step, *, alive):
        if self.engine is None:
            self.engine = Engine(MODEL, params, slots=2, max_length=40)
        else:
            self.engine.load(params)
        found = self.engine.generate(PROMPTS, max_new_tokens=8, on_done=lambda *_: alive())
        self.answers[step] = [(one.tokens, one.logprobs.tobytes()) for one in found]
        self.engine.load(None)
        return {"made_up/mean": float(np.mean([len(one.tokens) for one in found]))}


def scores(config):
    return {line["step"]: line["eval"] for line in metric_lines(config) if "eval" in line}


def others(config):
    return [line for line in metric_lines(config) if "eval" not in line]


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A run, and the same with questions every second step."""
    folder = tmp_path_factory.mktemp("pair")
    with pytest.MonkeyPatch.context() as patch:
        plain = run_config(folder / "plain", log_period=2, eval_period=3, **SHORT)
        run(patch, plain)
        config = dataclasses.replace(
            plain, model_dir=str(folder / "asked"), eval_tasks="made_up", eval_tasks_period=2
        )
        asking = Asking()
        output = run(patch, config, evaluate=asking)[1]
    return plain, config, asking, output


def test_training_is_the_same_to_the_bit(pair):
    plain, config, asking, _ = pair
    assert others(config) == others(plain)
    assert_same_state(final_state(config, STEPS), final_state(plain, STEPS))
    assert list(asking.answers) == [0, 2, 4, 6]
    assert asking.answers[0] != asking.answers[6]


def test_scores_are_told_everywhere(pair):
    _, config, _, output = pair
    assert list(scores(config)) == [0, 2, 4, 6]
    for step, found in scores(config).items():
        assert f"step {step}  evaluation: made_up/mean {found['made_up/mean']:.4f}" in output
    (file,) = (Path(config.model_dir) / "tensorboard").iterdir()
    data, tags = file.read_bytes(), set()
    while data:  # length, its checksum, an event, its checksum
        size = int.from_bytes(data[:8], "little")
        event = event_pb2.Event.FromString(data[12 : 12 + size])
        tags |= {(value.tag, event.step) for value in event.summary.value}
        data = data[16 + size :]
    assert {step for tag, step in tags if tag == "eval/made_up/mean"} == {0, 2, 4, 6}
    seconds = json.loads((Path(config.model_dir) / "goodput.json").read_text())["seconds"]
    assert seconds["evaluation"] > 0


def test_scores_are_drawn_where_there_are_any(pair, tmp_path):
    import matplotlib.pyplot as plt

    rows = metric_lines(pair[1])
    for name, some in (("without", others(pair[1])), ("with", rows)):
        plot_losses(some, tmp_path / f"{name}.png")
    sizes = [plt.imread(tmp_path / f"{name}.png").shape for name in ("without", "with")]
    assert sizes[0][0] < sizes[1][0] and sizes[0][1] == sizes[1][1]


def test_a_run_that_stops_asks_when_it_is_resumed(pair, tmp_path, monkeypatch):
    """A signal during the questions of step 4 is heeded at once; nothing is different then."""
    plain, config, whole, _ = pair
    config = dataclasses.replace(
        config, model_dir=str(tmp_path / "run"), checkpoint_period=2, log_period=1
    )

    class Stopped(Asking):
        def __call__(self, params, step, *, alive):
            if step == 4:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().__call__(params, step, alive=alive)

    result, output = run(monkeypatch, config, evaluate=Stopped())
    assert "step 4  evaluation broken off: SIGTERM" in output
    assert result.step == 5 and list(scores(config)) == [0, 2]
    resumed = Asking()
    result, _ = run(monkeypatch, config, evaluate=resumed)
    assert result.finished and list(scores(config)) == [0, 2, 6]
    assert resumed.answers == {6: whole.answers[6]}
    losses = {line["step"]: line["loss"] for line in others(config) if "loss" in line}
    before = 0
    for line in (line for line in others(plain) if "loss" in line):  # means over steps
        window = [losses[step] for step in range(before + 1, line["step"] + 1)]
        assert line["loss"] == sum(window) / len(window)
        before = line["step"]
    assert before == STEPS
    assert_same_state(final_state(config, STEPS), final_state(plain, STEPS))


def test_what_was_not_asked_before_a_kill_is_asked_first(pair, tmp_path, monkeypatch):
    config = dataclasses.replace(pair[1], model_dir=str(tmp_path / "run"))

    class Killed(Asking):
        def __call__(self, params, step, *, alive):
            if step == STEPS:
                raise KeyboardInterrupt
            return super().__call__(params, step, alive=alive)

    with pytest.raises(KeyboardInterrupt):
        run(monkeypatch, config, evaluate=Killed())
    assert list(scores(config)) == [0, 2, 4]
    asking = Asking()
    for _ in range(2):  # and not a second time
        result, _ = run(monkeypatch, config, evaluate=asking)
        assert result.finished and list(scores(config)) == [0, 2, 4, 6]
        assert asking.answers == {6: pair[2].answers[6]}


def test_a_failure_is_told_and_training_goes_on(pair, tmp_path, monkeypatch):
    config = dataclasses.replace(pair[1], model_dir=str(tmp_path / "run"))

    class Failing(Asking):
        def __call__(self, params, step, *, alive):
            found = super().__call__(params, step, alive=alive)
            if step == 2:
                raise RuntimeError("no room for 3 GiB")
            return found

    result, output = run(monkeypatch, config, evaluate=Failing())
    failed = "step 2  evaluation failed, training goes on: RuntimeError: no room for 3 GiB"
    assert failed in output and result.finished
    assert list(scores(config)) == [0, 4, 6]
    assert others(config) == others(pair[0])
    assert_same_state(final_state(config, STEPS), final_state(pair[0], STEPS))


def test_a_failure_before_the_first_step_ends_the_run(tmp_path, monkeypatch):
    config = run_config(tmp_path / "run", eval_tasks="made_up", eval_period=5, **SHORT)

    def fail(params, step, *, alive):
        raise ConfigError("no room")

    with pytest.raises(ConfigError, match="no room"):
        run(monkeypatch, config, evaluate=fail)
    assert not any("loss" in line for line in metric_lines(config))


def test_a_run_with_nobody_to_ask(tmp_path):
    config = run_config(tmp_path / "run", eval_tasks="made_up", eval_period=5, **SHORT)
    message = r"nobody is there to do it - got EVAL_TASKS=made_up - expected train\(..., evaluate="
    with pytest.raises(ConfigError, match=message):
        loop.train(config)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_weights_in_shards_answer_as_whole_ones(pair, tmp_path, monkeypatch):
    """Before the first step, as afterwards the sums over devices differ."""
    config = dataclasses.replace(pair[1], model_dir=str(tmp_path / "run"), mesh=MESHES["mixed"],
                                 train_steps=2)  # fmt: skip
    asking = Asking()
    run(monkeypatch, config, evaluate=asking, devices=None)
    tokens = {step: [each[0] for each in found] for step, found in asking.answers.items()}
    assert tokens[0] == [each[0] for each in pair[2].answers[0]] and set(tokens) == {0, 2}


@pytest.mark.slow
def test_adapters_answer_beside_their_weights(tmp_path, monkeypatch):
    hf.save(tmp_path / "base", MODEL, random_params())
    config = run_config(
        tmp_path / "run", lora=LoraConfig(rank=4, alpha=8, base_dtype="float32"), eval_period=3,
        initial_checkpoint=str(tmp_path / "base"), eval_tasks="made_up", **SHORT,
    )  # fmt: skip
    asking = Asking()
    run(monkeypatch, config, evaluate=asking)
    base = Engine(MODEL, random_params(), slots=2, max_length=40)
    expected = [one.tokens for one in base.generate(PROMPTS, max_new_tokens=8)]
    assert [tokens for tokens, _ in asking.answers[0]] == expected  # they change nothing yet
    assert asking.answers[0] != asking.answers[3] != asking.answers[6]


def test_each_answer_is_a_sign_of_life(tmp_path):
    watch = Watch(tmp_path, say=lambda _: None)
    with watch.phase("evaluation"):
        watch._at -= 1000.0
        before = watch._at
        watch.alive()
        assert watch._at >= before + 1000.0 and watch._phase == "evaluation"
