"""A training step that takes no time to trace, under the real loop, data and checkpoints.

Its weights remember every batch in its order: a batch left out, seen twice or out of turn, or one
lost update, gives other weights.
"""

import jax
import jax.numpy as jnp
import numpy as np

from tulu_jax.parallel.rules import Layout
from tulu_jax.train import run
from tulu_jax.train.state import TrainState

SHAPE = (64, 256)
RULES = (("length", None), ("activation_length", None))


def install(loop, setup) -> None:
    """Puts the toy in the place of the model in this process."""
    run.layout_for = lambda config, mesh, **options: Layout(mesh, RULES, ())
    setup.memory_budget = lambda run: None
    setup.budget_text = lambda *args: "no budget"
    run.RunPlan.state = lambda self: abstract_state(self.layout)
    run.RunPlan.start = lambda self, params=None: create_state(self.layout)
    run.RunPlan.step = lambda self, traced=None: make_step(self.layout)
    run.RunPlan.eval_step = lambda self: None
    for module in (loop, setup):
        module.sharding_report = lambda *args: []
    loop.report_summary = lambda shares: []
    setup.report_text = lambda shares: ""


def abstract_state(layout) -> TrainState:
    """Two arrays split over all devices, one whole one."""
    split = jax.NamedSharding(layout.mesh, jax.P(layout.mesh.axis_names))

    def array(shape, dtype, sharding):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)

    return TrainState(
        array((), jnp.int32, layout.replicated),
        {"layers": {"weight": array(SHAPE, jnp.float32, split)}},
        {"sum": array(SHAPE, jnp.float32, split), "order": array((), jnp.int32, layout.replicated)},
    )


def create_state(layout) -> TrainState:
    """Random numbers, which no file of a checkpoint can make small; counters at 0."""
    rng = np.random.default_rng(0)

    def draw(leaf):
        value = rng.normal(size=leaf.shape) if leaf.shape else np.zeros(())
        return jax.device_put(value.astype(leaf.dtype), leaf.sharding)

    return jax.tree.map(draw, abstract_state(layout))


def make_step(layout):
    """The toy's step."""
    shardings = jax.tree.map(lambda x: x.sharding, abstract_state(layout))

    def step(state, batch):
        tokens = batch["tokens"] * batch["positions"]
        number = jnp.sum(tokens * (1 + jnp.arange(tokens.size).reshape(tokens.shape)))
        order = state.opt_state["order"] * 31 + number
        wave = jnp.sin(jnp.arange(SHAPE[1]) * (1 + order % 1000).astype(jnp.float32))
        weight = state.params["layers"]["weight"] * 0.99 + wave
        total = state.opt_state["sum"] + weight * 0.5
        metrics = {
            "loss": (order % 1_000_003).astype(jnp.float32),
            "grad_norm": jnp.float32(1),
            "tokens": jnp.sum(batch["segment_ids"] > 0).astype(jnp.float32),
            "loss_tokens": jnp.sum(batch["loss_mask"]).astype(jnp.float32),
            "skipped": jnp.float32(0),
        }
        params, moments = {"layers": {"weight": weight}}, {"sum": total, "order": order}
        return TrainState(state.step + 1, params, moments), metrics

    return jax.jit(
        step,
        in_shardings=(shardings, layout.rows),
        out_shardings=(shardings, layout.replicated),
        donate_argnums=0,
    )
