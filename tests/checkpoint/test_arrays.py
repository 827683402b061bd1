import os
import subprocess
import sys

import jax
import ml_dtypes
import numpy as np
import orbax.checkpoint as ocp
import pytest

from tulu_jax.checkpoint.arrays import (
    CheckpointReader,
    checkpoints_dir,
    complete_steps,
    save_params,
)
from tulu_jax.checkpoint.lazy import LazyArray
from tulu_jax.checkpoint.reader import TreeReader
from tulu_jax.errors import CheckpointError

PARAMS = {"a": {"b": np.arange(6, dtype=np.float32).reshape(2, 3)}, "c": np.ones(4, np.float16)}


def test_round_trip(tmp_path):
    assert (
        save_params(tmp_path / "run", PARAMS, {"model": {"d": 1}}) == tmp_path / "run/checkpoints/0"
    )
    reader = CheckpointReader(tmp_path / "run")
    assert (reader.step, reader.meta) == (0, {"model": {"d": 1}})
    assert set(reader.paths()) == {("a", "b"), ("c",)}
    assert (reader.shape(("a", "b")), reader.dtype(("c",))) == ((2, 3), np.float16)
    for path in reader.paths():
        np.testing.assert_array_equal(reader.read(path), TreeReader(PARAMS).read(path))


def test_lazy_arrays_are_loaded_one_after_another(tmp_path):
    log = []

    def lazy(name):
        def load():
            log.append(name)
            return np.full((2, 2), len(log), np.float32)

        return LazyArray((2, 2), np.dtype(np.float32), load)

    save_params(tmp_path, {"a": lazy("a"), "b": lazy("b")}, {})
    assert sorted(log) == ["a", "b"]
    reader = CheckpointReader(tmp_path)
    assert {float(reader.read((name,))[0, 0]) for name in log} == {1.0, 2.0}


def test_orbax_restores_it_as_it_does_a_training_checkpoint(tmp_path):
    save_params(tmp_path, PARAMS, {})
    with ocp.CheckpointManager(
        checkpoints_dir(tmp_path), item_handlers={"state": ocp.PyTreeCheckpointHandler()}
    ) as manager:
        args = ocp.args.PyTreeRestore(
            restore_args={
                "params": {
                    "a": {"b": ocp.RestoreArgs(restore_type=np.ndarray)},
                    "c": ocp.RestoreArgs(restore_type=np.ndarray),
                }
            },
            item={"params": PARAMS},
        )
        state = manager.restore(0, args=ocp.args.Composite(state=args))["state"]
    np.testing.assert_array_equal(state["params"]["a"]["b"], PARAMS["a"]["b"])


def test_arrays_that_a_training_run_spread_over_devices(tmp_path):
    mesh = jax.make_mesh((8,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    split = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("x"))
    weight = np.arange(32, dtype=np.float32).reshape(16, 2)
    state = {"params": {"w": jax.device_put(weight, split)}, "step": np.array(3)}
    handlers = {"state": ocp.PyTreeCheckpointHandler(), "meta": ocp.JsonCheckpointHandler()}
    with ocp.CheckpointManager(checkpoints_dir(tmp_path), item_handlers=handlers) as manager:
        items = {"state": ocp.args.PyTreeSave(state), "meta": ocp.args.JsonSave({})}
        manager.save(3, args=ocp.args.Composite(**items))
    reader = CheckpointReader(tmp_path)
    assert (reader.step, reader.paths()) == (3, [("w",)])
    np.testing.assert_array_equal(reader.read(("w",)), weight)


def test_a_run_that_has_checkpoints_is_kept(tmp_path):
    save_params(tmp_path, PARAMS, {})
    with pytest.raises(CheckpointError, match="run folder already holds checkpoints - got"):
        save_params(tmp_path, PARAMS, {})


def test_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="checkpoint cannot be written"):
        save_params(tmp_path / "file" / "run", PARAMS, {})


FULL = """
import resource, sys
import numpy as np
from tulu_jax.checkpoint.arrays import save_params
from tulu_jax.errors import CheckpointError
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
try:
    save_params(sys.argv[1], {"a": np.random.default_rng(0).normal(size=(300, 300))}, {})
except CheckpointError as error:
    print(error)
"""


def test_disk_that_fills_up(tmp_path):
    command = [sys.executable, "-c", FULL, str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout.startswith("checkpoint cannot be written - got ")
    assert complete_steps(tmp_path) == []
    save_params(tmp_path, PARAMS, {})  # what is left over does not stand in the way
    assert complete_steps(tmp_path) == [0]


def test_half_written_checkpoints_do_not_count(tmp_path):
    step = save_params(tmp_path, PARAMS, {})
    step.rename(step.with_name("0.orbax-checkpoint-tmp-7"))
    assert complete_steps(tmp_path) == []
    with pytest.raises(
        CheckpointError, match=r"no complete checkpoint - got .*orbax-checkpoint-tmp"
    ):
        CheckpointReader(tmp_path)


@pytest.mark.parametrize("lost", ["state/_METADATA", "meta/metadata", "_CHECKPOINT_METADATA"])
def test_checkpoints_without_their_metadata_do_not_count(tmp_path, lost):
    (save_params(tmp_path, PARAMS, {}) / lost).unlink()
    with pytest.raises(CheckpointError, match="no complete checkpoint"):
        CheckpointReader(tmp_path)


def test_step_that_is_not_there(tmp_path):
    save_params(tmp_path, PARAMS, {})
    with pytest.raises(CheckpointError, match=r"no complete checkpoint of step=5 - got .* \[0\]"):
        CheckpointReader(tmp_path, 5)
    with pytest.raises(CheckpointError, match="no complete checkpoint"):
        CheckpointReader(tmp_path / "nowhere")


def test_damaged_metadata(tmp_path):
    step = save_params(tmp_path, PARAMS, {})
    (step / "meta/metadata").write_text("{")
    with pytest.raises(CheckpointError, match="metadata is not a JSON object"):
        CheckpointReader(tmp_path)
    (step / "meta/metadata").write_text("[]")
    with pytest.raises(CheckpointError, match="metadata is not a JSON object - got a JSON list"):
        CheckpointReader(tmp_path)
    (step / "meta/metadata").write_text("{}")
    (step / "state/_METADATA").write_text("{}")
    with pytest.raises(CheckpointError, match="checkpoint is corrupt"):
        CheckpointReader(tmp_path)


def test_lost_data(tmp_path):
    step = save_params(tmp_path, {"c": PARAMS["c"]}, {})
    for file in (step / "state").rglob("*"):
        if file.is_file() and file.name != "_METADATA" and file.stat().st_size:
            file.write_bytes(b"\0" * file.stat().st_size)
    with pytest.raises(CheckpointError, match=r"corrupt|cannot be read"):
        CheckpointReader(tmp_path).read(("c",))


def stacked(shape, *, seed=0, dtype=np.float32):
    """An array and the same as a lazy one of layers."""
    whole = np.random.default_rng(seed).normal(size=shape).astype(dtype)
    lazy = LazyArray(shape, whole.dtype, lambda: whole, lambda a, b: whole[a:b], stacked=True)
    return whole, lazy


def test_an_import_lies_in_plain_files_of_a_layer_each(tmp_path):
    whole, lazy = stacked((3, 4, 5))
    step = save_params(tmp_path, {"layers": {"w": lazy}}, {})
    folder = step / "state" / "params.layers.w"
    assert sorted(p.name for p in folder.glob("[0-9]*")) == ["0.0.0", "1.0.0", "2.0.0"]
    assert (folder / "1.0.0").read_bytes() == whole[1].tobytes()
    assert not (step / "state" / "manifest.ocdbt").exists()
    read = CheckpointReader(tmp_path).read_part(("layers", "w"), 1, 2)
    assert np.array_equal(read, whole[1:2])
    assert not read.flags.owndata and not read.flags.writeable


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
def test_rows_and_slices_across_files(tmp_path, monkeypatch, dtype):
    monkeypatch.setattr("tulu_jax.checkpoint.lazy.PART_BYTES", 3 * 7 * np.dtype(dtype).itemsize)
    whole = np.random.default_rng(0).normal(size=(10, 7)).astype(dtype)  # 3 + 3 + 3 + 1 rows
    save_params(tmp_path, {"w": whole}, {})
    reader = CheckpointReader(tmp_path)
    assert reader.rows_at_once(("w",)) == 3
    assert np.array_equal(reader.read(("w",)), whole)
    for start, stop in ((0, 3), (1, 2), (2, 5), (8, 10), (9, 10), (4, 4)):
        assert np.array_equal(reader.read_part(("w",), start, stop), whole[start:stop])
        for columns in (slice(0, 7), slice(2, 4), slice(5, 5)):
            read = reader.read_slice(("w",), (slice(start, stop), columns))
            assert np.array_equal(read, whole[start:stop, columns])


@pytest.mark.parametrize("damage", ["lost", "short"])
@pytest.mark.parametrize("read", ["read", "slice"])
def test_a_file_of_a_part_that_is_lost_or_short(tmp_path, damage, read):
    step = save_params(tmp_path, {"layers": {"w": stacked((3, 4, 5))[1]}}, {})
    file = step / "state" / "params.layers.w" / "1.0.0"
    file.unlink() if damage == "lost" else os.truncate(file, 12)
    reader = CheckpointReader(tmp_path)
    with pytest.raises(CheckpointError, match="weight cannot be read from the checkpoint"):
        if read == "read":
            reader.read_part(("layers", "w"), 1, 2)
        else:
            reader.read_slice(("layers", "w"), (slice(0, 3), slice(0, 1), slice(0, 5)))


def test_what_is_found_wrong_before_the_commit_leaves_nothing(tmp_path):
    def wrong():
        raise CheckpointError("files are not those that were exported")

    with pytest.raises(CheckpointError, match="not those that were exported"):
        save_params(tmp_path / "run", PARAMS, {}, before_commit=wrong)
    assert not (tmp_path / "run").exists()


MEMORY = """
import resource, sys
import numpy as np
from tulu_jax.checkpoint.arrays import CheckpointReader, save_params
from tulu_jax.checkpoint.lazy import LazyArray

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

one = LazyArray((16, 2**20), np.dtype(np.float32), lambda: np.ones((16, 2**20), np.float32))
save_params(sys.argv[1] + "/warm", {"a": np.ones(3)}, {})
CheckpointReader(sys.argv[1] + "/warm").read(("a",))
before = peak()
save_params(sys.argv[1] + "/run", {str(i): one for i in range(8)}, {})
written = peak()
reader = CheckpointReader(sys.argv[1] + "/run")
for path in reader.paths():
    assert reader.read(path)[3, 5] == 1
print(written - before, peak() - before)
"""


def test_peak_memory_is_far_below_the_model(tmp_path):
    # eight arrays of 64 MiB: all of them are 512 MiB
    command = [sys.executable, "-c", MEMORY, str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    written, read = map(int, result.stdout.split())
    assert written < 200, f"{written} MiB to write eight arrays of 64 MiB"
    assert read < 260, f"{read} MiB to write and read eight arrays of 64 MiB"
