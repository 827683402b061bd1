"""Flags by which a command on several hosts says where the others are."""

from __future__ import annotations

import argparse


def add_host_options(parser: argparse.ArgumentParser) -> None:
    """Adds --coordinator_address, --num_processes and --process_id."""
    group = parser.add_argument_group(
        "several hosts",
        "Run the same command on every host. On TPU pods and in SLURM steps (srun) nothing has to "
        "be said; else give all three, or set JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and "
        "JAX_PROCESS_ID.",
    )
    group.add_argument(
        "--coordinator_address", metavar="HOST:PORT", help="of process 0, with a free port there"
    )
    group.add_argument(
        "--num_processes", type=int, metavar="N", help="processes in all; 1 looks for no others"
    )
    group.add_argument("--process_id", type=int, metavar="I", help="this one's number, from 0")
    group.add_argument(
        "--start_timeout", type=float, default=300.0, metavar="SECONDS",
        help="how long to wait for the others (300)",
    )  # fmt: skip


def join_hosts(args: argparse.Namespace) -> bool:
    """Joins the other processes, if there are any; whether this process is the one that talks.

    Raises:
      ConfigError: the flags are incomplete, or some process does not come.
    """
    from tulu_jax.parallel.hosts import start_hosts

    cluster = start_hosts(
        args.coordinator_address, args.num_processes, args.process_id, timeout_s=args.start_timeout
    )
    if cluster is None:
        return True
    import jax

    return jax.process_index() == 0
