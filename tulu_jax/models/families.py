"""What a model is: one frozen config a family, and configs as JSON values.

A config holds all that a family's checkpoint fixes: sizes and the constants of its arithmetic.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from tulu_jax.errors import ConfigError
from tulu_jax.fields import check_field_types
from tulu_jax.models.config import DecoderShape, check_heads_divide, check_sizes


@dataclasses.dataclass(frozen=True)
class RopeScaling:
    """Rotary rates changed to reach further than the length they were first trained for.

    Raises:
      ConfigError: an unknown kind, or a factor or length that is out of range.
    """

    kind: str
    """`linear` divides every rate by `factor`; `llama3` only the slow ones, smoothly between."""
    factor: float
    low_freq_factor: float = 1.0
    """llama3: rates of fewer turns than this in `original_length` are divided by `factor`."""
    high_freq_factor: float = 4.0
    """llama3: rates of more turns than this in `original_length` stay as they are."""
    original_length: int = 8192
    """llama3: longest sequence of the first training, in tokens."""

    def __post_init__(self) -> None:
        """Checks kind and ranges."""
        check_field_types(self)
        if self.kind not in ("linear", "llama3"):
            raise ConfigError(
                "RopeScaling.kind is unknown", got=repr(self.kind), expected="linear or llama3"
            )
        if self.factor < 1 or self.original_length < 1:
            raise ConfigError(
                "RopeScaling is out of range",
                got=f"factor={self.factor}, original_length={self.original_length}",
                expected="1 or more",
            )
        if not 0 < self.low_freq_factor < self.high_freq_factor:
            raise ConfigError(
                "RopeScaling's frequency factors are out of order",
                got=f"low_freq_factor={self.low_freq_factor}, "
                f"high_freq_factor={self.high_freq_factor}",
                expected="0 < low_freq_factor < high_freq_factor",
            )


@dataclasses.dataclass(frozen=True)
class LlamaConfig(DecoderShape):
    """A LLaMA 1, 2 or 3, a TinyLlama, or a Mistral within its sliding window.

    Raises:
      ConfigError: a size is not positive, heads do not divide, or the head width is odd.
    """

    family: ClassVar[str] = "llama"
    vocab_size: int
    d_model: int
    d_ff: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    """Key/value heads; num_heads / num_kv_heads query heads share one."""
    head_dim: int
    max_length: int
    norm_eps: float
    """Added to the mean square in every norm: 1e-6 for LLaMA 1, 1e-5 for its 65B and LLaMA 2."""
    rope_theta: float = 10_000.0
    tie_embeddings: bool = False
    """Whether the output head is the input embedding."""
    bos_id: int | None = 1
    eos_id: int = 2
    pad_id: int | None = None
    rope_scaling: RopeScaling | None = None
    extra_eos_ids: tuple[int, ...] = ()
    """Tokens besides `eos_id` that end a text when generating, as LLaMA 3's <|eot_id|>."""

    def __post_init__(self) -> None:
        """Checks that the sizes fit together."""
        check_sizes(self, "num_kv_heads", "head_dim", "norm_eps", "rope_theta")
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
        if not isinstance(self.extra_eos_ids, tuple):
            object.__setattr__(self, "extra_eos_ids", tuple(self.extra_eos_ids))

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """Tokens that end a text when generating."""
        return (self.eos_id, *self.extra_eos_ids)

    @property
    def num_layer_matmul_params(self) -> int:
        """Weights of one layer's matrices."""
        attention = self.d_model * self.head_dim * 2 * (self.num_heads + self.num_kv_heads)
        return attention + 3 * self.d_model * self.d_ff

    @property
    def num_vector_params(self) -> int:
        """Weights of norms."""
        return self.d_model * (2 * self.num_layers + 1)


@dataclasses.dataclass(frozen=True)
class OptConfig(DecoderShape):
    """An OPT: learned positions, ReLU, LayerNorm, biases.

    Raises:
      ConfigError: a size is not positive, or heads do not divide the width.
    """

    family: ClassVar[str] = "opt"
    norm_eps: ClassVar[float] = 1e-5
    """Added to the variance in every norm: fixed for the family, its config.json has no such
    field."""
    position_offset: ClassVar[int] = 2
    """Rows of the position table before that of position 0; never used, but stored."""
    vocab_size: int
    d_model: int
    d_ff: int
    num_layers: int
    num_heads: int
    max_length: int
    word_dim: int
    """Channels of the embedding: d_model but for OPT-350M, which projects in and out."""
    norm_first: bool = True
    """Whether norms come before attention and feed-forward; in OPT-350M they come after."""
    final_norm: bool = True
    """Whether there is a norm after the last layer."""
    use_bias: bool = True
    tie_embeddings: bool = True
    bos_id: int | None = 2
    eos_id: int = 2
    pad_id: int | None = 1

    def __post_init__(self) -> None:
        """Checks that the sizes fit together."""
        check_sizes(self, "word_dim")
        check_heads_divide(self)

    @property
    def num_kv_heads(self) -> int:
        """Key/value heads: as many as query heads."""
        return self.num_heads

    @property
    def head_dim(self) -> int:
        """Channels of a head."""
        return self.d_model // self.num_heads

    @property
    def embedding_width(self) -> int:
        """Channels of a row of the embedding and of what the output head multiplies."""
        return self.word_dim

    @property
    def projects(self) -> bool:
        """Whether matrices lead from the embedding's width to the model's and back."""
        return self.word_dim != self.d_model

    @property
    def num_embedding_params(self) -> int:
        """Weights that are looked up: positions, and the input embedding unless tied."""
        positions = (self.max_length + self.position_offset) * self.d_model
        return positions + super().num_embedding_params

    @property
    def num_matmul_params(self) -> int:
        """Weights that take part in matrix products, the output head included."""
        projections = 2 * self.word_dim * self.d_model if self.projects else 0
        return projections + super().num_matmul_params

    @property
    def num_layer_matmul_params(self) -> int:
        """Weights of one layer's matrices."""
        return 4 * self.d_model**2 + 2 * self.d_model * self.d_ff

    @property
    def num_vector_params(self) -> int:
        """Weights of norms and biases."""
        biases = 5 * self.d_model + self.d_ff if self.use_bias else 0
        norms = 2 * self.d_model * (2 * self.num_layers + self.final_norm)
        return norms + self.num_layers * biases


@dataclasses.dataclass(frozen=True)
class NeoxConfig(DecoderShape):
    """A GPT-NeoX or Pythia: partial rotary positions, GELU, LayerNorm, biases.

    Raises:
      ConfigError: a size is not positive, heads do not divide the width, or an odd number of a
        head's channels would turn.
    """

    family: ClassVar[str] = "neox"
    vocab_size: int
    d_model: int
    d_ff: int
    num_layers: int
    num_heads: int
    max_length: int
    norm_eps: float
    """Added to the variance in every norm."""
    rotary_share: float
    """Share of each head's channels that turn with the position, from the first on."""
    rope_theta: float = 10_000.0
    parallel_residual: bool = True
    """Whether attention and feed-forward both read the layer's input; else one after the other."""
    attention_bias: bool = True
    tie_embeddings: bool = False
    bos_id: int | None = 0
    eos_id: int = 0
    pad_id: int | None = None

    def __post_init__(self) -> None:
        """Checks that the sizes fit together."""
        check_sizes(self, "norm_eps", "rope_theta")
        check_heads_divide(self)
        if not 0 < self.rotary_share <= 1 or self.rotary_dim % 2 or not self.rotary_dim:
            raise ConfigError(
                "rotary positions need pairs of channels",
                got=f"rotary_share={self.rotary_share} of head_dim={self.head_dim}",
                expected="an even number of channels, at least 2",
            )

    @property
    def num_kv_heads(self) -> int:
        """Key/value heads: as many as query heads."""
        return self.num_heads

    @property
    def head_dim(self) -> int:
        """Channels of a head."""
        return self.d_model // self.num_heads

    @property
    def rotary_dim(self) -> int:
        """Channels of a head that turn with the position."""
        return int(self.head_dim * self.rotary_share)

    @property
    def num_layer_matmul_params(self) -> int:
        """Weights of one layer's matrices."""
        return 4 * self.d_model**2 + 2 * self.d_model * self.d_ff

    @property
    def num_vector_params(self) -> int:
        """Weights of norms and biases."""
        biases = self.d_model + self.d_ff + (4 * self.d_model if self.attention_bias else 0)
        return 2 * self.d_model * (2 * self.num_layers + 1) + self.num_layers * biases


ModelConfig = LlamaConfig | OptConfig | NeoxConfig
FAMILIES: dict[str, type[ModelConfig]] = {
    config.family: config for config in (LlamaConfig, OptConfig, NeoxConfig)
}


def config_to_dict(config: ModelConfig) -> dict[str, Any]:
    """The config as JSON values, with the name of its family under `family`.

    >>> pythia = NeoxConfig(64, 32, 128, 2, 4, 128, 1e-5, 0.25)
    >>> config_from_dict(config_to_dict(pythia)) == pythia
    True
    """
    fields = dataclasses.asdict(config)
    lists = {name: list(value) for name, value in fields.items() if isinstance(value, tuple)}
    return {"family": config.family, **fields, **lists}


def config_from_dict(fields: Mapping[str, Any]) -> ModelConfig:
    """The config that `config_to_dict` wrote; without `family`, as once, a LLaMA.

    Raises:
      ConfigError: an unknown family, a field too many or too few, or a value out of range.
    """
    values = dict(fields)
    family = values.pop("family", "llama")
    if family not in FAMILIES:
        raise ConfigError(
            "family of the model is unknown", got=repr(family), expected=" or ".join(FAMILIES)
        )
    if isinstance(values.get("rope_scaling"), Mapping):
        values["rope_scaling"] = RopeScaling(**values["rope_scaling"])
    for name, value in values.items():
        values[name] = tuple(value) if isinstance(value, list) else value
    try:
        return FAMILIES[family](**values)
    except TypeError as error:
        names = ", ".join(field.name for field in dataclasses.fields(FAMILIES[family]))
        raise ConfigError(
            f"fields of a {family} config are wrong", got=error, expected=names
        ) from error
