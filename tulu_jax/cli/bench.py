"""`tulu bench train`: speed and memory of the training step on this machine."""

from __future__ import annotations

import argparse
import dataclasses
import json
from typing import Any

from tulu_jax.cli.flags import LENGTH_MOST, number, path_argument, whole
from tulu_jax.errors import ConfigError
from tulu_jax.fields import between

EXAMPLES = """\
examples:
  tulu bench train --model llama_58m
  tulu bench train --model llama_1b --rows 16 --length 2048 --dtype bfloat16 --remat minimal
  tulu bench train --model llama_7b --rows 4 --remat full --attention auto --json

No data library is needed. MFU counts no recomputation and no padding.
"""


def add_parser(subparsers: Any) -> None:
    """Adds the command to the `tulu` parser."""
    parser = subparsers.add_parser("bench", help="measure speed and memory on this machine")
    kinds = parser.add_subparsers(dest="kind", metavar="WHAT", required=True)
    train = kinds.add_parser(
        "train",
        help="the training step: tokens/s, MFU, memory, compile time",
        description="Times the training step that runs use, on made-up or stored rows.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_arguments(train)
    train.set_defaults(func=run)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `tulu bench train`."""
    add = parser.add_argument
    add("--model", default="llama_58m", help="a file of gin_configs/models, without .gin")
    add("--rows", type=whole(1), default=4, help="rows in a batch (default 4)")
    add("--length", type=whole(2, LENGTH_MOST), default=512, help="tokens in a row (default 512)")
    add("--micro_batches", type=whole(1), default=1, help="parts a batch is cut into")
    add("--dtype", default="float32", help="float32 or bfloat16 compute")
    add("--attention", default="auto", help="attention kernel")
    add("--remat", default="none", help="what the backward pass computes again")
    add("--unroll_layers", type=int, default=1, help="layers traced in a row")
    add("--optimizer", default="adamw", help="adamw or adafactor")
    add("--moment_dtype", default="float32", help="of AdamW's first moment")
    add("--mesh", default="", help="sizes of mesh axes, such as data=2,fsdp=4")
    add("--offload_optimizer", action="store_true", help="moments in the host's memory")
    add("--store", type=path_argument, metavar="DIR", help="take rows from this tokenized store")
    add("--packing", choices=("best_fit", "padded"), help="of the store's rows (default best_fit)")
    add(
        "--loss_share",
        type=number(between(0, 1, "a share")),
        help="of made-up tokens (default 0.5)",
    )
    add("--steps", type=whole(1), default=10, help="steps timed (default 10)")
    add("--warmup", type=whole(0), default=2, help="steps before them (default 2)")
    add("--json", action="store_true", help="print one JSON object and nothing else")


def run(args: argparse.Namespace) -> int:
    """Times steps and prints what was found."""
    _check(args)
    from tulu_jax.cli.gin_config import load_model
    from tulu_jax.models import ComputeConfig
    from tulu_jax.parallel import MeshConfig
    from tulu_jax.train.bench import StepBench, measure
    from tulu_jax.train.config import OptimizerConfig

    model = load_model(args.model)
    compute = ComputeConfig(
        dtype=args.dtype,
        remat=args.remat,
        attention=args.attention,
        unroll_layers=args.unroll_layers,
    )
    bench = StepBench(
        model,
        rows=args.rows,
        length=args.length,
        compute=compute,
        optimizer=OptimizerConfig(
            warmup_ratio=0.0, name=args.optimizer, moment_dtype=args.moment_dtype
        ),
        mesh=dataclasses.replace(
            MeshConfig(offload_optimizer=args.offload_optimizer), **mesh_sizes(args.mesh)
        ),
        micro_batches=args.micro_batches,
    )
    found = measure(bench, make_batches(args, model), steps=args.steps, warmup=args.warmup)
    found = {"model": args.model, "optimizer": args.optimizer, **found}
    print(json.dumps(found) if args.json else _table(found))
    return 0


def _check(args: argparse.Namespace) -> None:
    """Refuses numbers that cannot be, and flags that would change nothing."""
    if args.rows % args.micro_batches:
        raise ConfigError(
            "--micro_batches does not divide the batch",
            got=f"{args.micro_batches} of {args.rows} rows",
            expected="a divisor of --rows",
        )
    flag, rows = ("packing", "made-up") if args.store is None else ("loss_share", "stored")
    if getattr(args, flag) is not None:
        raise ConfigError(
            f"--{flag} has no effect on {rows} rows",
            got=getattr(args, flag),
            expected="--packing with --store, --loss_share without",
            do="leave it out",
        )


def mesh_sizes(text: str) -> dict[str, Any]:
    """`data=2,fsdp=4` as a dict.

    Raises:
      ConfigError: it has another form.
    """
    try:
        pairs = [part.split("=") for part in text.split(",") if part]
        return {name.strip(): int(size) for name, size in pairs}
    except ValueError:
        raise ConfigError("--mesh is not understood", got=text, expected="data=2,fsdp=4") from None


def make_batches(args: argparse.Namespace, model: Any) -> list[Any]:
    """Host batches to step over: one made-up one, or the first of a store."""
    from tulu_jax.train.bench import synthetic_batch

    if args.store is None:
        share = 0.5 if args.loss_share is None else args.loss_share
        return [synthetic_batch(args.rows, args.length, model.vocab_size, loss_share=share)]
    from tulu_jax.data.packing import pack
    from tulu_jax.data.rows import RowSource
    from tulu_jax.data.store import open_store

    store = open_store(args.store)
    source = RowSource([store], pack(store.lengths, args.length, mode=args.packing or "best_fit"))
    count = max(1, min(args.steps, source.num_rows // args.rows))
    return [source.batch(number, args.rows) for number in range(count)]


def _table(found: dict[str, Any]) -> str:
    mesh = ", ".join(f"{name} {size}" for name, size in found["mesh"].items()) or "one device"
    mfu = "not known (faster than the product)" if found["mfu"] is None else f"{found['mfu']:.1%}"
    return f"""\
{found["model"]}: {found["weights"]:,} weights, {found["dtype"]}, {found["optimizer"]}, remat \
{found["remat"]}, on {found["device"]} ({mesh}), jax {found["jax"]}
batch         {found["rows"]} rows of {found["length"]} tokens, {found["padding_share"]:.1%} padding
step          {found["step_s"]:.4f} s (median)
tokens        {found["tokens_per_s"]:,.0f} a second, of which {found["loss_tokens_per_s"]:,.0f} \
carry loss
MFU           {mfu} = {found["mfu_formula"]}
memory        {found["peak_memory_gib"]:.2f} GiB at most (GPU, TPU: the fullest device; CPU: the \
process); {found["step_memory_gib"]:.2f} GiB in a step by XLA's account
compilation   {found["compile_s"]:.1f} s"""
