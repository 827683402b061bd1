"""HumanEval's programs with and without the sandbox, in one run.

    python benchmarks/sandbox.py HumanEval.jsonl.gz [--samples 4] [--workers 2]

Each canonical solution is run `--samples` times, by four ways that take turns: `process` starts a
Python for each program, as a plain runner does, with no isolation at all; `unsafe` is our runner
without isolation; `paper` and `fixed` are our modes, isolated. 20 samples at 2 temperatures are
the 6,560 programs of the paper's Codex-Eval.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest import mock

from eval.codex_humaneval.problems import read_problems
from eval.codex_humaneval.scoring import build_program
from eval.sandbox import Program, run_programs

ROUNDS = 3
PAPERS_PROGRAMS = 6560


def in_processes(programs: list[Program], workers: int) -> int:
    """How many pass, each in an interpreter that is started for it."""

    def passes(program: Program) -> bool:
        command = [sys.executable, "-I", "-S", "-c", program.whole]
        return subprocess.run(command, capture_output=True).returncode == 0

    with ThreadPoolExecutor(workers) as pool:
        return sum(pool.map(passes, programs))


def ours(programs: list[Program], workers: int, *, mode: str, isolated: bool = True) -> int:
    """How many pass by our runner."""
    found = "eval.sandbox.isolation.shutil.which"
    with mock.patch(found, return_value=None) if not isolated else mock.MagicMock():
        outcomes = run_programs(
            programs,
            mode=mode,  # type: ignore
            workers=workers,
            allow_unsafe_execution=not isolated,
        )
    return sum(outcome.passed is True for outcome in outcomes)


def main() -> None:
    """Prints the seconds of each way, and their ratios."""
    parser = argparse.ArgumentParser(description="HumanEval with and without the sandbox.")
    parser.add_argument("problems", type=Path)
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    problems = read_problems(args.problems)
    programs = [build_program(p, p.canonical_solution) for p in problems] * args.samples
    ways: dict[str, Callable[[], int]] = {
        "process": lambda: in_processes(programs, args.workers),
        "unsafe": lambda: ours(programs, args.workers, mode="paper", isolated=False),
        "paper": lambda: ours(programs, args.workers, mode="paper"),
        "fixed": lambda: ours(programs, args.workers, mode="fixed"),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, run in ways.items():
            started = time.perf_counter()
            passed = run()
            seconds[name].append(time.perf_counter() - started)
            assert passed == len(programs), f"{name}: {passed} of {len(programs)} pass"
    middle = {name: statistics.median(taken) for name, taken in seconds.items()}
    print(f"{len(programs)} programs, {args.workers} at a time, median of {ROUNDS} rounds")
    for name, taken in middle.items():
        each = taken / len(programs)
        ratios = [f"{taken / middle[other]:5.2f} x {other}" for other in ("process", "unsafe")]
        whole = f"{PAPERS_PROGRAMS} programs: {each * PAPERS_PROGRAMS:5.0f} s"
        print(f"{name:8} {taken:7.2f} s  {each * 1e3:6.2f} ms each ", *ratios, whole, sep="  ")


if __name__ == "__main__":
    main()
