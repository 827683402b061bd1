"""Which layout to take: all are estimated from shapes, the most promising ones compiled."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator

from tulu_jax.errors import ConfigError
from tulu_jax.plan.compiled import Compiled, TooLargeError, compile_step
from tulu_jax.plan.duration import full_rows
from tulu_jax.plan.estimate import estimate_traffic
from tulu_jax.plan.planned import PlannedRun, plan_run
from tulu_jax.plan.roofline import Roofline, Work, roofline
from tulu_jax.plan.topology import Topology
from tulu_jax.train.budget import memory_budget
from tulu_jax.train.config import TrainConfig

TENSOR_SIZES = (1, 2, 4, 8, 16)
DATA_SIZES = (1, 2, 4, 8)
REMATS = ("none", "minimal", "attention", "full")
SLACK = 1.15
"""How far above the memory an estimate may lie and still be worth compiling."""
HEADROOM = 0.05
"""Share of the memory that is to stay free: the next batch, held-out losses and what lies between
arrays need some too."""


@dataclasses.dataclass(frozen=True)
class Candidate:
    """One way of running the same step."""

    run: PlannedRun
    estimated_bytes: float
    estimate: Roofline
    compiled: Compiled | None = None
    roof: Roofline | None = None
    failure: str | None = None
    """Why it was compiled in vain."""

    @property
    def seconds(self) -> float:
        """Seconds of a step by what is known best."""
        return (self.roof or self.estimate).seconds

    @property
    def is_tight(self) -> bool:
        """Whether it was compiled and fits, but with less than `HEADROOM` to spare."""
        if self.compiled is None:
            return False
        return self.compiled.peak > (1 - HEADROOM) * _memory(self.run.topology)

    @property
    def rank(self) -> tuple[float, float, float]:
        """What is smaller is better: of equally long steps, one that leaves more resources idle."""
        roof = self.roof or self.estimate
        return roof.seconds, roof.in_turn, self.estimated_bytes

    @property
    def settings(self) -> dict[str, str]:
        """The gin macros that choose it."""
        mesh, config = self.run.layout.mesh.shape, self.run.config
        return {
            "MESH_DATA": str(mesh["data"]),
            "MESH_FSDP": str(mesh["fsdp"]),
            "MESH_TENSOR": str(mesh["tensor"]),
            "MICRO_BATCHES": str(config.micro_batches),
            "REMAT": repr(config.compute.remat),
        }


def candidates(
    config: TrainConfig,
    topology: Topology,
    *,
    remats: Iterable[str] = REMATS,
    work: Work | None = None,
) -> list[Candidate]:
    """Every layout that fits by the estimate, the fastest by its roofline first.

    Raises:
      ConfigError: there is none, or nothing is known of the devices.
    """
    found = []
    limit = _memory(topology)
    for on_mesh in _meshes(config, topology):
        state = None
        for run in _variants(on_mesh, tuple(remats)):
            budget = memory_budget(run, like=state)
            state = state or budget
            roof = roofline(run, estimate_traffic(run), work or full_rows(run), budget=budget)
            if roof and budget.total <= limit * SLACK:
                found.append(Candidate(run, budget.total, roof))
    if not found:
        raise ConfigError(
            "no layout fits",
            got=f"{config.data.batch_size} rows of {config.data.length} on {topology.name}",
            do="take more devices or a smaller batch",
        )
    return sorted(found, key=lambda one: one.rank)


def _memory(topology: Topology) -> float:
    """Bytes that a program may use on a device."""
    if topology.chip is None:
        raise ConfigError(
            "memory and speed of the devices are not known",
            got=topology.name,
            expected="TPUs, or a GPU of tulu_jax/plan/hardware.py",
            do="plan without --search and --largest_batch",
        )
    return topology.chip.usable_bytes


def _meshes(config: TrainConfig, topology: Topology) -> Iterator[PlannedRun]:
    """The run on every mesh that divides model, devices and batch, in one micro-batch."""
    for tensor, data in itertools.product(TENSOR_SIZES, DATA_SIZES):
        mesh = dataclasses.replace(config.mesh, data=data, fsdp=-1, tensor=tensor)
        try:
            yield plan_run(dataclasses.replace(config, mesh=mesh, micro_batches=1), topology)
        except ConfigError:
            continue


def _variants(run: PlannedRun, remats: tuple[str, ...]) -> Iterator[PlannedRun]:
    """The run with other policies of recomputation, and 1, 2, 4 ... micro-batches."""
    rows = run.config.data.batch_size // run.layout.num_row_shards
    for remat in remats:
        compute = dataclasses.replace(run.config.compute, remat=remat)
        for micro in (1 << i for i in range(rows.bit_length()) if rows % (1 << i) == 0):
            config = dataclasses.replace(run.config, compute=compute, micro_batches=micro)
            yield dataclasses.replace(run, config=config)


def search(
    found: list[Candidate],
    *,
    compile_at_most: int = 4,
    work: Work | None = None,
    done: Callable[[Candidate], None] = lambda _: None,
) -> list[Candidate]:
    """The candidates that were compiled: those that fit, the tight ones, those that do not.

    Among each the fastest is first. `done` is called after each. Nothing is compiled that by its
    estimate is slower than what has already been found to fit with room to spare, or needs as much
    memory as what did not.
    """
    tried: list[Candidate] = []
    best = too_much = float("inf")
    for one in found:
        if len(tried) == compile_at_most or one.seconds > best:
            break
        if one.estimated_bytes >= too_much:
            continue
        tried.append(_try(one, work))
        if tried[-1].failure is None and not tried[-1].is_tight:
            best = min(best, tried[-1].seconds)
        else:
            too_much = min(too_much, one.estimated_bytes)
        done(tried[-1])
    return sorted(tried, key=lambda one: (one.failure is not None, one.is_tight, one.rank))


def _try(one: Candidate, work: Work | None) -> Candidate:
    try:
        compiled = compile_step(one.run)
    except TooLargeError as error:
        return dataclasses.replace(one, failure=str(error))
    roof = roofline(one.run, compiled.traffic, work or full_rows(one.run))
    return dataclasses.replace(one, compiled=compiled, roof=roof)


def largest_batch(
    run: PlannedRun,
    *,
    compile_at_most: int = 6,
    done: Callable[[int, float | None], None] = lambda rows, peak: None,
) -> tuple[int, float]:
    """Most rows that fit with this mesh and number of micro-batches, and the peak bytes then.

    The estimate says where to look; what is returned was compiled. `done` is called with each
    number of rows and its peak, None if it does not fit. If `compile_at_most` is used up, more
    rows may fit than are returned.

    Raises:
      ConfigError: nothing is known of the devices.
      TooLargeError: not even one row a device fits.
    """
    unit = run.layout.num_row_shards * run.config.micro_batches
    limit = _memory(run.topology)

    def at(times: int) -> PlannedRun:
        data = dataclasses.replace(run.config.data, batch_size=times * unit)
        return dataclasses.replace(run, config=dataclasses.replace(run.config, data=data))

    state = memory_budget(run)

    def estimate(times: int) -> float:
        return memory_budget(at(times), like=state).total

    fits: dict[int, float] = {}
    fails: list[int] = []
    times = _most(1, 2**16, lambda n: estimate(n) <= limit)
    for _ in range(compile_at_most):
        try:
            fits[times] = compile_step(at(times)).peak
        except TooLargeError:
            fails.append(times)
            if times == 1:
                raise
        done(times * unit, fits.get(times))
        low, high = max(fits, default=0), min(fails, default=0)
        if high - low == 1:
            break
        times = (low + high) // 2
        if low:
            # As the estimate grows, from where it is known to be right; at most twice as many.
            scale = fits[low] / estimate(low)
            guess = _most(low + 1, 2 * low, lambda n, by=scale: by * estimate(n) <= limit)
            times = guess if not high or guess < high else times
    if not fits:
        fits[1] = compile_step(at(1)).peak
    best = max(fits)
    return best * unit, fits[best]


def _most(low: int, high: int, fits: Callable[[int], bool]) -> int:
    """The largest number from `low` to `high` that fits, or `low`; larger ones fit no better."""
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low
