"""A study in a bucket: weights and stores lie there, small files are copied to and fro.

Its steps run in a folder of this machine, in which results are made and which Snakemake looks at;
`done.json` in the bucket decides what is done. It comes there last, after all that the step made.
"""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from eval.study.state import BUSY, DONE, FAILED, LOG, STEP
from tulu_jax.files import write_whole
from tulu_jax.places import Address, create, download, upload

if TYPE_CHECKING:
    from eval.study.cells import Table

OURS = (BUSY, DONE, FAILED, LOG, STEP)
"""Files of a step's folder that its command does not make."""
LARGE = ("prepare", "train", "export")
"""Kinds of steps that write to the bucket themselves."""
THREADS = 16
"""Requests that are under way at once."""


def fetch(table: Table) -> None:
    """Makes this machine's folder what the bucket says, of steps that are done with their results.

    Nothing happens where the study's folder is one of this machine.

    Raises: StorageError.
    """
    home = table.home
    if isinstance(home, Address):
        with ThreadPoolExecutor(THREADS) as pool:
            each = [(home / step.folder, table.root / step.folder) for step in table.steps]
            list(pool.map(lambda pair: take(*pair), each))


def take(far: Address, folder: Path) -> bool:
    """Whether a step is done there; then its files are here afterwards, unless they were already.

    Raises: StorageError.
    """
    try:
        done = (far / DONE).read_bytes()
    except FileNotFoundError:
        (folder / DONE).unlink(missing_ok=True)
        return False
    if (folder / DONE).is_file() and (folder / DONE).read_bytes() == done:
        return True
    (folder / DONE).unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    _clear(folder)
    for name in sorted(far.files(deep=folder.parent.name not in LARGE)):
        if name != DONE:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            download(far / name, folder / name)
    (folder / FAILED).unlink(missing_ok=True)
    (folder / DONE).write_bytes(done)
    return True


def hand_in(folder: Path, far: Address, said: str) -> None:
    """Copies what a step made, then says that it is done; what another machine made is kept.

    Raises: StorageError.
    """
    if not (far / DONE).is_file():
        _send(folder, far)
    if create(far / DONE, said):
        write_whole(folder / DONE, said, durable=True)
    else:
        _clear(folder)
        take(far, folder)


def _send(folder: Path, far: Address) -> None:
    """Makes the folder in the bucket the one here, but for what the command itself wrote there."""
    made = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    made = {name: path for name, path in made.items() if name not in (BUSY, DONE, FAILED)}
    old = far.files(deep=folder.parent.name not in LARGE)
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(lambda name: upload(made[name], far / name), made))
        list(pool.map(lambda name: (far / name).unlink(missing_ok=True), old.keys() - made.keys()))


def hand_in_failure(folder: Path, far: Address) -> None:
    """Copies a step's log and why it failed.

    Raises: StorageError.
    """
    for name in (LOG, FAILED):
        upload(folder / name, far / name)


def _clear(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name not in OURS:
            path.unlink()
