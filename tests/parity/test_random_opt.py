"""Random OPTs against transformers': logits, loss and gradients of packed rows."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tulu_jax.models import OptConfig

from .random_configs import RANDOM, check_against_transformers

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]


# Vocabulary, width, width of the embedding, feed-forward width, heads, longest row, layers.
SHAPES = [
    (37, 12, 12, 33, 3, 21, 2),
    (64, 24, 24, 20, 2, 32, 1),
    (37, 24, 7, 33, 1, 32, 1),
    (64, 12, 7, 20, 2, 21, 1),
]

NORMS = st.sampled_from([0, 1, 2])
"""After each part; before it; before it and at the end."""


@st.composite
def opts(draw):
    """Biases and ties follow from shape and norms: any two choices meet, in 12 programs."""
    which, norms = draw(st.sampled_from(range(4))), draw(NORMS)
    vocab_size, d_model, word_dim, d_ff, heads, length, layers = SHAPES[which]
    return OptConfig(
        vocab_size=vocab_size,
        d_model=d_model,
        d_ff=d_ff,
        num_layers=layers,
        num_heads=heads,
        max_length=length,
        word_dim=word_dim,
        norm_first=norms > 0,
        final_norm=norms > 1,
        use_bias=bool((which + norms) % 2),
        tie_embeddings=bool((which // 2 + norms) % 2),
    )


@RANDOM
@given(config=opts(), seed=st.integers(0, 2**20))
def test_random_opts(config, seed):
    check_against_transformers(config, seed)
