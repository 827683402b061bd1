"""How fast a step could be at best: each resource alone, and which is the bottleneck."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp

from tulu_jax.plan.hlo import Traffic
from tulu_jax.plan.planned import PlannedRun
from tulu_jax.train.budget import Budget, activations, memory_budget

ASSUMPTIONS = (
    "compute: layers over all positions of a batch, padding too, at the bfloat16 peak; head over "
    "positions with loss; layers that are recomputed count once more",
    "memory: state and gradients once each way, weights in the compute dtype written and read in "
    "every pass of every micro-batch, a layer's activations written and read twice in every pass",
    "network: collectives as compiled, by rings over all links of a slice at once, nothing "
    "overlapped with another collective; between slices, each device its share of the host's",
    "the step is as long as the longest of these, as if all overlapped perfectly",
)


@dataclasses.dataclass(frozen=True)
class Work:
    """What of a batch is more than padding."""

    tokens: float
    loss_tokens: float


@dataclasses.dataclass(frozen=True)
class Roofline:
    """Seconds of a step, if each resource were the only one."""

    compute: float
    memory: float
    ici: float
    """Network within a slice."""
    dcn: float
    """Network between slices."""
    model_flops: float
    """What training on the batch's tokens needs, by `train.metrics.FLOP_FORMULA`."""
    peak_flops: float
    """Of all devices together."""

    @property
    def seconds(self) -> float:
        """The shortest that a step can take."""
        return max(self.compute, self.memory, self.ici, self.dcn)

    @property
    def in_turn(self) -> float:
        """The time if nothing overlapped; tells apart layouts that are bound alike."""
        return self.compute + self.memory + self.ici + self.dcn

    @property
    def bound(self) -> str:
        """What takes the longest."""
        names = {"compute": "compute", "memory": "memory", "ici": "ICI", "dcn": "DCN"}
        return names[max(names, key=lambda name: getattr(self, name))]

    @property
    def mfu(self) -> float:
        """Model FLOPs utilisation at that speed: what no run can exceed."""
        return self.model_flops / (self.seconds * self.peak_flops)


def roofline(
    run: PlannedRun, traffic: Traffic, work: Work, *, budget: Budget | None = None
) -> Roofline | None:
    """The roofline of a step, or None where nothing is known of the devices.

    `budget` is the run's memory budget, where it has been made already.

    Source: Williams et al. 2009 (the model); `tulu_jax/plan/hardware.py` (the figures).
    """
    chip = run.topology.chip
    if chip is None:
        return None
    devices = len(run.topology.devices)
    sharing = max(1, devices // (_chips(run) or devices))
    links = chip.link_bandwidth * run.topology.num_links / sharing
    return Roofline(
        compute=hardware_flops(run, work) / (devices * chip.flops),
        memory=memory_traffic(run, budget or memory_budget(run)) / chip.memory_bandwidth,
        ici=traffic.sent_bytes(crosses_slices=False) / links,
        dcn=traffic.sent_bytes(crosses_slices=True) / chip.dcn_bandwidth,
        model_flops=run.flops(work.tokens, work.loss_tokens),
        peak_flops=devices * chip.flops,
    )


def hardware_flops(run: PlannedRun, work: Work) -> float:
    """FLOPs that are done, recomputation and padding included."""
    data, model = run.config.data, run.model
    positions = data.batch_size * data.length
    done = run.flops(positions, work.loss_tokens)
    acts = activations(run)
    again = 2 * model.num_layers * acts.recomputed_weights * positions
    if acts.recomputes_attention:
        heads = model.num_heads * model.head_dim
        again += 2 * model.num_layers * heads * data.length * positions
    return done + again


def passes(run: PlannedRun) -> float:
    """How often a micro-batch needs the layers' weights: forward, backward, and again."""
    return 2 + activations(run).recomputed_weights / run.model.num_layer_matmul_params


def memory_traffic(run: PlannedRun, budget: Budget) -> float:
    """Bytes that a device reads and writes in its own memory, roughly."""
    config = run.config
    each = jnp.dtype(config.compute.dtype).itemsize
    turns = passes(run) * config.micro_batches
    gathered = run.model.num_matmul_params * each / run.mesh_size()
    layer = activations(run).layer
    positions = run.positions * run.model.num_layers
    acts = positions * (layer / run.mesh_size() + 4 * run.model.d_model) * each
    state = 2 * (budget.weights + budget.optimizer + budget.gradients)
    return state + turns * (2 * gathered + 4 * acts)


def _chips(run: PlannedRun) -> int:
    """Chips of all slices; 0 where they are not counted apart from devices."""
    count = run.topology.num_slices if run.topology.sides else 0
    for side in run.topology.sides:
        count *= side
    return count
