"""Generation beside transformers on the same weights, prompts and greedy tokens.

Each engine lives in a process of its own and answers all prompts when told to, in turn with the
others; the medians of the ratios count. Prompts have no end token, so each gets exactly the number
of new tokens that was drawn for it. Ours runs with the allocator settings of `tulu` on CPU.

    python benchmarks/generate.py --shape 58m --case unrelated --rounds 3
    python benchmarks/generate.py --shape 58m --case shared

Cases: `unrelated` has prompts of 16 to 1,024 tokens; `shared` a beginning of 1,000 tokens and
questions of 20 to 150. transformers sorts prompts by length and pads on the left; it is tried with
every batch size first and keeps its best. `--bound` adds the machine's own limit: prompt FLOPs (2 a
weight of the layers and token) at the rate of such products, plus bytes of decoding (weights once a
step, every row's cache once) at the measured bandwidth.
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
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

SHAPES = {
    "58m": {"d_model": 512, "d_ff": 1376, "num_layers": 8, "num_heads": 8, "head_dim": 64},
    "15m": {"d_model": 288, "d_ff": 768, "num_layers": 6, "num_heads": 6, "head_dim": 48},
}
VOCAB, MAX_LENGTH = 32_000, 2_048
BATCH_SIZES = (8, 16, 32, 64)

Answer = Callable[[], list[list[int]]]


def config_of(shape: str) -> Any:
    """The model's config."""
    from tulu_jax.models import LlamaConfig

    sizes = SHAPES[shape]
    return LlamaConfig(
        vocab_size=VOCAB,
        num_kv_heads=sizes["num_heads"],
        max_length=MAX_LENGTH,
        norm_eps=1e-5,
        **sizes,
    )


def draw_work(case: str, count: int) -> dict[str, Any]:
    """Prompts, and how many tokens each is to be continued by."""
    rng = np.random.default_rng(0)

    def tokens(size: int) -> list[int]:
        return rng.integers(3, VOCAB, size).tolist()

    if case == "shared":
        beginning = tokens(1000)
        prompts = [beginning + tokens(int(size)) for size in rng.integers(20, 151, count)]
    else:
        prompts = [tokens(int(size)) for size in rng.integers(16, 1025, count)]
    return {"prompts": prompts, "new": rng.integers(8, 129, count).tolist()}


def ours(folder: Path, work: dict[str, Any], slots: int) -> Answer:
    """Our engine."""
    from tulu_jax.checkpoint import hf
    from tulu_jax.cli.allocator import reuse_freed_memory
    from tulu_jax.generate import Engine, Request

    reuse_freed_memory()
    config, params = hf.load(folder)
    longest = max(len(p) + n for p, n in zip(work["prompts"], work["new"], strict=True))
    engine = Engine(
        config, params, slots=slots, stop_ids=[], max_length=min(-(-longest // 256) * 256, 2048)
    )
    requests = [
        Request(np.asarray(prompt), new)
        for prompt, new in zip(work["prompts"], work["new"], strict=True)
    ]

    def run() -> list[list[int]]:
        engine._table.forget()  # every run reads every prompt anew
        start = engine.stats.read_seconds, engine.stats.decode_seconds
        found = [answer.tokens for answer in engine.run(requests)]
        read, decode = engine.stats.read_seconds - start[0], engine.stats.decode_seconds - start[1]
        print(f"ours: {read:.1f} s reading, {decode:.1f} s decoding", file=sys.stderr)
        return found

    return run


def with_transformers(folder: Path, work: dict[str, Any], batch_size: int) -> Answer:
    """transformers' `generate` in batches of prompts of like length."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(os.cpu_count() or 1)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model.generation_config.eos_token_id = None
    prompts, new = work["prompts"], work["new"]
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))

    def run() -> list[list[int]]:
        found: list[list[int]] = [[] for _ in prompts]
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            width = max(len(prompts[i]) for i in chosen)
            pad = [[0] * (width - len(prompts[i])) for i in chosen]
            rows = [zeros + prompts[i] for zeros, i in zip(pad, chosen, strict=True)]
            mask = [[0] * len(z) + [1] * (width - len(z)) for z in pad]
            made = model.generate(
                torch.tensor(rows),
                attention_mask=torch.tensor(mask),
                max_new_tokens=max(new[i] for i in chosen),
                do_sample=False,
                pad_token_id=0,
            )
            for i, row in zip(chosen, made[:, width:].tolist(), strict=True):
                found[i] = row[: new[i]]
        return found

    return run


def work_when_told(name: str, size: int, folder: Path) -> None:
    """Answers all prompts once for every line on standard input."""
    work = json.loads((folder / "work.json").read_text())
    run = (ours if name == "ours" else with_transformers)(folder / "weights", work, size)
    if name == "ours":
        run()  # compiles
    print("{}", flush=True)
    for _ in sys.stdin:
        begin = time.perf_counter()
        tokens = run()
        seconds = time.perf_counter() - begin
        print(json.dumps({"tokens": tokens, "seconds": seconds}), flush=True)


class Worker:
    """An engine in a process of its own."""

    def __init__(self, name: str, size: int, folder: Path, script: str = __file__) -> None:
        """Starts `script` as a worker and waits until it is ready."""
        from tulu_jax.cli.allocator import SETTINGS, VARIABLE

        settings = {VARIABLE: SETTINGS} if name == "ours" else {}
        self._process = subprocess.Popen(
            [sys.executable, script, "--worker", name, "--size", str(size),
             "--folder", str(folder)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "JAX_PLATFORMS": os.environ.get("JAX_PLATFORMS", "cpu"), **settings},
        )  # fmt: skip
        self.name, self.size = name, size
        self._answer()

    def run(self) -> dict[str, Any]:
        """All answers once."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """Ends the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} ended without an answer")
        return json.loads(line)


def write_weights(folder: Path, shape: str) -> None:
    """Random weights as a Hugging Face folder."""
    import jax

    from tulu_jax.checkpoint import hf
    from tulu_jax.models import init_params

    config = config_of(shape)
    params = jax.jit(init_params, static_argnums=0)(config, jax.random.key(0))
    hf.save(folder, config, jax.device_get(params))


def bound_seconds(shape: str, work: dict[str, Any], slots: int) -> float:
    """The least time of the work on this machine, see the top of the file."""
    import jax
    import jax.numpy as jnp

    config = config_of(shape)
    layers = config.num_matmul_params - config.num_head_params
    d, f = config.d_model, config.d_ff

    def best(run: Callable[[], Any], times: int = 15) -> float:
        jax.block_until_ready(run())
        found = []
        for _ in range(times):
            begin = time.perf_counter()
            jax.block_until_ready(run())
            found.append(time.perf_counter() - begin)
        return min(found)

    x, weight = jnp.ones((512, d)), jnp.ones((d, f))
    product = jax.jit(lambda x, weight: x @ weight)
    rate = 2 * 512 * d * f / best(lambda: product(x, weight))
    big = [jnp.ones((64, 2**20))]
    double = jax.jit(lambda x: x * 2, donate_argnums=0)  # in place: new memory costs page faults
    bandwidth = 2 * big[0].size * 4 / best(lambda: big.append(double(big.pop())) or big)
    read = sum(len(prompt) - 1 for prompt in unique_tokens(work["prompts"]))
    steps = sum(work["new"]) / slots
    row = 2 * config.num_layers * config.num_kv_heads * config.head_dim * 4
    cached = sum(
        new * (len(prompt) + new / 2)
        for prompt, new in zip(work["prompts"], work["new"], strict=True)
    )
    moved = steps * config.num_matmul_params * 4 + cached * row
    print(f"machine: {rate / 1e9:.0f} GFLOP/s, {bandwidth / 1e9:.1f} GB/s")
    return 2 * layers * read / rate + moved / bandwidth


def unique_tokens(prompts: list[list[int]]) -> list[list[int]]:
    """The prompts without the beginning that they share, but for the first."""
    shared = next(
        (at for at, column in enumerate(zip(*prompts, strict=False)) if len(set(column)) > 1), 0
    )
    return [prompts[0], *(prompt[shared:] for prompt in prompts[1:])]


def main() -> None:
    """Runs the comparison and prints it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", choices=SHAPES, default="58m")
    parser.add_argument("--case", choices=("unrelated", "shared"), default="unrelated")
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--slots", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch_sizes", type=int, nargs="+", default=BATCH_SIZES)
    parser.add_argument("--bound", action="store_true")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--size", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        return work_when_told(args.worker, args.size, args.folder)
    with tempfile.TemporaryDirectory() as name:
        compare(args, Path(name))
    return None


def compare(args: argparse.Namespace, folder: Path) -> None:
    """Ours and transformers at its best batch size, in turn."""
    work = draw_work(args.case, args.prompts)
    (folder / "work.json").write_text(json.dumps(work))
    write_weights(folder / "weights", args.shape)
    found = []
    for size in args.batch_sizes:
        worker = Worker("transformers", size, folder)
        found.append((worker.run()["seconds"], size))
        print(f"transformers, batches of {size}: {found[-1][0]:.1f} s", flush=True)
        worker.close()
    best = min(found)[1]
    workers = [Worker("ours", args.slots, folder), Worker("transformers", best, folder)]
    ratios, seconds = [], []
    for number in range(args.rounds):
        answers = [worker.run() for worker in workers]
        if number == 0:
            same = sum(a == b for a, b in zip(*(one["tokens"] for one in answers), strict=True))
            print(f"equal answers: {same} of {args.prompts}")
        mine, theirs = (one["seconds"] for one in answers)
        ratios.append(theirs / mine)
        seconds.append((mine, theirs))
        print(f"ours {mine:.1f} s, transformers {theirs:.1f} s: {ratios[-1]:.2f}", flush=True)
    for worker in workers:
        worker.close()
    total = sum(work["new"])
    mine, theirs = (statistics.median(column) for column in zip(*seconds, strict=True))
    print(
        f"{args.shape} {args.case}: ours {total / mine:.0f} new tokens/s, transformers "
        f"{total / theirs:.0f} (batches of {best}); median ratio {statistics.median(ratios):.2f}"
    )
    if args.bound:
        least = bound_seconds(args.shape, work, args.slots)
        print(f"bound of the machine {least:.1f} s: ours takes {mine / least:.2f} times that")


if __name__ == "__main__":
    main()
