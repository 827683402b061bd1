"""What a run will take, found out without its hardware: memory, traffic, time."""

from tulu_jax.plan.compiled import Compiled, TooLargeError, compile_step
from tulu_jax.plan.hardware import CHIPS, Chip
from tulu_jax.plan.planned import PlannedRun, plan_run
from tulu_jax.plan.roofline import Roofline, Work, roofline
from tulu_jax.plan.topology import Topology, find_topology
from tulu_jax.train.budget import Budget, memory_budget

__all__ = [
    "CHIPS",
    "Budget",
    "Chip",
    "Compiled",
    "PlannedRun",
    "Roofline",
    "TooLargeError",
    "Topology",
    "Work",
    "compile_step",
    "find_topology",
    "memory_budget",
    "plan_run",
    "roofline",
]
