"""Folders as they are met: names with a prefix, other files under a model's names, NaN."""

import json

import jax
import ml_dtypes
import numpy as np
import pytest

from tulu_jax.checkpoint import hf
from tulu_jax.checkpoint.hf.names import without_wrappers
from tulu_jax.checkpoint.hf.tensors import all_finite, copy_cast
from tulu_jax.checkpoint.peft import save_peft
from tulu_jax.errors import CheckpointError
from tulu_jax.models.lora import LoraConfig, abstract_adapters

from .small import CONFIG, TIED, random_params, read_tensors, write_folder, write_tensors
from .small_families import NEOX, OPT

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a21\nsize 13476839424\n"
DTYPES = [np.dtype(name) for name in (np.float32, ml_dtypes.bfloat16, np.float16)]


def rename(folder, change):
    tensors = read_tensors(folder / "model.safetensors")
    write_tensors(folder / "model.safetensors", {change(n): t for n, t in tensors.items()})


def assert_same(left, right):
    assert jax.tree.structure(left) == jax.tree.structure(right)
    jax.tree.map(np.testing.assert_array_equal, left, right)


@pytest.mark.parametrize("config", [CONFIG, TIED, OPT, NEOX])
@pytest.mark.parametrize(
    "before", ["_orig_mod.", "module.", "base_model.model.", "model.", "module._orig_mod.", "a.b."]
)
def test_what_all_names_begin_with_is_taken_off_and_said(tmp_path, config, before):
    rename(write_folder(tmp_path / "x", config), lambda name: before + name)
    folder = hf.open_folder(tmp_path / "x")
    assert len(folder.notes) == 1 and "names of tensors have " in folder.notes[0]
    assert all(part in folder.notes[0] for part in before.split(".") if part != "model")
    assert_same(hf.load(tmp_path / "x")[1], random_params(config))


@pytest.mark.parametrize("config", [CONFIG, OPT, NEOX])
def test_wrappers_of_inner_modules_and_other_words_for_the_model(tmp_path, config):
    inner = {"layers.0.": "layers.0._checkpoint_wrapped_module.", "model.": "model._orig_mod."}

    def wrapped(name):
        for old, new in inner.items():
            name = name.replace(old, new, 1)
        return name

    rename(write_folder(tmp_path / "x", config), wrapped)
    assert "_checkpoint_wrapped_module." in hf.open_folder(tmp_path / "x").notes[0]
    assert_same(hf.load(tmp_path / "x")[1], random_params(config))


def test_a_bare_model_under_another_name(tmp_path):
    """As a trainer that holds `self.transformer = LlamaModel(...)` saves it."""
    write_folder(tmp_path / "x", TIED)
    rename(tmp_path / "x", lambda name: "transformer." + name.removeprefix("model."))
    assert "transformer." in hf.open_folder(tmp_path / "x").notes[0]
    assert_same(hf.load(tmp_path / "x")[1], random_params(TIED))


def test_names_that_only_some_have_changed_are_shown(tmp_path):
    write_folder(tmp_path / "x")
    rename(tmp_path / "x", lambda name: "text." + name if "layers" in name else name)
    with pytest.raises(CheckpointError, match=r"18 tensors are missing .*; there are .*text.model"):
        hf.load(tmp_path / "x")


def test_weights_with_adapters_beside_them(tmp_path):
    write_folder(tmp_path / "x")
    base = "q_proj.base_layer"
    rename(tmp_path / "x", lambda n: "base_model.model." + n.replace("q_proj", base))
    with pytest.raises(CheckpointError, match=r"2 tensors are missing .* - merge it in the"):
        hf.load(tmp_path / "x")


def test_names_of_the_model_are_left_alone():
    names = ["model.a", "model.b"]
    assert without_wrappers(names, set(names)) == ({name: name for name in names}, None)
    assert without_wrappers(["x.a", "y.b"], {"a", "b"}) == ({"x.a": "x.a", "y.b": "y.b"}, None)
    assert without_wrappers([], {"a"}) == ({}, None)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (LFS, r"model.safetensors holds no weights - got a Git LFS pointer .* - fetch the file it"),
        (b"<!doctype html><html>", r"holds no weights - got a web page .* - download or copy"),
        (b"\x1f\x8b\x08\x00" + b"\0" * 40, r"holds no weights - got a gzip file .* - unpack it"),
        (b"GGUF\x03\x00\x00\x00\x00", r"a GGUF file .* take the model in Hugging Face's format"),
        (b"Entry not found", r"no weights - got text that begins with 'Entry not found' at"),
        (b'{"error": "gone"}', r"no weights - got text that begins with '{\"error\": \"gone\"}'"),
        (b"PK\x03\x04" + b"\0" * 40, r"got a zip archive .* give it its true name: .bin"),
        (b"", r"safetensors file is truncated or damaged - got header too small"),
    ],
)
def test_other_files_under_the_name_of_weights(tmp_path, content, message):
    (write_folder(tmp_path / "x") / "model.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        hf.open_folder(tmp_path / "x")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (LFS, r"pytorch_model.bin holds no weights - got a Git LFS pointer"),
        (b"<html>", r"pytorch_model.bin holds no weights - got a web page"),
        (None, r"got a safetensors file .* give it its true name: .safetensors"),
        (b"what?", r"pytorch_model.bin holds no weights - got text that begins with 'what\?'"),
        (b"\x01what?", r"torch file is truncated or damaged - got first bytes"),
    ],
)
def test_other_files_under_the_name_of_torch_weights(tmp_path, content, message):
    file = write_folder(tmp_path / "x") / "model.safetensors"
    content = file.read_bytes() if content is None else content
    file.unlink()
    (tmp_path / "x" / "pytorch_model.bin").write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        hf.open_folder(tmp_path / "x")


def test_a_byte_order_mark_is_no_fault(tmp_path):
    folder = write_folder(tmp_path / "x", max_shard_bytes=2000)
    for name in ("config.json", "model.safetensors.index.json", "generation_config.json"):
        (folder / name).write_bytes(b"\xef\xbb\xbf" + (folder / name).read_bytes())
    assert_same(hf.load(folder)[1], random_params(CONFIG))


def test_folders_that_hold_something_else(tmp_path):
    lora = LoraConfig(rank=2, targets=("q_proj",))
    adapters = jax.tree.map(lambda x: np.ones(x.shape, x.dtype), abstract_adapters(CONFIG, lora))
    adapter = save_peft(tmp_path / "a", CONFIG, lora, adapters, base="base")
    message = (
        rf"folder holds an adapter \(PEFT\), not a whole model .* tulu adapter --peft {adapter}"
    )
    with pytest.raises(CheckpointError, match=message):
        hf.open_folder(adapter)
    (adapter / "config.json").write_text(json.dumps(hf.to_hf(CONFIG, "float32")))
    with pytest.raises(CheckpointError, match=r"no weights of a model, but an adapter .* tulu ad"):
        hf.open_folder(adapter)
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    with pytest.raises(CheckpointError, match=r"holds a run with checkpoints.* tulu export"):
        hf.open_folder(tmp_path / "run")
    write_folder(tmp_path / "outer" / "inner")
    with pytest.raises(CheckpointError, match=r"config.json is missing .* give the folder inside"):
        hf.open_folder(tmp_path / "outer")
    with pytest.raises(CheckpointError, match=r"no such folder - got a file .* not a file in it"):
        hf.open_folder(tmp_path / "outer" / "inner" / "config.json")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=r"config.json is missing - got an empty folder"):
        hf.open_folder(tmp_path / "empty")


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_links_to_nothing_are_named(tmp_path, name):
    """As in a snapshot of huggingface_hub's cache that was copied without the cache."""
    folder = write_folder(tmp_path / "x")
    (folder / name).unlink()
    (folder / name).symlink_to("../../blobs/4d7a21")
    message = rf"links to nothing - got {name} -> ../../blobs/4d7a21 at .*/x - .* \(cp -rL\)"
    with pytest.raises(CheckpointError, match=message):
        hf.open_folder(folder)
    folder = write_folder(tmp_path / "y", max_shard_bytes=2000)
    shard = next(folder.glob("model-*"))
    shard.unlink()
    shard.symlink_to("gone")
    with pytest.raises(CheckpointError, match=rf"links to nothing - got {shard.name} -> gone at"):
        hf.open_folder(folder)


@pytest.mark.parametrize(
    ("file", "what", "do"),
    [
        ("global_step9/mp_rank_00_model_states.pt", "a checkpoint of DeepSpeed", "zero_to_fp32.py"),
        (
            "fsdp_0/__0_0.distcp",
            r"a sharded checkpoint of torch \(FSDP\)",
            "accelerate merge-weights",
        ),
        ("flax_model.msgpack", "weights of Flax", r"save_pretrained\(DIR\)"),
        ("tf_model.h5", "weights of TensorFlow", r"save_pretrained\(DIR\)"),
        ("consolidated.safetensors", "weights under Mistral's own names", r"model\*.safetensors"),
    ],
)
def test_weights_as_other_programs_keep_them(tmp_path, file, what, do):
    folder = write_folder(tmp_path / "x")
    (folder / file).parent.mkdir(exist_ok=True)
    (folder / "model.safetensors").rename(folder / file)
    found = rf"{what} \({file}\)"
    with pytest.raises(CheckpointError, match=f"no weights of a model, but {found} - .* - .*{do}"):
        hf.open_folder(folder)
    (folder / "config.json").unlink()
    with pytest.raises(CheckpointError, match=f"holds {found}, not a whole model - .* - .*{do}"):
        hf.open_folder(folder)


def test_names_of_models_and_caches_lead_to_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=r"no such folder - at [^ ]+ - expected [^-]+$"):
        hf.open_folder(tmp_path / "llama_7b")
    with pytest.raises(
        CheckpointError, match=r"no such folder - at .* nothing is downloaded by name"
    ):
        hf.open_folder(tmp_path / "meta-llama" / "Llama-2-7b-hf")
    snapshot = write_folder(tmp_path / "models--a--b" / "snapshots" / "4d7a21")
    (tmp_path / "models--a--b" / "refs").mkdir()
    with pytest.raises(CheckpointError, match=rf"missing .* give the folder inside: {snapshot}"):
        hf.open_folder(tmp_path / "models--a--b")


def test_an_adapter_beside_a_model_is_said(tmp_path):
    (write_folder(tmp_path / "x") / "adapter_config.json").write_text("{}")
    assert "it is not read" in hf.open_folder(tmp_path / "x").notes[0]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("bad", [np.nan, -np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["lm_head.weight", "model.layers.1.mlp.up_proj.weight"])
def test_a_weight_that_is_no_number_is_named(tmp_path, dtype, bad, name):
    folder = write_folder(tmp_path / "x", dtype=dtype)
    tensors = read_tensors(folder / "model.safetensors")
    tensors[name][-1, -1] = bad
    write_tensors(folder / "model.safetensors", tensors)
    size = tensors[name].size
    counts = "1 NaN and 0 infinite" if np.isnan(bad) else "0 NaN and 1 infinite"
    for wanted in ("float32", None):
        with pytest.raises(CheckpointError, match=f"{counts} of {size} in {name} at .*model.safe"):
            hf.load(folder, wanted)


@pytest.mark.parametrize("wanted", ["float32", "bfloat16", None])
@pytest.mark.parametrize(
    ("name", "fits"),
    [
        ("model.norm.weight", False),
        ("model.layers.1.input_layernorm.weight", False),
        ("model.embed_tokens.weight", False),
        ("lm_head.weight", False),
        ("model.layers.1.mlp.down_proj.weight", True),
    ],
)
def test_weights_that_vanished_are_named(tmp_path, name, fits, wanted):
    """As a sharded model saves them that was not gathered: every answer was empty, unexplained.

    Matrices of a block put in to be trained are zero on purpose.
    """
    folder = write_folder(tmp_path / "x")
    tensors = read_tensors(folder / "model.safetensors")
    tensors[name] = np.zeros_like(tensors[name])
    write_tensors(folder / "model.safetensors", tensors)
    if fits:
        hf.load(folder, wanted)
        return
    message = rf"weights are all zero - got {tensors[name].size} zeros in {name} at .*model.safe"
    with pytest.raises(CheckpointError, match=message):
        hf.load(folder, wanted)
    tensors[name].reshape(-1)[-1] = 1
    write_tensors(folder / "model.safetensors", tensors)
    hf.load(folder, wanted)


@pytest.mark.parametrize("of", DTYPES, ids=str)
@pytest.mark.parametrize("to", DTYPES, ids=str)
def test_every_place_is_looked_at(of, to, tmp_path):
    """Tiles, blocks, and copies as they stand, of every dtype; what is great is still finite."""
    rng = np.random.default_rng(0)
    great = 57344.0  # the greatest that all have
    for shape in ((600, 700), (3, 5), (9,), (), (2, 3, 40)):
        clean = np.asarray(rng.choice([great, -great, 0.0, -0.0, 1e-8], size=shape)).astype(of)
        for turn in (False, True):
            source = np.ascontiguousarray(clean.T).T if turn else clean.copy()
            target = np.empty(shape, to)
            copy_cast(target, source, "w", where=tmp_path)
            for _ in range(3):
                place = tuple(int(rng.integers(n)) for n in shape)
                spoiled = source.copy(order="K")
                spoiled[place] = rng.choice([np.nan, np.inf, -np.inf])
                with pytest.raises(
                    CheckpointError, match=r"not finite numbers - got . NaN and . inf"
                ):
                    copy_cast(target, spoiled, "w", where=tmp_path)
                copy_cast(target, spoiled, "w")
    assert all_finite(np.empty((0, 3), of))


def test_the_greatest_float32_does_not_fit_bfloat16(tmp_path):
    source = np.array([np.finfo(np.float32).max], np.float32)
    with pytest.raises(CheckpointError, match=r"do not fit bfloat16 .* - use --dtype float32"):
        copy_cast(np.empty(1, ml_dtypes.bfloat16), source, "w", where=tmp_path)


def test_every_bit_pattern_of_sixteen_is_told_right():
    bits = np.arange(2**16, dtype=np.uint16)
    for dtype in DTYPES[1:]:
        numbers = bits.view(dtype)
        found = np.array([all_finite(numbers[i : i + 1]) for i in range(len(bits))])
        with np.errstate(invalid="ignore"):
            np.testing.assert_array_equal(found, np.isfinite(numbers.astype(np.float32)))


def test_cases_from_the_field(shared):
    with pytest.raises(CheckpointError, match="got a Git LFS pointer"):
        hf.open_folder(shared / "cases/119-lfs-pointer/m")
    with pytest.raises(CheckpointError, match=r"adapter \(PEFT\), not a whole .* tulu adapter"):
        hf.open_folder(shared / "cases/141-peft-dir/m")
