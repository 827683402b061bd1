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


@st.composite
def llamas(draw):
    kv_heads, group = draw(st.sampled_from([(1, 3), (2, 1), (1, 4), (2, 2), (3, 1)]))
    return LlamaConfig(
        vocab_size=draw(st.sampled_from([37, 64])),
        d_model=12 * draw(st.sampled_from([1, 2])),
        d_ff=draw(st.sampled_from([20, 33])),
        num_layers=draw(st.integers(1, 2)),
        num_heads=kv_heads * group,
        num_kv_heads=kv_heads,
        head_dim=draw(st.sampled_from([6, 8])),
        max_length=32,
        norm_eps=draw(st.sampled_from([1e-6, 1e-5, 1e-3])),
        rope_theta=draw(st.floats(100, 1e6)),
        tie_embeddings=draw(st.booleans()),
        rope_scaling=draw(SCALINGS),
    )


@RANDOM
@given(config=llamas(), seed=st.integers(0, 2**20))
def test_random_llamas(config, seed):
    check_against_transformers(config, seed)
