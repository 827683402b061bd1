"""Compiled programs, kept for the next process."""

from __future__ import annotations

import os
from pathlib import Path

import jax

from tulu_jax.places import is_address, user_place


def use_compilation_cache() -> None:
    """Keeps compiled programs on disk, so that a restart does not compile again.

    In `$TULU_CACHE_DIR`, by default `~/.cache/tulu_jax`; set it empty to keep nothing. It may be a
    folder in a bucket: gs://bucket/folder. Kept is what took half a second to compile, or as long
    as JAX's own `JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS` says.
    """
    folder = os.environ.get("TULU_CACHE_DIR", str(Path.home() / ".cache" / "tulu_jax"))
    if folder:
        if is_address(folder):  # what hosts that start anew find
            folder = str(user_place(folder, name="TULU_CACHE_DIR"))
        jax.config.update("jax_compilation_cache_dir", folder)
        if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
            jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
