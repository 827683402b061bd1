"""Adapters as they are met: other names, files and starts; compared with PEFT's reading."""

import json
import re
import shutil

import ml_dtypes
import numpy as np
import pytest

from checkpoint.hf.small import CONFIG, read_tensors, write_tensors
from tulu_jax.checkpoint.peft import load_peft, save_peft
from tulu_jax.errors import CheckpointError

from .test_peft import LORA, TOKENS, assert_equal_trees, draw, small_base

BASE = "base_model.model."


@pytest.fixture
def adapter(tmp_path):
    save_peft(tmp_path / "a", CONFIG, LORA, draw(LORA), base="base")
    return tmp_path / "a"


def edit(folder, rename=lambda name: name, change=lambda name, tensor: tensor, **fields):
    file, config = folder / "adapter_model.safetensors", folder / "adapter_config.json"
    tensors = read_tensors(file)
    write_tensors(file, {rename(name): change(name, tensor) for name, tensor in tensors.items()})
    config.write_text(json.dumps({**json.loads(config.read_text()), **fields}))


def read(folder):
    notes = []
    _, tree = load_peft(folder, CONFIG, note=notes.append)
    return tree, notes


@pytest.mark.parametrize(
    "rename",
    [
        lambda name: name.removeprefix(BASE),
        lambda name: name.removeprefix(BASE + "model."),
        lambda name: BASE + name,
        lambda name: "module." + name,
        lambda name: "_orig_mod." + name,
        lambda name: name.replace("layers.", "layers._fsdp_wrapped_module."),
        lambda name: re.sub(r"(lora_[AB])", r"\1.default", name),
        lambda name: re.sub(r"(lora_[AB])", r"\1.mine", name.removeprefix(BASE)),
    ],
)
def test_names_that_all_differ_alike_are_read_and_said(adapter, rename):
    edit(adapter, rename)
    tree, notes = read(adapter)
    assert_equal_trees(tree, draw(LORA))
    assert len(notes) == 1
    assert re.search(
        r"names of tensors are not PEFT's \(.*\): taken as base_model\.model\.", notes[0]
    )


def test_names_that_differ_in_part_are_shown(adapter):
    edit(adapter, lambda name: name.replace("layers.0", "blocks.0"))
    with pytest.raises(CheckpointError, match=r"got no base_model.*layers.0.*, but .*blocks.0"):
        read(adapter)


def test_two_adapters_in_one_file(adapter):
    edit(
        adapter, lambda name: re.sub(r"(lora_[AB])", r"\1.one" if "q_" in name else r"\1.two", name)
    )
    with pytest.raises(
        CheckpointError, match=r"several adapters - got \['one', 'two'\] .*selected_"
    ):
        read(adapter)


def test_an_ordinary_adapter_needs_no_note(adapter):
    assert read(adapter)[1] == []


def test_tensors_of_torch(adapter):
    torch = pytest.importorskip("torch")
    tensors = read_tensors(adapter / "adapter_model.safetensors")
    state = {name: torch.tensor(tensor) for name, tensor in tensors.items()}
    torch.save(state, adapter / "adapter_model.bin")
    (adapter / "adapter_model.safetensors").unlink()
    assert_equal_trees(read(adapter)[0], draw(LORA))
    (adapter / "adapter_model.bin").unlink()
    with pytest.raises(
        CheckpointError, match=r"adapter's weights are missing - got .*adapter_config"
    ):
        read(adapter)


def test_half_precision_and_byte_order_marks(adapter):
    edit(adapter, change=lambda _, tensor: tensor.astype(ml_dtypes.bfloat16))
    config = adapter / "adapter_config.json"
    config.write_bytes(b"\xef\xbb\xbf" + config.read_bytes())
    tree, _ = read(adapter)
    wanted = draw(LORA)["layers"]["attention"]["query"]["a"].astype(ml_dtypes.bfloat16)
    np.testing.assert_array_equal(tree["layers"]["attention"]["query"]["a"], wanted.astype("f4"))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_numbers_that_are_none_are_named(adapter, bad, dtype):
    def spoil(name, tensor):
        tensor = tensor.astype(dtype if dtype != "bfloat16" else ml_dtypes.bfloat16)
        if "layers.1.mlp.up_proj.lora_B" in name:
            tensor[3, 1] = bad
        return tensor

    edit(adapter, change=spoil)
    counts = "1 NaN and 0 infinite" if np.isnan(bad) else "0 NaN and 1 infinite"
    with pytest.raises(CheckpointError, match=rf"not finite numbers - got {counts} of 72 in"):
        read(adapter)


@pytest.mark.parametrize("zero", ["lora_A", "lora_B", "lora_"])
def test_adapters_that_do_nothing_are_said(adapter, zero):
    edit(adapter, change=lambda name, tensor: tensor * (zero not in name))
    notes = read(adapter)[1]
    assert notes == [
        "every product of the adapters is zero: they change nothing (saved before training?)"
    ]


def test_targets_as_expression_and_names_the_base_lacks(adapter):
    wanted = draw(LORA)
    edit(adapter, target_modules=r"(?:.*?(?:mlp|self_attn)\.(?:\w+_proj))")
    assert_equal_trees(read(adapter)[0], wanted)
    names = [
        "self_attn.q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
        "mlp.up_proj",
        "gate_proj",
        "down_proj",
    ]
    edit(adapter, target_modules=[*names, "c_attn"])
    tree, notes = read(adapter)
    assert_equal_trees(tree, wanted)
    assert notes == ["target_modules names c_attn: the base has no such matrices"]
    edit(adapter, target_modules=names, rank_pattern={"q_proj": LORA.rank}, alpha_pattern={"x": 6})
    assert_equal_trees(read(adapter)[0], wanted)


@pytest.mark.parametrize(
    ("config", "got"),
    [
        (b'{"r": 1, "r": 2}', "the field r twice with two values"),
        (b"[1]", "a JSON list"),
        (b"{", "Expecting property name"),
        (b"", "an empty file"),
        (b"\x1f\x8b\x08\x00", "a gzip file"),
    ],
)
def test_configs_that_cannot_be_read(adapter, config, got):
    (adapter / "adapter_config.json").write_bytes(config)
    with pytest.raises(CheckpointError, match=f"config.json is not a JSON object - got {got}"):
        read(adapter)


def test_folders_that_are_no_adapter(adapter, tmp_path):
    small_base(tmp_path / "model")
    with pytest.raises(CheckpointError, match=r"adapter_config.json is missing .* tulu import"):
        read(tmp_path / "model")
    with pytest.raises(CheckpointError, match=r"adapter_config.json is missing"):
        read(tmp_path / "nothing")
    adapter.rename(tmp_path / "model" / "default")
    with pytest.raises(CheckpointError, match=r"is missing .* folder inside: .*/default"):
        read(tmp_path / "model")
    (tmp_path / "model" / "default").rename(adapter)
    (adapter / "adapter_model.safetensors").write_bytes(
        b"version https://git-lfs.github.com/spec/v1\n"
    )
    with pytest.raises(CheckpointError, match=r"got a Git LFS pointer .* git lfs pull"):
        read(adapter)


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("306-pissa", "init_lora_weights of the adapter is not supported - got 'pissa'"),
        ("314-alora", "alora_invocation_tokens of the adapter is not supported"),
        ("320-alpha-null", "lora_alpha is missing"),
        ("323-nan-adapter", "weights are not finite numbers - got .* NaN"),
    ],
)
def test_cases_from_the_field(shared, case, message):
    from tulu_jax.checkpoint import hf

    config = hf.open_folder(shared / "models/stories260k").config
    with pytest.raises(CheckpointError, match=message):
        load_peft(shared / "cases" / case / "ad", config)


def test_a_case_from_the_field_without_peft_s_prefix(shared):
    from tulu_jax.checkpoint import hf

    config = hf.open_folder(shared / "models/stories260k").config
    notes = []
    load_peft(shared / "cases/312-no-base-prefix/ad", config, note=notes.append)
    assert "names of tensors are not PEFT's (model.layers.0" in notes[0]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("start", [True, False, "gaussian", "orthogonal", "mica", "pissa", "olora"])
def test_what_peft_trains_from_each_start_is_read_as_it_computes(tmp_path, start):
    """Those that change the base once converted as our message says, the others as saved."""
    peft = pytest.importorskip("peft")
    import torch
    from transformers import AutoModelForCausalLM
    from whole import forward

    from tulu_jax.models.lora import adapt

    torch.manual_seed(0)
    params = small_base(tmp_path / "base")
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32)
    settings = peft.LoraConfig(
        r=2, lora_alpha=3, target_modules=["q_proj", "down_proj"], init_lora_weights=start
    )
    model = peft.get_peft_model(base, settings).eval()
    changes = start in ("pissa", "olora")
    if changes:
        model.peft_config["default"].init_lora_weights = True
        model.save_pretrained(tmp_path / "start")
        model.peft_config["default"].init_lora_weights = start
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(tmp_path / "a")
    theirs = model(input_ids=torch.tensor(np.asarray(TOKENS))).logits.detach().numpy()
    if changes:
        with pytest.raises(CheckpointError, match="changes the base's weights"):
            load_peft(tmp_path / "a", CONFIG)
        shutil.rmtree(tmp_path / "a")
        conversion = {"path_initial_model_for_weight_conversion": str(tmp_path / "start")}
        model.save_pretrained(tmp_path / "a", **conversion)
    lora, adapters = load_peft(tmp_path / "a", CONFIG)
    ours = forward(CONFIG, adapt(CONFIG, lora, params, adapters), TOKENS)
    np.testing.assert_allclose(ours, theirs, atol=2e-5)
