"""Every setting out of range is refused by name."""

import dataclasses

import pytest

from train.small import run_config
from tulu_jax.errors import ConfigError
from tulu_jax.train.config import OptimizerConfig


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("learning_rate", 0.0, "a number above 0"),
        ("learning_rate", float("nan"), "a finite number"),
        ("warmup_ratio", 1.0, r"a share in \[0, 1\)"),
        ("warmup_ratio", -0.1, r"a share in \[0, 1\)"),
        ("weight_decay", -1e-3, "0 or more"),
        ("b1", 1.0, r"a share in \[0, 1\)"),
        ("b2", -0.5, r"a share in \[0, 1\)"),
        ("eps", 0.0, "a number above 0"),
        ("clip_norm", 0.0, "a number above 0"),
    ],
)
def test_optimizer_fields(name, value, expected):
    with pytest.raises(
        ConfigError, match=rf"OptimizerConfig.{name} is out of range - got {value} - .*{expected}"
    ):
        OptimizerConfig(**{name: value})


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("train_steps", 0, "a number above 0"),
        ("micro_batches", 0, "a number above 0"),
        ("micro_batches", 3, "a divisor of the batch size 8"),
        ("paper_rows", 0, "a number above 0"),
        ("log_period", 0, "a number above 0"),
        ("checkpoint_period", 0, "a number above 0"),
        ("keep_checkpoints", 0, "a number above 0"),
        ("eval_period", -1, "0 or more"),
    ],
)
def test_train_fields(tmp_path, name, value, expected):
    with pytest.raises(
        ConfigError, match=rf"TrainConfig.{name} is out of range - got {value} - .*{expected}"
    ):
        run_config(tmp_path, **{name: value})


def test_choices_are_named(tmp_path):
    with pytest.raises(
        ConfigError,
        match=r"TrainConfig.loss_normalization is unknown - got 'sum' - expected token or paper",
    ):
        run_config(tmp_path, loss_normalization="sum")


def test_unknown_loss_terms(tmp_path):
    with pytest.raises(
        ConfigError,
        match=r"a term that is not there - got nothing - expected some of none \(docs",
    ):
        run_config(tmp_path, loss_terms={"nothing": 1.0})


def test_paper_groups_must_divide_the_batch(tmp_path):
    with pytest.raises(
        ConfigError, match=r"TrainConfig.paper_rows .* a divisor of the batch size 8"
    ):
        run_config(tmp_path, paper_rows=3, loss_normalization="paper")


def test_a_run_needs_a_model(tmp_path):
    with pytest.raises(
        ConfigError,
        match=r"the run has no model - got MODEL=None and INITIAL_CHECKPOINT_PATH=None .* "
        r"include a file of gin_configs/models, or name a checkpoint",
    ):
        run_config(tmp_path, model=None)


def test_configs_are_frozen(tmp_path):
    with pytest.raises(dataclasses.FrozenInstanceError):
        run_config(tmp_path).seed = 1


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"paper_rows": 4}, "LOSS_NORMALIZATION='token'"),
        ({"bad_steps_limit": 3}, "ON_BAD_STEP='stop'"),
        ({"stall_factor": 0.0, "stall_ends": True}, "STALL_FACTOR=0"),
        ({"stall_factor": 0.0, "stall_minimum_s": 5.0}, "STALL_FACTOR=0"),
    ],
)
def test_settings_that_do_nothing_are_refused(tmp_path, changes, reason):
    name, value = list(changes.items())[-1]
    with pytest.raises(
        ConfigError,
        match=rf"TrainConfig.{name} has no effect - got {value} with {reason} - expected its def",
    ):
        run_config(tmp_path, **changes)


@pytest.mark.parametrize(
    ("name", "changes"),
    [("adafactor", {"b2": 0.9}), ("adafactor", {"eps": 1e-6}), ("adamw", {"factor_min_size": 8})],
)
def test_settings_of_another_optimizer_are_refused(name, changes):
    with pytest.raises(ConfigError, match=rf"OptimizerConfig.{next(iter(changes))} has no effect"):
        OptimizerConfig(name=name, **changes)


@pytest.mark.parametrize(
    ("given", "limits"),
    [
        ((), {}),
        ("", {}),
        ("tulu_demo", {"tulu_demo": 50}),
        ("tulu_demo:7, mmlu_0shot", {"tulu_demo": 7, "mmlu_0shot": 50}),
        (["gsm_cot", "codex_eval_temp_0.1:3"], {"gsm_cot": 50, "codex_eval_temp_0.1": 3}),
    ],
)
def test_eval_tasks(tmp_path, given, limits):
    config = run_config(tmp_path, eval_tasks=given, eval_period=5)
    assert config.limits == limits
    assert dataclasses.replace(config).limits == limits


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"eval_tasks": "a:0"}, "EVAL_TASKS has a task that is not understood - got 'a:0' - "
         "expected NAME, or NAME:LIMIT with a limit of 1 or more"),
        ({"eval_tasks": "a:b"}, "not understood - got 'a:b'"),
        ({"eval_tasks": "a:-3"}, "not understood - got 'a:-3'"),
        ({"eval_tasks": "a:1:2"}, "not understood - got 'a:1:2'"),
        ({"eval_tasks": "a b"}, "not understood - got 'a b'"),
        ({"eval_tasks": ":5"}, "not understood - got ':5'"),
        ({"eval_tasks": 5}, "TrainConfig.eval_tasks is not text, or a list, each item text"),
        ({"eval_tasks": ["a:3", "a"]}, "EVAL_TASKS names a task twice - got a:3,a"),
        ({"eval_tasks": "a", "eval_period": 0}, "EVAL_TASKS would never be asked - got "
         "EVAL_PERIOD=0 and EVAL_TASKS_PERIOD=None - expected one of them above 0"),
        ({"eval_tasks": "a", "eval_tasks_period": 0}, "eval_tasks_period is out of range"),
        ({"eval_tasks_period": 4}, "TrainConfig.eval_tasks_period has no effect - "
         "got 4 with no EVAL_TASKS"),
    ],
)  # fmt: skip
def test_eval_tasks_that_cannot_be_asked(tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message):
        run_config(tmp_path, **({"eval_period": 5} | changes))
