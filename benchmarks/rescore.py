"""Seconds that `tulu eval score` needs for the outputs of whole benchmarks.

    python benchmarks/rescore.py DATA [--scale 1.0] [--rounds 3]

DATA is the folder of evaluation data. Of all 14,042 questions of MMLU, 6,511 of BBH and 1,319 of
GSM8K, with their shots, results are made as `tulu eval` writes them: probabilities of the letters,
and outputs of up to 512 words that end in an answer. They are then graded again as the command
does, in a process of its own: reading, grading, standard errors, guards, and writing all files.
"""

from __future__ import annotations

import argparse
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from eval.harness.asks import Answer, Instance
from eval.harness.context import Context
from eval.harness.fingerprint import data_sha256
from eval.harness.quirks import Quirks
from eval.harness.registry import find_task
from eval.harness.runner import Task, grade, load_task, rows_of, write_result

SETTINGS = {
    "mmlu_5shot": {},
    "bbh_cot": {"max_num_examples_per_task": None},
    "gsm_cot_full": {},
}
WORDS = (
    *("the", "so", "then", "we", "have", "of", "and", "that", "is", "number", "first", "answer"),
    *("each", "both", "3", "12", "7", "(A)", "not"),
)


def answered(instance: Instance, rng: random.Random) -> Answer:
    """A made answer, right one time in two."""
    if "options" in instance.data:
        return Answer(prompt_tokens=600, logprobs=tuple(-rng.expovariate(0.5) for _ in "ABCD"))
    said = " ".join(rng.choices(WORDS, k=rng.randint(5, 512)))
    gold = str(instance.gold) if rng.random() < 0.5 else "4"
    return Answer(f" {said}. So the answer is {gold}.", "stop", 900, 200)


def make(data: Path, folder: Path, scale: float) -> int:
    """Writes the results; how many instances."""
    rng, count = random.Random(0), 0
    for name, changes in SETTINGS.items():
        benchmark, options = find_task(name)
        options = type(options)(**{**vars(options), **changes})
        context = Context(data / benchmark.data, options, Quirks(benchmark.quirks, "fixed"))
        task = load_task(name, benchmark, context)
        kept = task.instances[: round(scale * len(task.instances))]
        task = Task(name, benchmark, context, kept, [])
        result = grade(name, benchmark, context, rows_of(task, [answered(i, rng) for i in kept]))
        result.run.update(
            model={"name": "made", "path": "made"},
            compat="fixed",
            data=str(context.data_dir),
            data_sha256=data_sha256(context.data_dir),
        )
        write_result(result, benchmark, context, folder / name)
        print(f"{name}: {len(kept):,} instances")
        count += len(kept)
    return count


def main() -> None:
    """Prints the seconds of each round, of the whole command."""
    parser = argparse.ArgumentParser(description="The speed of tulu eval score.")
    parser.add_argument("data", type=Path)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the instances")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        count = make(args.data, Path(folder), args.scale)
        size = sum(path.stat().st_size for path in Path(folder).rglob("*.jsonl")) / 1e6
        seconds, before = [], resource.getrusage(resource.RUSAGE_CHILDREN)
        for _ in range(args.rounds):
            begun = time.perf_counter()
            command = [sys.executable, "-m", "tulu_jax", "eval", "score", folder]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            seconds.append(time.perf_counter() - begun)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / args.rounds
        each = ", ".join(f"{taken:.1f}" for taken in seconds)
        print(f"{count:,} outputs, {size:.0f} MB of JSON lines: {statistics.median(seconds):.1f} s "
              f"({each}), {cpu:.1f} s of one core")  # fmt: skip


if __name__ == "__main__":
    main()
