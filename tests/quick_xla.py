"""How XLA compiles in tests: nine times as fast as for users.

Small steps take a second, not seven. What comes out computes the same, only slower, which these
sizes do not show. `tests/cli/test_bench.py` times steps in a process that compiles as users' do.

A flag that the installed XLA does not know ends the process, so they are tried in one of their own,
and each apart where that ends.
"""

import functools
import os
import subprocess
import sys

QUICK = {"xla_backend_optimization_level": "0", "xla_cpu_use_fusion_emitters": "false"}
USERS = {"xla_backend_optimization_level": 3, "xla_cpu_use_fusion_emitters": True}
_KNOWN = "TULU_TESTS_XLA_FLAGS"
"""The environment variable in which the test session's own processes find the known flags."""


def flags(devices: int = 1) -> str:
    """`XLA_FLAGS` for a process with so many virtual devices."""
    return f"{_quick_flags()} --xla_force_host_platform_device_count={devices}"


def as_users() -> dict[str, object]:
    """Options for one program that runs long enough to be worth its compilation."""
    known = _quick_flags()
    return {name: value for name, value in USERS.items() if f"--{name}=" in known}


@functools.cache
def _quick_flags() -> str:
    """Those of `QUICK` that the installed XLA knows."""
    if _KNOWN not in os.environ:
        every = [f"--{name}={value}" for name, value in QUICK.items()]
        if not _are_known(" ".join(every)):
            every = [flag for flag in every if _are_known(flag)]
        os.environ[_KNOWN] = " ".join(every)
    return os.environ[_KNOWN]


def _are_known(flags: str) -> bool:
    command = [sys.executable, "-c", "import jax; jax.devices()"]
    env = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    return not subprocess.run(command, env=env, check=False, capture_output=True).returncode
