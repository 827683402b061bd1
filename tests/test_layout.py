"""Who may import whom: the table of rooms, enforced."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HEAVY = {"jax", "flax", "optax", "orbax", "torch", "tensorflow", "seqio", "tensorflow_datasets",
         "grain", "gin", "transformers", "sentencepiece", "tokenizers", "safetensors"}  # fmt: skip
BASE = {
    "tulu_jax",
    "tulu_jax.errors",
    "tulu_jax.axes",
    "tulu_jax.console",
    "tulu_jax.fields",
    "tulu_jax.files",
    "tulu_jax.places",
    "tulu_jax.processes",
}

MAY_IMPORT = {
    "tulu_jax/places": (set(), set()),
    "tulu_jax/chat": (set(), {"sentencepiece", "tokenizers"}),
    "tulu_jax/download": (set(), set()),
    "tulu_jax/data": ({"chat", "download"}, {"grain"}),
    "tulu_jax/inspect": ({"chat", "data"}, set()),
    "tulu_jax/ops": (set(), {"jax"}),
    "tulu_jax/models": ({"ops"}, {"jax", "flax"}),
    "tulu_jax/parallel": ({"models"}, {"jax", "flax"}),
    "tulu_jax/train": (
        {"chat", "data", "ops", "models", "parallel", "checkpoint"},
        {"jax", "optax", "flax"},
    ),
    "tulu_jax/checkpoint": (
        {"models", "parallel", "chat"}, {"jax", "orbax", "safetensors"},
    ),
    "tulu_jax/generate": ({"models", "chat", "ops"}, {"jax"}),
    "tulu_jax/serve": ({"generate", "chat", "checkpoint"}, set()),
    "tulu_jax/interop": (
        {"chat", "data", "models", "checkpoint", "train"},
        {"jax", "flax", "optax", "orbax", "seqio"},
    ),
    "tulu_jax/plan": (
        {"ops", "models", "parallel", "train", "checkpoint", "generate"}, {"jax", "flax", "optax"},
    ),
    "tulu_jax/cli": (
        {"chat", "data", "download", "inspect", "ops", "models", "parallel", "train", "plan",
         "checkpoint", "generate", "serve"},
        {"jax", "gin"},
    ),
    "tasks": ({"chat", "data"}, {"sentencepiece"}),
    "eval": ({"chat", "generate", "inspect"}, set()),
    "eval/study": ({"data", "inspect"}, set()),
}  # fmt: skip
"""Room -> (rooms of tulu_jax, heavy packages) that its files may import, besides its own. A file is
in the longest that holds it."""

PROGRAMS = ("run_eval.py", "predict.py")
"""Files of `eval` that are programs too, whose last lines call the command line."""

EXCEPTIONS = {
    "tulu_jax/data/seqio_glue/": {"tensorflow", "seqio", "tensorflow_datasets"},
    "tulu_jax/data/to_device.py": {"jax"},
    "tulu_jax/checkpoint/transformers_model.py": {"torch", "transformers"},
    "eval/toxigen/classifier.py": {"torch", "transformers"},
}
"""Files that see TF/SeqIO/TFDS, JAX or torch in rooms that otherwise do not."""


def imported_modules(path):
    """Every module a file imports at any depth, as dotted names."""
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    return {name for node in nodes for name in imported_names(node)}


def imported_names(node):
    """The modules that one statement imports; none where it is no import."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    absolute = isinstance(node, ast.ImportFrom) and node.module and not node.level
    return [node.module] if absolute else []


def files():
    return [
        (room, path)
        for room in MAY_IMPORT
        for path in sorted((ROOT / room).rglob("*.py"))
        if not any(
            other.startswith(f"{room}/") and path.is_relative_to(ROOT / other)
            for other in MAY_IMPORT
        )
    ]


@pytest.mark.parametrize(("room", "path"), files(), ids=lambda v: str(v).split("main/")[-1])
def test_room_imports_only_what_it_may(room, path):
    rooms, packages = MAY_IMPORT[room]
    place = str(path.relative_to(ROOT))
    packages = packages.union(*(more for at, more in EXCEPTIONS.items() if place.startswith(at)))
    own = room.removeprefix("tulu_jax/")
    for name in imported_modules(path):
        top, *rest = name.split(".")
        if room == "eval" and path.name in PROGRAMS and name == "tulu_jax.cli.evaluate":
            continue
        if top == "tulu_jax" and name not in BASE:
            assert rest[0] in {*rooms, own}, f"{path}: {room} may not import {name}"
        elif top == "tasks":
            assert room in ("tasks", "tulu_jax/cli", "eval", "eval/study"), (
                f"{path}: {room} imports {name}"
            )
        elif top == "eval":
            assert room in ("eval", "eval/study", "tulu_jax/cli"), (
                f"{path}: {room} may not import {name}"
            )
        elif top in HEAVY:
            assert top in packages, f"{path}: {room} may not import {top}"


def test_small_modules_at_the_top_import_nothing_of_ours():
    for name in ("errors", "axes"):
        found = imported_modules(ROOT / "tulu_jax" / f"{name}.py")
        assert {module.split(".")[0] for module in found} <= {"__future__", "typing", "numpy",
                                                              "jaxtyping"}  # fmt: skip


def test_the_command_line_loads_eval_only_when_it_is_wanted():
    for path in sorted((ROOT / "tulu_jax" / "cli").rglob("*.py")):
        names = {
            name
            for node in ast.parse(path.read_text(encoding="utf-8")).body
            if isinstance(node, ast.Import | ast.ImportFrom)
            for name in imported_names(node)
        }
        assert not {name for name in names if name.split(".")[0] == "eval"}, path


def loaded_by(statement):
    code = f"{statement}\nimport sys\nprint(' '.join(m for m in sys.modules if '.' not in m))"
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return set(out.stdout.split())


def test_importing_the_package_loads_nothing_heavy():
    assert not loaded_by("import tulu_jax") & (HEAVY | {"numpy"})


def test_the_chat_room_loads_no_jax():
    assert not loaded_by("import tulu_jax.chat") & {"jax", "tensorflow", "torch", "flax"}


def test_the_training_room_loads_no_tensorflow():
    heavy = {"tensorflow", "seqio", "tensorflow_datasets", "transformers"}
    assert not loaded_by("import tulu_jax.train.loop, tulu_jax.cli.gin_config") & heavy


def test_files_of_tests_are_told_apart():
    """pytest knows those in folders without `__init__.py` by their names alone."""
    alone = [
        path.name
        for path in (ROOT / "tests").rglob("*.py")
        if path.name != "conftest.py" and not (path.parent / "__init__.py").exists()
    ]
    assert [name for name in set(alone) if alone.count(name) > 1] == []
