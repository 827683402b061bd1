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


# Vocabulary, feed-forward width, heads, turned share of a head, layers.
SHAPES = [(37, 33, 2, 1.0, 2), (64, 20, 3, 0.5, 1), (37, 20, 1, 0.25, 1), (64, 33, 1, 0.51, 1)]


@st.composite
def neoxes(draw):
    """Biases and ties follow from shape and order: any two choices meet, in 8 programs."""
    which, parallel = draw(st.sampled_from(range(4))), draw(st.booleans())
    vocab_size, d_ff, heads, share, layers = SHAPES[which]
    return NeoxConfig(
        vocab_size=vocab_size,
        d_model=24,
        d_ff=d_ff,
        num_layers=layers,
        num_heads=heads,
        max_length=32,
        norm_eps=draw(st.floats(1e-6, 1e-3)),
        rotary_share=share,
        rope_theta=draw(st.floats(100, 1e6)),
        parallel_residual=parallel,
        attention_bias=bool((which + parallel) % 2),
        tie_embeddings=bool((which // 2 + parallel) % 2),
    )


@RANDOM
@given(config=neoxes(), seed=st.integers(0, 2**20))
def test_random_neoxes(config, seed):
    check_against_transformers(config, seed)
