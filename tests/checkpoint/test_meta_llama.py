"""Meta's layout against transformers' own conversion, by its documented formula."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from tulu_jax.checkpoint import hf
from tulu_jax.checkpoint.meta_llama import open_meta
from tulu_jax.errors import CheckpointError
from tulu_jax.models import LlamaConfig, abstract_params

torch = pytest.importorskip("torch")

MHA = LlamaConfig(
    vocab_size=48, d_model=16, d_ff=24, num_layers=2, num_heads=4, num_kv_heads=4, head_dim=4,
    max_length=2048, norm_eps=1e-5,
)  # fmt: skip
GQA = dataclasses.replace(MHA, num_kv_heads=2)
NAMES = {
    "attention.wq": "self_attn.q_proj", "attention.wk": "self_attn.k_proj",
    "attention.wv": "self_attn.v_proj", "attention.wo": "self_attn.o_proj",
    "feed_forward.w1": "mlp.gate_proj", "feed_forward.w2": "mlp.down_proj",
    "feed_forward.w3": "mlp.up_proj", "attention_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}  # fmt: skip


def permute(w, n_heads):
    """`permute` of transformers' convert_llama_weights_to_hf.py, as it is written there."""
    dim1, dim2 = w.shape
    return w.view(n_heads, dim1 // n_heads // 2, 2, dim2).transpose(1, 2).reshape(dim1, dim2)


def meta_tensors(config):
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, generator=generator)

    d, f, kv = config.d_model, config.d_ff, config.num_kv_heads * config.head_dim
    found = {"tok_embeddings.weight": draw(config.vocab_size, d), "norm.weight": draw(d),
             "output.weight": draw(config.vocab_size, d), "rope.freqs": draw(2)}  # fmt: skip
    for layer in range(config.num_layers):
        shapes = {"attention.wq": (d, d), "attention.wk": (kv, d), "attention.wv": (kv, d),
                  "attention.wo": (d, d), "feed_forward.w1": (f, d), "feed_forward.w2": (d, f),
                  "feed_forward.w3": (f, d), "attention_norm": (d,), "ffn_norm": (d,)}  # fmt: skip
        for name, shape in shapes.items():
            found[f"layers.{layer}.{name}.weight"] = draw(*shape)
    return found


def cut(name, tensor, number, count, embedding_axis):
    if "norm" in name or name == "rope.freqs":
        return tensor
    axis = 1 if name.endswith(("wo.weight", "w2.weight")) else 0
    axis = embedding_axis if name == "tok_embeddings.weight" else axis
    return tensor.chunk(count, axis)[number].clone()


def write_meta(folder, config, num_shards=1, embedding_axis=1, **changes):
    folder.mkdir(exist_ok=True)
    tensors = meta_tensors(config)
    for number in range(num_shards):
        part = {name: cut(name, tensor, number, num_shards, embedding_axis)
                for name, tensor in tensors.items()}  # fmt: skip
        torch.save(part, folder / f"consolidated.{number:02d}.pth")
    params = {"dim": config.d_model, "n_layers": config.num_layers, "n_heads": config.num_heads,
              "multiple_of": 8, "norm_eps": config.norm_eps, "vocab_size": -1}  # fmt: skip
    if config.num_kv_heads != config.num_heads:
        params["n_kv_heads"] = config.num_kv_heads
    params = {k: v for k, v in {**params, **changes}.items() if v is not ...}
    (folder / "params.json").write_text(json.dumps(params))
    return tensors


def converted(config, tensors):
    """What transformers' conversion makes of the whole tensors."""
    found = {"model.embed_tokens.weight": tensors["tok_embeddings.weight"],
             "model.norm.weight": tensors["norm.weight"],
             "lm_head.weight": tensors["output.weight"]}  # fmt: skip
    heads = {"attention.wq": config.num_heads, "attention.wk": config.num_kv_heads}
    for layer in range(config.num_layers):
        for theirs, ours in NAMES.items():
            tensor = tensors[f"layers.{layer}.{theirs}.weight"]
            tensor = permute(tensor, heads[theirs]) if theirs in heads else tensor
            found[f"model.layers.{layer}.{ours}.weight"] = tensor
    return found


@pytest.mark.parametrize("config", [MHA, GQA], ids=["mha", "gqa"])
@pytest.mark.parametrize(("num_shards", "embedding_axis"), [(1, 0), (2, 1), (2, 0)])
def test_equals_transformers_conversion(tmp_path, config, num_shards, embedding_axis):
    tensors = write_meta(tmp_path / "meta", config, num_shards, embedding_axis)
    folder = open_meta(tmp_path / "meta")
    assert folder.config == config
    wanted = converted(config, tensors)
    hf.save(tmp_path / "hf", folder.config, folder)
    from safetensors.numpy import load_file

    found = load_file(tmp_path / "hf" / "model.safetensors")
    assert set(found) == set(wanted)
    for name, tensor in wanted.items():
        assert np.array_equal(found[name], tensor.numpy()), name
    leaves = jax.tree.leaves(abstract_params(config))
    assert sum(leaf.size for leaf in leaves) == sum(array.size for array in found.values())


def test_logits_equal_transformers_on_its_own_conversion(tmp_path):
    transformers = pytest.importorskip("transformers")
    tensors = write_meta(tmp_path / "meta", GQA, 2)
    folder = open_meta(tmp_path / "meta")
    hf.save(tmp_path / "hf", folder.config, folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "hf")
    state = model.state_dict()
    for name, tensor in converted(GQA, tensors).items():
        assert torch.equal(state[name], tensor), name


def test_rows_of_the_docstring_and_what_is_told(tmp_path):
    write_meta(tmp_path, MHA, rope_theta=5e5)
    folder = open_meta(tmp_path, max_length=4096)
    assert (folder.config.rope_theta, folder.config.max_length) == (5e5, 4096)
    assert "params.json does not say how long sequences may be: taken as 4,096" in folder.notes[0]


def drop(folder, name):
    part = torch.load(folder / "consolidated.01.pth")
    part.pop(name)
    torch.save(part, folder / "consolidated.01.pth")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"norm_eps": ...}, "norm_eps is missing - .* it is not guessed"),
        ({"dim": "16"}, "dim is malformed - got '16'"),
        ({"use_scaled_rope": True}, "use_scaled_rope is not supported .* Hugging Face format"),
        ({"moe": {"num_experts": 8}}, "moe is not known"),
        ({"n_layers": 3}, "9 tensors are missing"),
        ({"n_layers": 1}, "9 tensors are not part of the model"),
        ({"n_heads": 3}, r"got head_dim=5 .*params.json"),
    ],
)
def test_params_that_do_not_fit(tmp_path, changes, message):
    write_meta(tmp_path, MHA, **changes)
    with pytest.raises(CheckpointError, match=message):
        open_meta(tmp_path)


def test_files_that_do_not_fit(tmp_path):
    write_meta(tmp_path, MHA, 2)
    drop(tmp_path, "norm.weight")
    with pytest.raises(CheckpointError, match=r"tensor is not in every file - got no norm.weight"):
        open_meta(tmp_path)
    (tmp_path / "consolidated.00.pth").unlink()
    with pytest.raises(CheckpointError, match="files of Meta's layout are missing - got"):
        open_meta(tmp_path)
    (tmp_path / "consolidated.01.pth").unlink()
    with pytest.raises(CheckpointError, match="folder holds no weights"):
        open_meta(tmp_path)


def test_tensors_of_another_model(tmp_path):
    write_meta(tmp_path, MHA)
    part = torch.load(tmp_path / "consolidated.00.pth")
    torch.save({**part, "vision.weight": torch.ones(2)}, tmp_path / "consolidated.00.pth")
    with pytest.raises(CheckpointError, match=r"not those of a LLaMA - got \['vision.weight'\]"):
        open_meta(tmp_path)
    part["layers.0.attention.wq.weight"] = torch.ones(3, 3)
    torch.save(part, tmp_path / "consolidated.00.pth")
    with pytest.raises(CheckpointError, match=r"1 tensor is misshapen - got .*\[3, 3\]"):
        open_meta(tmp_path)
