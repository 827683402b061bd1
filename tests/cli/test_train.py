"""`tulu train` as a user meets it: help, --print_config, refusals, one real run of the demo."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import quick_xla

from tulu_jax.cli.gin_config import MACROS
from tulu_jax.cli.main import main
from tulu_jax.train import setup

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(autouse=True)
def surroundings(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TULU_CACHE_DIR", "")
    monkeypatch.chdir(ROOT)


def tulu(*arguments):
    return main(list(arguments))


def train(tmp_path, *overrides, file="runs/demo.gin"):
    folder = f"--gin.MODEL_DIR={tmp_path / 'run'}"
    return tulu("train", f"--gin_file={file}", folder, *overrides)


def test_help_lists_commands(capsys):
    with pytest.raises(SystemExit, match="0"):
        tulu("--help")
    out = capsys.readouterr().out
    for command in ("data", "train", "import", "export"):
        assert f"\n    {command} " in out


def test_train_help_lists_every_setting(capsys):
    with pytest.raises(SystemExit, match="0"):
        tulu("train", "--help")
    out = capsys.readouterr().out
    for name, text in MACROS.items():
        assert f"\n  {name} " in out and text.split()[0] in out
    assert "--print_config" in out and "examples:" in out


def test_print_config_runs_nothing(tmp_path, capsys):
    assert train(tmp_path, "--print_config", "--gin.BATCH_SIZE=8") == 0
    out = capsys.readouterr().out
    assert "DataConfig.batch_size = 8" in out and "LlamaConfig.d_model = 128" in out
    assert not (tmp_path / "run").exists()


def test_gin_bindings_work_too(tmp_path, capsys):
    assert train(tmp_path, "--print_config", "--gin_bindings", "EPOCHS = 7") == 0
    assert "DataConfig.epochs = 7" in capsys.readouterr().out


def test_a_mistake_is_one_line_and_status_2(tmp_path, capsys):
    assert train(tmp_path, "--gin.LEARNING_RAT=1") == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == (
        "tulu train: unknown setting - got LEARNING_RAT - expected LEARNING_RATE - "
        "`tulu train --help` lists the names\n"
    )


def test_gin_file_is_required(capsys):
    with pytest.raises(SystemExit, match="2"):
        tulu("train")
    assert "--gin_file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["--gin.MESH_FSDP=3"], "mesh does not use all devices - got slice=1, data=1, fsdp=3, "
         "sequence=1, tensor=1 - expected sizes whose product is the 8 devices present"),
        (["--gin.MESH_FSDP=1", "--gin.MESH_TENSOR=8"],
         "mesh axis tensor does not divide the model - got tensor=8, num_heads=4"),
        (["--gin.BATCH_SIZE=12"], "BATCH_SIZE / MICRO_BATCHES cannot be split over the devices - "
         "got 12 - expected a multiple of slice x data x fsdp = 8"),
        (["--gin.MICRO_BATCHES=8"], "BATCH_SIZE / MICRO_BATCHES cannot be split over the devices - "
         "got 2"),
        (["--gin.MODEL=None", "--gin.INITIAL_CHECKPOINT_PATH=nowhere"], "nowhere"),
        (["--gin.TOKENIZER=nowhere"], "nowhere"),
        (["--gin.MIXTURE_OR_TASK_NAME=tulu_dem"], "tulu_demo"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_before_anything_is_paid_for(
    tmp_path, capsys, overrides, message
):
    assert train(tmp_path, f"--gin.DATA_DIR={tmp_path}", *overrides) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_folder_that_cannot_be_made(tmp_path, capsys):
    (tmp_path / "run").write_text("a file, not a folder")
    assert train(tmp_path) == 2
    err = capsys.readouterr().err
    assert "run folder cannot be written" in err and "set another MODEL_DIR" in err


class _PreparedElsewhere(BaseException):
    pass


def test_checks_that_need_no_data_come_before_data(tmp_path, monkeypatch):
    def open_training_data(config):
        raise _PreparedElsewhere

    monkeypatch.setattr(setup, "open_training_data", open_training_data)
    with pytest.raises(_PreparedElsewhere):
        train(tmp_path)


@pytest.mark.slow
def test_demo_trains_from_nothing_and_resumes(tmp_path):
    """The command of the README on unprepared data, in a process that must not see TensorFlow."""
    script = (
        "import sys\n"
        "from tasks import demo\n"
        "from tulu_jax.cli.main import main\n"
        "demo.SIZES['train'] = 3000\n"  # whole: tests/cli/test_demo.py
        "status = main(sys.argv[1:])\n"
        "assert 'tensorflow' not in sys.modules and 'torch' not in sys.modules\n"
        "sys.exit(status)\n"
    )
    small = ["BATCH_SIZE=8", "EPOCHS=None", "EVAL_PERIOD=0", "LOG_PERIOD=2", "UNROLL_LAYERS=1",
             "LlamaConfig.num_layers=1", "LlamaConfig.d_model=48", "LlamaConfig.d_ff=64",
             f"DATA_DIR={tmp_path / 'data'}", f"MODEL_DIR={tmp_path / 'run'}"]  # fmt: skip
    command = [sys.executable, "-c", script, "train", "--gin_file=runs/demo.gin"]
    command += [f"--gin.{setting}" for setting in small]
    env = os.environ | {"XLA_FLAGS": quick_xla.flags(), "TULU_CACHE_DIR": str(tmp_path / "cache")}
    outputs = []
    for steps in (2, 4):
        done = subprocess.run(
            [*command, f"--gin.TRAIN_STEPS={steps}"],
            cwd=ROOT, env=env, capture_output=True, text=True, timeout=280, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:]
        outputs.append(done.stdout)
    assert "step 2/2" in outputs[0] and "Starting from fresh weights" in outputs[0]
    assert "Resuming from step 2" in outputs[1] and "step 4/4" in outputs[1]
    assert "total_steps changed: 2 when saved, 4 from now on" in outputs[1]
    assert "TrainConfig.train_steps = 4" in (tmp_path / "run" / "settings.gin").read_text()
