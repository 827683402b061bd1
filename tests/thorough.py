"""How much is tried of what is drawn at random: a sample, or with `TULU_THOROUGH=1` all of it."""

import os

THOROUGH = os.environ.get("TULU_THOROUGH", "0") not in ("", "0")


def sample(count: int) -> int:
    """So many of `count` draws as are tried: each eighth, unless all are wanted."""
    return count if THOROUGH else -(-count // 8)
