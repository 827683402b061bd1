"""Random LLaMAs against transformers': logits, loss and gradients of packed rows."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tulu_jax.models import LlamaConfig, RopeScaling

from .random_configs import RANDOM, check_against_transformers

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]

SCALINGS = st.none() | st.builds(
    RopeScaling,
    kind=st.sampled_from(["linear", "llama3"]),
    factor=st.floats(1, 32),
    low_freq_factor=st.floats(0.5, 1.5),
    high_freq_factor=st.floats(2, 8),
    original_length=st.integers(4, 64),
)


# Vocabulary, width, feed-forward width, key heads, queries to a key, head width, layers.
SHAPES = [
    (37, 12, 33, 1, 3, 6, 2),
    (64, 24, 20, 2, 2, 6, 1),
    (37, 24, 33, 3, 1, 8, 1),
    (64, 12, 20, 1, 4, 8, 1),
]


@st.composite
def llamas(draw):
    vocab_size, d_model, d_ff, kv_heads, group, head_dim, layers = draw(st.sampled_from(SHAPES))
    return LlamaConfig(
        vocab_size=vocab_size,
        d_model=d_model,
        d_ff=d_ff,
        num_layers=layers,
        num_heads=kv_heads * group,
        num_kv_heads=kv_heads,
        head_dim=head_dim,
        max_length=32,
        norm_eps=draw(st.floats(1e-6, 1e-3)),
        rope_theta=draw(st.floats(100, 1e6)),
        tie_embeddings=draw(st.booleans()),
        rope_scaling=draw(SCALINGS),
    )


@RANDOM
@given(config=llamas(), seed=st.integers(0, 2**20))
def test_random_llamas(config, seed):
    check_against_transformers(config, seed)
