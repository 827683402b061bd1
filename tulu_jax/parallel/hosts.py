"""Several processes as one run: how they find each other, wait for each other, and tell names.

JAX aborts a process that waits for another in vain, and does not say for whom. So processes with
a known coordinator first call the roll over a plain socket, and barriers after that have a time
limit and name who did not come.
"""

from __future__ import annotations

import collections
import dataclasses
import importlib.util
import json
import os
import re
import socket
from collections.abc import Mapping
from pathlib import Path

import jax

# JAX shows its key-value store and barriers with a time limit nowhere else: `multihost_utils` has
# neither names nor limits, and its barriers take devices.
from jax._src import distributed

from tulu_jax.errors import ConfigError, GuardError
from tulu_jax.files import json_sha256
from tulu_jax.parallel.roll_call import call_roll

START_TIMEOUT_S = 300.0
BARRIER_TIMEOUT_S = 600.0
HEARTBEAT_TIMEOUT_S = 120
"""Silence after which JAX itself ends the processes of a run; ours, which names names, is first."""
SHUTDOWN_TIMEOUT_S = 30
_times: collections.Counter[str] = collections.Counter()
"""How often this process has come to each barrier."""


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The processes of a run, as this one knows them."""

    address: str | None
    """HOST:PORT of process 0; None leaves everything to JAX, which asks the TPU's metadata."""
    num_processes: int | None = None
    process_id: int | None = None
    found_by: str = "flags"
    """Flags, variables, SLURM or TPU: who said so."""


def start_hosts(
    coordinator_address: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    *,
    timeout_s: float = START_TIMEOUT_S,
    environment: Mapping[str, str] | None = None,
) -> Cluster | None:
    """Joins the other processes of the run; None if this process is alone.

    Looked at in order: the arguments; JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and
    JAX_PROCESS_ID; a SLURM step of several tasks; a TPU. `num_processes=1` looks no further. Call
    it before anything asks for devices.

    Raises:
      ConfigError: the settings are incomplete or impossible, or some process does not come.
    """
    environment = os.environ if environment is None else environment
    given = (coordinator_address, num_processes, process_id)
    cluster = find_cluster(given, environment)
    if cluster is None:
        return None
    if cluster.address is not None:
        assert cluster.num_processes is not None and cluster.process_id is not None
        call_roll(cluster.address, cluster.num_processes, cluster.process_id, timeout_s=timeout_s)
    try:
        jax.distributed.initialize(
            cluster.address,
            cluster.num_processes,
            cluster.process_id,
            cluster_detection_method=None if cluster.address is None else "deactivate",
            initialization_timeout=int(timeout_s),
            heartbeat_timeout_seconds=HEARTBEAT_TIMEOUT_S,
            shutdown_timeout_seconds=SHUTDOWN_TIMEOUT_S,
        )
    except (RuntimeError, ValueError) as error:
        raise ConfigError(
            "processes could not be joined",
            got=str(error).strip().splitlines()[0],
            at=f"{cluster.found_by}: {cluster.address or 'the TPU metadata'}",
            do="on one host pass --num_processes=1; else give --coordinator_address, "
            "--num_processes and --process_id",
        ) from error
    publish("host", socket.gethostname())
    return cluster


def find_cluster(
    given: tuple[str | None, int | None, int | None], environment: Mapping[str, str]
) -> Cluster | None:
    """The processes that flags, variables, SLURM or a TPU tell of, or None for a single one.

    Raises:
      ConfigError: an incomplete or impossible set of settings.
    """
    if given[1] == 1 and given[0] is None:
        return None
    found_by = "flags"
    if given == (None, None, None):
        names = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
        address, count, index = (environment.get(name) for name in names)
        given = (address, _whole(count, names[1]), _whole(index, names[2]))
        found_by = "variables"
    if given != (None, None, None):
        return _checked(Cluster(*given, found_by=found_by))
    if int(environment.get("SLURM_NTASKS", "1")) > 1 and "SLURM_STEP_NODELIST" in environment:
        return _checked(_of_slurm(environment))
    return Cluster(None, found_by="TPU") if _on_tpu(environment) else None


def _whole(text: str | None, name: str) -> int | None:
    if text is not None and not text.isdecimal():
        raise ConfigError(f"{name} is not a whole number", got=repr(text))
    return None if text is None else int(text)


def _checked(cluster: Cluster) -> Cluster:
    """The cluster, if it says all there is to say.

    Raises:
      ConfigError: what is missing or out of range.
    """
    fields = {
        "--coordinator_address": cluster.address,
        "--num_processes": cluster.num_processes,
        "--process_id": cluster.process_id,
    }
    missing = [name for name, value in fields.items() if value is None]
    if missing:
        raise ConfigError(
            "the processes of the run are told of in part only",
            got=f"{cluster.found_by} without {', '.join(missing)}",
            expected="--coordinator_address, --num_processes and --process_id (or the variables "
            "JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID), or none of them",
        )
    assert cluster.address is not None
    assert cluster.num_processes is not None and cluster.process_id is not None
    if not re.fullmatch(r".+:\d+", cluster.address):
        raise ConfigError(
            "coordinator address is not understood", got=cluster.address,
            expected="HOST:PORT of process 0, a port that is free there",
        )  # fmt: skip
    if not 0 <= cluster.process_id < cluster.num_processes:
        raise ConfigError(
            "--process_id is out of range",
            got=cluster.process_id,
            expected=f"0 to {cluster.num_processes - 1}, each once",
        )
    return cluster


def _of_slurm(environment: Mapping[str, str]) -> Cluster:
    """What SLURM says of its step. Each task sees all GPUs that SLURM shows it.

    JAX's own detection takes one task a GPU for granted, and would leave seven of eight GPUs idle
    where one task has the whole node.
    """
    port = 61440 + int(environment.get("SLURM_JOB_ID", "0")) % 4096
    first = first_host(environment["SLURM_STEP_NODELIST"])
    return Cluster(
        f"{first}:{port}",
        int(environment["SLURM_NTASKS"]),
        _whole(environment.get("SLURM_PROCID"), "SLURM_PROCID"),
        found_by="SLURM",
    )


def first_host(nodes: str) -> str:
    """The first name of a SLURM list of nodes.

    >>> first_host("gpu[007-010,12],login1"), first_host("a1,b[2-3]"), first_host("n5")
    ('gpu007', 'a1', 'n5')
    """
    found = re.match(r"([^,\[]+)(?:\[(\w+))?", nodes)
    assert found is not None
    return found[1] + (found[2] or "")


def _on_tpu(environment: Mapping[str, str]) -> bool:
    """Whether this process will compute on a TPU: its library and its device files are here."""
    if environment.get("JAX_PLATFORMS", "tpu").split(",")[0] != "tpu":
        return False
    devices = [*Path("/dev").glob("accel[0-9]*"), *Path("/dev").glob("vfio/[0-9]*")]
    return bool(devices) and importlib.util.find_spec("libtpu") is not None


def num_processes() -> int:
    """Processes that were joined; asks no device."""
    return distributed.global_state.num_processes or 1


def publish(key: str, value: str) -> None:
    """Tells all processes this one's `value` of `key`; a later one takes the place of an earlier.

    Raises:
      RuntimeError: the coordinator cannot be reached.
    """
    if (client := distributed.global_state.client) is not None:
        name = f"tulu/{key}/{distributed.global_state.process_id}"
        client.key_value_set(name, value, allow_overwrite=True)


def published(key: str) -> dict[int, str]:
    """What each process last told of `key`, by process; those that told nothing are left out.

    Raises:
      RuntimeError: the coordinator cannot be reached.
    """
    if (client := distributed.global_state.client) is None:
        return {}
    found = client.key_value_dir_get(f"tulu/{key}/")
    return {int(name.rsplit("/", 1)[1]): value for name, value in found}


def of_first(name: str, value: str) -> str:
    """The `value` that process 0 gives, in every process; waits for all of them.

    >>> of_first("greeting", "hello")  # one process is the first
    'hello'

    Raises:
      GuardError: some process does not come.
    """
    if distributed.global_state.client is None:
        return value
    publish(name, value)
    barrier(name)
    return published(name)[0]


def check_all_well(name: str, trouble: str | None) -> None:
    """Passes when no process of the run tells of trouble; waits for all of them.

    Args:
      name: of what they did.
      trouble: of this process, in a line; None where all went well.

    Raises:
      GuardError: in every process, with what the first troubled one tells; or one does not come.
    """
    if distributed.global_state.client is None:
        return
    publish(name, trouble or "")
    barrier(name)
    for process, theirs in sorted(published(name).items()):
        if theirs:
            raise GuardError(f"{name} failed", got=theirs, at=f"process {host_names([process])}")


def host_names(processes: list[int]) -> str:
    """Processes with the names of their hosts: `2 (node-c), 5 (node-f)`."""
    try:
        names = published("host")
    except RuntimeError:
        names = {}
    return ", ".join(f"{each} ({names.get(each, 'host unknown')})" for each in processes)


def barrier(name: str, *, timeout_s: float = BARRIER_TIMEOUT_S) -> None:
    """Returns when every process has come to the barrier `name`, for the same time as this one.

    Raises:
      GuardError: some have not come in time, naming them and their hosts.
    """
    client = distributed.global_state.client
    if client is None:
        return
    _times[name] += 1
    unique = f"{name}/{_times[name]}"
    publish(f"barrier/{unique}", "here")
    try:
        client.wait_at_barrier(f"tulu/{unique}", int(timeout_s * 1000))
    except RuntimeError as error:
        came = published(f"barrier/{unique}")
        missing = [each for each in range(num_processes()) if each not in came]
        raise GuardError(
            f"not every process came to {name!r}",
            got=f"no sign of process {host_names(missing)}"
            if missing
            else str(error).splitlines()[0],
            at=f"process {distributed.global_state.process_id}, which waited {timeout_s:g} s",
            do="look at their logs; the same command resumes",
        ) from error


def check_agree(told: Mapping[str, object]) -> None:
    """Passes when all processes of the run were told the same; waits for them.

    Args:
      told: by name, what must be the same everywhere.

    Raises:
      GuardError: in every process, naming what differs; or a process does not come.
    """
    publish("told", json.dumps({name: json_sha256(value) for name, value in told.items()}))
    barrier("what the run is")
    by_process = {process: json.loads(text) for process, text in published("told").items()}
    for process, theirs in sorted(by_process.items()):
        first = by_process[min(by_process)]
        differing = [n for n in sorted({*first, *theirs}) if first.get(n) != theirs.get(n)]
        if differing:
            raise GuardError(
                "processes of one run were told different things",
                got=f"other {', '.join(differing)} than the first in process "
                f"{host_names([process])}",
                expected="the same settings and files in every process",
                do="give all the same command line, and the same files at its paths",
            )
