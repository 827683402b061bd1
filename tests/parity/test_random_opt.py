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


@st.composite
def opts(draw):
    d_model = 12 * draw(st.sampled_from([1, 2]))
    norm_first = draw(st.booleans())
    return OptConfig(
        vocab_size=draw(st.sampled_from([37, 64])),
        d_model=d_model,
        d_ff=draw(st.sampled_from([20, 33])),
        num_layers=draw(st.integers(1, 2)),
        num_heads=draw(st.sampled_from([1, 2, 3])),
        max_length=draw(st.sampled_from([21, 32])),
        word_dim=draw(st.sampled_from([d_model, d_model, 7])),
        norm_first=norm_first,
        final_norm=norm_first and draw(st.booleans()),
        use_bias=draw(st.booleans()),
        tie_embeddings=draw(st.booleans()),
    )


@RANDOM
@given(config=opts(), seed=st.integers(0, 2**20))
def test_random_opts(config, seed):
    check_against_transformers(config, seed)
