"""A right import matches transformers in every layer; a wrong one is found where it is wrong."""

import dataclasses
import sys

import jax
import numpy as np
import pytest

from tests.cli.small_model import write_model
from tulu_jax.checkpoint import hf
from tulu_jax.checkpoint.transformers_model import TransformersModel
from tulu_jax.checkpoint.verify import Difference, Limits, compare, kl_divergence
from tulu_jax.errors import CheckpointError
from tulu_jax.models import NeoxConfig, OptConfig, abstract_params

PROMPTS = [[1, 5, 9, 200, 31, 77, 4], [1, 8, 300, 12]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("verify") / "hf")


@pytest.fixture(scope="module")
def theirs(torch, folder):
    return TransformersModel(folder, hf.load(folder)[0])


def changed(params, path, change):
    """The weights with `change` applied to a copy of one of them."""
    name, *rest = path
    child = changed(params[name], rest, change) if rest else change(params[name].copy())
    return {**params, name: child}


def scaled(index):
    def change(array):
        array[index] *= 1.05
        return array

    return change


def swap_halves(array):
    """Layer 1's queries with the channels of interleaved rotary pairs: Meta's layout."""
    half = array.shape[-1] // 2
    array[1] = np.stack([array[1][..., :half], array[1][..., half:]], -1).reshape(array[1].shape)
    return array


def test_a_right_import_matches_in_every_layer(folder, theirs):
    found = compare(*hf.load(folder), theirs, PROMPTS)
    assert found.faults() == []
    assert found.num_tokens == 11
    assert len(found.layers) == 2
    assert max(d.relative for layer in found.layers for d in layer.values()) < 1e-5
    assert found.kl < 1e-8
    assert found.agreement == 1


@pytest.mark.parametrize(
    ("path", "change", "where"),
    [
        (("embedding",), scaled(5), "layer 0, input"),
        (("layers", "attention_norm", "scale"), scaled(0), "layer 0, attention norm"),
        (("layers", "attention", "query"), swap_halves, "layer 1, attention"),
        (("layers", "attention", "out"), scaled(1), "layer 1, attention"),
        (("layers", "mlp", "gate"), scaled(1), "layer 1, mlp"),
        (("final_norm", "scale"), scaled(...), "final norm"),
        (("lm_head",), scaled(...), "logits"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_fault_is_found_where_it_is(folder, theirs, path, change, where):
    config, params = hf.load(folder)
    found = compare(config, changed(params, path, change), theirs, PROMPTS)
    assert found.first_fault() == where
    assert f"activations differ from {where} on" in found.faults()


def test_a_wrong_epsilon_is_found_in_the_first_norm(folder, theirs):
    config, params = hf.load(folder)
    found = compare(dataclasses.replace(config, norm_eps=1e-2), params, theirs, PROMPTS)
    assert found.first_fault() == "layer 0, attention norm"


SIZES = {"vocab_size": 51, "d_model": 16, "d_ff": 24, "num_layers": 2, "max_length": 32}
FAMILIES = {
    "opt": OptConfig(**SIZES, num_heads=4, word_dim=16),
    "opt_post_norm": OptConfig(
        **SIZES, num_heads=4, word_dim=6, norm_first=False, final_norm=False
    ),
    "neox": NeoxConfig(**SIZES, num_heads=2, norm_eps=1e-5, rotary_share=0.25),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_other_families_match_and_their_faults_are_found(torch, tmp_path, name):
    config = FAMILIES[name]
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: (rng.normal(size=leaf.shape) * 0.3).astype(np.float32), abstract_params(config)
    )
    hf.save(tmp_path / name, config, params)
    theirs = TransformersModel(tmp_path / name, config)
    prompts = [[5, 9, 40, 31, 7, 4], [8, 12, 3]]
    assert compare(config, params, theirs, prompts).faults() == []
    broken = changed(params, ("layers", "mlp", "down_bias"), scaled(1))
    assert compare(config, broken, theirs, prompts).first_fault() == "layer 1, mlp"


def test_limits_on_predictions_are_told_apart(folder, theirs):
    config, params = hf.load(folder)
    params["lm_head"] = np.roll(params["lm_head"], 1, axis=1)
    found = compare(config, params, theirs, PROMPTS, Limits(difference=10))
    assert [fault.split(" is ")[0].rsplit(" ", 1)[0] for fault in found.faults()] == [
        "KL divergence",
        "top-1 agreement",
    ]


def test_what_is_no_number_differs():
    difference = Difference()
    difference.add(np.array([1.0, np.nan]), np.array([1.0, 2.0]))
    assert difference.relative == np.inf
    assert difference.max_abs == np.inf
    same = Difference()
    same.add(np.zeros(3), np.zeros(3))
    assert same.relative == 0


def test_divergence_is_zero_only_between_equals():
    logits = np.random.default_rng(0).normal(size=(4, 9)) * 30
    assert np.allclose(kl_divergence(logits, logits + 5), 0)
    assert (kl_divergence(logits, logits[::-1]) > 0).all()


def test_another_model_is_refused(torch, folder):
    config = dataclasses.replace(hf.load(folder)[0], num_layers=3)
    with pytest.raises(CheckpointError, match=r"another model.*2 layers.*expected llama, 3 layers"):
        TransformersModel(folder, config)


def test_a_folder_that_transformers_cannot_load(torch, tmp_path, folder):
    with pytest.raises(CheckpointError, match="transformers cannot load the folder"):
        TransformersModel(tmp_path, hf.load(folder)[0])


def test_without_torch_the_command_is_named(monkeypatch, folder):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(CheckpointError, match=r"no module torch.*pip install transformers torch"):
        TransformersModel(folder, hf.load(folder)[0])
