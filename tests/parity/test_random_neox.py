"""Random GPT-NeoXs against transformers': logits, loss and gradients of packed rows."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tulu_jax.models import NeoxConfig

from .random_configs import RANDOM, check_against_transformers

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]


@st.composite
def neoxes(draw):
    heads, share = draw(st.sampled_from([(2, 1.0), (3, 0.5), (1, 0.25), (3, 1.0), (1, 0.51)]))
    return NeoxConfig(
        vocab_size=draw(st.sampled_from([37, 64])),
        d_model=24,
        d_ff=draw(st.sampled_from([20, 33])),
        num_layers=draw(st.integers(1, 2)),
        num_heads=heads,
        max_length=32,
        norm_eps=draw(st.sampled_from([1e-6, 1e-5, 1e-3])),
        rotary_share=share,
        rope_theta=draw(st.floats(100, 1e6)),
        parallel_residual=draw(st.booleans()),
        attention_bias=draw(st.booleans()),
        tie_embeddings=draw(st.booleans()),
    )


@RANDOM
@given(config=neoxes(), seed=st.integers(0, 2**20))
def test_random_neoxes(config, seed):
    check_against_transformers(config, seed)
