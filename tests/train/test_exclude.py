"""A run without excluded examples, and what it must have in common with one that goes on."""

import dataclasses
import json
from pathlib import Path

import pytest

from tests.train import small
from tulu_jax.errors import CheckpointError

pytestmark = pytest.mark.usefixtures("collect_what_orbax_leaves")


def exclude(path, *numbers):
    lines = [
        json.dumps({"task": "tulu_small", "id": f"c{i}", "reason": "duplicate"}) for i in numbers
    ]
    path.write_text("\n".join(lines))
    return str(path)


def test_a_run_goes_on_with_the_same_exclusion_only(tmp_path, monkeypatch):
    file = exclude(tmp_path / "one.jsonl", 3, 4, 5)
    config = small.run_config(tmp_path / "run", exclude=file, train_steps=2, epochs=None)
    result, out = small.run(monkeypatch, config)
    assert result.finished and "small train: excluded 3 (duplicate 3)" in out

    folder = Path(config.model_dir) / "checkpoints"
    meta = saved_meta(folder)
    assert meta["rows"]["exclude"]["examples"] == {"tulu_small train": 3}
    assert meta["exclude_files"][0]["path"] == file

    def again(named, steps):
        data = dataclasses.replace(config.data, exclude=named)
        return small.run(monkeypatch, dataclasses.replace(config, data=data, train_steps=steps))[
            0
        ].step

    moved = exclude(tmp_path / "moved, and in another order.jsonl", 5, 4, 3)
    assert again(moved, 3) == 3, "the same examples in another file"
    for named in (None, exclude(tmp_path / "two.jsonl", 3, 4)):
        with pytest.raises(
            CheckpointError,
            match=r"run with another making of rows - got {'exclude': .* now at .* as saved",
        ):
            again(named, 4)


def test_a_run_that_excluded_nothing_goes_on_without(tmp_path, monkeypatch):
    config = small.run_config(tmp_path / "run", train_steps=1, epochs=None)
    small.run(monkeypatch, config)
    assert "exclude" not in saved_meta(Path(config.model_dir) / "checkpoints")["rows"]
    longer = dataclasses.replace(config, train_steps=2)
    assert small.run(monkeypatch, longer)[0].step == 2
    data = dataclasses.replace(config.data, exclude=exclude(tmp_path / "x.jsonl", 1))
    with pytest.raises(CheckpointError, match=r"another making of rows - got {'exclude': {'sha25"):
        small.run(monkeypatch, dataclasses.replace(longer, data=data, train_steps=3))


def saved_meta(folder):
    """The metadata of the only checkpoint."""
    (path,) = folder.glob("*/meta/metadata")
    return json.loads(path.read_text())
