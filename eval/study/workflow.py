"""A study as a Snakemake workflow: a rule a step, finished where its marker is."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import eval
from eval.study.cells import Step, Table
from eval.study.state import DONE, STEP
from eval.study.study import KINDS
from tulu_jax.errors import ConfigError
from tulu_jax.files import json_or_none, write_json, write_whole
from tulu_jax.places import Address
from tulu_jax.processes import try_lock

SNAKEFILE, LOCK = "Snakefile", ".lock"
SNAKEMAKE = "snakemake==9.27.1"
"""What this was tried with, as pip takes it."""
OPTIONS = (
    "--keep-going",
    *("--rerun-triggers", "input", "params"),  # an edit of our code must not train anew
    "--ignore-incomplete",  # a marker is whole or not there, whatever was killed
    "--nolock",  # ours ends with its processes, however they end
    *("--quiet", "all"),  # steps say themselves what they do
)


def snakefile(table: Table) -> str:
    """The workflow, to be run in the study's folder."""
    done = "".join(f"        {_marker(step)!r},\n" for step in table.steps)
    rules = "".join(_rule(step, table.study.resources.get(step.kind, {})) for step in table.steps)
    return f"rule all:\n    input:\n{done}{rules}"


def _rule(step: Step, resources: Mapping[str, Any]) -> str:
    """A rule; its name and parameters are what the step depends on, the command is not."""
    needs = ", ".join(f"{name}={value!r}" for name, value in resources.items())
    inputs = ", ".join(repr(_marker(parent)) for parent in step.parents)
    command = shlex.join([sys.executable, "-m", "eval.study.step", step.folder])
    escaped = command.replace("{", "{{").replace("}", "}}")
    return (
        f"\nrule {step.kind}_{step.key}:\n"
        + (f"    input: {inputs}\n" if inputs else "")
        + f"    output: {_marker(step)!r}\n"
        f"    params: key={step.key!r}\n"
        f"    priority: {len(KINDS) - KINDS.index(step.kind)}\n"  # what others wait for comes first
         + (f"    resources: {needs}\n" if needs else "") + f"    shell: {escaped!r}\n"
    )


def _marker(step: Step) -> str:
    return f"{step.folder}/{DONE}"


def write_workflow(table: Table) -> Path:
    """The path of the Snakefile, written with what each step needs that is not done.

    Raises: OSError.
    """
    root = table.root
    for step in table.steps:
        said = {
            "kind": step.kind,
            "name": step.name,
            "argv": list(step.argv),
            "settings": step.settings,
            "parents": [parent.folder for parent in step.parents],
        }
        if isinstance(table.home, Address):
            said["home"] = str(table.home)
        if step.kind in table.study.submit:
            said["program"] = submitter(table, step)
        path = root / step.folder / STEP
        if not (root / _marker(step)).exists() and json_or_none(path) != said:
            write_json(path, said)
    write_whole(root / SNAKEFILE, snakefile(table))
    return root / SNAKEFILE


def submitter(table: Table, step: Step) -> list[str]:
    """What the step's `tulu ...` is handed to.

    Raises: ConfigError for a place in it that is not known, or a quote that does not end.
    """
    text = table.study.submit[step.kind]
    models = (c.model for c in table.cells if any(one.key == step.key for one in c.steps))
    model = next(models, None)  # none of what people compare
    topology = (model and model.topology) or "local"
    known = {"name": step.name, "key": step.key, "topology": topology}
    try:
        return [part.format(**known) for part in shlex.split(text)]
    except (KeyError, IndexError, ValueError) as error:
        raise ConfigError(
            "Study.submit cannot be filled in", got=repr(text), at=step.kind,
            expected=" ".join(f"{{{name}}}" for name in known), do=f"mend it: {error}",
        ) from None  # fmt: skip


def find_snakemake(given: Path | None) -> str:
    """The program: the one named, else Python's neighbour, else of PATH.

    Raises: ConfigError where there is none.
    """
    beside = Path(sys.executable).with_name("snakemake")
    names = [given] if given else [beside, "snakemake"]
    for name in names:
        if found := shutil.which(name):
            return found
    raise ConfigError(
        "Snakemake is not there" if given else "Snakemake is not installed",
        got=given,
        expected="its program, snakemake",
        do=f"python -m venv snakemake && snakemake/bin/pip install {SNAKEMAKE} (an environment of "
        "its own, since it wants an older packaging; in the repository: make snakemake), and "
        "--snakemake snakemake/bin/snakemake",
    )


def run_workflow(table: Table, program: str, *, jobs: int, executor: str | None = None) -> int:
    """Runs what is not done, so many steps at once; Snakemake's exit status.

    `executor` is a plugin of Snakemake's, such as slurm; without one steps run here.

    Raises: ConfigError where the study is being run already; OSError.
    """
    table.root.mkdir(parents=True, exist_ok=True)
    with _locked(table) as held:
        path = write_workflow(table)
        command = [program, "--snakefile", str(path), "--directory", str(table.root)]
        command += ["--executor", executor, "--jobs"] if executor else ["--cores"]
        process = subprocess.Popen(
            [*command, str(jobs), *OPTIONS], env=_environment(), pass_fds=(held,)
        )
        with _left_to_it():
            return process.wait()


@contextlib.contextmanager
def _locked(table: Table) -> Iterator[int]:
    """Holds the study's lock, which Snakemake keeps should this process be killed."""
    held = os.open(table.root / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        if try_lock(held) is False:
            raise ConfigError(
                "the study is being run already",
                at=table.home,
                do="wait for it (tulu study status), or end its processes",
            )
        yield held
    finally:
        os.close(held)


@contextlib.contextmanager
def _left_to_it() -> Iterator[None]:
    """Inside, Ctrl-C is left to Snakemake, which lets steps end."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _environment() -> dict[str, str]:
    """The environment of steps, in which Python finds this project from any folder."""
    ours = str(Path(next(iter(eval.__path__))).parent)
    paths = [ours, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}
