"""`tulu plan --decode`: what generation takes on hardware that need not be there."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from tulu_jax.cli.flags import whole
from tulu_jax.errors import ConfigError
from tulu_jax.files import write_json

DTYPES = ("bfloat16", "float32")
OF_TRAINING = {
    "num_slices": 1, "estimate": False, "largest_batch": False, "search": False,
    "compile_at_most": 4, "efficiency": 0.6,
}  # fmt: skip
"""Flags of the plan of a training run, which mean nothing with --decode, at rest."""
OF_DECODING = {"tensor": 1, "slots": None, "length": None, "dtype": DTYPES[0], "quantize": "none"}
"""Flags that mean nothing without it."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds `--decode` and the flags that go with it."""
    group = parser.add_argument_group("generation in place of training")
    group.add_argument(
        "--decode", action="store_true", help="plan tulu generate and serve of the recipe's MODEL"
    )
    group.add_argument(
        "--tensor", type=whole(1), default=1, metavar="N",
        help="devices that share a copy of the weights (default 1)",
    )  # fmt: skip
    group.add_argument(
        "--slots", type=whole(1), metavar="N", help="of a replica (default: as many as fit)"
    )
    group.add_argument(
        "--length", type=whole(1), metavar="N",
        help="longest prompt and answer together (default: the model's)",
    )  # fmt: skip
    group.add_argument("--dtype", default=DTYPES[0], choices=DTYPES)
    group.add_argument(
        "--quantize", default="none", choices=("none", "int8"), help="of the layers' matrices"
    )


def check_used(args: argparse.Namespace) -> None:
    """Refuses flags that would do nothing.

    Raises:
      ConfigError: a flag of training with --decode, or one of decoding without it.
    """
    idle, use = (OF_TRAINING, "without") if args.decode else (OF_DECODING, "with")
    for name, rest in idle.items():
        if getattr(args, name) != rest:
            raise ConfigError(
                f"--{name} does nothing here", expected=f"it {use} --decode", do="leave it out"
            )


def run(args: argparse.Namespace, bindings: Sequence[str]) -> int:
    """Plans, prints, and writes the JSON file."""
    from tulu_jax.cli.gin_config import load_gin_model
    from tulu_jax.console import plain_console
    from tulu_jax.plan.decode_report import generation_json, print_generation
    from tulu_jax.plan.decoding import compile_engine, plan_engine
    from tulu_jax.plan.topology import find_topology

    model = load_gin_model(args.gin_file, bindings)
    engine = plan_engine(
        model, find_topology(args.topology), tensor=args.tensor, length=args.length,
        dtype=args.dtype, int8=args.quantize == "int8",
    )  # fmt: skip
    console = plain_console()
    with console.status("compiling decoding and the reading of prompts"):
        planned = compile_engine(engine, args.slots)
    print_generation(planned, console)
    if args.json:
        write_json(args.json, generation_json(planned))
    return 0
