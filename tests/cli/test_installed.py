"""What `pip install` brings works from any folder: recipes, the demo's tokenizer, the report."""

import subprocess
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent

PARTS = {"finetune.gin", "paper.gin", "large.gin", "fast.gin"}
"""Files of runs/ that recipes include; all others are recipes."""

LOADS = """
import sys
from pathlib import Path
import gin_configs
from tulu_jax.cli.gin_config import load_train_config
from tulu_jax.cli.gin_files import config_folder
assert Path(gin_configs.__file__).is_relative_to(sys.argv[1]), gin_configs.__file__
for path in sorted((config_folder() / "runs").rglob("*.gin")):
    name = str(path.relative_to(config_folder()))
    if path.name not in sys.argv[2:]:
        start = [] if path.name == "demo.gin" else ["INITIAL_CHECKPOINT_PATH = 'llama-7b'"]
        config = load_train_config([name], ["MODEL_DIR = 'x'", *start])
        print(name, config.data.tokenizer, sep="\\t")
for kind in ("models", "hardware"):
    for path in sorted((config_folder() / kind).glob("*.gin")):
        load_train_config(["runs/demo.gin", f"{kind}/{path.name}"], ["MODEL_DIR = 'x'"])
"""


def test_every_file_of_the_packages_is_in_the_wheel(installed):
    listed = subprocess.run(
        ["git", "ls-files", "-z", "tulu_jax", "tasks", "eval", "gin_configs"],
        cwd=ROOT, capture_output=True, check=True,
    )  # fmt: skip
    names = [name for name in listed.stdout.decode().split("\0") if (ROOT / name).is_file()]
    names = [name for name in names if name]
    assert len(names) > 300
    assert [name for name in names if not (installed / name).is_file()] == []


def test_every_recipe_loads_from_another_folder(tmp_path, installed, away):
    done = away(tmp_path, "-c", LOADS, str(installed), *PARTS)
    assert done.returncode == 0, done.stderr
    recipes = dict(line.split("\t") for line in done.stdout.splitlines())
    names = [path.name for path in (ROOT / "gin_configs" / "runs").rglob("*.gin")]
    assert len(recipes) == len(names) - len(PARTS) > 40 and set(names) > PARTS
    assert Path(recipes.pop("runs/demo.gin")) == installed / "tasks" / "demo_tokenizer"
    assert {Path(named).name for named in recipes.values()} == {"llama-7b"}


def test_the_command_shows_the_demos_settings(tmp_path, installed, away):
    command = ["-m", "tulu_jax", "train", "--gin_file=runs/demo.gin", "--gin.MODEL_DIR=my run"]
    done = away(tmp_path, *command, "--print_config")
    assert done.returncode == 0, done.stderr
    assert f"DataConfig.tokenizer = '{installed}/tasks/demo_tokenizer'" in done.stdout
    assert not list(tmp_path.iterdir()), "nothing is made"


def test_pages_are_written_from_another_folder(tmp_path, installed, away):
    tokenizer = str(installed / "tasks" / "demo_tokenizer")
    command = ["-m", "tulu_jax", "data", "inspect", "tulu_demo", "--tokenizer", tokenizer]
    done = away(tmp_path, *command, "--limit", "5", "--html", "a page.html")
    assert done.returncode == 0, done.stderr
    assert "<style>" in (tmp_path / "a page.html").read_text()
