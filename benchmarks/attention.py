"""Every attention kernel that these devices run: right on packed rows, and how fast.

    python benchmarks/attention.py --rows 4 --length 2048 --heads 32 --width 128 --dtype bfloat16

Rows hold conversations of random lengths and some padding. `error` is the largest difference from
the dense reference computed in float32, relative to its largest value, of the result and of the
gradients by query, key and value; `leak` is the largest change of the result when every
conversation but the first of each row is drawn anew, on the tokens of the first: 0, or the kernel
looks across conversations. Times are medians; GFLOP/s count the products that causality leaves,
2 forward and 5 backward, whatever conversations hide besides.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tulu_jax.cli.absent_tpu import leave_out_absent_tpu
from tulu_jax.errors import ConfigError
from tulu_jax.ops.attention import KERNELS, attend, choose_kernel

Arrays = tuple[Any, Any, Any]


def main() -> None:
    """Prints one line a kernel; one that cannot run here says why."""
    args = parse_args()
    leave_out_absent_tpu()
    device = jax.devices()[0]
    chosen = choose_kernel("auto", args.dtype)
    print(f"{device.device_kind}, {args}; auto takes {chosen.name}: {chosen.reason}")
    arrays, pull = draw(args, seed=0)
    segments = jnp.asarray(conversations(args))
    float32 = tuple(x.astype(jnp.float32) for x in arrays)
    expected = both_ways("dense")(float32, pull.astype(jnp.float32), segments)
    print(
        f"{'kernel':10} {'error':>8} {'leak':>8} {'forward ms':>11} {'both ms':>8} {'TFLOP/s':>8}"
    )
    for name in args.kernels.split(","):
        try:
            choose_kernel(name, args.dtype)
            print(f"{name:10} {measure(name, args, arrays, pull, segments, expected)}", flush=True)
        except (ConfigError, NotImplementedError, RuntimeError, ValueError) as error:
            print(f"{name:10} {str(error).splitlines()[0][:150]}", flush=True)


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=2)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--kv_heads", type=int, help="default: as many as heads")
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--kernels", default=",".join(KERNELS))
    parser.add_argument("--repeats", type=int, default=10)
    return parser.parse_args()


def conversations(args: argparse.Namespace) -> np.ndarray:
    """Segment ids [rows, length]: five conversations a row, the last twentieth padding."""
    rng = np.random.default_rng(1)
    end = args.length - args.length // 20
    segments = np.zeros((args.rows, args.length), np.int32)
    for row in segments:
        starts = np.sort(rng.choice(np.arange(1, end), 4, replace=False))
        row[:end] = 1 + np.searchsorted(starts, np.arange(end), side="right")
    return segments


def draw(args: argparse.Namespace, *, seed: int) -> tuple[Arrays, Any]:
    """Query, key and value, and what the result is multiplied with for its gradient."""
    rng = np.random.default_rng(seed)

    def normal(heads: int) -> Any:
        shape = (args.rows, args.length, heads, args.width)
        return jnp.asarray(rng.normal(size=shape), args.dtype)

    kv_heads = args.kv_heads or args.heads
    return (normal(args.heads), normal(kv_heads), normal(kv_heads)), normal(args.heads)


def forward(name: str) -> Callable[..., Any]:
    """The jitted kernel on (arrays, segments)."""
    return jax.jit(lambda arrays, segments: attend(*arrays, segments, segments, kernel=name))


def both_ways(name: str) -> Callable[..., Any]:
    """The jitted result, without padding, and gradients of (arrays, pull, segments)."""

    def loss(arrays: Arrays, pull: Any, segments: Any) -> Any:
        real = (segments > 0)[..., None, None]
        mixed = attend(*arrays, segments, segments, kernel=name) * real
        return jnp.sum((mixed * pull).astype(jnp.float32)), mixed

    def run(arrays: Arrays, pull: Any, segments: Any) -> Any:
        (_, mixed), gradients = jax.value_and_grad(loss, has_aux=True)(arrays, pull, segments)
        return mixed, *gradients

    return jax.jit(run)


def measure(
    name: str, args: argparse.Namespace, arrays: Arrays, pull: Any, segments: Any, expected: Any
) -> str:
    """The line of one kernel."""
    train = both_ways(name)
    got = train(arrays, pull, segments)
    error = max(relative(a, b) for a, b in zip(got, expected, strict=True))
    others, _ = draw(args, seed=2)
    first = (segments == 1)[..., None, None]
    changed = tuple(jnp.where(first, a, b) for a, b in zip(arrays, others, strict=True))
    alone = forward(name)
    leak = relative(alone(changed, segments) * first, alone(arrays, segments) * first)
    once = seconds(lambda: alone(arrays, segments), args.repeats)
    both = seconds(lambda: train(arrays, pull, segments), args.repeats)
    product = args.rows * args.heads * args.length**2 * args.width  # half of 2 x T x T x H
    rate = 7 * product / both / 1e9
    return f"{error:8.1e} {leak:8.1e} {once * 1e3:11.2f} {both * 1e3:8.2f} {rate:8,.0f}"


def relative(left: Any, right: Any) -> float:
    """The largest difference, relative to the largest value of `right`."""
    left, right = (np.asarray(x, np.float32) for x in (left, right))
    return float(np.max(np.abs(left - right)) / np.max(np.abs(right)))


def seconds(run: Callable[[], Any], repeats: int) -> float:
    """The median time of a call, after one that does not count."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        jax.block_until_ready(run())
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


if __name__ == "__main__":
    main()
