"""The keys that clients must send: from a file that its owner alone can read, or the environment.

No message and no log shows one.
"""

from __future__ import annotations

import stat
from collections.abc import Mapping
from pathlib import Path

from tulu_jax.errors import ConfigError

VARIABLE = "TULU_API_KEY"
SHORTEST = 8


def read_keys(path: Path | None, environment: Mapping[str, str]) -> list[str]:
    """The keys of a file, one a line, and the one of the environment; none where neither is given.

    Empty lines and those that begin with # are passed over.

    Raises:
      ConfigError: the file is not there, can be read by others or has no keys, or a key is too
        short or cannot stand in a header.
    """
    keys = [] if path is None else _of_file(path)
    if VARIABLE in environment:
        keys.append(_checked(environment[VARIABLE].strip(), f"the environment's {VARIABLE}"))
    return keys


def _of_file(path: Path) -> list[str]:
    try:
        mode = path.stat().st_mode
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            "key file cannot be read",
            got=getattr(error, "strerror", None) or "bytes that are no UTF-8",
            at=path,
            expected="a text file with one key a line",
        ) from error
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigError(
            "key file can be read by others",
            got=f"mode {stat.S_IMODE(mode):o}",
            at=path,
            expected="600: its owner alone",
            do=f"chmod 600 {path}",
        )
    lines = [line.strip() for line in text.splitlines()]
    kept = [(number, line) for number, line in enumerate(lines, 1) if line and line[0] != "#"]
    if not kept:
        raise ConfigError("key file has no keys", at=path, expected="one key a line")
    return [_checked(line, f"{path}:{number}") for number, line in kept]


def _checked(key: str, at: str) -> str:
    plain = key.isascii() and key.isprintable() and " " not in key
    if not plain or len(key) < SHORTEST:
        raise ConfigError(
            "key is impossible",
            got=f"{len(key)} characters",
            at=at,
            expected=f"at least {SHORTEST} letters, digits and signs of ASCII, no spaces",
            do="make one: python -c 'import secrets; print(secrets.token_urlsafe(32))'",
        )
    return key
