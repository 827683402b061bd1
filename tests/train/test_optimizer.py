"""AdamW, Adafactor, their schedule and clipping against torch and transformers."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from jax.sharding import PartitionSpec
from transformers import get_linear_schedule_with_warmup
from transformers.optimization import Adafactor

from tulu_jax.errors import ConfigError
from tulu_jax.parallel import MeshConfig, make_mesh
from tulu_jax.train.config import OptimizerConfig
from tulu_jax.train.optimizer import learning_rate_schedule, make_optimizer, state_form
from tulu_jax.train.state import moment_sharding


def test_schedule_docstring_example():
    schedule = learning_rate_schedule(OptimizerConfig(learning_rate=1.0, warmup_ratio=0.34), 6)
    np.testing.assert_allclose(
        [schedule(i) for i in range(7)], [0, 0.5, 1, 0.75, 0.5, 0.25, 0], atol=1e-6
    )


@pytest.mark.parametrize(
    ("ratio", "steps"), [(0.0, 5), (0.03, 20), (0.03, 100), (0.1, 30), (0.99, 10)]
)
def test_schedule_equals_transformers(ratio, steps):
    schedule = learning_rate_schedule(OptimizerConfig(learning_rate=1.0, warmup_ratio=ratio), steps)
    torch_optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = get_linear_schedule_with_warmup(torch_optimizer, int(ratio * steps), steps)
    for step in range(steps):
        assert float(schedule(step)) == pytest.approx(theirs.get_last_lr()[0], abs=1e-6)
        torch_optimizer.step()
        theirs.step()


@pytest.mark.parametrize("clip", [1.0, None])
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_updates_equal_torch_adamw(clip, decay):
    steps, rng = 8, np.random.default_rng(0)
    config = OptimizerConfig(
        learning_rate=1e-2, warmup_ratio=0.25, weight_decay=decay, clip_norm=clip
    )
    start = {"a": rng.normal(size=(3, 4)).astype(np.float32), "b": np.ones(5, np.float32)}
    ours = jax.tree.map(jnp.asarray, start)
    theirs = {name: torch.nn.Parameter(torch.tensor(value)) for name, value in start.items()}
    optimizer = make_optimizer(config, steps)
    state = optimizer.init(ours)
    adamw = torch.optim.AdamW(theirs.values(), lr=1e-2, weight_decay=decay)
    schedule = get_linear_schedule_with_warmup(adamw, 2, steps)
    clipped = 0
    for step in range(steps):
        scale = 3.0 if step % 2 else 0.1
        grads = {
            name: rng.normal(size=v.shape).astype(np.float32) * scale for name, v in start.items()
        }
        updates, state = optimizer.update(grads, state, ours)
        ours = optax.apply_updates(ours, updates)
        for name, value in theirs.items():
            value.grad = torch.tensor(grads[name])
        if clip is not None:
            clipped += float(torch.nn.utils.clip_grad_norm_(theirs.values(), clip)) > clip
        adamw.step()
        schedule.step()
    assert clip is None or 0 < clipped < steps
    for name, value in theirs.items():
        np.testing.assert_allclose(ours[name], value.detach().numpy(), atol=2e-6)


def test_state_has_one_form_with_and_without_clipping():
    params = {"a": jnp.zeros(3)}
    forms = [
        jax.tree.structure(make_optimizer(OptimizerConfig(clip_norm=clip), 10).init(params))
        for clip in (1.0, None)
    ]
    assert forms[0] == forms[1]


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_updates_equal_transformers_adafactor(decay):
    """A matrix with factored second moment, and a vector whose moment is whole."""
    rng = np.random.default_rng(0)
    config = OptimizerConfig(
        learning_rate=1e-2, warmup_ratio=0.0, weight_decay=decay, clip_norm=None,
        name="adafactor", factor_min_size=2,
    )  # fmt: skip
    start = {"a": rng.normal(size=(3, 4)).astype(np.float32), "b": np.ones(5, np.float32)}
    ours = jax.tree.map(jnp.asarray, start)
    theirs = {name: torch.nn.Parameter(torch.tensor(value)) for name, value in start.items()}
    optimizer = make_optimizer(config, 10)
    state = optimizer.init(ours)
    assert state[1][0].v["a"].size == 1 and state[1][0].v["b"].shape == (5,)
    adafactor = Adafactor(
        theirs.values(), lr=1e-2, weight_decay=decay, scale_parameter=False, relative_step=False
    )
    for step in range(5):
        grads = {name: rng.normal(size=v.shape).astype(np.float32) for name, v in start.items()}
        updates, state = optimizer.update(grads, state, ours)
        ours = optax.apply_updates(ours, updates)
        for name, value in theirs.items():
            value.grad = torch.tensor(grads[name])
        for group in adafactor.param_groups:
            group["lr"] = 1e-2 * (10 - step) / 10
        adafactor.step()
    for name, value in theirs.items():
        np.testing.assert_allclose(ours[name], value.detach().numpy(), atol=2e-6)


def test_first_moment_in_bfloat16():
    state = make_optimizer(OptimizerConfig(moment_dtype="bfloat16"), 10).init({"a": jnp.zeros(3)})
    assert state[1][0].mu["a"].dtype == jnp.bfloat16
    assert state[1][0].nu["a"].dtype == jnp.float32


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "adam"}, r"OptimizerConfig.name is unknown - got 'adam' - expected adamw or "
         r"adafactor"),
        ({"moment_dtype": "int8"}, r"moment_dtype is unknown - got 'int8' - expected float32"),
        ({"name": "adafactor", "moment_dtype": "bfloat16"},
         r"Adafactor has no first moment - got OPTIMIZER='adafactor' with MOMENT_DTYPE='bfloat16'"),
        ({"factor_min_size": 0}, r"factor_min_size is out of range - got 0"),
    ],
)  # fmt: skip
def test_impossible_optimizers(settings, message):
    with pytest.raises(ConfigError, match=message):
        OptimizerConfig(**settings)


def test_form_of_the_state():
    """A checkpoint of before there was a choice has AdamW's."""
    assert state_form({}) == state_form({"name": "adamw", "moment_dtype": "bfloat16"})
    assert state_form({"name": "adafactor", "factor_min_size": 128}) != state_form({})


@pytest.mark.parametrize(
    ("shape", "spec"),
    [
        ((32, 64, 64), (None, "fsdp", "tensor")),
        ((32, 64), (None, "fsdp")),
        ((64, 64), ("fsdp", "tensor")),
        ((1,), ()),
    ],
)
def test_moments_lie_as_their_weights_do(shape, spec):
    mesh = make_mesh(MeshConfig(fsdp=4, tensor=2))
    where = jax.sharding.NamedSharding(mesh, PartitionSpec(None, "fsdp", "tensor"))
    weight = jax.ShapeDtypeStruct((32, 64, 64), jnp.float32, sharding=where)
    assert moment_sharding(shape, weight).spec == PartitionSpec(*spec)
