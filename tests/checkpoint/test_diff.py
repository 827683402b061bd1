"""Weight diffs come back bit for bit, equal a plain NumPy reference, and never apply wrongly."""

import json
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from checkpoint.hf.small import read_tensors, write_tensors
from tulu_jax.checkpoint import diff
from tulu_jax.checkpoint.diff import apply_diff, make_diff
from tulu_jax.checkpoint.hf.files import find_tensors
from tulu_jax.checkpoint.hf.tensors import read_tensor
from tulu_jax.errors import CheckpointError

DTYPES = {"float32": np.float32, "bfloat16": ml_dtypes.bfloat16, "float16": np.float16}
EMBEDDING, HEAD, LAYER = "model.embed_tokens.weight", "lm_head.weight", "model.layers.0.weight"


def write_model(folder: Path, tensors: dict, dtype: str = "float32") -> Path:
    folder.mkdir()
    write_tensors(
        folder / "model.safetensors", {n: t.astype(DTYPES[dtype]) for n, t in tensors.items()}
    )
    fields = {"vocab_size": len(tensors[EMBEDDING]), "torch_dtype": dtype}
    (folder / "config.json").write_text(json.dumps(fields))
    (folder / "tokenizer.json").write_text("{}")
    (folder / "model.py").write_text("code is not copied")
    return folder


def draw(seed: int, vocab: int = 11, scale: float = 1.0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    shapes = {EMBEDDING: (vocab, 6), LAYER: (8, 6), "model.norm.weight": (6,), HEAD: (vocab, 6)}
    return {n: (rng.normal(size=s) * scale).astype(np.float32) for n, s in shapes.items()}


def tuned_from(base: dict, added: int = 0) -> dict[str, np.ndarray]:
    """Mostly small changes, some that float addition does not give back."""
    rng = np.random.default_rng(9)
    tuned = {}
    for name, tensor in base.items():
        new = tensor + rng.normal(size=tensor.shape).astype(np.float32) * 0.01
        new.flat[0], new.flat[1], new.flat[2] = 1e-9, -0.0, 3.0
        rows = added if name in (EMBEDDING, HEAD) else 0
        more = rng.normal(size=(rows, *tensor.shape[1:])).astype(np.float32)
        tuned[name] = np.concatenate([new, more])
    return tuned


def stored(folder: Path) -> dict[str, np.ndarray]:
    return {name: read_tensor(spec) for name, spec in find_tensors(folder).items()}


def assert_same_bits(one: dict, other: dict) -> None:
    assert one.keys() == other.keys()
    for name in one:
        assert one[name].dtype == other[name].dtype and one[name].shape == other[name].shape
        assert one[name].tobytes() == other[name].tobytes(), name


@pytest.fixture
def models(tmp_path):
    base = draw(0)
    tuned = tuned_from(base, added=2)
    return write_model(tmp_path / "base", base), write_model(tmp_path / "tuned", tuned), tmp_path


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("base_dtype", ["float32", "float16"])
@pytest.mark.parametrize("added", [0, 1])
def test_comes_back_bit_for_bit_and_equals_numpy(tmp_path, dtype, base_dtype, added):
    base = {n: t.astype(DTYPES[base_dtype]).astype(np.float32) for n, t in draw(0).items()}
    write_model(tmp_path / "base", base, base_dtype)
    tuned = {n: t.astype(DTYPES[dtype]) for n, t in tuned_from(base, added).items()}
    write_model(tmp_path / "tuned", tuned, dtype)
    made = make_diff(tmp_path / "base", tmp_path / "tuned", tmp_path / "diff")
    for name, tensor in read_tensors(tmp_path / "diff" / "model.safetensors").items():
        grown = np.vstack([base[name].reshape(-1, 6)] + [base[name].reshape(-1, 6).mean(0)] * (
            added if name in (EMBEDDING, HEAD) else 0))  # fmt: skip
        wanted = tuned[name].astype(np.float32) - grown.reshape(tuned[name].shape)
        assert tensor.dtype == np.float32
        np.testing.assert_allclose(tensor, wanted, rtol=0, atol=1e-7)
    applied = apply_diff(tmp_path / "base", tmp_path / "diff", tmp_path / "back")
    assert_same_bits(stored(tmp_path / "back"), tuned)
    assert applied.checked and applied.total == made.total and applied.num_kept == made.num_kept
    assert (tmp_path / "back/config.json").read_text() == (
        tmp_path / "tuned/config.json"
    ).read_text()
    assert sorted(p.name for p in (tmp_path / "back").iterdir()) == [
        "config.json", "model.safetensors", "tokenizer.json"
    ]  # fmt: skip


def test_numbers_that_addition_does_not_give_back_are_kept(models):
    base, tuned, folder = models
    assert make_diff(base, tuned, folder / "diff").num_kept >= 2 * 4


def test_example_of_the_docstring():
    base, tuned = np.float32([1.0, 0.1, 0.3]), np.float32([1.5, 0.10001, 1e-9])
    assert diff._lost(base, tuned - base, tuned).tolist() == [2]


@given(st.lists(st.tuples(*[st.floats(width=32)] * 2), min_size=1, max_size=20))
def test_every_float_is_given_back_or_kept(pairs):
    base, tuned = np.float32(pairs).T
    with np.errstate(all="ignore"):
        delta = tuned - base
    lost = diff._lost(base, delta, tuned)
    again = diff._add(base, delta, np.dtype(np.float32))
    again[lost] = tuned[lost]
    assert again.tobytes() == np.ascontiguousarray(tuned).tobytes()


def test_the_base_may_be_stored_otherwise_and_in_shards(models, monkeypatch):
    base, tuned, folder = models
    half = {n: t.astype(np.float16).astype(np.float32) for n, t in stored(base).items()}
    write_model(folder / "half", half, "float16")
    write_model(folder / "wide", half, "float32")
    monkeypatch.setattr(diff, "MAX_SHARD_BYTES", 300)
    make_diff(folder / "half", tuned, folder / "diff")
    assert len(list((folder / "diff").glob("model-*.safetensors"))) > 1
    apply_diff(folder / "wide", folder / "diff", folder / "back")
    assert_same_bits(stored(folder / "back"), stored(tuned))


def test_a_diff_of_the_reference(models):
    """It has no record: tensors of `tuned - base` and nothing else."""
    base, tuned, folder = models
    make_diff(base, tuned, folder / "diff")
    for name in ("tulu_diff.json", "tulu_diff.bin"):
        (folder / "diff" / name).unlink()
    result = apply_diff(base, folder / "diff", folder / "back")
    assert not result.checked
    for name, tensor in stored(folder / "back").items():
        np.testing.assert_allclose(tensor, stored(tuned)[name], atol=1e-6)
    apply_diff(base, folder / "diff", folder / "half", dtype="bfloat16")
    assert json.loads((folder / "half/config.json").read_text())["torch_dtype"] == "bfloat16"
    assert {t.dtype for t in stored(folder / "half").values()} == {np.dtype(ml_dtypes.bfloat16)}


def test_wrong_base(models):
    base, tuned, folder = models
    make_diff(base, tuned, folder / "diff")
    other = stored(base)
    other["model.norm.weight"][3] += 1e-6
    write_model(folder / "other", other)
    with pytest.raises(
        CheckpointError,
        match=r"base is not the one the diff was made with - got other numbers in model.norm",
    ):
        apply_diff(folder / "other", folder / "diff", folder / "back")
    assert not list(folder.glob("back*"))


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("file", ["model.safetensors", "tulu_diff.bin"])
def test_flipped_bits(models, file):
    base, tuned, folder = models
    make_diff(base, tuned, folder / "diff")
    flip(folder / "diff" / file, -2)
    with pytest.raises(CheckpointError, match=r"diff is damaged - got "):
        apply_diff(base, folder / "diff", folder / "back")
    assert not list(folder.glob("back*"))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda d: (d / "tulu_diff.bin").write_bytes(b"1"), r"diff is damaged - got 1 bytes where"),
        (lambda d: (d / "tulu_diff.bin").unlink(), "diff is damaged - got None bytes where"),
        (lambda d: (d / "tulu_diff.json").write_text("{}}"), "tulu_diff.json is not a JSON object"),
        (lambda d: (d / "tulu_diff.json").unlink(), "tulu_diff.json is missing"),
        (lambda d: (d / "tulu_diff.json").write_text('{"format": 2}'), "record is malformed - got "
         "format 2"),
        (lambda d: (d / "tulu_diff.json").write_text('{"format": 1, "tensors": {"a": 3}}'),
         "record is malformed"),
        (lambda d: (d / "model.safetensors").write_bytes(b"12345678"), "safetensors"),
    ],
)  # fmt: skip
def test_spoilt_diffs(models, spoil, message):
    base, tuned, folder = models
    make_diff(base, tuned, folder / "diff")
    spoil(folder / "diff")
    with pytest.raises(CheckpointError, match=message):
        apply_diff(base, folder / "diff", folder / "back")
    assert not list(folder.glob("back*"))


def test_models_that_do_not_belong_together(models):
    base, tuned, folder = models
    tensors = stored(tuned)
    write_model(folder / "fewer", {n: t for n, t in tensors.items() if n != HEAD})
    with pytest.raises(
        CheckpointError, match=r"tuned model and base have different tensors - got only in the base"
        r" \['lm_head.weight'\]"
    ):  # fmt: skip
        make_diff(base, folder / "fewer", folder / "out")
    write_model(folder / "wider", tensors | {LAYER: np.zeros((9, 6), np.float32)[:, :5]})
    with pytest.raises(CheckpointError, match=r"different shapes - got model.layers.0.weight \[9,"):
        make_diff(base, folder / "wider", folder / "out")
    with pytest.raises(CheckpointError, match="different shapes"):
        make_diff(tuned, base, folder / "out")
    with pytest.raises(CheckpointError, match="no such folder"):
        make_diff(folder / "none", base, folder / "out")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_that_are_no_numbers_are_named(models, bad, dtype):
    base, tuned, folder = models
    spoiled = stored(tuned)
    spoiled[LAYER][0, 0] = bad
    write_model(folder / "bad", spoiled, dtype)
    message = rf"weights are not finite numbers - got .* of 48 in {LAYER} at .*/bad/model.safe"
    for one, other in ((base, folder / "bad"), (folder / "bad", tuned)):
        with pytest.raises(CheckpointError, match=message):
            make_diff(one, other, folder / "out")
    with pytest.raises(CheckpointError, match=message):  # as the reference's, without a record
        apply_diff(base, folder / "bad", folder / "out")
    assert not list(folder.glob("out*"))


def test_output_in_use_and_killed_runs(models, monkeypatch):
    base, tuned, folder = models
    with pytest.raises(CheckpointError, match="output folder is not empty"):
        make_diff(base, tuned, tuned)

    class Killed(BaseException):
        pass

    def die(*_):
        raise Killed

    monkeypatch.setattr(diff.shutil, "copyfile", die)
    with pytest.raises(Killed):
        make_diff(base, tuned, folder / "diff")
    assert not list(folder.glob("diff*"))
    monkeypatch.undo()
    (folder / "diff.partial").mkdir()
    with pytest.raises(CheckpointError, match="working folder is taken"):
        make_diff(base, tuned, folder / "diff")
    (folder / "diff.partial" / "NOT_COMPLETE").touch()
    make_diff(base, tuned, folder / "diff")
    assert not (folder / "diff.partial").exists() and not (folder / "diff/NOT_COMPLETE").exists()
