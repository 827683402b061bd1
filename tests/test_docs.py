"""What README, docs, recipes and help texts show: commands that parse, files that exist."""

import argparse
import ast
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import quick_xla

from eval.study.workflow import SNAKEMAKE
from tulu_jax.cli import eval_compare, evaluate, exporter, generate, importer, train
from tulu_jax.cli.gin_config import load_train_config, parse_overrides
from tulu_jax.cli.main import main, make_parser
from tulu_jax.cli.study_gin import load_study

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
PAGES = [README, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
RECIPES = sorted((ROOT / "gin_configs" / "runs").rglob("*.gin"))
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def fences(page, language):
    """The bodies of a page's fenced blocks of one language."""
    return [body for found, body in FENCE.findall(page.read_text()) if found == language]


def commands(text):
    """Lines of text that begin with `tulu`, continued over a trailing backslash, as words."""
    joined = text.replace("\\\n", " ")
    lines = [line.strip().removesuffix(" &") for line in joined.splitlines()]
    lines = [re.sub(r"^srun .*? (?=tulu )", "", line) for line in lines]
    return [shlex.split(line, comments=True) for line in lines if line.startswith("tulu ")]


def shown():
    """(where, words) of every command that a user can copy from somewhere."""
    texts = {page.name: "\n".join(fences(page, "sh")) for page in PAGES}
    for recipe in RECIPES:
        comments = [
            line.lstrip("# ") for line in recipe.read_text().splitlines() if line[:1] == "#"
        ]
        texts[recipe.name] = "\n".join(comments)
    for module in (exporter, generate, importer):
        texts[module.__name__] = module.EPILOG
    texts[train.__name__] = train.EXAMPLES
    return [(where, words) for where, text in texts.items() for words in commands(text)]


def test_readme_is_short():
    assert len(README.read_text().splitlines()) < 200


@pytest.mark.parametrize(("where", "words"), shown(), ids=lambda value: str(value)[:60])
def test_command_parses(where, words):
    args, rest = make_parser().parse_known_args(words[1:])
    if args.command == "train":
        overrides = parse_overrides(rest)
        config = load_train_config(args.gin_file, args.gin_bindings + overrides)
        assert config.model_dir and config.data.mixture and config.data.tokenizer
    elif args.command == "study":
        assert load_study(args.study, rest).grids
    elif rest[:1] == ["compare"]:
        parser = argparse.ArgumentParser()
        eval_compare.add_arguments(parser)
        parser.parse_args(rest[1:])
    elif args.command == "eval" and rest[0] not in ("list", "quirks"):
        parsers = {
            "score": evaluate.score_parser,
            "show": evaluate.show_parser,
            "preferences": evaluate.preferences_parser,
        }
        part = parsers.get(rest[0])
        assert (part or evaluate.evaluate_parser)().parse_args(rest[1:] if part else rest)
    elif args.command == "eval":
        assert not rest[1:]
    else:
        assert not rest


def test_commands_are_found():
    found = {where for where, _ in shown()}
    assert {"README.md", "data.md", "checkpoints.md", "generate.md", "training.md"} <= found
    assert {"alpaca_7b.gin", "alpaca_stories260k.gin"} <= found


def test_targets_of_make_exist():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    shown_targets = {
        name for page in PAGES for name in re.findall(r"^ *make ([a-z]+)", page.read_text(), re.M)
    }
    assert {"demo", "test"} <= shown_targets <= targets


def test_snakemake_is_pinned_to_one_version():
    pins = (ROOT / "constraints-snakemake.txt").read_text().splitlines()
    extra = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert extra["optional-dependencies"]["study"] == [SNAKEMAKE] and SNAKEMAKE in pins
    shown = re.findall(r"snakemake==[\d.]+", (ROOT / "docs" / "study.md").read_text())
    assert shown and set(shown) == {SNAKEMAKE}
    assert "--requirement constraints-snakemake.txt" in (ROOT / "Makefile").read_text()


def test_tree_of_readme_exists():
    tree = README.read_text().split("## The tree")[1].split("```")[1]
    paths = [line.split()[0] for line in tree.splitlines() if line.strip()]
    assert len(paths) > 10
    assert [path for path in paths if not (ROOT / path).is_dir()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#]+)", page.read_text())
    relative = [link for link in links if "://" not in link]
    assert [link for link in relative if not (page.parent / link).exists()] == []


def test_modules_named_by_guards_exist():
    text = (ROOT / "docs" / "guards.md").read_text()
    named = set(re.findall(r"`([a-z_]+/[\w/]+\.py)`", text))
    assert len(named) > 8
    assert [
        n for n in named if not (ROOT / "tulu_jax" / n).exists() and not (ROOT / n).exists()
    ] == []


MARK = re.compile(r"# (runs|goes on)(,? .+)?\n|# needs .+\n")
RUN_HERE = {
    "tutorial.md": "tests/website/test_tutorial.py",
    "report.md": "tests/cli/test_report.py",
    "add_a_benchmark.md": "tests/eval/harness/test_add_a_benchmark.py",
}
"""Pages whose commands are run, and by what; Python that `# runs` is run below."""


@pytest.mark.parametrize("page", PAGES[2:], ids=lambda page: page.name)
def test_blocks_say_who_runs_them(page):
    for language in ("sh", "python"):
        for block in fences(page, language):
            assert MARK.match(block), block


def test_commands_that_run_are_run_by_a_test():
    found = {
        page.name for page in PAGES[2:] for block in fences(page, "sh")
        if not block.startswith("# needs ")
    }  # fmt: skip
    assert found == set(RUN_HERE)
    for page, test in RUN_HERE.items():
        assert f'"{page}"' in (ROOT / test).read_text()


def snippets():
    return [(page, body) for page in PAGES for body in fences(page, "python")]


def test_snippets_are_python():
    for _, body in snippets():
        ast.parse(body)


@pytest.fixture(scope="module")
def playground(tmp_path_factory):
    """A folder in which the repository's tasks are found by their relative path."""
    folder = tmp_path_factory.mktemp("docs")
    (folder / "tasks").symlink_to(ROOT / "tasks")
    return folder


def programs():
    """(page, program): a snippet that says it runs, with those below it that say they go on."""
    found = []
    for page, body in snippets():
        if body.startswith("# runs\n"):
            found.append((page.name, body))
        elif body.startswith("# goes on\n"):
            found[-1] = (page.name, f"{found[-1][1]}\n{body}")
    return found


RUNNABLE = programs()
PROGRAM = """
import sys
from jaxtyping import install_import_hook
from tasks import demo

demo.SIZES["train"] = 3000
install_import_hook(sys.argv[2].split(","), "type_checks.check")
exec(compile(sys.argv[1], "snippet", "exec"), globals())
for name in [name for name in globals() if name.startswith("test_")]:
    globals()[name]()
"""
"""Runs a program, and the tests that it holds, with no more of tulu_demo than its first
conversations; what is here is checked as pytest has it checked."""
CHECKED = re.search(r"--jaxtyping-packages=(\S+),", (ROOT / "pyproject.toml").read_text())[1]


@pytest.mark.slow
@pytest.mark.parametrize(("page", "body"), RUNNABLE, ids=lambda value: value[:40])
def test_snippet_runs(page, body, playground):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, body, CHECKED],
        cwd=playground,
        env={
            **os.environ,
            "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}",
            "XLA_FLAGS": quick_xla.flags(),
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_the_table_of_quirks_is_that_of_the_code(capsys):
    assert main(["eval", "quirks", "--markdown"]) == 0
    assert capsys.readouterr().out in (ROOT / "docs" / "evaluation.md").read_text()
