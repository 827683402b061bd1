"""Adapters go to PEFT and back, and merge into the weights that give the same logits."""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from whole import forward

from checkpoint.hf.small import CONFIG, random_params, write_folder
from tulu_jax.checkpoint import hf
from tulu_jax.checkpoint.arrays import CheckpointReader
from tulu_jax.checkpoint.merged import import_peft, open_weights, saved_lora
from tulu_jax.checkpoint.peft import load_peft, save_peft
from tulu_jax.checkpoint.peft_config import NEUTRAL
from tulu_jax.errors import CheckpointError, ConfigError
from tulu_jax.models.lora import LoraConfig, abstract_adapters, adapt, merge

LORA = LoraConfig(rank=3, alpha=6, dropout=0.0, base_dtype="float32")
SOME = LoraConfig(rank=2, alpha=1, dropout=0.1, targets=("q_proj", "v_proj", "down_proj"))
TOKENS = jnp.arange(20).reshape(2, 10) + 3


def draw(lora, seed=0):
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: (rng.normal(size=leaf.shape) * 0.3).astype(np.float32),
        abstract_adapters(CONFIG, lora),
    )


def small_base(folder):
    params = jax.tree.map(lambda x: x * 0.3, random_params(CONFIG))
    hf.save(folder, CONFIG, params)
    return params


def assert_equal_trees(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.mark.parametrize("lora", [LORA, SOME])
def test_there_and_back(tmp_path, lora):
    adapters = draw(lora)
    save_peft(tmp_path / "a", CONFIG, lora, adapters, base="base")
    found, tree = load_peft(tmp_path / "a", CONFIG)
    assert_equal_trees(tree, adapters)
    assert (found.rank, found.scale, found.weights) == (lora.rank, lora.scale, lora.weights)


@pytest.mark.parametrize("lora", [LORA, SOME])
def test_a_run_of_an_adapter_merges_to_the_same_logits(tmp_path, lora):
    params, adapters = small_base(tmp_path / "base"), draw(lora)
    save_peft(tmp_path / "a", CONFIG, lora, adapters, base="base")
    import_peft(tmp_path / "a", tmp_path / "base", tmp_path / "run")
    reader = CheckpointReader(tmp_path / "run")
    assert_equal_trees(reader.params(), adapters)
    assert saved_lora(reader.meta).scale == lora.scale
    hf.save(tmp_path / "merged", CONFIG, open_weights(tmp_path / "run"))
    _, merged = hf.load(tmp_path / "merged")
    wanted = forward(CONFIG, adapt(CONFIG, lora, params, adapters), TOKENS)
    np.testing.assert_allclose(forward(CONFIG, merged, TOKENS), wanted, atol=1e-5)
    assert float(jnp.max(jnp.abs(wanted - forward(CONFIG, params, TOKENS)))) > 0.01


def test_bases_that_are_not_the_same(tmp_path):
    small_base(tmp_path / "base")
    save_peft(tmp_path / "a", CONFIG, LORA, draw(LORA), base="base")
    import_peft(tmp_path / "a", tmp_path / "base", tmp_path / "run")
    write_folder(tmp_path / "other")
    with pytest.raises(CheckpointError, match="base is not the one the adapters were trained"):
        open_weights(tmp_path / "run", base=tmp_path / "other")
    with pytest.raises(CheckpointError, match=r"adapters' base is not there .*--base"):
        open_weights(tmp_path / "run", base=tmp_path / "none")
    with pytest.raises(CheckpointError, match="holds adapters, not a model's weights"):
        open_weights(tmp_path / "run", base=tmp_path / "run")
    with pytest.raises(CheckpointError, match="checkpoint holds no adapters"):
        saved_lora({})


STARTS_THAT_CHANGE_THE_BASE = (
    "pissa", "pissa_niter_16", "PiSSA", "olora", "corda", "loftq", "lora_ga", "other", None, 1, {},
)  # fmt: skip

START_MESSAGE = (
    r".* expected true, false or 'gaussian': this start changes the base's weights, .* - "
)
CONVERT = (
    r"in PEFT convert it: save_pretrained\(DIR, path_initial_model_for_weight_conversion=START"
)
CONVERTIBLE = ("pissa", "pissa_niter_16", "PiSSA", "olora", "corda", "lora_ga")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"use_dora": True}, "use_dora of the adapter is not supported - got True"),
        ({"peft_type": "IA3"}, "peft_type of the adapter is not supported - got 'IA3'"),
        ({"bias": "all"}, "bias of the adapter"),
        ({"rank_pattern": {"x": 1}}, "rank_pattern of the adapter"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save of the adapter"),
        (
            {"target_modules": ["q_proj", "lm_head"]},
            "target_modules of the adapter is not supp.* lm_head",
        ),
        (
            {"target_modules": ["fc1"]},
            r"names no module of the base - got \['fc1'\] .* check that --base",
        ),
        ({"target_modules": ["q_proj"]}, "adapter has tensors that its config does not tell of"),
        ({"target_modules": r".*\.0\..*q_proj"}, "not supported - got q_proj in 1 of 2 layers"),
        (
            {"target_modules": "(q_proj"},
            "target_modules of the adapter is malformed - got .*unt",
        ),
        ({"target_modules": {"q_proj": 1}}, "target_modules of the adapter is malformed - got"),
        ({"r": 4}, "adapter does not fit the model - got .*lora_A"),
        (
            {"r": None},
            "r is missing - at .* adapter_config.json to name r: it is not guessed",
        ),
        ({"r": "4"}, "r is malformed - got '4' .* an integer"),
        ({"r": 0}, "config is not understood - got LoraConfig.rank is out of range - got 0"),
        ({"lora_alpha": None}, "lora_alpha is missing .* copy it from the original adapter_config"),
        ({"lora_alpha": 0}, "config is not understood - got LoraConfig.alpha is out of range"),
        ({"lora_alpha": float("nan")}, "lora_alpha is malformed - got nan .* a finite number"),
        ({"lora_dropout": 1.0}, "config is not understood - got LoraConfig.dropout is out of"),
        ({"alora_invocation_tokens": [1, 2]}, r"alora_invocation_tokens of the adapter is not sup"),
        ({"exclude_modules": ["q_proj"]}, "exclude_modules of the adapter is not supported"),
        ({"layers_to_transform": [0]}, "layers_to_transform of the adapter is not supported"),
        ({"alpha_pattern": {"q_proj": 1}}, "alpha_pattern of the adapter is not supported"),
        ({"use_rslora": 1}, "use_rslora of the adapter is not supported - got 1"),
        ({"kasa_config": {"beta": 1}}, "kasa_config is not known .* remove it from adapter_config"),
        ({"new_trick": "x", "other": 0}, 'new_trick is not known - got {"new_trick": "x"}'),
        *(({"init_lora_weights": start}, re.escape(f"{start!r} at ") + START_MESSAGE
           + (CONVERT if start in CONVERTIBLE else "merge it in PEFT into the base"))
          for start in STARTS_THAT_CHANGE_THE_BASE),
    ],
)  # fmt: skip
def test_adapters_of_other_kinds(tmp_path, changes, message):
    save_peft(tmp_path / "a", CONFIG, LORA, draw(LORA), base="base")
    path = tmp_path / "a" / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(CheckpointError, match=message):
        load_peft(tmp_path / "a", CONFIG)


def test_null_is_a_setting_that_is_not_set(tmp_path):
    save_peft(tmp_path / "a", CONFIG, LORA, draw(LORA), base="base")
    path = tmp_path / "a" / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **dict.fromkeys(NEUTRAL)}))
    found, _ = load_peft(tmp_path / "a", CONFIG)
    assert (found.rank, found.scale, found.weights) == (LORA.rank, LORA.scale, LORA.weights)


@pytest.mark.parametrize(
    ("field", "value"),
    [("rank", 0), ("alpha", 0.0), ("dropout", 1.0), ("targets", ()), ("targets", ("head",)),
     ("base_dtype", "int4")],
)  # fmt: skip
def test_settings_out_of_range(field, value):
    with pytest.raises(ConfigError, match=rf"LoraConfig.{field} is (out of range|unknown) - got"):
        LoraConfig(**{field: value})


def test_merge_adds_the_product_layer_by_layer():
    rng = np.random.default_rng(0)
    w, a, b = (rng.normal(size=s).astype(np.float32) for s in ((2, 4, 3, 2), (2, 4, 1), (2, 1, 6)))
    wanted = w + 0.5 * np.einsum("LAr,LrB->LAB", a, b).reshape(w.shape)
    np.testing.assert_allclose(merge(w, a, b, scale=0.5), wanted, atol=1e-6)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*is deprecated and will be removed:FutureWarning")
def test_peft_loads_it_and_gives_the_same_logits_and_gradients(tmp_path):
    peft = pytest.importorskip("peft")
    import torch
    from transformers import AutoModelForCausalLM

    params, adapters = small_base(tmp_path / "base"), draw(LORA)
    save_peft(tmp_path / "a", CONFIG, LORA, adapters, base=str(tmp_path / "base"))
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32)
    model = peft.PeftModel.from_pretrained(model, tmp_path / "a", is_trainable=True).eval()
    theirs = model(input_ids=torch.tensor(np.asarray(TOKENS))).logits

    def loss(adapters):
        ours = forward(CONFIG, adapt(CONFIG, LORA, params, adapters), TOKENS)
        return jnp.mean(ours**2), ours

    (_, ours), grads = jax.value_and_grad(loss, has_aux=True)(adapters)
    np.testing.assert_allclose(ours, theirs.detach().numpy(), atol=1e-5)
    (theirs**2).mean().backward()
    for name, parameter in model.named_parameters():
        if "lora_" not in name:
            continue
        layer, module = int(name.split(".layers.")[1].split(".")[0]), name.split(".")[-4]
        own = {"q_proj": "query", "k_proj": "key", "v_proj": "value", "o_proj": "out"}
        room = "attention" if module in own else "mlp"
        weight = own.get(module, module.removesuffix("_proj"))
        factor = "a" if "lora_A" in name else "b"
        mine = np.asarray(grads["layers"][room][weight][factor][layer]).T
        scale = max(1.0, float(parameter.grad.abs().max()))
        np.testing.assert_allclose(mine / scale, parameter.grad.numpy() / scale, atol=1e-5)
