"""Twenty kinds of damage to the newest checkpoint: noticed, or without any effect; never wrong."""

import json
import os
import random
import re
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from checkpoint.test_manager import state_of, target, write
from tulu_jax.checkpoint.manager import Checkpoints
from tulu_jax.checkpoint.trouble import DamagedCheckpointError

# Orbax leaves coroutines and its event loop behind when a restore fails.
pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning"),
    pytest.mark.usefixtures("collect_what_orbax_leaves"),
]
SIZE = 20_000
"""Numbers in the large array: it fills blocks of its own."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run with checkpoints 1 and 2."""
    folder = tmp_path_factory.mktemp("whole")
    write(folder, [1, 2], size=SIZE)
    return folder


def change(path: Path, edit) -> None:
    content = bytearray(path.read_bytes())
    path.write_bytes(bytes(edit(content)))


def flip(path: Path, at: int) -> None:
    def edit(content):
        content[at % len(content)] ^= 1 << (at % 8)
        return content

    change(path, edit)


def flip_everywhere(path: Path) -> None:
    change(path, lambda content: bytes(byte ^ 0x55 for byte in content))


def edit_meta(step: Path, edit) -> None:
    path = step / "meta" / "metadata"
    value = json.loads(path.read_text())
    edit(value)
    path.write_text(json.dumps(value))


def data_files(step: Path) -> list[Path]:
    """Files that hold arrays, largest first."""
    files = [path for path in (step / "state").rglob("d/*") if path.is_file()]
    return sorted(files, key=lambda path: -path.stat().st_size)


def every_file(step: Path) -> list[Path]:
    return sorted(path for path in step.rglob("*") if path.is_file())


def folder_for(path: Path) -> None:
    path.unlink()
    path.mkdir()


KINDS = {
    "largest data file cut in half": lambda s: os.truncate(
        data_files(s)[0], data_files(s)[0].stat().st_size // 2
    ),
    "every data file cut by a byte": lambda s: [
        os.truncate(f, f.stat().st_size - 1) for f in data_files(s)
    ],
    "largest data file empty": lambda s: os.truncate(data_files(s)[0], 0),
    "largest data file lost": lambda s: data_files(s)[0].unlink(),
    "all data files lost": lambda s: [f.unlink() for f in data_files(s)],
    "a byte flipped at the start of the data": lambda s: flip(data_files(s)[0], 17),
    "a byte flipped within the data": lambda s: flip(
        data_files(s)[0], data_files(s)[0].stat().st_size // 2
    ),
    "a byte flipped at the end of the data": lambda s: flip(data_files(s)[0], -5),
    "data full of zeros": lambda s: change(data_files(s)[0], lambda c: bytes(len(c))),
    "more at the end of the data": lambda s: change(data_files(s)[0], lambda c: c + b"more" * 9),
    "a block of the data moved": lambda s: change(
        data_files(s)[0], lambda c: c[:4096] + c[8192:12288] + c[4096:8192] + c[12288:]
    ),
    "data of the checkpoint before": lambda s: (
        shutil.rmtree(s / "state"), shutil.copytree(s.parent / "1" / "state", s / "state"),
    ),
    "everything of the checkpoint before": lambda s: (
        shutil.rmtree(s), shutil.copytree(s.parent / "1", s),
    ),
    "metadata of the checkpoint before": lambda s: shutil.copy(
        s.parent / "1" / "meta" / "metadata", s / "meta" / "metadata"
    ),
    "metadata changed but readable": lambda s: edit_meta(s, lambda m: m.update(note="step 3")),
    "metadata empty": lambda s: os.truncate(s / "meta" / "metadata", 0),
    "metadata not JSON": lambda s: flip_everywhere(s / "meta" / "metadata"),
    "fingerprints lost": lambda s: edit_meta(s, lambda m: m.pop("fingerprints")),
    "list of arrays cut": lambda s: os.truncate(s / "state" / "_METADATA", 40),
    "list of arrays lost": lambda s: (s / "state" / "_METADATA").unlink(),
    "manifest flipped": lambda s: flip(s / "state" / "manifest.ocdbt", 30),
    "manifest lost": lambda s: (s / "state" / "manifest.ocdbt").unlink(),
    "marker lost": lambda s: (s / "_CHECKPOINT_METADATA").unlink(),
    "state lost": lambda s: shutil.rmtree(s / "state"),
    "a folder in place of the data": lambda s: folder_for(data_files(s)[0]),
}  # fmt: skip


HARMLESS = {"more at the end of the data", "a byte flipped at the end of the data"}
"""What may fall on bytes that nothing reads."""


WORDS = re.compile("checkpoint (cannot be restored|is of another step than its folder says)")


def restored(run: Path):
    """What a run would go on from: the newest checkpoint that is not damaged."""
    with Checkpoints(run, keep=10) as checkpoints:
        aside = list(checkpoints.set_aside_at_start)
        while (latest := checkpoints.latest()) is not None:
            try:
                return latest, checkpoints.restore(latest, target(SIZE)), aside
            except DamagedCheckpointError as error:
                assert str(run) in str(error) and WORDS.search(str(error))
                aside.append(checkpoints.set_aside(latest))
    raise AssertionError("nothing was left")


def assert_right(run: Path) -> int:
    """The step restored; its state is that step's to the bit."""
    step, state, aside = restored(run)
    wanted = jax.tree.leaves(state_of(step, size=SIZE))
    assert all(
        np.asarray(a).tobytes() == np.asarray(b).tobytes()
        for a, b in zip(jax.tree.leaves(state), wanted, strict=True)
    ), f"step {step} restored wrongly and nobody noticed"
    assert step == 2 or aside, "fell back without a word"
    return step


@pytest.mark.parametrize("kind", KINDS)
def test_damage_is_noticed(whole, tmp_path, kind):
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    KINDS[kind](run / "checkpoints" / "2")
    assert assert_right(run) in ((1, 2) if kind in HARMLESS else (1,))


@pytest.mark.parametrize("seed", range(4))
def test_a_byte_anywhere(whole, tmp_path, seed):
    """One flipped bit in any file, ten times: either noticed or without effect."""
    rng = random.Random(seed)
    names = [path.relative_to(whole) for path in every_file(whole / "checkpoints" / "2")]
    for number in range(5):
        run = tmp_path / str(number)
        shutil.copytree(whole, run)
        name = rng.choice(names)
        flip(run / name, rng.randrange(1 << 20))
        assert assert_right(run) in (1, 2)


def test_an_intact_checkpoint_is_taken(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "run")
    assert assert_right(tmp_path / "run") == 2
