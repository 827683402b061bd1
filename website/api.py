"""Which modules the reference of the API shows; their docstrings are its text."""

from __future__ import annotations

import ast

from website.source import ROOT

PAGES: dict[str, tuple[str, list[str]]] = {
    "chat": ("Conversations and tokens", ["tulu_jax.chat"]),
    "tasks": ("Datasets", ["tasks", "tulu_jax.data.specs", "tulu_jax.data.faults"]),
    "data": (
        "From conversations to batches",
        [
            "tulu_jax.data.config",
            "tulu_jax.data.ensure",
            "tulu_jax.data.packing",
            "tulu_jax.data.rows",
            "tulu_jax.data.seqio_glue",
        ],
    ),
    "ops": ("Array functions", ["tulu_jax.ops"]),
    "models": ("Models", ["tulu_jax.models"]),
    "parallel": ("Devices", ["tulu_jax.parallel"]),
    "train": (
        "Training",
        [
            "tulu_jax.train.config",
            "tulu_jax.train.loop",
            "tulu_jax.train.loss",
            "tulu_jax.train.optimizer",
            "tulu_jax.train.trained",
        ],
    ),
    "checkpoint": (
        "Checkpoints",
        ["tulu_jax.checkpoint.hf", "tulu_jax.checkpoint.manager", "tulu_jax.checkpoint.verify"],
    ),
    "generate": ("Generation", ["tulu_jax.generate"]),
    "plan": ("Planning", ["tulu_jax.plan"]),
    "eval": (
        "Benchmarks",
        ["eval.harness.benchmark", "eval.harness.statistics", "eval.harness.compare"],
    ),
    "interop": ("t5x", ["tulu_jax.interop.t5x"]),
    "errors": ("Errors", ["tulu_jax.errors"]),
}
"""Page -> its title and the modules that it shows."""

PAGE_OF_ROOM = {
    **{f"tulu_jax/{name}": name for name in PAGES if name not in ("tasks", "eval", "errors")},
    "tasks": "tasks",
    "eval": "eval",
}


def exports(module: str) -> dict[str, str]:
    """The names in a package's `__all__`, each with the full name of what it is there."""
    path = ROOT / module.replace(".", "/") / "__init__.py"
    if not path.is_file():
        return {}
    body = ast.parse(path.read_text(encoding="utf-8")).body
    named = next(
        (
            ast.literal_eval(node.value)
            for node in body
            if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__"
        ),
        [],
    )
    origins = {
        alias.asname or alias.name: f"{node.module}.{alias.name}"
        for node in body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    return {name: origins.get(name, f"{module}.{name}") for name in named}


def hidden(module: str) -> list[str]:
    """What a package exports under the name of a file of its own, which hides it."""
    folder = ROOT / module.replace(".", "/")
    return [
        origin
        for name, origin in exports(module).items()
        if (folder / f"{name}.py").is_file() or (folder / name).is_dir()
    ]


def pages() -> dict[str, str]:
    """The reference's pages by name, in the generator's language."""
    made = {}
    for name, (title, modules) in PAGES.items():
        shown = [one for module in modules for one in (module, *hidden(module))]
        made[f"api/{name}.md"] = "\n".join([f"# {title}", "", *(f"::: {one}\n" for one in shown)])
    return made


def index() -> str:
    """The list of the reference's pages."""
    lines = ["| page | modules |", "|---|---|"]
    for name, (title, modules) in PAGES.items():
        named = ", ".join(f"`{module}`" for module in modules)
        lines.append(f"| [{title}](api/{name}.md) | {named} |")
    return "\n".join(lines)
