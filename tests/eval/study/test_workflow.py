"""A study as a Snakemake workflow, run by Snakemake where it is installed."""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from eval.study import workflow
from eval.study.cells import Recipe
from eval.study.compiled import compile_study
from eval.study.state import failures, state_of
from eval.study.study import NONE, Grid
from eval.study.workflow import OPTIONS, find_snakemake, run_workflow, snakefile, write_workflow
from tests.eval.study.finished_studies import TASKS, finish
from tests.eval.study.small_studies import (
    ALPACA,
    DOLLY,
    base,
    changed,
    evaluation,
    study,
    table,
)
from tulu_jax.cli.study_report import LATEX, NUMBERS, TEXT, write_reports
from tulu_jax.errors import ConfigError

NO_SNAKEMAKE = "no snakemake: TULU_SNAKEMAKE names its program, which has an environment of its own"


@pytest.fixture(scope="module")
def snakemake():
    program = shutil.which(os.environ.get("TULU_SNAKEMAKE") or "snakemake")
    if program is None:
        pytest.skip(NO_SNAKEMAKE)
    return program


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """In place of `tulu`: notes its name and arguments; fails where a file says so."""
    noted, bad = tmp_path / "noted", tmp_path / "bad"
    (tmp_path / "fake_tulu.py").write_text(
        "import os, shutil, sys, pathlib\n"
        f"open({str(noted)!r}, 'a').write(' '.join(sys.argv[1:]) + '\\n')\n"
        f"bad = pathlib.Path({str(bad)!r})\n"
        "if bad.exists() and bad.read_text() in ' '.join(sys.argv):\n"
        "    sys.exit('cannot: no room')\n"
        "for word in sys.argv:\n"
        "    if word.startswith('--gin.MODEL_DIR='):\n"
        "        place = pathlib.Path(word.split(chr(39))[1]) / 'checkpoints' / '2' / 'meta'\n"
        "        place.mkdir(parents=True, exist_ok=True)\n"
        "        (place / 'metadata').write_text('{\"total_steps\": 2}')\n"
        f"made = pathlib.Path({str(tmp_path / 'made')!r})\n"
        "for word in sys.argv:\n"
        "    parts = pathlib.Path(word).parts\n"
        "    if parts[:1] in (('evaluate',), ('losses',)) and len(parts) == 3:\n"
        "        source = made / parts[0] / parts[1]\n"
        "        if not source.exists():\n"
        "            continue\n"
        "        names = shutil.ignore_patterns('done.json', 'log.txt')\n"
        "        shutil.copytree(source, pathlib.Path(*parts[:2]), ignore=names,\n"
        "                        dirs_exist_ok=True)\n"
    )
    real = workflow._rule
    step = tmp_path / "one_step.py"
    step.write_text(
        "import sys; from pathlib import Path; from eval.study.step import run_step\n"
        f"sys.exit(run_step(Path(sys.argv[1]).absolute(), "
        f"(sys.executable, {str(tmp_path / 'fake_tulu.py')!r})))\n"
    )
    monkeypatch.setattr(
        workflow, "_rule", lambda *one: real(*one).replace("-m eval.study.step", str(step))
    )

    def lines():
        return noted.read_text().splitlines() if noted.exists() else []

    lines.bad = bad
    return lines


def small(tmp_path, **fields):
    return table(tmp_path, models=(base(),), **fields)


def test_a_rule_is_a_step_and_its_parameters_what_it_depends_on(tmp_path):
    found = small(tmp_path, datasets=("none",))
    evaluate, report = found.steps
    text = "".join(
        f"\nrule {step.kind}_{step.key}:\n{needs}"
        f"    output: '{step.folder}/done.json'\n"
        f"    params: key='{step.key}'\n"
        f"    priority: {priority}\n"
        f"    shell: '{sys.executable} -m eval.study.step {step.folder}'\n"
        for step, priority, needs in (
            (evaluate, 3, ""), (report, 2, f"    input: 'evaluate/{evaluate.key}/done.json'\n"),
        )
    )  # fmt: skip
    first = "".join(f"        '{step.folder}/done.json',\n" for step in (evaluate, report))
    assert snakefile(found) == f"rule all:\n    input:\n{first}{text}"


def test_a_cluster_is_told_what_steps_need(tmp_path):
    needs = {"slurm_partition": "gpu", "runtime": 60}
    found = small(tmp_path, resources={"evaluate": needs})
    text = snakefile(found)
    assert text.count("    resources: slurm_partition='gpu', runtime=60\n") == 3
    assert text.count("resources: ") == 3
    noted = tmp_path / "noted"
    program = tmp_path / "snakemake"
    program.write_text(f'#!/bin/sh\necho "$@" > {noted}\n')
    program.chmod(0o755)
    assert run_workflow(found, str(program), jobs=7, executor="slurm") == 0
    assert "--executor slurm --jobs 7 --keep-going" in noted.read_text()
    assert run_workflow(found, str(program), jobs=7) == 0
    assert "--cores 7 --keep-going" in noted.read_text() and "slurm" not in noted.read_text()


def test_a_step_is_handed_to_what_submits_it(tmp_path):
    models = (base(topology="v4:2x2x4"),)
    submit = {"train": "python -m x --name 't {key}' {topology} -- "}
    found = table(tmp_path, models=models, submit=submit)
    write_workflow(found)
    for step in found.steps:
        said = json.loads((found.root / step.folder / "step.json").read_text())
        wanted = ["python", "-m", "x", "--name", f"t {step.key}", "v4:2x2x4", "--"]
        assert said.get("program") == (wanted if step.kind == "train" else None)
    for text in ("x {nobody}", "x '", "x {"):
        found = table(tmp_path / "other", models=models, submit={"export": text})
        with pytest.raises(ConfigError, match=r"Study.submit cannot be filled in - got .* export"):
            write_workflow(found)


def test_each_step_has_its_command_and_one_that_is_done_keeps_it(tmp_path):
    found = small(tmp_path)
    write_workflow(found)
    for step in found.steps:
        said = json.loads((found.root / step.folder / "step.json").read_text())
        assert (said["kind"], said["name"], said["argv"]) == (step.kind, step.name, [*step.argv])
        assert said["parents"] == [parent.folder for parent in step.parents]
    first = found.root / found.steps[0].folder
    (first / "done.json").write_text("{}")
    (first / "step.json").write_text("{}")
    (found.root / found.steps[1].folder / "step.json").write_text("{}")
    write_workflow(found)
    assert (first / "step.json").read_text() == "{}"
    assert (found.root / found.steps[1].folder / "step.json").read_text() != "{}"


def test_snakemake_that_is_not_there(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match=r"Snakemake is not there - got .*absent - expected"):
        find_snakemake(tmp_path / "absent")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(
        ConfigError, match=r"not installed - .*pip install snakemake==[\d.]+ \(.*make"
    ):
        find_snakemake(None)
    (tmp_path / "snakemake").write_text("")
    (tmp_path / "snakemake").chmod(0o755)
    assert Path(find_snakemake(None)) == tmp_path / "snakemake"


def test_a_study_is_run_once_at_a_time(tmp_path):
    found = small(tmp_path)
    found.root.mkdir()
    with open(found.root / ".lock", "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(
            ConfigError, match=r"the study is being run already - at .* - wait for it"
        ):
            run_workflow(found, "true", jobs=1)
    assert run_workflow(found, "true", jobs=1) == 0


@pytest.mark.slow
def test_slurm_is_asked_for_what_steps_need(tmp_path, snakemake, monkeypatch):
    """By stand-ins for SLURM's programs: sbatch notes its call and refuses."""
    packages = Path(snakemake).parent.parent.glob("lib/python*/site-packages/*plugin_slurm")
    if not any(packages):
        pytest.skip(f"{NO_SNAKEMAKE}; there: pip install snakemake-executor-plugin-slurm")
    programs, noted = tmp_path / "bin", tmp_path / "noted"
    programs.mkdir()
    for name in ("sbatch", "squeue", "sacct", "sacctmgr", "sinfo", "sshare", "scontrol", "scancel"):
        note = f'echo "$@" >> {noted}; exit 1' if name == "sbatch" else ""
        (programs / name).write_text(f"#!/bin/sh\n{note}\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    (tmp_path / "config.yaml").write_text("slurm-init-seconds-before-status-checks: 1\n")
    monkeypatch.setenv("SNAKEMAKE_PROFILE", str(tmp_path))
    needs = {"slurm_partition": "gpu", "runtime": 60, "mem_mb": 5000}
    found = small(tmp_path, datasets=("none",), resources={"evaluate": needs})
    assert run_workflow(found, snakemake, jobs=4, executor="slurm") != 0
    (call,) = noted.read_text().splitlines()
    for words in ("-p gpu", "-t 60", "--mem 5000", f"rule_evaluate_{found.steps[0].key}"):
        assert words in call.replace("'", ""), call
    assert {state_of(found.root, step) for step in found.steps} == {"waiting"}


@pytest.mark.slow
def test_killed_three_times_failed_mended_and_changed(tmp_path, snakemake, fake):
    """What steps make is copied from a study that `finish` made; kills reach process groups.

    One study, as each start of Snakemake takes seconds.
    """
    whole = finish(three_cells(tmp_path, "made"))
    wanted = write_reports(whole).read_bytes()
    found = three_cells(tmp_path, "run")
    write_workflow(found)
    fake.bad.write_text("--gin.MIXTURE_OR_TASK_NAME='tulu_dolly'")
    for least in (1, 3, 5):
        killed_when_so_many_are_done(found, snakemake, least)
    before = len(fake())
    assert run_workflow(found, snakemake, jobs=4) != 0
    states = {(s.kind, s.name): state_of(found.root, s) for s in found.steps}
    (failed,) = (name for name, state in states.items() if state == "failed")
    assert failed == ("train", "small+dolly")
    waiting = {name for name, state in states.items() if state == "waiting"}
    assert {kind for kind, _ in waiting} == {"export", "evaluate", "losses", "report"}
    assert all(name.startswith("small+dolly") for _, name in waiting)
    assert [lines for _, lines in failures(found)] == [["cannot: no room"]]
    fake.bad.unlink()
    assert run_workflow(found, snakemake, jobs=4) == 0
    assert {state_of(found.root, step) for step in found.steps} == {"done"}
    lines = fake()[before:]
    again = {line for line in lines if lines.count(line) > 1}
    assert len(again) == 1 and "tulu_dolly" in min(again) and min(again).startswith("train")
    assert write_reports(found).read_bytes() == wanted
    for name in (TEXT, LATEX, NUMBERS):
        assert (found.root / name).read_bytes() == (whole.root / name).read_bytes()
    after = compile_study(changed(found.study, gin_files=("other.gin",)), held_out)
    before = len(fake())
    assert run_workflow(after, snakemake, jobs=4) == 0
    kinds = [line.split()[0] for line in fake()[before:]]
    assert kinds.count("train") == kinds.count("export") == kinds.count("eval") == 2
    assert "data" not in kinds and len(kinds) == 10


def held_out(model):
    return Recipe(f"{list(model.gin_files)}", 512, "hf", heldout=4)


def three_cells(tmp_path, name):
    grid = Grid(models=(base(),), datasets=(NONE, ALPACA, DOLLY), evaluations=(
        evaluation(tasks=tuple(TASKS)),
    ))  # fmt: skip
    one = study(tmp_path, folder=str(tmp_path / name), grids=(grid,))
    return compile_study(one, held_out)


def killed_when_so_many_are_done(found, snakemake, least):
    command = [snakemake, "--snakefile", found.root / "Snakefile", "--directory", found.root]
    process = subprocess.Popen(
        [*command, "--cores", "4", *OPTIONS], env=workflow._environment(), start_new_session=True
    )
    while process.poll() is None and len(list(found.root.glob("*/*/done.json"))) < least:
        time.sleep(0.02)
    assert process.poll() is None
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
