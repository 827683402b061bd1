"""The pages of docs/: in the menu, blocks that say what they need, settings that exist."""

import dataclasses
import re
import tomllib

import pytest
from test_docs import commands, fences

from tulu_jax.cli import gin_config
from tulu_jax.cli.main import make_parser
from website import stage
from website.source import ROOT

DOCS = ROOT / "docs"
MIGRATION = sorted(DOCS.glob("from_*.md"))
ELSEWHERE = ("gcloud ", "kubectl ", "sbatch ", "srun ")


def named(nav):
    for entry in nav:
        for value in [entry] if isinstance(entry, str) else entry.values():
            yield from [value] if isinstance(value, str) else named(value)


def test_every_page_is_in_the_menu_once():
    config = tomllib.loads((ROOT / "website" / "zensical.toml").read_text())
    there = [stage.name_of(path) for path in DOCS.rglob("*.md")]
    menu = list(named(config["project"]["nav"]))
    assert sorted(menu) == sorted([*there, *stage.MORE_PAGES.values()])


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=lambda page: page.name)
def test_what_runs_elsewhere_says_so(page):
    for block in fences(page, "sh"):
        if any(line.startswith(ELSEWHERE) for line in block.splitlines()):
            assert block.startswith("# needs "), block


def flags():
    """Every flag of `tulu train`, of which a page may speak as of a setting."""
    parser = make_parser()
    (subparsers,) = (action for action in parser._actions if action.dest == "command")
    return {
        option
        for action in subparsers.choices["train"]._actions
        for option in action.option_strings
    }


def fields():
    """Fields that gin binds, as `DataConfig.rates`, and the names of their classes."""
    found = set()
    for kind in (*gin_config.SETTINGS, *gin_config.MODELS):
        found |= {kind.__name__, *(f"{kind.__name__}.{f.name}" for f in dataclasses.fields(kind))}
    return found


@pytest.mark.parametrize("page", MIGRATION, ids=lambda page: page.name)
def test_settings_of_a_migration_page_exist(page):
    known = set(gin_config.MACROS) | flags() | fields() | {"--gin.NAME=VALUE", "MODEL"}
    rows = [
        [cell.strip() for cell in line.strip("|").split(" | ")]
        for line in page.read_text().splitlines()
        if line.startswith("| ") and "`" in line
    ]
    rows = [row for row in rows if "`tulu" not in row[1] and len(row) == 3]
    assert len(rows) > 25
    for row in rows:
        ours = re.findall(r"`([^`]+)`", row[1])
        assert ours or row[1] == "nothing", row
        assert [name for name in ours if name not in known] == [], row


@pytest.mark.parametrize("page", MIGRATION, ids=lambda page: page.name)
def test_a_migration_page_names_its_source_and_has_a_command(page):
    text = page.read_text()
    assert re.search(r"at `[\w-]+/[\w-]+@[0-9a-f]{7}`", text.replace("\n", " "))
    assert any(
        words[:2] == ["tulu", "train"] for body in fences(page, "sh") for words in commands(body)
    )


def test_what_the_command_says_is_on_the_page():
    main = (ROOT / "tulu_jax" / "cli" / "main.py").read_text()
    text = (DOCS / "troubleshooting.md").read_text()
    told = re.findall(r"^\| `([^`]+)` \|", text, re.MULTILINE)
    assert len(told) == 5
    assert [message for message in told if message not in main] == []
