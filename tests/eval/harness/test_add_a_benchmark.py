"""docs/add_a_benchmark.md: its file, put where it says, is found; its test and commands run."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "add_a_benchmark.md"
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)

COMMANDS = """
import sys
from tulu_jax.cli.main import main
for line in sys.stdin:
    status = main(line.split()[1:])
    assert not status, (line, status)
from tulu_jax.cli.evaluate import run_benchmark
flags = ["--data_dir", "data/eval/riddles", "--save_dir", "one", "--replay", "answers.jsonl"]
sys.exit(run_benchmark("riddles", [*flags, "--eval_batch_size", "2"]))
"""


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """The repository with one benchmark more, and a folder to work in."""
    root = tmp_path_factory.mktemp("tree")
    for name in ("tulu_jax", "tasks"):
        (root / name).symlink_to(ROOT / name)
    (root / "eval" / "riddles").mkdir(parents=True)
    for path in (ROOT / "eval").iterdir():
        (root / "eval" / path.name).symlink_to(path)
    (root / "eval" / "riddles" / "__init__.py").write_text("")
    (root / "eval" / "riddles" / "run_eval.py").write_text(snippets("python")[0])
    (root / "work").mkdir()
    return root


def snippets(language):
    return [body for found, body in FENCE.findall(PAGE.read_text()) if found == language]


def run(tree, code, text=""):
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=tree / "work", input=text,
        env={"PYTHONPATH": str(tree), "PATH": "", "JAX_PLATFORMS": "cpu", "HOME": str(tree)},
        capture_output=True, text=True,
    )  # fmt: skip


@pytest.mark.slow
def test_the_page_is_true(tree):
    _, test = snippets("python")
    done = run(tree, test)
    assert done.returncode == 0, done.stderr
    (shown,) = (body.partition("\n")[2] for body in snippets("sh"))
    commands = [shlex.split(line) for line in shown.splitlines()]
    assert [words[:2] for words in commands] == [["tulu", "eval"]] * 4
    done = run(tree, COMMANDS, shown)
    assert done.returncode == 0, done.stderr
    assert "riddles  riddles with answers of one word\n  riddles\n  riddles_hint" in done.stdout
    assert "(5 letters)" in done.stdout and "33.3" in done.stdout and "66.7" in done.stdout
    assert (tree / "work" / "one" / "metrics.json").exists()
