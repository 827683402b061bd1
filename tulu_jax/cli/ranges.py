"""What numbers a command's flags may have: others are refused before anything is read or built."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from tulu_jax.errors import ConfigError

Whole = Mapping[str, tuple[int, int]]
Numbers = Mapping[str, tuple[float, float]]


def check_ranges(args: argparse.Namespace, whole: Whole, numbers: Numbers) -> None:
    """Passes when every flag named lies between its least and its largest value, or is not given.

    Raises:
      ConfigError: naming the flag.
    """
    for table, words in ((whole, "a whole number"), (numbers, "a number")):
        for name, (least, most) in table.items():
            value = getattr(args, name, None)
            if value is not None and not least <= value <= most:  # also refuses NaN
                raise ConfigError(
                    f"--{name} is out of range",
                    got=value,
                    expected=f"{words} from {least:,} to {most:,}",
                )
