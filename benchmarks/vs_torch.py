"""Our training step beside transformers + torch: the same model, weights and tokens, in one run.

    python benchmarks/vs_torch.py [--rounds 9] [--trainers ours torch torch.compile]
    python benchmarks/vs_torch.py --model llama_1b --rows 8 --length 2048 --dtype bfloat16
    python benchmarks/vs_torch.py --real SHARED [--rounds 30]

Without `--real` the work is one AdamW step on rows of random tokens of which half carry loss: by
default of a 58,073,600-weight LLaMA on 4 rows of 512, in float32. With it, the work is real
conversations (256 of Alpaca, 64 of ShareGPT, cut at `--length`): ours packed into rows, torch's in
batches of `--rows` padded to the longest, as transformers' Trainer makes them; what counts is loss
tokens a second.

Each trainer lives in its own process and steps when told to, in turn, so that never two run at
once; ratios are taken within a round (`--real`: over all rounds) and their median is reported. Ours
has on CPU the allocator settings with which `tulu train` starts itself. Run it with nothing else on
the machine: one busy thread changes the order of peers. A trainer that cannot start (flash
attention not installed, say) is reported and left out.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

sys.path[:0] = [str(Path(__file__).parent.parent), str(Path(__file__).parent)]

from bare import stand_in_for_jaxtyping  # noqa: E402

stand_in_for_jaxtyping()

from trainers import (  # noqa: E402
    OURS,
    TRAINERS,
    Work,
    Worker,
    work_when_told,
    write_batches,
    write_weights,
)

from tulu_jax.cli.absent_tpu import leave_out_absent_tpu  # noqa: E402
from tulu_jax.cli.gin_config import load_model  # noqa: E402

PAUSE_S = 0.5
"""Between steps, so that the threads of the trainer before have gone to sleep."""


def random_batches(args: argparse.Namespace) -> list[dict[str, np.ndarray]]:
    """One batch of random tokens."""
    from tulu_jax.train.bench import synthetic_batch

    return [synthetic_batch(args.rows, args.length, load_model(args.model).vocab_size)]


def real_examples(shared: Path, length: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """(tokens, loss mask) of 256 Alpaca and 64 ShareGPT conversations, in a shuffled order."""
    from tasks import read_conversations
    from tulu_jax.chat import encode, load_tokenizer

    tokenizer = load_tokenizer(shared / "tokenizers" / "llama")
    found = []
    for name, folder, count in (
        ("stanford_alpaca", "stanford_alpaca", 256),
        ("sharegpt", "sharegpt", 64),
    ):
        rows = read_conversations(name, shared / "data" / "raw" / folder, tokenizer=tokenizer)
        for conversation in itertools.islice(rows, count):
            encoded = encode(conversation["messages"], tokenizer, max_length=length)
            if encoded.loss_mask.any():
                found.append((encoded.tokens, encoded.loss_mask))
    order = np.random.default_rng(0).permutation(len(found))
    return [found[i] for i in order]


def packed_batches(
    examples: list[tuple[np.ndarray, np.ndarray]], rows: int, length: int
) -> list[dict[str, np.ndarray]]:
    """The examples packed into full batches of rows; rows are shuffled."""
    from tulu_jax.data.packing import pack

    plan = pack(np.array([len(tokens) for tokens, _ in examples]), length)
    order = np.random.default_rng(1).permutation(plan.num_rows)
    numbers = [order[i : i + rows] for i in range(0, plan.num_rows - rows + 1, rows)]
    return [
        laid_out([[examples[e] for e in plan.row(int(n))] for n in batch], length)
        for batch in numbers
    ]


def padded_batches(
    examples: list[tuple[np.ndarray, np.ndarray]], rows: int
) -> list[dict[str, np.ndarray]]:
    """Batches of `rows` examples, each padded to its longest."""
    groups = [examples[i : i + rows] for i in range(0, len(examples) - rows + 1, rows)]
    return [laid_out([[e] for e in group], max(len(e[0]) for e in group)) for group in groups]


def laid_out(rows: list[list[tuple[np.ndarray, np.ndarray]]], length: int) -> dict[str, np.ndarray]:
    """Rows that hold these examples one after the other."""
    names = ("tokens", "loss_mask", "segment_ids", "positions")
    batch = {name: np.zeros((len(rows), length), np.int32) for name in names}
    for number, row in enumerate(rows):
        start = 0
        for segment, (tokens, mask) in enumerate(row, start=1):
            place = (number, slice(start, start + len(tokens)))
            batch["tokens"][place], batch["loss_mask"][place] = tokens, mask
            batch["segment_ids"][place] = segment
            batch["positions"][place] = np.arange(len(tokens))
            start += len(tokens)
    return batch


def report(workers: list[Worker], warmup: int, *, real: bool) -> Iterator[str]:
    """The table of medians, and ratios to the trainer named `torch`, or else the last one."""
    peer = next((w for w in workers if w.name == "torch"), workers[-1])
    yield "| trainer | s/step | tokens/s | loss tokens/s | padding | ratio to torch | start s | peak MiB |"  # noqa: E501
    yield "|---|---|---|---|---|---|---|---|"
    for worker in workers:
        steps, others = worker.steps[warmup:], peer.steps[warmup:]
        seconds = sum(step["step_s"] for step in steps)
        rates = {n: sum(s[n] for s in steps) / seconds for n in ("tokens", "loss_tokens")}
        padding = 1 - sum(s["tokens"] for s in steps) / sum(s["positions"] for s in steps)
        if real:
            spent = sum(step["step_s"] for step in others)
            ratio = rates["loss_tokens"] / (sum(step["loss_tokens"] for step in others) / spent)
        else:
            pairs = zip(steps, others, strict=True)
            ratio = statistics.median(b["step_s"] / a["step_s"] for a, b in pairs)
        median = statistics.median(step["step_s"] for step in steps)
        if not real:
            rates = {n: statistics.median(s[n] / s["step_s"] for s in steps) for n in rates}
        yield (
            f"| {worker.name} | {median:.3f} | {rates['tokens']:,.0f} | "
            f"{rates['loss_tokens']:,.0f} | {padding:.1%} | {ratio:.2f} | "
            f"{worker.first['start_s']:.1f} | {steps[-1]['memory_mib']:,.0f} |"
        )


def device_name() -> tuple[str, str]:
    """Where torch works (`cuda` or `cpu`), and the machine in words."""
    import torch

    if torch.cuda.is_available():
        return "cuda", torch.cuda.get_device_name()
    return "cpu", f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"


def start(names: list[str], folder: Path, platforms: str) -> list[Worker]:
    """The trainers that can run here; `platforms` are those of JAX."""
    workers = []
    for name in names:
        try:
            workers.append(Worker(name, folder, platforms))
        except RuntimeError as error:
            print(f"left out: {error}", flush=True)
    return workers


def parse() -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--model", default="llama_58m", help="a file of gin_configs/models, without .gin")
    add("--rows", type=int, default=4)
    add("--length", type=int, default=512)
    add("--dtype", default="float32", choices=("float32", "bfloat16"))
    add("--remat", default="none", help="ours; any but none turns on torch's checkpointing")
    add("--attention", default="auto", help="kernel of ours")
    add("--scan", action="store_true", help="do not unroll our layers: compiles faster")
    add("--real", type=Path, metavar="SHARED", help="folder of real data and tokenizers")
    add("--trainers", nargs="+", choices=TRAINERS, default=["ours", "torch", "torch.compile"])
    add("--rounds", type=int, default=9, help="steps of each trainer, in turn")
    add("--warmup", type=int, default=2, help="first rounds not counted")
    add("--worker", choices=TRAINERS, help=argparse.SUPPRESS)
    add("--folder", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def prepare(args: argparse.Namespace, folder: Path, device: str) -> None:
    """Writes what the trainers read: the work, the batches, the weights."""
    work = Work(
        args.model, args.dtype, args.remat, args.attention, unroll=not args.scan, device=device
    )
    (folder / "work.json").write_text(json.dumps(dataclasses.asdict(work)))
    if args.real:
        examples = real_examples(args.real, args.length)
        largest = max(int(tokens.max()) for tokens, _ in examples)
        if largest >= load_model(args.model).vocab_size:
            raise SystemExit(f"{args.model} has too few tokens for the data: {largest}")
        write_batches(folder, OURS, packed_batches(examples, args.rows, args.length))
        write_batches(folder, "torch", padded_batches(examples, args.rows))
    else:
        for who in (OURS, "torch"):
            write_batches(folder, who, random_batches(args))
    write_weights(folder / "weights", work)


def main() -> None:
    """As a controller runs the rounds, as a worker steps."""
    args = parse()
    leave_out_absent_tpu()
    if args.worker:
        work_when_told(args.worker, args.folder)
        return
    device, machine = device_name()
    given = os.environ.get("JAX_PLATFORMS", "cpu" if device == "cpu" else "")
    os.environ["JAX_PLATFORMS"] = "cpu"  # of this process, which must leave accelerators alone
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(args, folder, device)
        workers = start(args.trainers, folder, given)
        losses = [worker.first["loss"] for worker in workers]
        limit = 1e-4 if args.dtype == "float32" else 1e-2
        if not args.real and np.ptp(losses) > limit * losses[0]:
            raise SystemExit(f"not the same work: first losses {losses}")
        for number in range(args.rounds):
            for worker in workers:
                time.sleep(PAUSE_S)
                worker.step(number)
        print(f"{machine}; {args.model}, {args.dtype}, {args.rows} rows of {args.length}")
        for line in report(workers, args.warmup, real=bool(args.real)):
            print(line)
        print("last losses:", [round(w.steps[-1]["loss"], 4) for w in workers])
        for worker in workers:
            worker.close()


if __name__ == "__main__":
    main()
