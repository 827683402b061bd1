"""Models in buckets and of the Hub: commands read and write them as they do folders."""

import importlib
import os
import shutil

import jax
import numpy as np
import pytest
from buckets import BOTH
from places.hub_server import Hub

from tulu_jax.checkpoint import hf
from tulu_jax.checkpoint.arrays import CheckpointReader, complete_steps
from tulu_jax.checkpoint.hf import kinds
from tulu_jax.checkpoint.sharded import even_shares, read_sharded
from tulu_jax.cli import main
from tulu_jax.errors import CheckpointError, TuluError
from tulu_jax.places import Address, hub, upload

from .small_model import tulu, write_model


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    """A Hugging Face folder and the run that it was imported to."""
    root = tmp_path_factory.mktemp("local")
    tulu("import", "--hf", write_model(root / "hf"), "--model_dir", root / "run")
    return root


@pytest.fixture
def far(bucket, local, tmp_path, monkeypatch):
    """The bucket, with the folder at model/; commands run in an empty folder."""
    for file in (local / "hf").iterdir():
        upload(file, bucket / "model" / file.name)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    yield bucket
    assert os.listdir() == []


def files(place):
    return {file.name: file.read_bytes() for file in place.iterdir() if file.is_file()}


@BOTH
def test_there_and_back_is_byte_for_byte_the_same(far, local, tmp_path, capsys):
    run = far / "run"
    assert tulu("import", "--hf", far / "model", "--model_dir", run) == 0
    assert "checksums of" in capsys.readouterr().out
    assert complete_steps(str(run)) == [0]
    assert files(run / "tokenizer") == files(local / "run" / "tokenizer")
    assert tulu("export", "--model_dir", run, "--output", far / "back") == 0
    assert files(far / "back") == files(local / "hf")
    assert tulu("export", "--model_dir", run, "--output", tmp_path / "out") == 0
    assert files(tmp_path / "out") == files(local / "hf")
    with pytest.raises(CheckpointError, match="run folder already holds checkpoints"):
        tulu("import", "--hf", far / "model", "--model_dir", run)
    capsys.readouterr()
    again = ("export", "--model_dir", run, "--output", far / "back")
    assert tulu(*again) == 0  # as after a kill behind the last request
    assert "this export was there already" in capsys.readouterr().out
    (far / "back/model.safetensors").write_bytes(b"cut")
    for words in ((), ("--dtype", "bfloat16")):
        with pytest.raises(CheckpointError, match=r"output folder is not empty .*add --overwrite"):
            tulu(*again, *words)
    words = ("--output", far / "back", "--overwrite", "--max_shard_size", "20KB")
    assert tulu("export", "--model_dir", run, *words) == 0
    assert "model.safetensors" not in files(far / "back")
    left, right = hf.load(far / "back"), hf.load(local / "hf")
    assert left[0] == right[0]
    for one, other in zip(jax.tree.leaves(left[1]), jax.tree.leaves(right[1]), strict=True):
        assert one.tobytes() == other.tobytes()


@BOTH
def test_a_run_in_a_bucket_that_is_not_there(far, local):
    """Orbax meets it first; s3's library has errors of its own."""
    run = Address(far.scheme, "no-such-bucket-here", "run")
    with pytest.raises(TuluError, match=r"no such bucket|no-such-bucket-here") as error:
        tulu("import", "--hf", local / "hf", "--model_dir", run)
    assert "fault" not in str(error.value) and not run.exists()


def test_answers_are_those_of_the_folder(far, local, capsys):
    tulu("import", "--hf", local / "hf", "--model_dir", far / "run")
    capsys.readouterr()
    printed = []
    for model in (local / "hf", far / "model", far / "run"):
        assert tulu("generate", "--model", model, "--prompt", "Name a colour.",
                    "--max_new_tokens", "4") == 0  # fmt: skip
        printed.append(capsys.readouterr().out)
    assert printed[0].strip() and len(set(printed)) == 1


def test_a_killed_export_goes_on_a_file_at_a_time(far, local, capsys, monkeypatch):
    words = ("export", "--model_dir", local / "run", "--output", far / "x")
    shards = ("--max_shard_size", "20KB")
    save = importlib.import_module("tulu_jax.checkpoint.hf.save")
    write, count = save.write_shard, []

    def killed(place, *arguments):
        count.append(place)
        if len(count) == 3:
            raise KeyboardInterrupt
        return write(place, *arguments)

    monkeypatch.setattr(save, "write_shard", killed)
    with pytest.raises(KeyboardInterrupt):
        tulu(*words, *shards)
    monkeypatch.setattr(save, "write_shard", write)
    with pytest.raises(
        CheckpointError, match=r"export of this folder is not complete .* tulu export"
    ):
        hf.open_folder(far / "x")
    assert "config.json" not in files(far / "x")
    assert tulu(*words, *shards) == 0
    assert f"kept from an export that was killed: {count[0].name}" in capsys.readouterr().out
    assert tulu("export", "--model_dir", local / "run", "--output", far / "y", *shards) == 0
    assert files(far / "x") == files(far / "y")
    assert kinds.MARKER not in files(far / "x")


@BOTH
def test_a_host_reads_its_share_of_the_bytes(bucket, storage, tmp_path):
    """Whichever axis the mesh shards: of columns, too, no more than an eighth is read."""
    from models_for_buckets import wide_model

    _, shardings, _ = wide_model(tmp_path / "wide")
    for file in (tmp_path / "wide").iterdir():
        upload(file, bucket / "wide" / file.name)
    folder = hf.open_folder(bucket / "wide")
    path = ("layers", "mlp", "gate")
    shape, sharding = folder.shape(path), shardings["layers"]["mlp"]["gate"]
    shares = even_shares(folder, path, sharding)
    (index, *_) = shares.addressable_devices_indices_map(shape).values()
    storage.calm()
    part = folder.read_slice(path, index)
    assert part.size * 8 == np.prod(shape)
    assert storage.fault()["bytes"] <= 1.2 * part.nbytes
    far = read_sharded(folder, shardings)
    near = read_sharded(hf.open_folder(tmp_path / "wide"), shardings)
    for one, other in zip(jax.tree.leaves(far), jax.tree.leaves(near), strict=True):
        assert one.sharding == other.sharding
        assert np.asarray(one).tobytes() == np.asarray(other).tobytes()


def test_damaged_files_are_named(far, local):
    file = far / "model" / "model.safetensors"
    whole = file.read_bytes()
    for content, words in {
        whole[
            :-4
        ]: r"safetensors file is truncated or damaged - got .* bytes where its header needs",
        whole[:100]: "a header of .* bytes in a file of 100",
        b"": "a header of 0 bytes in a file of 0",
        len(whole).to_bytes(8, "little") + whole[8:]: "a header of",
        whole.replace(b'"F32"', b'"F99"', 1): "F99",
        whole.replace(b"data_offsets", b"data_offsete", 1): "KeyError",
    }.items():
        file.write_bytes(content)
        with pytest.raises(CheckpointError, match=words):
            hf.open_folder(far / "model")
    changed = bytearray(whole)
    changed[-1] ^= 1
    file.write_bytes(bytes(changed))
    with pytest.raises(CheckpointError, match=r"files are not those that were exported .* changed"):
        tulu("import", "--hf", far / "model", "--model_dir", far / "run")
    assert complete_steps(str(far / "run")) == [] and not (far / "run").exists()


def test_what_is_not_there_is_said(far):
    with pytest.raises(CheckpointError, match=rf"no such folder - at {far}/none"):
        tulu("generate", "--model", far / "none", "--prompt", "x")
    with pytest.raises(CheckpointError, match="no complete checkpoint - got no such folder"):
        tulu("export", "--model_dir", far / "none", "--output", far / "x")
    assert not (far / "x").exists()


def test_a_storage_that_goes_away_is_no_damaged_checkpoint(far, local, storage, impatient):
    tulu("import", "--hf", local / "hf", "--model_dir", far / "run")
    reader = CheckpointReader(str(far / "run"))
    storage.fault(p503=1, match="/embedding|params.embedding")
    with pytest.raises(CheckpointError, match=r"cannot be read .* nothing says that it is damaged"):
        reader.read(("embedding",))


@pytest.fixture
def hub_server(monkeypatch, tmp_path):
    server = Hub()
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    hub._download.cache_clear()
    yield server
    hub._download.cache_clear()
    server.close()


def test_models_of_the_hub_are_read_and_pushed(local, hub_server, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    hub_server.models["org/small"] = files(local / "hf")
    assert tulu("import", "--hf", "hf://org/small", "--model_dir", tmp_path / "run") == 0
    assert CheckpointReader(tmp_path / "run").meta["source"]["folder"] == "small"
    assert tulu("generate", "--model", "hf://org/small", "--prompt", "x",
                "--max_new_tokens", "2") == 0  # fmt: skip
    monkeypatch.setenv("HF_TOKEN", "right")
    words = ("export", "--model_dir", tmp_path / "run", "--output", "hf://org/mine", "--private")
    assert tulu(*words) == 0
    assert "uploaded to" in capsys.readouterr().out
    assert hub_server.models["org/mine"] == files(local / "hf")
    assert "org/mine" in hub_server.private
    with pytest.raises(ValueError, match="the model is there already"):
        tulu(*words)
    with pytest.raises(ValueError, match="--private goes with --output hf://org/name only"):
        tulu(*words[:4], tmp_path / "x", "--private")
    shutil.rmtree(tmp_path / "run")
    shutil.rmtree(tmp_path / "cache")
    assert os.listdir(tmp_path) == []


REFUSED = {
    "import": ("--hf", "{}", "--model_dir", "{}"),
    "export": ("--model_dir", "{}", "--output", "{}"),
    "verify": ("--hf", "{}", "--model_dir", "{}"),
    "adapter": ("--peft", "{}", "--base", "{}", "--model_dir", "{}"),
    "generate": ("--model", "{}", "--prompt", "x"),
    "chat": ("--model", "{}"),
    "serve": ("--model", "{}"),
    "train": ("--gin_file=runs/demo.gin", "--gin.MODEL_DIR={}"),
    "plan": ("--gin_file=runs/demo.gin", "--topology=v4-8", "--gin.INITIAL_CHECKPOINT_PATH={}"),
    "data": ("prepare", "tulu_demo", "--data_dir", "{}"),
    "report": ("{}",),
    "bench": ("train", "--store", "{}"),
    "eval": ("gsm", "--save_dir", "{}"),
    "demo": ("--dir", "{}"),
}


@pytest.mark.parametrize("command", REFUSED)
@pytest.mark.parametrize("address", ["az://c/x", "gs:/b/x"])
def test_addresses_that_are_not_supported_make_nothing(
    tmp_path, monkeypatch, capsys, command, address
):
    monkeypatch.chdir(tmp_path)
    words = [word.format(address) for word in REFUSED[command]]
    try:
        status = main.main([command, *words])
    except SystemExit as end:
        status = end.code
    told = capsys.readouterr().err
    assert status == 2 and "address" in told and address in told
    assert os.listdir(tmp_path) == []
