"""Meta's original LLaMA layout: a folder with params.json and consolidated.NN.pth.

Two things differ from Hugging Face's layout besides names.

Rotary channels. Meta turns neighbouring channels of a head together (0 with 1, 2 with 3), Hugging
Face and we turn channel i with i + H/2. So the rows of wq and wk are put in another order, head by
head: with H = 4, Meta's rows a0 b0 a1 b1 become a0 a1 b0 b1.

    >>> half_split(np.array([["a0"], ["b0"], ["a1"], ["b1"]]), 1)[:, 0].tolist()
    ['a0', 'a1', 'b0', 'b1']

Shards. The files are the parts of the devices it was trained on. Matrices into a layer (wq, wk, wv,
w1, w3, output) are cut along rows, those out of it (wo, w2) along columns, the embedding along
columns (LLaMA 1 and 2) or rows (LLaMA 3); norms are in every file.

Source: meta-llama/llama:llama/model.py@main (ColumnParallelLinear, RowParallelLinear,
reshape_for_broadcast) and transformers:src/transformers/models/llama/
convert_llama_weights_to_hf.py@v4.46 (permute, and the axes shards are joined along).
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tulu_jax.checkpoint.hf.fields import Fields
from tulu_jax.checkpoint.hf.load import HfFolder, checked_folder
from tulu_jax.checkpoint.hf.tensors import Stored, TensorSpec
from tulu_jax.checkpoint.hf.torch_file import read_torch_file
from tulu_jax.errors import CheckpointError, TuluError
from tulu_jax.files import read_json
from tulu_jax.models import LlamaConfig
from tulu_jax.places import Place

DEFAULT_MAX_LENGTH = 2048
LLAMA_3_VOCABULARY = 128_256
_LAYER = re.compile(r"layers\.(\d+)\.(.+)\.weight$")
_WHOLE = {
    "tok_embeddings.weight": "model.embed_tokens.weight",
    "norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_IN_LAYER = {
    "attention.wq": "self_attn.q_proj",
    "attention.wk": "self_attn.k_proj",
    "attention.wv": "self_attn.v_proj",
    "attention.wo": "self_attn.o_proj",
    "feed_forward.w1": "mlp.gate_proj",
    "feed_forward.w2": "mlp.down_proj",
    "feed_forward.w3": "mlp.up_proj",
    "attention_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}
_UNUSED = frozenset(
    ("vocab_size", "multiple_of", "ffn_dim_multiplier", "max_seq_len", "max_batch_size")
)
"""What the tensors' shapes say better, and what is not of the model."""


def open_meta(
    path: str | Path, dtype: str | None = "float32", *, max_length: int = DEFAULT_MAX_LENGTH
) -> HfFolder:
    """A checked folder in Meta's layout, its weights read as if it were in Hugging Face's.

    Args:
      path: folder with params.json and consolidated.00.pth, 01 ...
      dtype: float32, bfloat16 or float16; None keeps what is stored.
      max_length: tokens the model was trained on, which params.json does not say: 2,048 for
        LLaMA 1, 4,096 for LLaMA 2, 8,192 for LLaMA 3.

    Raises:
      CheckpointError: a file is missing, damaged or does more than hold tensors; or the model is
        not determined by params.json.
    """
    folder = Path(path)
    if not (folder / "params.json").is_file() and (folder / "config.json").is_file():
        raise CheckpointError(
            "folder is in Hugging Face's layout", at=folder, do="import it with --hf"
        )
    params = read_json(
        folder / "params.json",
        CheckpointError,
        expected="a folder in Meta's layout: params.json beside consolidated.*.pth",
        do="give the folder of one size, such as llama/7B; a Hugging Face folder goes with --hf",
    )
    shards = [read_torch_file(file) for file in _shard_files(folder)]
    config = _config(params, shards, folder, max_length)
    stored = {
        name: tensor
        for theirs in shards[0]
        if (name := _hf_name(theirs)) is not None
        for tensor in [_joined(theirs, [_get(shard, theirs, folder) for shard in shards], config)]
    }
    unknown = [name for name in shards[0] if _hf_name(name) is None and name != "rope.freqs"]
    if unknown:
        raise CheckpointError("tensors are not those of a LLaMA", got=unknown[:5], at=folder)
    opened = checked_folder(folder, config, stored, dtype)
    note = (
        f"params.json does not say how long sequences may be: taken as {max_length:,} tokens "
        "(--max_length: 2048 for LLaMA 1, 4096 for LLaMA 2, 8192 for LLaMA 3)"
    )
    return dataclasses.replace(opened, notes=[note, *opened.notes])


def half_split(rows: np.ndarray, num_heads: int) -> np.ndarray:
    """The rows [N*H, D] of a query or key matrix with each head's even channels first."""
    heads, pairs = num_heads, len(rows) // num_heads // 2
    split = rows.reshape(heads, pairs, 2, rows.shape[1]).swapaxes(1, 2)
    return split.reshape(rows.shape)


@dataclasses.dataclass(frozen=True)
class _Joined:
    """A tensor of several files put together when it is looked at."""

    parts: tuple[TensorSpec, ...]
    axis: int
    num_heads: int | None
    """Of a query or key matrix, whose rows are put in our order."""

    @property
    def file(self) -> Place:
        """The first file, for messages."""
        return self.parts[0].file

    @property
    def dtype(self) -> str:
        """Its stored dtype; as safetensors spells it."""
        dtypes = {part.dtype for part in self.parts}
        return dtypes.pop() if len(dtypes) == 1 else "mixed"

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape once joined."""
        first = list(self.parts[0].shape)
        if (
            len({(*part.shape[: self.axis], *part.shape[self.axis + 1 :]) for part in self.parts})
            > 1
        ):
            return ()
        first[self.axis] = sum(part.shape[self.axis] for part in self.parts)
        return tuple(first)

    def view(self) -> np.ndarray:
        """Its values; joined ones lie in memory of their own."""
        views = [part.view() for part in self.parts]
        whole = views[0] if len(views) == 1 else np.concatenate(views, axis=self.axis)
        return whole if self.num_heads is None else half_split(whole, self.num_heads)


def _shard_files(folder: Path) -> list[Path]:
    files = sorted(folder.glob("consolidated.*.pth"))
    wanted = [folder / f"consolidated.{number:02d}.pth" for number in range(len(files))]
    if not files or files != wanted:
        raise CheckpointError(
            "files of Meta's layout are missing" if files else "folder holds no weights",
            got=[file.name for file in files][:8] or None,
            at=folder,
            expected="consolidated.00.pth, consolidated.01.pth ... without a gap",
            do="download the rest",
        )
    return files


def _get(shard: Mapping[str, TensorSpec], name: str, folder: Path) -> TensorSpec:
    if name not in shard:
        raise CheckpointError("tensor is not in every file", got=f"no {name}", at=folder)
    return shard[name]


def _hf_name(name: str) -> str | None:
    match = _LAYER.match(name)
    if match is None:
        return _WHOLE.get(name)
    found = _IN_LAYER.get(match[2])
    return found and f"model.layers.{match[1]}.{found}.weight"


def _joined(name: str, parts: list[TensorSpec], config: LlamaConfig) -> Stored:
    if "norm" in name:
        return parts[0]
    if name.endswith(("wo.weight", "w2.weight")):
        axis = 1
    elif name == "tok_embeddings.weight":
        axis = 0 if parts[0].shape[-1:] == (config.d_model,) else 1
    else:
        axis = 0
    heads = None
    if name.endswith(("wq.weight", "wk.weight")):
        heads = config.num_heads if name.endswith("wq.weight") else config.num_kv_heads
    return _Joined(tuple(parts), axis, heads)


def _config(
    params: dict[str, Any], shards: list[dict[str, TensorSpec]], folder: Path, max_length: int
) -> LlamaConfig:
    at = folder / "params.json"
    fields = Fields(params, at, file=at.name, harmless=_UNUSED)
    if fields.take("use_scaled_rope", False):
        do = "import the model in Hugging Face format: its config.json says what this means"
        raise fields.refusal("use_scaled_rope", True, expected="false", do=do)
    width, heads = fields.integer("dim"), fields.integer("n_heads")
    rows = _rows(shards, "output.weight", folder)
    read = {
        "num_layers": fields.integer("n_layers"),
        "num_kv_heads": fields.integer("n_kv_heads", default=heads),
        "norm_eps": fields.number("norm_eps"),
        "rope_theta": fields.as_number("rope_theta", fields.take("rope_theta", 10_000.0)),
    }
    fields.finish()
    try:
        return LlamaConfig(
            vocab_size=rows,
            d_model=width,
            d_ff=_rows(shards, "layers.0.feed_forward.w1.weight", folder),
            num_heads=heads,
            head_dim=width // max(heads, 1),
            max_length=max_length,
            bos_id=128_000 if rows == LLAMA_3_VOCABULARY else 1,
            eos_id=128_001 if rows == LLAMA_3_VOCABULARY else 2,
            **read,
        )
    except CheckpointError:
        raise
    except TuluError as error:
        raise CheckpointError(f"{error}", at=at) from error


def _rows(shards: list[dict[str, TensorSpec]], name: str, folder: Path) -> int:
    shapes = [_get(shard, name, folder).shape for shard in shards]
    if any(len(shape) != 2 for shape in shapes):
        raise CheckpointError("1 tensor is misshapen", got=f"{name} {shapes[0]}", at=folder)
    return sum(shape[0] for shape in shapes)
