"""Where the TPU compiler is installed for planning, but there is no TPU."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

from tulu_jax.cli.allocator import ACCELERATORS

GOOGLE = "0x1ae0"
"""PCI vendor of TPUs, by which JAX itself looks for them (jax `_src/hardware_utils.py`)."""

DEVICES = (*ACCELERATORS, "dri")
"""Files in /dev where there is some accelerator or graphics card."""


def leave_out_absent_tpu() -> None:
    """Lets JAX use the CPU alone where libtpu is installed and no accelerator is to be seen.

    Else every command would print libtpu's errors about a TPU it does not find. Does nothing when
    JAX_PLATFORMS is set, elsewhere than on Linux, without libtpu, or with any accelerator.
    """
    if "JAX_PLATFORMS" in os.environ or not sys.platform.startswith("linux"):
        return
    if importlib.util.find_spec("libtpu") and not _any_accelerator():
        os.environ["JAX_PLATFORMS"] = "cpu"
        if "jax" in sys.modules:  # which has read it already
            sys.modules["jax"].config.update("jax_platforms", "cpu")


def _any_accelerator() -> bool:
    vendors = Path("/sys/bus/pci/devices").glob("*/vendor")
    return any(path.read_text().strip() == GOOGLE for path in vendors) or any(
        Path("/dev", name).exists() for name in DEVICES
    )
