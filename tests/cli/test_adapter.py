"""Adapters on the command line: PEFT folder -> run -> PEFT folder, or one model."""

import json
import shutil

import jax
import numpy as np
import pytest

from tulu_jax.chat.template import hf_template
from tulu_jax.chat.templates import TEMPLATES
from tulu_jax.checkpoint import hf
from tulu_jax.checkpoint.peft import load_peft, save_peft
from tulu_jax.cli.main import main
from tulu_jax.models.lora import LoraConfig, abstract_adapters

from .small_model import write_model

LORA = LoraConfig(rank=2, alpha=4, dropout=0.0, targets=("q_proj", "down_proj"))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapter")
    config = hf.open_folder(write_model(folder / "base")).config
    rng = np.random.default_rng(0)
    adapters = jax.tree.map(
        lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), abstract_adapters(config, LORA)
    )
    save_peft(folder / "peft", config, LORA, adapters, base="base")
    words = ("adapter", "--peft", "peft", "--base", "base", "--model_dir", "run")
    assert main([str(folder / w) if w in ("peft", "base", "run") else w for w in words]) == 0
    return folder / "run", config, adapters


def test_back_to_peft(run, tmp_path, capsys):
    assert main(["export", "--model_dir", str(run[0]), "--output", str(tmp_path / "a")]) == 0
    assert "adapters of rank 2 in PEFT's format" in capsys.readouterr().out
    _, found = load_peft(tmp_path / "a", run[1])
    jax.tree.map(np.testing.assert_array_equal, found, run[2])


def test_merged_into_one_model(run, tmp_path):
    words = ["export", "--model_dir", str(run[0]), "--output", str(tmp_path / "m"), "--merge"]
    assert main(words) == 0
    _, merged = hf.load(tmp_path / "m")
    _, base = hf.load(run[0].parent / "base")
    same = jax.tree.map(np.array_equal, merged, base)
    changed = {p[-1].key for p, ok in jax.tree_util.tree_leaves_with_path(same) if not ok}
    assert changed == {"query", "down"}
    assert (tmp_path / "m" / "tokenizer.model").is_file()


def test_the_base_is_not_replaced_by_what_is_made_of_it(run, capsys):
    base = run[0].parent / "base"
    before = (base / "model.safetensors").read_bytes()
    words = ["export", "--model_dir", run[0], "--output", base, "--merge", "--overwrite"]
    assert main([str(word) for word in words]) == 2
    assert "--output is the base of these adapters, which is read mean" in capsys.readouterr().err
    assert (base / "model.safetensors").read_bytes() == before


def test_generates_with_its_base(run, capsys):
    words = ["generate", "--model", str(run[0]), "--prompt", "Hi", "--max_new_tokens", "2"]
    assert main(words) == 0
    assert "tokens in" in capsys.readouterr().err


def test_another_base_than_the_one_it_was_trained_beside_is_said(run, tmp_path, capsys):
    """It was not: an adapter fits beside any weights of the same shapes."""
    adapter, base = run[0].parent / "peft", run[0].parent / "base"
    shutil.copytree(adapter, tmp_path / "peft")
    file = tmp_path / "peft" / "adapter_config.json"
    fields = json.loads(file.read_text())

    def said(number, named, base=base):
        file.write_text(json.dumps({**fields, "base_model_name_or_path": named}))
        words = ["adapter", "--peft", tmp_path / "peft", "--base", base]
        assert main([*map(str, words), "--model_dir", str(tmp_path / str(number))]) == 0
        return " ".join(capsys.readouterr().out.split())

    note = "note the adapter was trained beside org/Other-7b, as its config says, and --base is "
    assert note in said(0, "org/Other-7b")
    kept = tmp_path / "models--org--Other-7b" / "snapshots" / "1234"
    shutil.copytree(base, kept)
    named = ("org/other-7b", "/elsewhere/base", "base/", "", None)
    for number, name in enumerate(named, 1):
        assert "trained beside" not in said(number, name, kept if number == 1 else base)


def test_an_adapter_of_ours_knows_its_base(run, tmp_path, capsys):
    """It went beside any model of its shapes, also where that was another step of the same one."""
    from checkpoint.hf.small import read_tensors, write_tensors

    assert main(["export", "--model_dir", str(run[0]), "--output", str(tmp_path / "a")]) == 0
    other = shutil.copytree(run[0].parent / "base", tmp_path / "base")
    words = ["adapter", "--peft", str(tmp_path / "a"), "--base", str(other), "--model_dir"]
    assert main([*words, str(tmp_path / "same")]) == 0
    file = other / "model.safetensors"
    tensors = read_tensors(file)
    tensors["model.norm.weight"] = tensors["model.norm.weight"] * 2
    write_tensors(file, tensors)
    capsys.readouterr()
    assert main([*words, str(tmp_path / "other")]) == 2
    err = " ".join(capsys.readouterr().err.split())
    assert "base is not the one the adapters were trained beside - got fingerprint float32:" in err
    assert "of final_norm/scale at" in err and "or take base_weights.json away" in err
    (tmp_path / "a" / "base_weights.json").unlink()
    assert main([*words, str(tmp_path / "other")]) == 0


def test_another_tokenizer_beside_the_adapter_is_said(run, tmp_path, capsys):
    """It was not: an adapter trained in one chat template was asked in its base's."""
    base = run[0].parent / "base"
    shutil.copytree(run[0].parent / "peft", tmp_path / "peft")
    for name in ("tokenizer.model", "tokenizer_config.json"):
        shutil.copy(base / name, tmp_path / "peft" / name)
    words = ["adapter", "--peft", str(tmp_path / "peft"), "--base", str(base), "--model_dir"]
    assert main([*words, str(tmp_path / "same")]) == 0
    assert "tokenizer beside the adapter" not in capsys.readouterr().out
    template = hf_template("bos_token", TEMPLATES["zephyr"])
    (tmp_path / "peft" / "chat_template.jinja").write_text(template)
    assert main([*words, str(tmp_path / "other")]) == 0
    assert (
        "note the tokenizer beside the adapter is not the base's: chat template zephyr for tulu; "
        "the base's is used, where --tokenizer names no other"
    ) in " ".join(capsys.readouterr().out.split())


def test_what_is_not_as_usual_is_said(run, tmp_path, capsys):
    from checkpoint.hf.small import read_tensors, write_tensors

    shutil.copytree(run[0].parent / "peft", tmp_path / "peft")
    file = tmp_path / "peft" / "adapter_model.safetensors"
    plain = {n.removeprefix("base_model.model."): x for n, x in read_tensors(file).items()}
    write_tensors(file, plain)
    words = ["adapter", "--base", str(run[0].parent / "base"), "--model_dir", str(tmp_path / "run")]
    assert main([*words, "--peft", str(tmp_path / "peft")]) == 0
    assert "note names of tensors are not PEFT's (model.layers.0" in capsys.readouterr().out
    write_tensors(file, {name: tensor * np.nan for name, tensor in plain.items()})
    words[-1] += "2"
    assert main([*words, "--peft", str(tmp_path / "peft")]) == 2
    assert "weights are not finite numbers - got" in capsys.readouterr().err
    assert not (tmp_path / "run2").exists()


def test_an_adapter_is_no_model(run, tmp_path, capsys):
    peft, out = str(run[0].parent / "peft"), str(tmp_path / "x")
    for words in (
        ["import", "--hf", peft, "--model_dir", out],
        ["generate", "--model", peft, "--prompt", "x"],
        ["adapter", "--peft", peft, "--base", peft, "--model_dir", out],
    ):
        assert main(words) == 2
        wanted = f"holds an adapter (PEFT), not a whole model - at {peft} - make it a run"
        assert wanted in capsys.readouterr().err


def test_a_base_that_has_moved(run, tmp_path, capsys):
    shutil.copytree(run[0].parent, tmp_path / "all")
    (tmp_path / "all" / "base").rename(tmp_path / "elsewhere")
    meta = next((tmp_path / "all" / "run").rglob("meta/metadata"))
    meta.write_text(meta.read_text().replace(str(run[0].parent), str(tmp_path / "all")))
    words = ["generate", "--model", str(tmp_path / "all" / "run"), "--prompt", "Hi"]
    words += ["--tokenizer", str(tmp_path / "elsewhere"), "--max_new_tokens", "1"]
    assert main(words) == 2
    assert "the adapters' base is not there" in capsys.readouterr().err
    assert main([*words, "--base", str(tmp_path / "elsewhere")]) == 0


def test_flags_that_would_do_nothing(run, tmp_path, capsys):
    base, whole, out = str(run[0].parent / "base"), str(tmp_path / "whole"), str(tmp_path / "out")
    assert main(["import", "--hf", base, "--model_dir", whole]) == 0
    for words, message in (
        (["export", "--model_dir", whole, "--output", out, "--base", "x"], "adapters only"),
        (["generate", "--model", whole, "--prompt", "x", "--base", base], "adapters only"),
        (["generate", "--model", base, "--prompt", "x", "--base", base], "with a run folder"),
        (["export", "--model_dir", str(run[0]), "--output", out, "--dtype", "float16"],
         "adapters are written as they are, into a new folder - got --dtype float16"),
        (["export", "--model_dir", str(run[0]), "--output", out, "--tokenizer", base],
         "into a new folder - got --tokenizer /"),
        (["export", "--model_dir", str(run[0]), "--output", out, "--overwrite"],
         "into a new folder - got --overwrite - leave it out"),
        (["export", "--model_dir", str(run[0]), "--output", out, "--max_shard_size", "1MB"],
         "into a new folder - got --max_shard_size 1MB - leave it out"),
    ):  # fmt: skip
        assert main(words) == 2
        assert message in capsys.readouterr().err
    hub = "meta-llama/Llama-2-7b-hf"
    assert main(["export", "--model_dir", str(run[0]), "--output", out, "--base", hub]) == 0
    assert (
        f'"base_model_name_or_path": "{hub}"' in (tmp_path / "out/adapter_config.json").read_text()
    )


def test_nothing_to_merge(run, tmp_path, capsys):
    base, whole = str(run[0].parent / "base"), str(tmp_path / "whole")
    assert main(["import", "--hf", base, "--model_dir", whole]) == 0
    assert main(["export", "--model_dir", whole, "--output", whole + "2", "--merge"]) == 2
    assert "checkpoint holds no adapters" in capsys.readouterr().err
