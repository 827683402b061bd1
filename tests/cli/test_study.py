"""`tulu study`: gin files of studies, and what a plan of one says."""

import json
import re

import pytest

from eval.report.paper import read_records
from eval.study.cells import results
from eval.study.paper import cell_of
from tests.eval.results import row, write_result
from tulu_jax.cli import study_plan
from tulu_jax.cli.evaluate import evaluate_parser
from tulu_jax.cli.gin_config import load_train_config, parse_overrides
from tulu_jax.cli.gin_files import config_folder
from tulu_jax.cli.main import main, make_parser
from tulu_jax.cli.study_gin import load_study, load_table
from tulu_jax.cli.study_plan import Costs, plan_study
from tulu_jax.errors import ConfigError

PAPER = "study/paper.gin"
RUNS = sorted(
    path.stem
    for path in (config_folder() / "runs" / "paper").glob("*.gin")
    if path.stem not in ("paper", "large")
)
TOY = """
STUDY_DIR = 'study'
Study.name = 'toy'
Study.folder = %STUDY_DIR
Study.models_dir = 'models'
Study.grids = [@Grid()]
Grid.models = [@BaseModel()]
Grid.datasets = ['tulu_demo', 'none']
Grid.evaluations = [@Evaluation()]
BaseModel.name = 'small'
BaseModel.checkpoint = 'small'
BaseModel.gin_files = ['runs/demo.gin']
BaseModel.settings = {'TRAIN_STEPS': 5, 'EPOCHS': None}
BaseModel.topology = 'cpu:1'
Evaluation.name = 'demo'
Evaluation.tasks = ['tulu_demo']
"""


@pytest.fixture(scope="module")
def paper():
    return load_table(PAPER, [])


@pytest.fixture
def toy(tmp_path):
    def write(text=TOY):
        path = tmp_path / "toy.gin"
        path.write_text(text)
        return str(path)

    return write


@pytest.fixture
def study(capsys, one_parser):
    def run(*arguments, status=0):
        assert main(["study", *map(str, arguments)]) == status
        return capsys.readouterr()

    return run


@pytest.mark.parametrize("record", read_records(), ids=lambda record: record["label"][:40])
def test_each_line_of_the_paper_has_its_cell(paper, record):
    cell = cell_of(record, paper)
    assert cell is not None
    if record["size"]:
        assert (cell.model.family, cell.model.size) == (record["base_model"], record["size"])
    tasks = " ".join(word for step in cell.of("evaluate") for word in step.argv)
    assert {"mmlu_0shot", "gsm_cot", "toxigen", "truthfulqa", "alpaca_eval"} <= set(tasks.split())


def test_a_line_that_the_study_lacks_has_none(paper):
    record = {"label": "x", "base_model": "LLaMa", "size": "8B", "data": "none"}
    assert cell_of(record, paper) is None
    assert cell_of({**record, "base_model": "", "size": ""}, paper) is None


def settings_of(step):
    files = [word.partition("=")[2] for word in step.argv if word.startswith("--gin_file=")]
    return files, [word for word in step.argv if word.startswith("--gin.")]


@pytest.mark.parametrize("name", RUNS)
def test_cells_train_as_the_recipes_of_the_paper_do(paper, name):
    paths = [f"--gin.{macro}=/x" for macro in ("MODEL_DIR", "INITIAL_CHECKPOINT_PATH", "TOKENIZER")]
    paths.append("--gin.DATA_DIR=/x")
    wanted = load_train_config([f"runs/paper/{name}.gin"], parse_overrides(paths))
    same = []
    for step in (step for step in paper.steps if step.kind == "train"):
        files, gin = settings_of(step)
        if f"--gin.MIXTURE_OR_TASK_NAME={wanted.data.mixture!r}" in gin:
            same.append(load_train_config(files, parse_overrides([*gin, *paths])))
    assert wanted in same


def test_every_command_is_one_that_parses(paper):
    parser, seen = make_parser(), set()
    for step in paper.steps:
        if (step.kind, step.argv[1]) in seen:
            continue
        seen.add((step.kind, step.argv[1]))
        if step.kind == "evaluate":
            evaluate_parser().parse_args(step.argv[1:])
            continue
        args, rest = parser.parse_known_args(step.argv)
        assert args.command == step.argv[0]
        assert not rest or step.kind == "train"
    kinds = {"prepare", "train", "export", "evaluate", "report", "annotate"}
    assert {kind for kind, _ in seen} == kinds


def test_plan_says_what_every_cell_takes(toy, study, tmp_path):
    file = toy()
    shown = study("plan", file, f"--gin.STUDY_DIR={tmp_path / 's'}", "--json", tmp_path / "p.json")
    plan = json.loads((tmp_path / "p.json").read_text())
    assert [cell["cell"] for cell in plan["cells"]] == ["small+demo", "small"]
    lines = {line.split()[0]: line for line in shown.out.splitlines() if line.strip()}
    assert re.search(r"small\+demo +waiting +0/5 +cpu:1 +0\.\d+ +5 +– +–", lines["small+demo"])
    assert "not trained" in lines["small"]
    assert (
        "2 cells, 7 steps; done: 0 of 1 prepare, 0 of 1 train, 0 of 1 export, 0 of 2" in shown.out
    )
    assert "training that is left: 0 chip-hours in 0 runs" in shown.out
    assert "1 more are not estimated" in shown.out
    assert "judges: 0.00 dollars, if outputs" in shown.out
    assert not (tmp_path / "s").exists()


def test_plan_sees_what_is_there(toy, study, tmp_path):
    file, folder = toy(TOY + "Evaluation.judge_dollars = 2.5\n"), tmp_path / "s"
    first = study("plan", file, f"--gin.STUDY_DIR={folder}").out
    assert "judges: 5.00 dollars, if outputs are" in first
    table = load_table(file, [f"--gin.STUDY_DIR={folder}"])
    for step in table.cells[0].steps[:3]:
        (folder / step.folder).mkdir(parents=True)
        (folder / step.folder / "done.json").write_text("{}")
    (folder / table.cells[1].steps[0].folder).mkdir(parents=True)
    (folder / table.cells[1].steps[0].folder / "done.json").write_text("{}")
    shown = study("plan", file, f"--gin.STUDY_DIR={folder}").out
    assert re.search(r"small\+demo +stopped +3/5", shown)
    assert "done: 1 of 1 prepare, 1 of 1 train, 1 of 1 export, 1 of 2 evaluate, 0 of 2" in shown
    assert "more are not estimated" not in shown
    assert "judges: 2.50 dollars, if outputs" in shown


def test_plan_says_whose_judges_cost_what_is_not_known_and_what_a_cluster_is_told(toy, study):
    file = toy(
        TOY
        + "Evaluation.suite = 'extra'\nEvaluation.options = ['xstest.judge=openai']\n"
        + "Study.resources = {'train': {'slurm_partition': 'gpu'}}\n"
        + "Study.submit = {'export': 'srun'}\n"
    )
    shown = study("plan", file).out
    assert "what those of demo cost, which is not known" in shown
    assert "train on a cluster: slurm_partition=gpu\nexport is submitted by: srun\n" in shown


def test_plan_shows_the_commands(toy, study):
    shown = study("plan", toy(), "--commands").out.splitlines()
    assert len(shown) == 14
    assert re.fullmatch(r"# prepare/[0-9a-f]{16}: tulu_demo", shown[0])
    assert shown[1].startswith("tulu data prepare tulu_demo --tokenizer ")
    for line in shown[1::2]:
        assert line.startswith("tulu ")


def test_a_cell_costs_what_its_run_costs_alone(paper):
    pytest.importorskip("libtpu")
    from tulu_jax.cli.plan import schedule_of
    from tulu_jax.plan import find_topology, memory_budget, plan_run, roofline
    from tulu_jax.plan.duration import duration
    from tulu_jax.plan.estimate import estimate_traffic

    (cell,) = (one for one in paper.cells if one.name == "llama-7b+v1_human_gpt")
    cost = Costs(paper).of(cell)
    paths = [f"--gin.{name}=/x" for name in ("MODEL_DIR", "INITIAL_CHECKPOINT_PATH", "TOKENIZER")]
    config = load_train_config(["runs/paper/tulu_7b.gin"], parse_overrides(paths))
    planned = plan_run(config, find_topology("v4:2x2x4"))
    schedule = schedule_of(config)
    roof = roofline(planned, estimate_traffic(planned), schedule.work)
    assert cost.device_bytes == memory_budget(planned).total
    assert (cost.steps, cost.slice_name) == (schedule.steps, "v4-32")
    assert cost.chip_hours == duration(planned, roof, schedule).chip_hours
    assert cost.fits


def test_one_base_model_may_be_trained_in_two_ways(toy):
    file = toy(
        TOY.replace("[@Grid()]", "[@Grid(), @more/Grid()]")
        + "more/Grid.models = [@other/BaseModel()]\nmore/Grid.datasets = ['tulu_dolly']\n"
        + "other/BaseModel.settings = {'TRAIN_STEPS': 7, 'EPOCHS': None}\n"
    )
    plan = plan_study(load_table(file, []))
    steps = {one.cell.name: one.cost.steps for one in plan.cells if one.cost}
    assert steps == {"small+demo": 5, "small+dolly": 7}


def test_many_cells_are_laid_out_once_a_base_model(toy, monkeypatch):
    from tulu_jax.plan import planned

    study_plan._laid_out.cache_clear()
    real, calls = planned.plan_run, []
    monkeypatch.setattr("tulu_jax.plan.plan_run", lambda *a: calls.append(1) or real(*a))
    many = "".join(
        f"g{i}/Grid.datasets = ['tulu_demo']\ng{i}/Grid.models = [@m{i}/BaseModel()]\n"
        f"m{i}/BaseModel.name = 'small{i}'\n" for i in range(60)
    )  # fmt: skip
    grids = ", ".join(f"@g{i}/Grid()" for i in range(60))
    text = TOY.replace("Study.grids = [@Grid()]", f"Study.grids = [{grids}]") + many
    plan = plan_study(load_table(toy(text), []))
    assert len(plan.cells) == 60
    assert all(cell.cost.steps == 5 for cell in plan.cells)
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("Study.nam = 'x'", r"unknown setting - got Study.nam at .*expected name"),
        ("STUDY_DRI = 'x'", "unknown setting - got STUDY_DRI - expected .*STUDY_DIR"),
        ("Study.raw_dir = %RAW", "setting is used but not set - got %RAW"),
        ("Study.grids = [@Gird()]", "unknown setting - got Gird"),
        ("Study.folder = None", "Study.folder is not text - got None"),
        ("Grid.models = [@BaseModel]", r"Grid.models is not a list, each item @BaseModel\(\)"),
        ("Study.grids = [", "gin settings cannot be read"),
        ("Evaluation.tasks = ['gsm']", "unknown task - got 'gsm'"),
        ("other/BaseModel.name = 'x'", "setting has no effect - got other/BaseModel.name = 'x'"),
    ],
)
def test_mistakes_in_a_study_are_named(toy, change, message):
    with pytest.raises(ConfigError, match=message):
        load_study(toy(f"{TOY}\n{change}\n"), [])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("BaseModel.gin_files = ['runs/absent.gin']", "gin file cannot be read - got runs/absent"),
        (
            "BaseModel.settings = {'BATCH': 3}",
            "unknown setting - got BATCH - expected .*BATCH_SIZE",
        ),
        ("BaseModel.settings = {'BATCH_SIZE': 0}", "DataConfig.batch_size is out of range - got 0"),
    ],
)
def test_mistakes_in_a_recipe_are_named(toy, study, change, message):
    shown = study("plan", toy(f"{TOY}\n{change}\n"), status=2)
    assert re.search(message, shown.err)
    assert shown.out == ""


def test_a_layout_that_cannot_be_is_named(toy, study):
    text = TOY + "BaseModel.settings = {'MESH_TENSOR': 3}\n"
    shown = study("plan", toy(text), status=2)
    assert re.search("BaseModel 'small' cannot be planned: .*got", shown.err)


def test_a_study_that_is_not_there(study):
    assert (
        "gin file cannot be read - got study/absent.gin"
        in study("plan", "study/absent.gin", status=2).err
    )


def mark(table, step, name, text="{}"):
    folder = table.root / step.folder
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)


def test_status_says_how_far_cells_are_and_why_steps_failed(toy, study, tmp_path):
    file, folder = toy(), f"--gin.STUDY_DIR={tmp_path / 's'}"
    table = load_table(file, [folder])
    prepare, train, export = table.cells[0].steps[:3]
    mark(table, prepare, "done.json")
    mark(table, train, "failed.json")
    mark(table, train, "log.txt", "begun\nno room [x]\x1b[31m\n")
    shown = study("status", file, folder, "--json", tmp_path / "s.json").out
    assert re.search(r"small\+demo +failed +done +failed +waiting +waiting +waiting", shown)
    assert re.search(r"small +waiting +waiting +waiting", shown)
    assert "2 cells, 7 steps: 5 waiting, 1 done, 1 failed" in shown
    assert f"failed: train small+demo, {table.root / train.folder / 'log.txt'}" in shown
    assert "  begun\n  no room [x]␛[31m\n" in shown
    said = json.loads((tmp_path / "s.json").read_text())
    assert said["cells"] == {"small+demo": "failed", "small": "waiting"}
    assert said["steps"][train.folder]["log"] == ["begun", "no room [x]\x1b[31m"]
    assert said["steps"][export.folder] == {"name": "small+demo", "state": "waiting"}


def test_a_study_that_is_done_runs_nothing_and_writes_its_report(toy, study, tmp_path):
    file, folder = toy(), f"--gin.STUDY_DIR={tmp_path / 's'}"
    table = load_table(file, [folder])
    for step in table.steps:
        mark(table, step, "done.json")
        if step.kind == "evaluate":
            rows = [row(f"q{i}", i % 2) for i in range(4)]
            write_result(table.root / results(step) / "tulu_demo", rows, task="tulu_demo")
    shown = study("run", file, folder, "--snakemake", tmp_path / "absent").out
    assert "2 cells, 7 steps: 7 done" in shown
    assert f"{table.root / 'report.html'}: open it with a browser" in shown
    assert "| small+demo | [**50.0 ±28.9†**](evaluate/" in (table.root / "report.md").read_text()
    assert "\\toprule" in (table.root / "report.tex").read_text()
    numbers = (table.root / "numbers.csv").read_text().splitlines()
    assert len(numbers) == 3 and "tulu_demo,exact_match,50.0," in numbers[1]
    (table.root / table.steps[-1].folder / "done.json").unlink()
    refused = study("run", file, folder, "--snakemake", tmp_path / "absent", status=2)
    assert "Snakemake is not there - got " in refused.err


def test_a_report_is_printed_and_linked_from_where_it_lies(toy, study, tmp_path):
    file, folder = toy(), f"--gin.STUDY_DIR={tmp_path / 's'}"
    table = load_table(file, [folder])
    refused = study("report", file, folder, status=2)
    assert "nothing of the study is done that could be reported" in refused.err
    (step,) = table.cells[1].of("evaluate")
    mark(table, step, "done.json")
    write_result(table.root / results(step) / "tulu_demo", [row("q", 1), row("r", 0)],
                 task="tulu_demo")  # fmt: skip
    shown = study("report", file, folder).out
    assert "Every cell by benchmark" in shown and "2 of 2 cells are not done" in shown
    page = tmp_path / "far" / "page.html"
    page.parent.mkdir()
    study("report", file, folder, "--html", page, "--format", "csv")
    link = f"../s/{step.folder}/results/tulu_demo/predictions.jsonl"
    assert link in page.read_text() and (page.parent / link).is_file()
    study("report", file, folder, "--html", page, "--no_links")
    assert "predictions.jsonl" not in page.read_text()
    assert "\\begin{tabular}" in study("report", file, folder, "--format", "latex").out
    assert "](" not in study("report", file, folder, "--format", "markdown", "--no_links").out


def test_a_run_that_leaves_something_undone_fails(toy, study, tmp_path):
    file, folder = toy(), f"--gin.STUDY_DIR={tmp_path / 's'}"
    shown = study("run", file, folder, "--snakemake", "/bin/true", status=1).out
    assert "2 cells, 7 steps: 7 waiting" in shown
    table = load_table(file, [folder])
    assert (table.root / "Snakefile").read_text().count("rule ") == 8
    assert (table.root / table.steps[0].folder / "step.json").is_file()


def test_tulu_report_takes_a_study(toy, study, tmp_path, monkeypatch, capsys):
    file, folder = toy(), f"--gin.STUDY_DIR={tmp_path / 's'}"
    table = load_table(file, [folder])
    (step,) = table.cells[1].of("evaluate")
    mark(table, step, "done.json")
    write_result(table.root / results(step) / "tulu_demo", [row("q", 1)], task="tulu_demo")
    wanted = study("report", file, folder, "--format", "markdown").out
    assert main(["report", file, folder, "--format", "markdown"]) == 0
    assert capsys.readouterr().out == wanted and "# Study toy" in wanted
    assert main(["report", file, folder, "--base", "x"]) == 2
    assert "--base has no effect - got a study, " in capsys.readouterr().err
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert main(["report", "study/paper"]) == 2
        assert "nothing of the study is done" in capsys.readouterr().err
        (tmp_path / "study" / "paper").mkdir(parents=True, exist_ok=True)
        (tmp_path / "study" / "paper" / "Snakefile").touch()
    assert main(["report", str(tmp_path), "--gin.STUDY_DIR=x"]) == 2
    assert "unknown arguments - got --gin.STUDY_DIR=x - see" in capsys.readouterr().err


def test_plan_shows_what_people_compare(paper):
    shown = "\n".join(study_plan.people(plan_of(paper)))
    assert shown.count("answers to alpaca_eval (selfinstruct, vicuna): waiting") == 3
    for other in ("gpt-3.5-turbo-0301", "llama-7b+v1_human_gpt", "llama-65b+v1_human"):
        assert f"people compare llama-65b+v1_human_gpt and {other}, answers" in shown
    (one,) = paper.people
    assert len(one.step.parents) == 4


def plan_of(table):
    states = {step.key: "waiting" for step in table.steps}
    return study_plan.StudyPlan(table, [], states, {}, 0.0, [])
