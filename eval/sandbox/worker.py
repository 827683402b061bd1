"""Sandboxes as the caller sees them: started, given jobs, ended."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import select
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from typing import Any

from eval.sandbox.isolation import Isolation
from eval.sandbox.programs import Limits, Outcome, Program, SandboxError

START_S = 120.0
"""A sandbox that has not started after so long never will."""
_MOST_VERDICT_BYTES = 64 * 2**10
_KILLED_CODES = {128 + 9, 128 + 24}
_CPU_ROOM_S = 1.0


class Sandbox:
    """One bubblewrap with a warm interpreter in it, that runs one job after the other."""

    def __init__(self, isolation: Isolation, preload: Sequence[str] = ()) -> None:
        """Starts it; `preload` are packages that programs can import.

        Raises: SandboxError.
        """
        self.isolation = isolation
        self._control, theirs = socket.socketpair()
        with theirs:
            try:
                self._process = isolation.start(theirs.fileno(), preload)
            except BaseException:
                self._control.close()
                raise
        self._started = False

    def wait(self) -> None:
        """Returns when it serves jobs. Raises: SandboxError, with what it said."""
        if self._started:
            return
        self._control.settimeout(START_S)
        with contextlib.suppress(OSError):
            self._started = self._control.recv(16) == b"ready"
        if not self._started:
            raise SandboxError(
                "the sandbox does not start",
                got=self._said() or "no answer",
                at=self.isolation.name,
                do="see docs/sandbox.md: user namespaces must be allowed on this machine",
            )

    def submit(self, role: str, settings: dict[str, Any], own: Sequence[int]) -> socket.socket:
        """Starts a job, and is the socket that tells how it ended; closing it ends the job.

        Raises: SandboxError.
        """
        self.wait()
        status, theirs = socket.socketpair()
        job = os.memfd_create("job")
        try:
            with open(job, "wb", closefd=False) as stream:
                stream.write(json.dumps(settings).encode())
            os.lseek(job, 0, os.SEEK_SET)
            socket.send_fds(self._control, [role.encode()], [job, theirs.fileno(), *own])
        except OSError as error:
            status.close()
            raise SandboxError("the sandbox has ended", got=self._said() or error) from error
        finally:
            theirs.close()
            os.close(job)
        return status

    def _said(self) -> str:
        self._end()
        assert self._process.stderr is not None
        with contextlib.suppress(ValueError):
            return self._process.stderr.read(4096).decode(errors="replace").strip()[-500:]
        return ""

    def close(self) -> None:
        """Ends it and all that runs in it."""
        self._end()
        assert self._process.stderr is not None
        self._process.stderr.close()

    def _end(self) -> None:
        self._control.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def run_job(
    sandboxes: dict[str, Sandbox], jobs: dict[str, dict[str, Any]], wall_s: float
) -> tuple[dict[str, Any] | None, dict[str, dict[str, Any]]]:
    """The verdict of the jobs that run together, one in each sandbox, and how each ended.

    The verdict is None where none came: from a program that ended without, or not in time.

    Raises: SandboxError.
    """
    nonce = secrets.token_hex(16)
    verdict, verdict_end = os.pipe()
    peers = socket.socketpair()
    own = {
        "paper": [verdict_end],
        "probe": [verdict_end],
        "checker": [verdict_end, peers[0].fileno()],
        "candidate": [peers[1].fileno()],
    }
    statuses: dict[str, socket.socket] = {}
    try:
        try:
            for role, job in jobs.items():
                if role != "candidate":
                    job["job"]["nonce"] = nonce
                statuses[role] = sandboxes[role].submit(role, job, own[role])
        finally:
            os.close(verdict_end)
            for peer in peers:
                peer.close()
        said = _read_verdict(verdict, time.monotonic() + wall_s)
        ended = {role: _ended(status) for role, status in statuses.items()}
    finally:
        os.close(verdict)
        for status in statuses.values():
            status.close()
    return _with_nonce(said, nonce), ended


def _read_verdict(descriptor: int, deadline: float) -> bytes:
    """What is written there until its end, or until the first line; what came by the deadline."""
    said = b""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    while b"\n" not in said and len(said) < _MOST_VERDICT_BYTES:
        left = deadline - time.monotonic()
        if left <= 0 or not poll.poll(left * 1000):
            break
        piece = os.read(descriptor, _MOST_VERDICT_BYTES)
        if not piece:
            break
        said += piece
    return said


def _ended(status: socket.socket) -> dict[str, Any]:
    """How a job ended, which is ended now if it still runs. Raises: SandboxError."""
    status.shutdown(socket.SHUT_WR)
    status.settimeout(START_S)
    try:
        ended = json.loads(status.recv(2**16) or b"null")
    except (OSError, ValueError):
        ended = None
    if ended is None:
        raise SandboxError("the sandbox ended while it ran a program")
    if "fault" in ended:
        raise SandboxError("the sandbox could not run a program", got=ended["fault"])
    return ended


def _with_nonce(said: bytes, nonce: str) -> dict[str, Any] | None:
    with contextlib.suppress(ValueError, RecursionError):
        verdict = json.loads(said.partition(b"\n")[0])
        if isinstance(verdict, dict) and verdict.get("nonce") == nonce:
            return verdict
    return None


def settings(
    isolation: Isolation, limits: Limits, job: dict[str, Any], cpu_s: float
) -> dict[str, Any]:
    """What a sandbox is told to run one job."""
    return {
        "isolated": isolation.bwrap is not None,
        "own_path": isolation.own_path(),
        "temporary": tempfile.gettempdir(),
        "memory_bytes": limits.memory_bytes,
        "file_bytes": limits.file_bytes,
        "tmp_bytes": limits.tmp_bytes,
        "tmp_files": limits.tmp_files,
        "processes": limits.processes,
        "open_files": limits.open_files,
        "cpu_s": cpu_s,
        "job": job,
    }


def run_paper(sandbox: Sandbox, program: Program, timeout_s: float, limits: Limits) -> Outcome:
    """The program and its test in one process. Raises: SandboxError."""
    job = {"program": program.whole, "timeout_s": timeout_s}
    told = settings(sandbox.isolation, limits, job, timeout_s + _CPU_ROOM_S)
    said, ended = run_job({"paper": sandbox}, {"paper": told}, limits.wall(timeout_s))
    result = "timed out" if said is None else str(said["result"])
    return _outcome(result, ended, sandbox.isolation)


def run_fixed(
    sandboxes: dict[str, Sandbox], program: Program, timeout_s: float, limits: Limits
) -> Outcome:
    """The program in one sandbox and its test in another. Raises: SandboxError."""
    isolation = sandboxes["checker"].isolation
    candidate = {"code": program.code, "entry_point": program.entry_point, "timeout_s": timeout_s}
    checker = {
        "helpers": program.helpers,
        "test": program.test,
        "entry_point": program.entry_point,
    }
    jobs = {
        "candidate": settings(isolation, limits, candidate, timeout_s + _CPU_ROOM_S),
        "checker": settings(isolation, limits, checker, limits.checker_s),
    }
    said, ended = run_job(sandboxes, jobs, limits.wall(timeout_s))
    out_of_time = ended["candidate"]["code"] in _KILLED_CODES and (
        ended["candidate"]["cpu_s"] >= timeout_s
    )
    if said is None:
        result = "timed out"
    elif "fault" in said:
        raise SandboxError("the problem cannot be checked", got=said["fault"])
    elif said["result"] != "passed" and out_of_time:
        result = "timed out"
    else:
        result = str(said["result"])
    return _outcome(result, ended, isolation)


def _outcome(result: str, ended: dict[str, dict[str, Any]], isolation: Isolation) -> Outcome:
    cpu_s = sum(end["cpu_s"] for end in ended.values())
    result = result.encode("utf-8", "backslashreplace").decode()  # no lone surrogates
    return Outcome(result, result == "passed", round(cpu_s, 4), isolation.name)
