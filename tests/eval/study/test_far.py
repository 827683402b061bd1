"""A study in a bucket: what is done is decided there, and small files are copied to and fro."""

import argparse
import json
import sys

import pytest
from buckets import WRITES

from eval.study import step as steps
from eval.study.far import fetch, hand_in
from eval.study.state import states_of
from eval.study.step import INCOMPLETE, run_step
from eval.study.workflow import write_workflow
from tests.eval.study.finished_studies import finish, small_table
from tests.eval.study.small_studies import DOLLY, base, table
from tulu_jax.cli.study_report import NUMBERS, PAGE, write_reports
from tulu_jax.cli.study_run import run_study
from tulu_jax.console import plain_console
from tulu_jax.places import StorageError, as_place

CODE = """
import pathlib, sys
words = sys.argv[1:]
if words[0] == "fail":
    sys.exit("no room")
if words[0] == "train":
    from tulu_jax.places import as_place
    run = next(w.split("'")[1] for w in words if w.startswith("--gin.MODEL_DIR="))
    (as_place(run) / "checkpoints/2/meta/metadata").write_text('{"total_steps": 2}')
if "--save_dir" in words:
    folder = pathlib.Path(words[words.index("--save_dir") + 1]) / "task"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "predictions.jsonl").write_text(" ".join(words))
"""
FAKE = (sys.executable, "-c", CODE)


@pytest.fixture
def machine(bucket, tmp_path):
    """The same study, as machines see it."""

    def see(name):
        found = table(
            tmp_path, models=(base(),), datasets=("none", DOLLY), folder=f"{bucket}/study",
            models_dir=f"{bucket}/models", scratch_dir=str(tmp_path / name),
        )  # fmt: skip
        fetch(found)
        return found

    return see


def of(found, kind):
    return next(step for step in reversed(found.steps) if step.kind == kind)


def test_weights_and_stores_lie_in_the_bucket_and_results_are_made_here(machine, bucket):
    found = machine("a")
    home = f"{bucket}/study"
    argv = {step.kind: " ".join(step.argv) for step in found.steps}
    train, export = of(found, "train"), of(found, "export")
    assert f"--tokenizer {bucket}/models/small" in argv["prepare"]
    assert f"--data_dir {home}/data" in argv["prepare"]
    assert f"--gin.MODEL_DIR='{home}/{train.folder}/run'" in argv["train"]
    assert f"--gin.INITIAL_CHECKPOINT_PATH='{bucket}/models/small'" in argv["train"]
    assert f"--gin.DATA_DIR='{home}/data'" in argv["train"]
    assert f"--output {home}/{export.folder}/small+dolly" in argv["export"]
    assert f"--model {home}/{export.folder}/small+dolly" in argv["evaluate"]
    assert f"--save_dir {of(found, 'evaluate').folder}/results" in argv["evaluate"]


def test_what_is_done_on_one_machine_is_done_on_all(machine, tmp_path):
    a = machine("a")
    write_workflow(a)
    for step in a.steps:
        assert run_step(a.root / step.folder, FAKE) == 0
    assert set(states_of(a).values()) == {"done"}
    b = machine("b")
    assert b.root != a.root and set(states_of(b).values()) == {"done"}
    place = f"{of(b, 'evaluate').folder}/results/task/predictions.jsonl"
    assert (b.root / place).read_text() == (a.root / place).read_text()
    assert not (b.root / of(b, "train").folder / "run").exists()
    write_workflow(b)
    again = (sys.executable, "-c", "raise SystemExit(3)")
    assert run_step(b.root / b.steps[0].folder, again) == 0
    # To be run again: on every machine, and what it then makes replaces what was there.
    step = of(a, "evaluate")
    (a.home / step.folder / "done.json").unlink()
    a, b = machine("a"), machine("b")
    assert states_of(a)[step.key] == "stopped" and states_of(b)[step.key] != "done"
    write_workflow(a)
    assert run_step(a.root / step.folder, (*FAKE[:2], CODE.replace("join(words)", "join('new')")))\
        == 0  # fmt: skip
    b = machine("b")
    assert states_of(b)[step.key] == "done"
    assert (b.root / place).read_text() == "n e w"


def test_a_failure_is_seen_in_the_bucket_and_mended(machine):
    a = machine("a")
    write_workflow(a)
    step = of(a, "export")
    assert run_step(a.root / step.folder, (*FAKE, "fail")) == 1
    far = a.home / step.folder
    assert json.loads((far / "failed.json").read_bytes())["status"] == 1
    assert (far / "log.txt").read_bytes() == b"no room\n"
    assert run_step(a.root / step.folder, FAKE) == 0
    assert not (far / "failed.json").exists() and (far / "done.json").exists()
    assert not (a.root / step.folder / "failed.json").exists()


def test_of_two_machines_the_first_is_kept(machine):
    a, b = machine("a"), machine("b")
    step = of(a, "evaluate")
    for found, text in ((a, "first"), (b, "second")):
        folder = found.root / step.folder
        (folder / "results").mkdir(parents=True)
        (folder / "results" / text).write_text(text)
        hand_in(folder, found.home / step.folder, json.dumps({"status": 0, "by": text}))
    for found in (a, b):
        assert json.loads((found.root / step.folder / "done.json").read_text())["by"] == "first"
        assert (found.root / step.folder / "results" / "first").read_text() == "first"


def test_what_cannot_be_handed_in_is_not_done(machine, monkeypatch):
    def refuse(*_):
        raise OSError("the bucket is gone")

    a = machine("a")
    write_workflow(a)
    step = of(a, "evaluate")
    monkeypatch.setattr(steps, "hand_in", refuse)
    assert run_step(a.root / step.folder, FAKE) == INCOMPLETE
    log = (a.root / step.folder / "log.txt").read_text()
    assert log == "done, but it cannot be handed in: the bucket is gone\n"
    assert states_of(a)[step.key] == "failed"


def test_a_bucket_that_may_only_be_read_is_refused_before_a_step(machine, storage, monkeypatch):
    found = machine("a")
    monkeypatch.setattr("eval.study.workflow.find_snakemake", lambda _: "snakemake")
    storage.fault(p403=1, match=WRITES)
    with pytest.raises(StorageError, match=r"no permission to write .*storage\.objects\.create - "):
        run_study(found, argparse.Namespace(snakemake=None), plain_console())


def test_the_report_is_in_the_bucket(bucket, tmp_path):
    found = finish(small_table(
        tmp_path, folder=f"{bucket}/study", scratch_dir=str(tmp_path / "a")
    ))  # fmt: skip
    assert write_reports(found) == found.home / PAGE == as_place(f"{bucket}/study/{PAGE}")
    for name in (PAGE, NUMBERS):
        assert (found.home / name).read_bytes() == (found.root / name).read_bytes()
    assert str(found.root) not in (found.root / PAGE).read_text()
