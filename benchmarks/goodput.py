"""The share of wall time that a training run spends in steps, and what the rest goes into.

    python benchmarks/goodput.py                    # ten minutes, a checkpoint every minute
    python benchmarks/goodput.py --minutes 2 --checkpoint_s 20
    python benchmarks/goodput.py --host             # host overhead per step, a minute

Trains `--model` on made-up conversations on this machine through `tulu_jax.train.loop`, as `tulu
train` does, in a process of its own; start-up is counted from the start of that process. The number
of steps, and of steps between checkpoints, follow from a first short run. With `--host` the model
is a toy whose step multiplies matrices for about `--step_ms`: what the median step takes longer
than the same work alone (printed as BARE) is the host's work which the devices waited for.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parent.parent), str(Path(__file__).parent.parent / "tests")]

import numpy as np  # noqa: E402

from tulu_jax.cli.allocator import keep_memory  # noqa: E402

BEGAN = time.perf_counter()


def conversations(length: int, vocab_size: int, count: int = 2000) -> list[Any]:
    """BOS, a prompt, an answer that carries loss and ends in EOS."""
    from tulu_jax.data.store import Example

    rng = np.random.default_rng(0)
    found = []
    for number in range(count):
        prompt, answer = rng.integers(8, length // 4), rng.integers(8, length // 2)
        middle = rng.integers(3, vocab_size, prompt + answer)
        tokens = np.concatenate([[1], middle, [2]]).astype(np.int32)
        found.append(Example(f"c{number}", tokens, np.arange(len(tokens)) > prompt))
    return found


def train(args: argparse.Namespace) -> None:
    """One run in this process."""
    from train import small

    from tulu_jax.cli.bench import preset
    from tulu_jax.data.config import DataConfig
    from tulu_jax.data.store import write_store
    from tulu_jax.models import ComputeConfig
    from tulu_jax.train import loop, setup
    from tulu_jax.train.config import TrainConfig

    model, folder = preset(args.model), args.folder
    store = folder / "store"
    if not store.exists():
        examples = conversations(args.length, model.vocab_size)
        write_store(store, examples, meta=small.META | {"vocab_size": model.vocab_size})
    small.TOKENIZER.vocab_size = model.vocab_size
    setup.open_training_data = small.training_data
    if args.host:
        pretend(loop, setup, args.step_ms / 1000)
    config = TrainConfig(
        model_dir=str(folder / args.run),
        data=DataConfig(
            mixture="tulu_small", tokenizer="made-up", length=args.length, batch_size=args.rows,
            data_dir=str(store),
        ),
        model=model,
        compute=ComputeConfig(remat="none", unroll_layers=model.num_layers),
        train_steps=args.steps,
        eval_period=0,
        checkpoint_period=args.period,
    )  # fmt: skip
    loop.train(config, spent_s=time.perf_counter() - BEGAN)


def pretend(loop: Any, setup: Any, seconds: float) -> None:
    """Puts a step in the model's place that sleeps on the device's thread."""
    import jax
    import jax.numpy as jnp
    from train import toy

    toy.install(loop, setup)
    make = toy.make_steps

    matrix = jnp.full((256, 256), 1 / 256)

    def work(times: int) -> Any:
        return jax.lax.fori_loop(0, times, lambda _, x: x @ matrix, matrix)[0, 0]

    jitted_work = jax.jit(work)
    jitted_work(10).block_until_ready()
    began = time.perf_counter()
    jitted_work(2000).block_until_ready()
    times = round(2000 * seconds / (time.perf_counter() - began))
    bare = []
    for _ in range(50):
        began = time.perf_counter()
        jitted_work(times).block_until_ready()
        bare.append(time.perf_counter() - began)
    print("BARE", statistics.median(bare), flush=True)

    def make_steps(run: Any) -> Any:
        inner, none = make(run)
        shardings = jax.tree.map(lambda x: x.sharding, toy.abstract_state(None, None, run.layout))

        def step(state: Any, batch: Any) -> Any:
            state, metrics = inner(state, batch)
            return state, {**metrics, "grad_norm": work(times)}

        whole = run.layout.replicated
        inputs = (shardings, run.layout.rows)
        jitted = jax.jit(
            step, in_shardings=inputs, out_shardings=(shardings, whole), donate_argnums=0
        )
        return jitted, none

    loop.make_steps = make_steps


def run(args: argparse.Namespace, name: str, steps: int, period: int) -> dict[str, Any]:
    """The last line of metrics of a run in a process of its own."""
    flags = ["--worker", "--folder", str(args.folder), "--run", name, "--steps", str(steps),
             "--period", str(period), "--model", args.model, "--rows", str(args.rows),
             "--length", str(args.length), "--step_ms", str(args.step_ms)]  # fmt: skip
    command = [sys.executable, __file__, *flags, *(["--host"] if args.host else [])]
    shown = None if args.verbose or args.host else subprocess.DEVNULL
    subprocess.run(command, check=True, stdout=shown, env=os.environ | {"XLA_FLAGS": ""})
    lines = (args.folder / name / "metrics.jsonl").read_text().splitlines()
    return json.loads(lines[-1])


def main() -> None:
    """Plans the run from a short one, runs it, prints where the time went."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--minutes", type=float, default=10.0)
    add("--checkpoint_s", type=float, default=60.0, help="seconds between checkpoints")
    add("--model", default="llama_tiny")
    add("--rows", type=int, default=8)
    add("--length", type=int, default=128)
    add("--host", action="store_true", help="measure the host's work beside a step of --step_ms")
    add("--step_ms", type=float, default=100.0)
    add("--verbose", action="store_true", help="show what the runs print")
    for hidden in ("--folder", "--run", "--steps", "--period"):
        kind = {"--folder": Path, "--run": str}.get(hidden, int)
        add(hidden, type=kind, help=argparse.SUPPRESS)
    add("--worker", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        keep_memory()
        train(args)
        return
    with tempfile.TemporaryDirectory() as folder:
        args.folder = Path(folder)
        if args.host:
            host(args)
            return
        short = run(args, "short", 12, 1000)
        step_s = short["step_times"]["median"]
        period = max(1, round(args.checkpoint_s / step_s))
        found = run(args, "long", max(13, round(60 * args.minutes / step_s)), period)
        print(json.dumps(found["seconds"], indent=1))
        from tulu_jax.train.goodput import goodput_sentence

        print(goodput_sentence(found["seconds"]))


def host(args: argparse.Namespace) -> None:
    """Prints what the host adds to a step."""
    milliseconds = 60_000 * min(args.minutes, 1)
    found = run(args, "host", max(20, round(milliseconds / args.step_ms)), 10**9)
    times = found["step_times"]
    print(f"{times['steps']} steps: median {1000 * times['median']:.2f} ms, 99 % within "
          f"{1000 * times['p99']:.2f} ms; compare with BARE (seconds)")  # fmt: skip


if __name__ == "__main__":
    main()
