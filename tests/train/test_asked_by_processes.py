"""EVAL_TASKS of a run of several processes: each has its shards of the weights, all answer as one.

Of tasks there are those that generate (tulu_demo) and those that weigh choices (mmlu_0shot).
"""

import csv
import json
import shutil

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

SETTINGS = {
    "EPOCHS": None, "TRAIN_STEPS": 1, "BATCH_SIZE": 8, "EVAL_PERIOD": 1, "UNROLL_LAYERS": 1,
    "HELDOUT_EXAMPLES": 0, "LlamaConfig.num_layers": 1, "LlamaConfig.d_model": 32,
    "LlamaConfig.d_ff": 32, "LlamaConfig.num_heads": 2, "LlamaConfig.num_kv_heads": 2,
    "LlamaConfig.head_dim": 16, "LlamaConfig.max_length": 256,
    "TASK_FEATURE_LENGTHS": "{'targets': 256}", "EVAL_TASKS": "tulu_demo:3,mmlu_0shot:3",
}  # fmt: skip
OF_TASK = {"tulu_demo": ("output", "output_tokens", "correct"), "mmlu_0shot": ("correct",)}


def questions(folder):
    """MMLU of one subject with three questions."""
    rows = [[f"What is {n} + 1?", n, n + 1, n + 2, n + 3, "B"] for n in range(3)]
    for split in ("dev", "test"):
        path = folder / "mmlu" / split / f"anatomy_{split}.csv"
        path.parent.mkdir(parents=True)
        with open(path, "w", newline="") as file:
            csv.writer(file).writerows(rows)


def command(folder, run, *words, **settings):
    places = {"MODEL_DIR": run, "DATA_DIR": folder / "data", "EVAL_DATA_DIR": folder / "eval"}
    settings = SETTINGS | places | {"MIXTURE_OR_TASK_NAME": folder / "own.jsonl"} | settings
    overrides = [f"--gin.{name}={value}" for name, value in settings.items()]
    return {"command": ["train", "--gin_file=runs/demo.gin", *overrides, *words]}


def answers(run):
    """Of each step and task the rows; and the scores in the metrics."""
    rows = {
        (path.parent.name, path.stem): [json.loads(line) for line in path.read_text().splitlines()]
        for path in sorted((run / "eval").glob("*/step_*.jsonl"))
    }
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return rows, [line for line in lines if "eval" in line]


@pytest.fixture(scope="module")
def one(forks, tmp_path_factory):
    """A folder with a run of one process, its conversations and questions."""
    folder = tmp_path_factory.mktemp("asked")
    lines = [{"prompt": f"Say {n}.", "completion": f"{n}, of course."} for n in range(64)]
    (folder / "own.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    questions(folder / "eval")
    child = forks.start(folder / "one", command(folder, folder / "one"))
    assert child.ended(200) and child.status == 0, child.output[-3000:]
    return folder


def start(forks, folder, run, port, each, devices=1, **settings):
    """One of two processes."""
    words = (f"--coordinator_address=localhost:{port}", "--num_processes=2", f"--process_id={each}")
    return forks.start(run, command(folder, run, *words, **settings), devices=devices)


def test_two_processes_answer_as_one(forks, one, free_port):
    run = one / "two"
    port, mesh = free_port(), {"MESH_FSDP": 2, "MESH_TENSOR": 2}
    for child in [start(forks, one, run, port, each, 2, **mesh) for each in range(2)]:
        assert child.ended(200) and child.status == 0, child.output[-3000:]
    (rows, scores), (wanted, right) = answers(run), answers(one / "one")
    assert scores == right and len(scores) == 2
    assert rows.keys() == wanted.keys() and len(rows) == 4
    for (task, step), found in rows.items():
        for mine, theirs in zip(found, wanted[task, step], strict=True):
            assert [mine[n] for n in OF_TASK[task]] == [theirs[n] for n in OF_TASK[task]]
            if "choice_logprobs" in theirs:
                assert mine["choice_logprobs"] == pytest.approx(theirs["choice_logprobs"], abs=1e-5)


def test_a_resumed_run_asks_what_was_not_asked(forks, one, free_port):
    """Only the first process knows the metrics; the other follows it."""
    run = one / "resumed"
    shutil.copytree(one / "one", run)
    port = free_port()
    pair = [start(forks, one, run, port, each, MESH_FSDP=2) for each in range(2)]
    for child in pair:
        assert child.ended(200) and child.status == 0, child.output[-3000:]
    assert answers(run)[1] == answers(one / "one")[1]
    assert "evaluation:" not in pair[0].output


def test_other_questions_are_refused_by_all(forks, one, free_port, tmp_path):
    """Before the first step, in both: what the hosts read must be the same."""
    other = tmp_path / "other"
    shutil.copytree(one, other, ignore=shutil.ignore_patterns("one", "two", "resumed"))
    path = other / "eval/mmlu/test/anatomy_test.csv"
    path.write_text(path.read_text().replace("What is 1", "What is 7"))
    port, folders = free_port(), (one, other)
    children = [
        start(forks, folder, tmp_path / "run", port, each, MESH_FSDP=2)
        for each, folder in enumerate(folders)
    ]
    for child in children:
        assert child.ended(200) and child.status == 2, child.output[-3000:]
        assert "processes of one run were told different things" in child.output
        assert "questions of mmlu_0shot" in child.output
