"""Which modules the reference of the API shows; their docstrings are its text."""

from __future__ import annotations

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


def pages() -> dict[str, str]:
    """The reference's pages by name, in the generator's language."""
    return {
        f"api/{name}.md": "\n".join([f"# {title}", "", *(f"::: {module}\n" for module in modules)])
        for name, (title, modules) in PAGES.items()
    }


def index() -> str:
    """The list of the reference's pages."""
    lines = ["| page | modules |", "|---|---|"]
    for name, (title, modules) in PAGES.items():
        named = ", ".join(f"`{module}`" for module in modules)
        lines.append(f"| [{title}](api/{name}.md) | {named} |")
    return "\n".join(lines)
