"""An evaluation that is killed again and again ends as one that was not, and asks nothing twice."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from thorough import THOROUGH

from eval.harness.registry import find_task
from tests.eval.asking import context, read_jsonl, replay, write_jsonl

ROOT = Path(__file__).parents[3]
KILLS, QUESTIONS = 40 if THOROUGH else 16, 150

SCRIPT = """
    import json, os, random, shutil, signal, sys, time
    from pathlib import Path
    from eval.harness import cache, registry, replay, runner
    from tulu_jax.cli import eval_models, eval_run, main

    work, kills = Path(sys.argv[1]), int(sys.argv[2])
    log = work / "asked"
    registry.tasks()
    batch = 1

    def answer(self, wanted, on_done):
        "A model that takes its time: batch after batch, the answers of one not all at once."
        for start in range(0, len(wanted), batch):
            members = wanted[start : start + batch]
            with open(log, "a") as file:
                file.write("".join(ask.key(self.fingerprint) + "\\n" for ask in members))
            time.sleep(0.002)
            for index, ask in enumerate(members, start):
                time.sleep(0.0002)
                on_done(index, self._find(ask))

    replay.ReplayBackend.answer = answer

    def begin(folder, size):
        global batch
        pid = os.fork()
        if not pid:
            batch = size
            os.dup2(2, 1)
            flags = ["--data_dir", str(work), "--save_dir", str(folder), "--batch_size", str(size)]
            flags += ["--replay", str(work / "answers.jsonl")]
            os._exit(main.main(["eval", "gsm_cot_full", *flags]))
        return pid

    def run(folder, size):
        return os.waitstatus_to_exitcode(os.waitpid(begin(folder, size), 0)[1])

    def ended(pid):
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def keys(path):
        "The keys of whole lines."
        text = path.read_text() if path.exists() else ""
        return [json.loads(line)["key"] for line in text.split("\\n")[:-1]]

    begun = time.monotonic()
    assert run(work / "whole", 8) == 0
    took = time.monotonic() - begun

    moments, folder = random.Random(0), work / "killed"
    killed = finished = again = middle = 0
    while True:
        log.write_text("")
        kept, size = set(keys(folder / "answers.jsonl")), moments.choice([1, 2, 5, 16, 40])
        pid = begin(folder, size)
        if killed < kills:
            if killed % 2:  # at any time, or among the answers, however busy the machine is
                time.sleep(moments.uniform(0, took))
            else:
                count = moments.randrange(1, 40)
                while log.read_text().count("\\n") < count and not ended(pid):
                    time.sleep(0.001)
            os.kill(pid, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        asked, now = log.read_text().split(), keys(folder / "answers.jsonl")
        again += len(kept & set(asked))  # what was kept is not asked
        again += len(asked) - len(set(asked))
        assert kept <= set(now) and len(now) == len(set(now)), "lost, or kept twice"
        assert len(set(asked) - set(now)) <= size, "more were lost than were being asked"
        middle += status == -signal.SIGKILL and 0 < len(now) < 150
        killed += status == -signal.SIGKILL
        if status == 0:
            finished += 1
            shutil.move(folder, work / f"finished-{finished}")
            if killed >= kills:
                break
        else:
            assert status == -signal.SIGKILL, status
    print(json.dumps({"killed": killed, "middle": middle, "again": again, "finished": finished}))
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="runs are forked")
def test_kills_do_not_show(tmp_path):
    (tmp_path / "gsm").mkdir()
    numbers = range(QUESTIONS)
    rows = [{"question": f"What is {n}?", "answer": f"It is {n}. #### {n}"} for n in numbers]
    write_jsonl(tmp_path / "gsm" / "test.jsonl", rows)
    _write_answers(tmp_path)
    (tmp_path / "script.py").write_text(textwrap.dedent(SCRIPT))
    done = subprocess.run(
        [sys.executable, str(tmp_path / "script.py"), str(tmp_path), str(KILLS)],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    counts = json.loads(done.stdout)
    assert counts["killed"] >= KILLS and counts["again"] == 0
    assert counts["middle"] >= KILLS // 4  # so many met a run between its first and last answer
    whole = tmp_path / "whole" / "gsm_cot_full"
    assert json.loads((whole / "metrics.json").read_text())["exact_match"] == pytest.approx(0.8)
    for number in range(1, counts["finished"] + 1):
        folder = tmp_path / f"finished-{number}" / "gsm_cot_full"
        for name in ("metrics.json", "predictions.jsonl"):
            assert (folder / name).read_bytes() == (whole / name).read_bytes()
    assert counts["finished"] >= 1


def _write_answers(folder):
    """Answers to every question, four of five right."""
    benchmark, options = find_task("gsm_cot_full")
    setting = context(benchmark, folder / "gsm", options)

    def answer(instance):
        return f" It is {int(instance.gold) + (int(instance.gold) % 5 == 0)}."

    path = replay(folder / "answers.jsonl", benchmark, setting, answer)
    assert len(read_jsonl(path)) == QUESTIONS
