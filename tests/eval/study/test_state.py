"""How far a study is, by the files in its folder."""

import fcntl
import os

from eval.study.state import cell_state, failures, last_lines, state_of, states_of
from tests.eval.study.small_studies import table


def put(table, step, name, text="{}"):
    folder = table.root / step.folder
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)


def test_a_step_is_what_its_files_say(tmp_path):
    found = table(tmp_path)
    step = found.steps[0]
    assert state_of(found.root, step) == "waiting"
    put(found, step, "log.txt")
    put(found, step, ".busy")
    assert state_of(found.root, step) == "stopped"
    with open(found.root / step.folder / ".busy") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert state_of(found.root, step) == "running"
    assert state_of(found.root, step) == "stopped"
    put(found, step, "failed.json")
    assert state_of(found.root, step) == "failed"
    put(found, step, "done.json")
    assert state_of(found.root, step) == "done"


def test_a_cell_is_what_its_steps_are(tmp_path):
    found = table(tmp_path)
    (cell,) = (one for one in found.cells if one.name == "small+dolly")
    prepare, train, export, *others = cell.steps
    assert cell_state(cell, states_of(found)) == "waiting"
    put(found, prepare, "done.json")
    assert cell_state(cell, states_of(found)) == "stopped"
    put(found, train, "failed.json")
    assert cell_state(cell, states_of(found)) == "failed"
    os.remove(found.root / train.folder / "failed.json")
    for step in (train, export, *others):
        put(found, step, "done.json")
    assert cell_state(cell, states_of(found)) == "done"


def test_failures_have_their_logs_last_lines(tmp_path):
    found = table(tmp_path)
    first, second = found.steps[:2]
    put(found, first, "failed.json")
    put(found, first, "log.txt", "\n".join(f"line {n}\n" for n in range(30)))
    put(found, second, "failed.json")
    assert failures(found) == [(first, [f"line {n}" for n in range(20, 30)]), (second, [])]


def test_a_log_may_hold_any_bytes(tmp_path):
    (tmp_path / "log").write_bytes(b"a\xff\n\n  \nb")
    assert last_lines(tmp_path / "log") == ["a\\xff", "b"]
