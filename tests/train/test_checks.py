"""What is refused before any data is read, by `tulu train` and `--print_config` alike."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from tasks import demo
from train import small
from train.small import MODEL, run_config
from tulu_jax.chat import load_tokenizer
from tulu_jax.checkpoint import hf
from tulu_jax.checkpoint.arrays import checkpoints_dir
from tulu_jax.cli.main import main
from tulu_jax.data import ensure
from tulu_jax.errors import TuluError
from tulu_jax.models import config_to_dict
from tulu_jax.parallel import MeshConfig
from tulu_jax.train import checks, setup
from tulu_jax.train.checks import check_before_data, row_settings

TOKENIZER = load_tokenizer(demo.TOKENIZER_DIR)
FITTING = dataclasses.replace(
    MODEL,
    vocab_size=TOKENIZER.vocab_size,
    bos_id=TOKENIZER.bos_id,
    eos_id=TOKENIZER.eos_id,
    pad_id=TOKENIZER.pad_id,
)


@pytest.fixture(autouse=True)
def no_data_is_read(monkeypatch):
    def refuse(*_args, **_options):
        raise AssertionError("data were read")

    monkeypatch.setattr(ensure, "find_store", refuse)
    monkeypatch.setattr(setup, "open_training_data", refuse)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A Hugging Face folder of the fitting model."""
    folder = tmp_path_factory.mktemp("checks") / "base"
    hf.save(folder, FITTING, small.random_params(FITTING), tokenizer=TOKENIZER)
    return folder


def config_of(tmp_path, **changes):
    options = {"mixture": "tulu_demo", "tokenizer": str(demo.TOKENIZER_DIR), "model": FITTING}
    return run_config(tmp_path / "run", **{**options, **changes})


def write_meta(config, step, **changes):
    """A checkpoint of `step` as far as anyone looks before data are read."""
    folder = checkpoints_dir(config.model_dir) / str(step)
    for part in ("state", "meta"):
        (folder / part).mkdir(parents=True)
    meta = {
        "model": config_to_dict(FITTING),
        "tokenizer": TOKENIZER.fingerprint,
        "rows": {**row_settings(config.data), "schedule": "known with the data"},
        "optimizer": {"name": "adamw"},
        **changes,
    }
    (folder / "meta" / "metadata").write_text(json.dumps(meta))
    for name in ("_CHECKPOINT_METADATA", "state/_METADATA", "state/manifest.ocdbt"):
        (folder / name).write_text("{}")


def refused(config, message):
    with pytest.raises(TuluError, match=message):
        check_before_data(config)


def test_files_of_ones_own_are_looked_at_first(tmp_path):
    path = tmp_path / "own.jsonl"
    path.write_text('{"question": "q", "answer": "a"}\n')
    own = {"mixture": str(path)}
    refused(
        config_of(tmp_path, **own), r"record has no conversation .* --columns prompt=question,comp"
    )
    columns = {"columns": "prompt=question,completion=answer"}
    assert check_before_data(config_of(tmp_path, **own, options={str(path): columns})) == FITTING
    wrong = {"tulu_jsonl_own": {**columns, "tools": "txt"}}
    refused(config_of(tmp_path, **own, options=wrong), r"unknown value of option tools - got 'txt'")


def test_exclude_files_are_looked_at_first(tmp_path):
    path = tmp_path / "out.jsonl"
    path.write_text('{"task": "demo", "id": "demo_train_0_add"}')
    assert check_before_data(config_of(tmp_path, exclude=str(path))) == FITTING
    path.write_text('{"task": "dolly", "id": "dolly_0"}')
    with pytest.raises(TuluError, match="exclude file is of other tasks than these - got tu"):
        check_before_data(config_of(tmp_path, exclude=str(path)))
    with pytest.raises(TuluError, match="exclude file cannot be read - got No such file"):
        check_before_data(config_of(tmp_path, exclude=str(tmp_path / "none")))


def test_a_run_that_fits_passes(tmp_path, base):
    assert check_before_data(config_of(tmp_path)) == FITTING
    started = config_of(tmp_path, model=None, initial_checkpoint=str(base))
    assert check_before_data(started) == FITTING


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"train_steps": 3},
            "the length of the run is not clear - got TRAIN_STEPS=3 and EPOCHS=2 - expected one of "
            "them to be a number, the other None - add --gin.EPOCHS=None for so many steps, ",
        ),
        ({"epochs": None}, "got TRAIN_STEPS=None and EPOCHS=None - .* - set TRAIN_STEPS or EPOCHS"),
        (
            {"wandb": True},
            "Weights & Biases is asked for but not installed - got WANDB=True",
        ),
        ({"mixture": "tulu_dem"}, "unknown dataset or mixture - got 'tulu_dem'"),
        ({"mixture": "tulu_dolly", "raw_dir": "/nowhere"}, "raw files of dataset dolly are"),
        ({"options": {"tulu_demo": {"x": 1}}}, "unknown option of dataset demo - got 'x'"),
        ({"max_examples": {"tulu_cot": 1}}, "max_examples names a task that the mixture does not"),
        ({"model": MODEL}, "tokenizer has more tokens than the model - got"),
        ({"model": dataclasses.replace(FITTING, eos_id=9)}, "tokenizer and model disagree on spec"),
        ({"model": dataclasses.replace(FITTING, max_length=8)}, "rows are longer than the model's"),
        (
            {"data_dir": f"{__file__}/data"},
            f"DATA_DIR is a file, or below one - got the file {__file__}",
        ),
        (
            {"length": 5},
            "rows are too short for any conversation - got 5 tokens - expected at least",
        ),
        (
            {"mesh": MeshConfig(axis_rules={"x": "fsdp"})},
            r"unknown logical axis - got AXIS_RULES\['x",
        ),
        ({"tokenizer": "/nowhere"}, "tokenizer folder does not exist - got /nowhere"),
        ({"initial_checkpoint": "/nowhere"}, "no such folder - at /nowhere"),
    ],
)
def test_what_does_not_fit(tmp_path, changes, message):
    refused(config_of(tmp_path, **changes), message)


def test_a_file_in_place_of_the_run_folder(tmp_path):
    (tmp_path / "run").touch()
    refused(config_of(tmp_path), "MODEL_DIR is a file, or below one - got the file")


def test_an_initial_checkpoint_of_another_model(tmp_path, base):
    other = dataclasses.replace(FITTING, norm_eps=1e-3)
    message = r"initial checkpoint is of another model - got .* at .*base - expected .*0\.001"
    refused(config_of(tmp_path, model=other, initial_checkpoint=str(base)), message)


@pytest.mark.parametrize(
    ("saved", "message"),
    [
        ({"model": config_to_dict(dataclasses.replace(FITTING, norm_eps=1e-3))},
         r"of a run with another model - got {'norm_eps': 1e-05} now at .*/10"),
        ({"tokenizer": "x"}, "of a run with another tokenizer - got .* expected x, as saved"),
        ({"optimizer": {"name": "adafactor", "factor_min_size": 1}}, "another kind of optimizer"),
    ],
)  # fmt: skip
def test_a_run_folder_of_another_run(tmp_path, saved, message):
    config = config_of(tmp_path)
    write_meta(config, 10, **saved)
    refused(config, message)


@pytest.mark.parametrize(
    "changes",
    [{"batch_size": 16}, {"seed": 4}, {"packing": "padded"}, {"heldout_examples": 3}],
)
def test_a_run_folder_of_other_rows(tmp_path, changes):
    """Before: only after the data were prepared; `--print_config` said that all fits."""
    config = config_of(tmp_path)
    write_meta(config, 10)
    check_before_data(config)
    ((name, value),) = changes.items()
    message = rf"with another making of rows - got {{'{name}': '?{value}'?}} now at .*/10 - exp"
    data = dataclasses.replace(config.data, **changes)
    refused(dataclasses.replace(config, data=data), message)


def test_a_run_does_not_go_back(tmp_path):
    config = config_of(tmp_path, epochs=None, train_steps=5)
    write_meta(config, 10)
    refused(config, "the run has gone further than it is to go - got step 10 at .*/10 - expected "
            "at most the 5 steps that are asked for - raise TRAIN_STEPS or EPOCHS")  # fmt: skip
    check_before_data(dataclasses.replace(config, train_steps=10))


def test_a_damaged_checkpoint_is_left_to_the_run_itself(tmp_path):
    """It sets such a one aside, aloud, for the one before it."""
    config = config_of(tmp_path)
    write_meta(config, 10)
    (checkpoints_dir(config.model_dir) / "10" / "meta" / "metadata").write_text("{")
    check_before_data(config)


def test_a_run_that_goes_on_needs_its_start_no_more(tmp_path, base):
    config = config_of(tmp_path, initial_checkpoint=str(tmp_path / "moved"))
    shutil.copytree(base, tmp_path / "moved")
    check_before_data(config)
    shutil.rmtree(tmp_path / "moved")
    refused(config, "no such folder")
    write_meta(config, 4)
    check_before_data(config)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["--gin.TRAIN_STEPS=3"], "the length of the run is not clear"),
        (["--gin.TASK_FEATURE_LENGTHS={'targets': 4096}"], "rows are longer than the model's"),
        (["--gin.LlamaConfig.vocab_size=100"], "tokenizer has more tokens than the model"),
        (["--gin.MIXTURE_OR_TASK_NAME=tulu_demoo"], "unknown dataset or mixture"),
        (["--gin.INITIAL_CHECKPOINT_PATH=/nowhere"], "no such folder"),
    ],
)
def test_print_config_shows_the_settings_and_refuses(tmp_path, capsys, overrides, message):
    words = ["train", "--gin_file=runs/demo.gin", f"--gin.MODEL_DIR={tmp_path / 'run'}"]
    assert main([*words, "--print_config", *overrides]) == 2
    captured = capsys.readouterr()
    assert "DataConfig.mixture = " in captured.out and message in captured.err
    assert "Traceback" not in captured.err and not Path(tmp_path / "run").exists()


def test_resumed_by_epochs_past_the_end_is_refused(tmp_path):
    """Their steps are known once data are read."""
    with pytest.raises(TuluError, match="the run has gone further than it is to go - got step 7"):
        checks.check_not_beyond(7, 6, where=tmp_path)
    checks.check_not_beyond(6, 6, where=tmp_path)


def test_a_checkpoint_without_a_chat_template_is_of_tulus(tmp_path):
    config = config_of(tmp_path)
    write_meta(config, 2)
    assert check_before_data(config) == FITTING
    other = config_of(tmp_path, chat_template="zephyr")
    refused(other, r"with another chat template - got zephyr now at \S+ - expected tulu, as saved")
