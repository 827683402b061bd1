"""A warm interpreter that forks once for each program, so that none pays for its start.

It never sees a program: it passes the descriptors of a job on to the child that it forks. In that
child's namespaces there are a first process, which reaps, and the program; when either ends, the
kernel ends all that the program has started. Jobs come one at a time:

    zygote - monitor (outside) - first process (pid 1 within) - program
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import select
import shutil
import signal
import site
import socket
import sys
import tempfile
import traceback
from collections.abc import Callable
from typing import Any

from . import candidate, checker, limits, namespaces, paper, probe

READY = b"ready"
WARM = (
    "abc argparse bisect cmath collections collections.abc copy dataclasses datetime decimal enum"
    " fractions functools hashlib heapq io itertools json math operator os random re statistics"
    " string sys time typing unittest"
)
"""What programs import, loaded once."""

_ROLES: dict[str, Callable[[dict[str, Any], list[int]], Callable[[], None]]] = {
    "paper": paper.prepare,
    "candidate": candidate.prepare,
    "checker": checker.prepare,
    "probe": probe.prepare,
}


def main(control_descriptor: int, preload: list[str]) -> None:
    """Serves the jobs of a control socket until its other end is closed.

    A job is a role's name and descriptors: of the job (JSON), of the status socket, and the role's
    own.
    """
    control = socket.socket(fileno=control_descriptor)
    control.set_inheritable(False)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])  # the caller's thread may have blocked some
    for name in [*WARM.split(), *preload]:
        importlib.import_module(name)
    site.setquit()  # of what `site` gives to every program, what ends one
    gc.freeze()
    control.send(READY)
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, 64, 8)
        if not message:
            return
        monitor = os.fork()
        if monitor == 0:
            control.close()
            _monitor(message.decode(), descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        os.waitpid(monitor, 0)


def _monitor(role: str, descriptors: list[int]) -> None:
    """Runs one job in new namespaces, ends it when the status socket closes, says how it ended."""
    status = socket.socket(fileno=descriptors[1])
    try:
        ended = _watch(role, descriptors[0], status, descriptors[2:])
    except BaseException:
        ended = {"fault": traceback.format_exc()[-2000:]}
    with contextlib.suppress(OSError):
        status.send(json.dumps(ended).encode())
    os._exit(0)


def _watch(role: str, job: int, status: socket.socket, own: list[int]) -> dict[str, Any]:
    with open(job, "rb") as stream:
        settings = json.load(stream)
    namespaces.new_keyring()
    folder = None
    if settings["isolated"]:
        namespaces.enter()
    else:
        namespaces.adopt_orphans()
        folder = tempfile.mkdtemp(prefix="tulu-program-", dir=settings["temporary"])
    report, report_end = os.pipe()
    first = os.fork()
    if first == 0:
        os.close(report)
        status.close()
        _first(role, settings, folder, report_end, own)
    for descriptor in (report_end, *own):
        os.close(descriptor)
    try:
        with open(report, "rb") as stream:
            said = stream.read(4096)
        ready = _wait(first, status)
        _, code, usage = os.wait4(first, 0)
    finally:
        if folder is not None:
            _end_descendants()
            shutil.rmtree(folder, ignore_errors=True)
    if said != READY:
        return {"fault": said.decode(errors="replace") or "a program's process did not start"}
    return {
        "code": os.waitstatus_to_exitcode(code),
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "killed": not ready,
    }


def _wait(first: int, status: socket.socket) -> bool:
    """Waits for the first process; kills it, and so all, when the status socket closes first."""
    ended = os.pidfd_open(first)
    poll = select.poll()
    poll.register(ended, select.POLLIN)
    poll.register(status, select.POLLIN)
    ready = any(descriptor == ended for descriptor, _ in poll.poll())
    os.close(ended)
    if not ready:
        os.kill(first, signal.SIGKILL)
    return ready


def _end_descendants() -> None:
    """Without namespaces: kills every process that the program has left behind."""
    while True:
        with open("/proc/thread-self/children") as stream:
            children = [int(number) for number in stream.read().split()]
        for child in children:
            os.kill(child, signal.SIGKILL)
        if not children:
            return
        os.waitpid(-1, 0)


def _first(
    role: str, settings: dict[str, Any], folder: str | None, report: int, own: list[int]
) -> None:
    """The first process of the namespaces: prepares them, forks the program, reaps."""
    try:
        if folder is None:
            namespaces.make_private(settings["tmp_bytes"], settings["tmp_files"])
            namespaces.give_up_privileges()
        os.chdir(folder or "/tmp")
        os.setsid()
        limits.silence()
        program = os.fork()
        if program == 0:
            _program(role, settings, report, own)
        os.closerange(3, 1 << 16)
        while True:
            ended, code = os.wait()
            if ended == program:
                code = os.waitstatus_to_exitcode(code)
                os._exit(code if code >= 0 else 128 - code)
    except BaseException:
        os.write(report, traceback.format_exc()[-2000:].encode())
    os._exit(1)


def _program(role: str, settings: dict[str, Any], report: int, own: list[int]) -> None:
    """The program's process. What is reported ends before any line of the program runs."""
    leave = os._exit
    try:
        if settings["isolated"]:
            os.setsid()
        limits.set_limits(settings, cpu_s=settings["cpu_s"])
        run = _ROLES[role](settings["job"], own)
        sys.path[:] = [place for place in sys.path if place != settings["own_path"]]
        os.write(report, READY)
        os.close(report)
    except BaseException:
        os.write(report, traceback.format_exc()[-2000:].encode())
        leave(1)
    try:
        run()
    finally:
        leave(0)
