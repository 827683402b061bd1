"""EVAL_TASKS of `tulu train`: refused before anything is paid for, or asked as `tulu eval` asks."""

import json
from pathlib import Path

import pytest
from train.small import leave_out_what_others_test, on_devices

from eval.harness.runner import Result
from tulu_jax.cli import train_eval
from tulu_jax.cli.main import main
from tulu_jax.errors import DataError
from tulu_jax.train import loop

ROOT = Path(__file__).parent.parent.parent
SMALL = {
    "EPOCHS": None, "TRAIN_STEPS": 2, "BATCH_SIZE": 8, "EVAL_PERIOD": 1, "UNROLL_LAYERS": 1,
    "LlamaConfig.num_layers": 1, "LlamaConfig.d_model": 32, "LlamaConfig.d_ff": 32,
    "LlamaConfig.num_heads": 2, "LlamaConfig.num_kv_heads": 2, "LlamaConfig.head_dim": 16,
}  # fmt: skip


@pytest.fixture(autouse=True)
def surroundings(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TULU_CACHE_DIR", "")
    monkeypatch.chdir(ROOT)


def train(folder, tasks, *words, **settings):
    """`tulu train` on a file of eight conversations; its exit status."""
    conversations = folder / "own.jsonl"
    lines = [{"prompt": f"Say {n}.", "completion": f"{n}, of course."} for n in range(64)]
    conversations.write_text("".join(json.dumps(line) + "\n" for line in lines))
    places = {"MODEL_DIR": folder / "run", "DATA_DIR": folder / "data"}
    settings = SMALL | places | {"MIXTURE_OR_TASK_NAME": conversations} | settings
    overrides = [f"--gin.{name}={value}" for name, value in settings.items()]
    return main(["train", "--gin_file=runs/demo.gin", f"--gin.EVAL_TASKS={tasks}", *overrides,
                 *words])  # fmt: skip


@pytest.mark.parametrize("words", [[], ["--print_config"]])
@pytest.mark.parametrize(
    ("tasks", "settings", "message"),
    [
        ("tulu_dem", {}, "unknown task - got 'tulu_dem' - expected "),
        ("tulu_demo:x", {}, "EVAL_TASKS has a task that is not understood - got 'tulu_demo:x'"),
        ("tulu_demo", {"EVAL_PERIOD": 0}, "EVAL_TASKS would never be asked"),
        ("tulu_demo,gsm_cot", {"EVAL_DATA_DIR": "nowhere"}, "nowhere/gsm"),
        ("codex_eval_temp_0.1", {}, "task codex_eval_temp_0.1 cannot be asked during training - "
         "got programs that the model wrote would be run on this machine - leave it out of "
         "EVAL_TASKS, and evaluate checkpoints: tulu eval"),
        ("alpaca_eval", {}, "task alpaca_eval cannot be asked during training - got task asks a "
         "judge - leave it out of EVAL_TASKS, and evaluate checkpoints: tulu eval"),
        ("tulu_demo", {"CHAT_TEMPLATE": "zephyr"}, "tasks are asked in a chat format that is "
         "written as text - got EVAL_TASKS with CHAT_TEMPLATE='zephyr' - expected "
         "CHAT_TEMPLATE='tulu' - leave EVAL_TASKS out, or change the template"),
        ("tulu_demo:400", {"LlamaConfig.max_length": 32,
                           "TASK_FEATURE_LENGTHS": "{'targets': 32}"},
         "prompts of task tulu_demo are longer than the model - got "),
    ],
)  # fmt: skip
def test_what_cannot_be_asked_is_refused_before_data_are_read(
    tmp_path, capsys, monkeypatch, tasks, settings, message, words
):
    monkeypatch.setattr(loop, "train", None)
    assert train(tmp_path, tasks, *words, **settings) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists() and not (tmp_path / "data").exists()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run that asked four questions before, in the middle and at its end."""
    folder = tmp_path_factory.mktemp("run")
    engines = []
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        patch.setenv("TULU_CACHE_DIR", "")
        leave_out_what_others_test(patch.setattr)
        on_devices(patch.setattr, 1)
        new_engine = train_eval.RunTasks._new_engine

        def keep(tasks, params):
            engines.append(new_engine(tasks, params))
            return engines[-1]

        patch.setattr(train_eval.RunTasks, "_new_engine", keep)
        data = folder / "eval" / "alpaca_farm"
        data.mkdir(parents=True)
        outputs = [{"instruction": f"Say {n}.", "output": f"{n}, I say."} for n in range(9)]
        (data / "alpaca_eval.json").write_text(json.dumps(outputs))
        asked = "tulu_demo:4,alpaca_eval_unique_tokens:2"
        short = {"LlamaConfig.max_length": 96, "TASK_FEATURE_LENGTHS": "{'targets': 96}"}
        assert train(folder, asked, EVAL_DATA_DIR=folder / "eval", **short) == 0
    return folder / "run", engines


def test_scores_of_a_run(trained):
    folder, engines = trained
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    found = {row["step"]: row["eval"] for row in rows if "eval" in row}
    assert set(found) == {0, 1, 2}
    for step, scores in found.items():
        lines = (folder / "eval" / "tulu_demo" / f"step_{step}.jsonl").read_text().splitlines()
        answers = [json.loads(line) for line in lines]
        right = sum(answer["correct"] for answer in answers)
        assert len(answers) == 4 and scores["tulu_demo/exact_match"] == right / 4
        assert scores["alpaca_eval_unique_tokens/win_rate"] in (0, 0.25, 0.5, 0.75, 1)
        assert len(scores) == 2
    (engine,) = engines  # one for all times; and nothing of it stays on the devices
    assert engine.stats.decoded_tokens > 0 and engine._worker._weights is None
    assert not engine._worker._layers
    settings = (folder / "settings.gin").read_text()
    assert "TrainConfig.eval_tasks = ('tulu_demo:4', 'alpaca_eval_unique_tokens:2')" in settings


def test_answers_are_those_of_tulu_eval(trained, tmp_path):
    folder = trained[0]
    assert main(["eval", "tulu_demo", "--model", str(folder), "--limit", "4",
                 "--save_dir", str(tmp_path)]) == 0  # fmt: skip
    rows = (tmp_path / "tulu_demo" / "predictions.jsonl").read_text().splitlines()
    during = (folder / "eval" / "tulu_demo" / "step_2.jsonl").read_text().splitlines()
    for one, other in zip(map(json.loads, rows), map(json.loads, during), strict=True):
        for name in ("id", "prompt", "output", "correct", "stop_reason", "output_tokens"):
            assert one[name] == other[name]


def scored(failures=(), **run):
    """What `RunTasks` makes of a graded task, and what it says."""
    said = []
    tasks = object.__new__(train_eval.RunTasks)
    tasks._say = said.append
    run = {"task": "t", "metric": "m", "n": 3, "guards": {"failures": failures}} | run
    return tasks._score(Result([], {}, run), 7), said


def test_scores_are_shares():
    assert scored(value=0.5, unit="share") == ({"t/m": 0.5}, [])
    assert scored(value=50.0, unit="percent") == ({"t/m": 0.5}, [])
    told = ["step 7  t: 1 instances failed"]
    assert scored(value=0.5, unit="share", failures=["x"]) == ({"t/m": 0.5}, told)
    with pytest.raises(DataError, match="task t gives no number - got m of 3 instances - leave"):
        scored(value=None, unit="share")
