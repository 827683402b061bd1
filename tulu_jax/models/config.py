"""What a model is (`LlamaConfig`) and how it is computed (`ComputeConfig`)."""

from __future__ import annotations

import dataclasses

from tulu_jax.errors import ConfigError
from tulu_jax.fields import check_field_types


@dataclasses.dataclass(frozen=True)
class LlamaConfig:
    """The shape of a LLaMA and the constants of its arithmetic: all that its checkpoint fixes.

    Raises:
      ConfigError: a size is not positive, heads do not divide, or the head width is odd.
    """

    vocab_size: int
    d_model: int
    d_ff: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    """Key/value heads; num_heads / num_kv_heads query heads share one."""
    head_dim: int
    max_length: int
    """Longest sequence in tokens the model was made for."""
    norm_eps: float
    """Added to the mean square in every norm: 1e-6 for LLaMA 1, 1e-5 for its 65B and LLaMA 2."""
    rope_theta: float = 10_000.0
    tie_embeddings: bool = False
    """Whether the output head is the input embedding."""
    bos_id: int = 1
    eos_id: int = 2
    pad_id: int | None = None

    def __post_init__(self) -> None:
        """Checks that the sizes fit together."""
        check_field_types(self)
        for name in ("vocab_size", "d_model", "d_ff", "num_layers", "num_heads", "num_kv_heads",
                     "head_dim", "max_length", "norm_eps", "rope_theta"):  # fmt: skip
            if not getattr(self, name) > 0:
                raise ConfigError(
                    f"{name} of the model is impossible",
                    got=getattr(self, name),
                    expected="a number above 0",
                    do=f"set LlamaConfig.{name} in the model's gin file",
                )
        if self.num_heads % self.num_kv_heads:
            raise ConfigError(
                "query heads cannot share key/value heads evenly",
                got=f"num_heads={self.num_heads}, num_kv_heads={self.num_kv_heads}",
                expected="num_kv_heads to divide num_heads",
            )
        if self.head_dim % 2:
            raise ConfigError(
                "rotary positions need pairs of channels",
                got=f"head_dim={self.head_dim}",
                expected="an even head_dim",
            )

    @property
    def num_params(self) -> int:
        """Number of weights."""
        return self.num_embedding_params + self.num_matmul_params + self._num_norm_params

    @property
    def num_embedding_params(self) -> int:
        """Weights of the input embedding, which is looked up and not multiplied by."""
        return 0 if self.tie_embeddings else self.vocab_size * self.d_model

    @property
    def num_matmul_params(self) -> int:
        """Weights that take part in matrix products, the output head included."""
        return self.num_layers * self.num_layer_matmul_params + self.vocab_size * self.d_model

    @property
    def num_layer_matmul_params(self) -> int:
        """Weights of one layer's matrices."""
        attention = self.d_model * self.head_dim * 2 * (self.num_heads + self.num_kv_heads)
        return attention + 3 * self.d_model * self.d_ff

    @property
    def _num_norm_params(self) -> int:
        return self.d_model * (2 * self.num_layers + 1)


@dataclasses.dataclass(frozen=True)
class ComputeConfig:
    """How a model is run; changes speed and memory, and rounding, but never what is computed.

    Raises:
      ConfigError: an unknown dtype or remat policy, or fewer than one layer in a row.
    """

    dtype: str = "float32"
    """Dtype of activations and matrix products: float32 or bfloat16. Weights stay float32; norms,
    softmax, rotary angles and the loss are float32 always."""
    remat: str = "none"
    """What the backward pass recomputes: `none`, or `full` (each layer from its input)."""
    unroll_layers: int = 1
    """Layers traced in a row: 1 compiles fastest; num_layers runs a few per cent faster on CPU."""

    def __post_init__(self) -> None:
        """Checks the names."""
        check_field_types(self)
        _one_of("dtype", self.dtype, ("float32", "bfloat16"))
        _one_of("remat", self.remat, ("none", "full"))
        if self.unroll_layers < 1:
            raise ConfigError(
                "ComputeConfig.unroll_layers is out of range",
                got=self.unroll_layers,
                expected="1 or more",
            )


def _one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ConfigError(
            f"ComputeConfig.{name} is unknown", got=repr(value), expected=" or ".join(known)
        )
