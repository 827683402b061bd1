"""`tulu bench train` where the project is not installed, and few other packages are.

    PYTHONPATH=. python benchmarks/step.py --model llama_1b --rows 16 --length 2048 --dtype bfloat16

Needs jax, flax, optax, orbax, gin-config and numpy. Options: `python benchmarks/step.py --help`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent.parent), str(Path(__file__).parent)]

from bare import stand_in_for_jaxtyping  # noqa: E402

stand_in_for_jaxtyping()

from tulu_jax.cli import bench  # noqa: E402
from tulu_jax.cli.absent_tpu import leave_out_absent_tpu  # noqa: E402
from tulu_jax.cli.allocator import keep_memory  # noqa: E402
from tulu_jax.errors import TuluError  # noqa: E402


def main() -> int:
    """Parses flags and times steps."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        epilog=bench.EXAMPLES.replace("tulu bench train", "python benchmarks/step.py"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    bench.add_arguments(parser)
    args = parser.parse_args()
    leave_out_absent_tpu()
    keep_memory()
    try:
        return bench.run(args)
    except TuluError as error:
        print(f"step.py: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
