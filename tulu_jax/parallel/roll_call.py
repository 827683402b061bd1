"""A roll call over a plain socket, before JAX joins the processes: it can say who is missing.

Process 0 listens where JAX's coordinator will; each other process tells its number and host, and
is answered when all have come or the time is up. JAX's own time-out (`initialization_timeout`, jax
0.10) ends every process with an abort and a C++ stack, and names nobody.
"""

from __future__ import annotations

import json
import socket
import time

from tulu_jax.errors import ConfigError

RETRY_S = 0.2
LIMIT = 65536
"""Bytes of one message at most."""


def call_roll(address: str, num_processes: int, process_id: int, *, timeout_s: float) -> None:
    """Returns once all processes have come.

    Args:
      address: HOST:PORT that process 0 listens at.
      num_processes: how many must come, process 0 included.
      process_id: of this process.
      timeout_s: how long to wait for them.

    Raises:
      ConfigError: some have not come in time, or two have the same number, or they disagree on
        how many they are; told to every process that has come.
    """
    host, port = address.rsplit(":", 1)
    deadline = time.monotonic() + timeout_s
    if process_id == 0:
        verdict = _listen(int(port), num_processes, deadline)
    else:
        verdict = _report(host, int(port), num_processes, process_id, deadline)
    if verdict is None:
        raise ConfigError(
            "process 0 does not answer",
            got=f"nothing from {address} for {timeout_s:g} s",
            at=f"process {process_id} on {socket.gethostname()}",
            do="check --coordinator_address, that process 0 runs, and the firewall",
        )
    if verdict:
        raise ConfigError(
            "the processes of the run do not come together",
            got=verdict,
            at=address,
            expected=f"processes 0 to {num_processes - 1} within {timeout_s:g} s",
            do="start the missing ones, or check --process_id and --num_processes everywhere",
        )


def _listen(port: int, num_processes: int, deadline: float) -> str:
    """What is wrong, or "" when all have come; every caller is told the same."""
    came = {0: socket.gethostname()}
    calls: list[socket.socket] = []
    wrong = ""
    try:
        server = socket.create_server(("", port))
    except OSError as error:
        raise ConfigError(
            "process 0 cannot listen", got=error, at=f"port {port}",
            do="choose another port in --coordinator_address, everywhere",
        ) from error  # fmt: skip
    with server:
        while len(came) < num_processes and not wrong:
            server.settimeout(max(deadline - time.monotonic(), 0.01))
            try:
                call, _ = server.accept()
                calls.append(call)
                call.settimeout(10)
                said = json.loads(call.recv(LIMIT))
            except TimeoutError:
                wrong = _missing(came, num_processes)
                break
            except ValueError:  # Somebody else's message: not one of ours.
                continue
            wrong = _disagrees(said, came, num_processes)
            came[said["process"]] = said["host"]
        for call in calls:
            with call:
                call.sendall(json.dumps({"wrong": wrong}).encode())
    return wrong


def _missing(came: dict[int, str], num_processes: int) -> str:
    missing = [str(each) for each in range(num_processes) if each not in came]
    there = ", ".join(f"{each} ({host})" for each, host in sorted(came.items()))
    return f"no process {', '.join(missing)}; there are {there}"


def _disagrees(said: dict, came: dict[int, str], num_processes: int) -> str:
    process, host = said["process"], said["host"]
    if said["of"] != num_processes:
        return f"process {process} ({host}) says there are {said['of']}, process 0 {num_processes}"
    if process in came:
        return f"two processes {process}, on {came[process]} and on {host}"
    return ""


def _report(
    host: str, port: int, num_processes: int, process_id: int, deadline: float
) -> str | None:
    """What process 0 finds wrong, "" if nothing, None if it does not answer."""
    said = {"process": process_id, "host": socket.gethostname(), "of": num_processes}
    while (left := deadline - time.monotonic()) > 0:
        try:
            with socket.create_connection((host, port), timeout=left) as call:
                call.sendall(json.dumps(said).encode())
                call.settimeout(left + 10)
                return json.loads(call.recv(LIMIT))["wrong"]
        except (OSError, ValueError, KeyError):  # Not there yet, or not yet ours.
            time.sleep(RETRY_S)
    return None
