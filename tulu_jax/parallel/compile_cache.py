"""Compiled programs, kept for the next process."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from pathlib import Path

import jax

from tulu_jax.places import Address, StorageError, check_writable, user_place

NEVER_S = sys.float_info.max
"""No program takes as long to compile."""


def use_compilation_cache(say: Callable[[str], None] = print) -> None:
    """Keeps compiled programs on disk, so that a restart does not compile again.

    In `$TULU_CACHE_DIR`, by default `~/.cache/tulu_jax`; set it empty to keep nothing. It may be a
    folder in a bucket: gs://bucket/folder. Kept is what took half a second to compile, or as long
    as JAX's own `JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS` says. A bucket that may only be read
    is read, and one that cannot be read is left alone: `say` is told which, once.

    Raises: ConfigError: an address that is none.
    """
    folder = os.environ.get("TULU_CACHE_DIR", str(Path.home() / ".cache" / "tulu_jax"))
    if not folder:
        return
    place = user_place(folder, name="TULU_CACHE_DIR")
    if isinstance(place, Address) and (trouble := _trouble(place)):
        readable, error = trouble
        what = "new ones are not kept" if readable else "none are kept"
        say(f"TULU_CACHE_DIR, compiled programs: {what}: {error}")
        if not readable:
            return
        jax.config.update("jax_persistent_cache_min_compile_time_secs", NEVER_S)
    elif "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    jax.config.update("jax_compilation_cache_dir", str(place))


def _trouble(place: Address) -> tuple[bool, StorageError] | None:
    """Whether a bucket that cannot be written can be read, and why it cannot be written.

    JAX itself would warn of it, after every program.
    """
    try:
        check_writable(place)
    except StorageError as error:
        if error.errno != errno.EACCES:
            return False, error
        try:
            place.is_dir()
        except StorageError:
            return False, error
        return True, error
    return None
