"""The share of wall time that a training run spends in steps, and what the rest goes into.

    python benchmarks/goodput.py                    # ten minutes, a checkpoint every minute
    python benchmarks/goodput.py --minutes 2 --checkpoint_s 20
    python benchmarks/goodput.py --host             # host overhead per step, a minute

Trains `--model` on made-up conversations on this machine through `tulu_jax.train.loop`, as `tulu
train` does, in a process of its own; start-up is counted from the start of that process. The number
of steps, and of steps between checkpoints, follow from a first short run.

With `--host` the model is a toy whose step multiplies matrices for about `--step_ms` on one core,
so that the host has another to itself, as beside a TPU or GPU. The bare step, called again and
again, and the loop are measured in turns; on a machine whose speed drifts their difference is noise
of some percent. So it is also counted how often the device had run dry when the loop called the
next step: if never, it has not waited for the host at all.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parent.parent), str(Path(__file__).parent.parent / "tests")]

import numpy as np  # noqa: E402

from tulu_jax.cli.absent_tpu import leave_out_absent_tpu  # noqa: E402
from tulu_jax.cli.allocator import keep_memory  # noqa: E402
from tulu_jax.places import as_place  # noqa: E402

BEGAN = time.perf_counter()
ROUNDS = 5
SETTLING = 5
"""First steps of a round, which are left out."""
CALIBRATION = 10_000
"""Matrix products."""


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

    from tulu_jax.cli.gin_config import load_model
    from tulu_jax.data.config import DataConfig
    from tulu_jax.data.store import write_store
    from tulu_jax.models import ComputeConfig
    from tulu_jax.train import loop, setup
    from tulu_jax.train.config import TrainConfig

    model, folder = load_model(args.model), args.folder
    store = folder / "store"
    if not store.exists():
        examples = conversations(args.length, model.vocab_size)
        write_store(store, examples, meta=small.META | {"vocab_size": model.vocab_size})
    small.TOKENIZER.vocab_size = model.vocab_size
    setup.open_training_data, setup.check_before_data = small.training_data, small.model_of
    config = TrainConfig(
        model_dir=str(as_place(args.model_dirs or folder) / args.run),
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
    if args.host:
        host(args, config)
    else:
        loop.train(config, spent_s=time.perf_counter() - BEGAN)


def host(args: argparse.Namespace, config: Any) -> None:
    """The bare step and the loop in turns; prints what the loop adds, and the host's own time."""
    from rich.console import Console
    from train import toy

    from tulu_jax.train import loop, run, setup

    toy.install(loop, setup)
    work = matrix_work(args.step_ms / 1000)
    steps: list[Step] = []
    bare: list[float] = []

    def make_step(plan: Any, traced: Any = None) -> Any:
        steps.append(Step(toy, plan.layout, work))
        bare.append(steps[-1].alone(args.steps, (args.rows, args.length)))
        return steps[-1]

    run.RunPlan.step = make_step
    for number in range(ROUNDS):
        folder = f"{config.model_dir}{number}"
        loop.train(dataclasses.replace(config, model_dir=folder), console=Console(quiet=True))
        found = np.diff([wall for wall, _ in steps[-1].stamps])[SETTLING:]
        print(f"round {number + 1}: bare {1000 * bare[-1]:.2f} ms, "
              f"loop {1000 * np.median(found):.2f} ms", flush=True)  # fmt: skip
    each = np.asarray([np.diff(step.stamps, axis=0)[SETTLING:].mean(axis=0) for step in steps])
    thread = each[:, 1].mean()
    medians = [np.median(np.diff([one[0] for one in s.stamps])[SETTLING:]) for s in steps]
    alone, added = statistics.median(bare), np.asarray(medians) - bare
    print(
        f"{ROUNDS} rounds of {args.steps} steps: bare {1000 * alone:.2f} ms; the loop adds "
        f"{1000 * statistics.median(added):+.2f} ms, {statistics.median(added) / alone:+.2%} "
        f"({', '.join(f'{one / alone:+.2%}' for one in added)})\n"
        f"the device had run dry before {sum(step.dry for step in steps)} of "
        f"{ROUNDS * (args.steps - SETTLING)} steps; "
        f"the host's thread works {1000 * thread:.2f} ms a step, log lines included"
    )


class Step:
    """The toy's step with other work beside it; notes the time whenever it is called."""

    def __init__(self, toy: Any, layout: Any, work: Any) -> None:
        """Compiles nothing yet."""
        import jax

        inner = toy.make_step(layout)
        self._state = lambda: toy.create_state(layout)
        self._rows = layout.rows
        self.stamps: list[tuple[float, float]] = []
        self.dry = 0
        """Calls before which the device had nothing to do."""
        shardings = jax.tree.map(lambda x: x.sharding, toy.abstract_state(layout))

        def step(state: Any, batch: Any) -> Any:
            new, metrics = inner(state, batch)
            return new, {**metrics, "grad_norm": work(new.step)}

        self._jitted = jax.jit(
            step, in_shardings=(shardings, self._rows), donate_argnums=0,
            out_shardings=(shardings, layout.replicated),
        )  # fmt: skip

    def __call__(self, state: Any, batch: Any) -> Any:
        """A step of the loop."""
        self.stamps.append((time.perf_counter(), time.thread_time()))
        self.dry += len(self.stamps) > SETTLING and state.step.is_ready()
        return self._jitted(state, batch)

    def alone(self, count: int, shape: tuple[int, int]) -> float:
        """Seconds of a median step if the host does nothing but call it, two steps ahead."""
        import jax

        from tulu_jax.axes import BATCH_KEYS
        from tulu_jax.train.flight import AHEAD

        state, waiting, ends = self._state(), [], []
        batch = jax.device_put(dict.fromkeys(BATCH_KEYS, np.ones(shape, np.int32)), self._rows)
        for _ in range(count):
            state, metrics = self._jitted(state, batch)
            waiting.append(metrics)
            if len(waiting) > AHEAD:
                jax.block_until_ready(waiting.pop(0))
                ends.append(time.perf_counter())
        jax.block_until_ready(state)
        return float(np.median(np.diff(ends)[SETTLING:]))


def matrix_work(seconds: float) -> Any:
    """A function of a whole number that multiplies matrices on one core for about so long."""
    import jax
    import jax.numpy as jnp

    matrix = jnp.full((64, 64), 1 / 64)  # Larger products are spread over cores.

    def work(times: Any, seed: Any) -> Any:
        start = matrix + seed.astype(jnp.float32)
        return jax.lax.fori_loop(0, times, lambda _, x: x @ matrix, start)[0, 0]

    jitted, seed = jax.jit(work, static_argnums=0), jnp.int32(0)
    jitted(CALIBRATION, seed).block_until_ready()
    took = []
    for _ in range(5):
        began = time.perf_counter()
        jitted(CALIBRATION, seed).block_until_ready()
        took.append(time.perf_counter() - began)
    return partial(work, round(CALIBRATION * seconds / statistics.median(took)))


def run(args: argparse.Namespace, name: str, steps: int, period: int) -> dict[str, Any]:
    """The last line of metrics of a run in a process of its own; nothing with `--host`."""
    hidden = ["--worker", "--folder", str(args.folder), "--run", name, "--steps", str(steps),
             "--period", str(period), "--model", args.model, "--rows", str(args.rows),
             "--length", str(args.length), "--step_ms", str(args.step_ms),
              "--model_dirs", args.model_dirs]  # fmt: skip
    command = [sys.executable, __file__, *hidden, *(["--host"] if args.host else [])]
    shown = None if args.verbose or args.host else subprocess.DEVNULL
    subprocess.run(command, check=True, stdout=shown, env=os.environ | {"XLA_FLAGS": ""})
    if args.host:
        return {}
    runs = as_place(args.model_dirs or args.folder)
    lines = (runs / name / "metrics.jsonl").read_text().splitlines()
    return json.loads(lines[-1])


def main() -> None:
    """Plans the run from a short one, runs it, prints where the time went."""
    leave_out_absent_tpu()
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
    add("--model_dirs", default="", help="where run folders are made, also gs://bucket/folder")
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
            run(args, "host", round(30_000 * min(args.minutes, 1) / args.step_ms / ROUNDS), 10**9)
            return
        short = run(args, "short", 12, 1000)
        step_s = short["step_times"]["median"]
        period = max(1, round(args.checkpoint_s / step_s))
        found = run(args, "long", max(13, round(60 * args.minutes / step_s)), period)
        print(json.dumps(found["seconds"], indent=1))
        from tulu_jax.train.goodput import goodput_sentence

        print(goodput_sentence(found["seconds"]))


if __name__ == "__main__":
    main()
