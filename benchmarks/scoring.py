"""5-shot MMLU scored by our engine beside lm-evaluation-harness on the same weights and token ids.

Each lives in a process of its own and scores all answers of all questions when told to, in turn
with the other; the medians of the ratios count. Four subjects, twenty questions each, four answers
a question. lm-evaluation-harness reads the prompt of a question once for its four answers; it is
tried with every batch size first and keeps its best. Needs `lm_eval`, which the project does not.

    python benchmarks/scoring.py --mmlu EVAL_DATA/mmlu --tokenizer LLAMA_TOKENIZER --rounds 3
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from generate import SHAPES, Worker, write_weights

SUBJECTS = ("abstract_algebra", "anatomy", "astronomy", "business_ethics")
QUESTIONS = 20
BATCH_SIZES = (1, 2, 4, 8, 16)

Run = Callable[[], list[float]]


def write_work(folder: Path, mmlu: Path, tokenizer_folder: Path) -> int:
    """Writes (prompt ids, answer ids) pairs; returns the number of prompt tokens."""
    from tulu_jax.chat import load_tokenizer

    tokenizer = load_tokenizer(tokenizer_folder)

    def encode(text: str) -> list[int]:
        return list(tokenizer.encode_texts([text])[0])

    def rows(part: str, subject: str) -> list[list[str]]:
        with open(mmlu / part / f"{subject}_{part}.csv", encoding="utf-8", newline="") as stream:
            return list(csv.reader(stream))

    def text(row: list[str], answer: str) -> str:
        lines = [row[0], *(f"{x}. {y}" for x, y in zip("ABCD", row[1:5], strict=True))]
        return "\n".join([*lines, f"Answer:{answer}"])

    pairs, count = [], 0
    for subject in SUBJECTS:
        about = subject.replace("_", " ")
        shown = f"The following are multiple choice questions (with answers) about {about}.\n\n"
        shown += "".join(text(row, f" {row[5]}\n\n") for row in rows("dev", subject)[:5])
        for row in rows("test", subject)[:QUESTIONS]:
            ids = [tokenizer.bos_id, *encode(shown + text(row, ""))]
            count += len(ids)
            pairs += [(ids, encode(answer)) for answer in "ABCD"]
    (folder / "work.json").write_text(json.dumps(pairs))
    return count


def ours(folder: Path, pairs: list[tuple[list[int], list[int]]], slots: int) -> Run:
    """Our engine."""
    from tulu_jax.checkpoint import hf
    from tulu_jax.cli.allocator import reuse_freed_memory
    from tulu_jax.generate import Engine

    reuse_freed_memory()
    config, params = hf.load(folder / "weights")
    engine = Engine(config, params, slots=slots, stop_ids=[], max_length=2048)

    def run() -> list[float]:
        engine._table.forget()  # every run reads every prompt anew
        return [score.total for score in engine.score(pairs)]

    return run


def with_lm_eval(folder: Path, pairs: list[tuple[list[int], list[int]]], size: int) -> Run:
    """lm-evaluation-harness' own way to score token ids with a transformers model."""
    import torch
    from lm_eval.models.huggingface import HFLM
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(os.cpu_count() or 1)
    model = AutoModelForCausalLM.from_pretrained(folder / "weights", dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
    harness = HFLM(model, tokenizer=tokenizer, batch_size=size, device="cpu", max_length=2048)
    asked = [((json.dumps(before), json.dumps(after)), before, after) for before, after in pairs]

    def run() -> list[float]:
        found = harness._loglikelihood_tokens(asked, disable_tqdm=True)
        return [total for total, _ in found]

    return run


def work_when_told(name: str, size: int, folder: Path) -> None:
    """Scores everything once for every line on standard input."""
    pairs = [(before, after) for before, after in json.loads((folder / "work.json").read_text())]
    run = (ours if name == "ours" else with_lm_eval)(folder, pairs, size)
    if name == "ours":
        run()  # compiles
    print("{}", flush=True)
    for _ in sys.stdin:
        begin = time.perf_counter()
        totals = run()
        seconds = time.perf_counter() - begin
        print(json.dumps({"totals": totals, "seconds": seconds}), flush=True)


def compare(folder: Path, args: argparse.Namespace, tokens: int) -> None:
    """Runs both in turn and prints what they took and how far their scores are apart."""
    tried: dict[int, float] = {}
    for size in args.batch_sizes:
        peer = Worker("lm_eval", size, folder, __file__)
        tried[size] = peer.run()["seconds"]
        peer.close()
        print(f"lm-evaluation-harness, batches of {size}: {tried[size]:.1f} s", flush=True)
    best = min(tried, key=lambda size: tried[size])
    workers = [
        Worker("ours", args.slots, folder, __file__),
        Worker("lm_eval", best, folder, __file__),
    ]
    rounds: list[dict[str, Any]] = []
    for _ in range(args.rounds):
        rounds.append({worker.name: worker.run() for worker in workers})
        mine, other = rounds[-1]["ours"], rounds[-1]["lm_eval"]
        apart = max(abs(a - b) for a, b in zip(mine["totals"], other["totals"], strict=True))
        ratio = other["seconds"] / mine["seconds"]
        print(
            f"ours {mine['seconds']:.1f} s, lm-evaluation-harness {other['seconds']:.1f} s: "
            f"{ratio:.2f}; log-probabilities at most {apart:.1e} apart",
            flush=True,
        )
    for worker in workers:
        worker.close()
    ratios = [found["lm_eval"]["seconds"] / found["ours"]["seconds"] for found in rounds]
    print(f"{args.shape}, {tokens:,} prompt tokens: median ratio {statistics.median(ratios):.2f}")


def main() -> None:
    """Runs the comparison and prints it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mmlu", type=Path, help="the folder with `dev` and `test`")
    parser.add_argument("--tokenizer", type=Path, help="a folder with tokenizer.json and its model")
    parser.add_argument("--shape", choices=SHAPES, default="58m")
    parser.add_argument("--slots", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch_sizes", type=int, nargs="+", default=BATCH_SIZES)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--size", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        work_when_told(args.worker, args.size, args.folder)
        return
    if args.mmlu is None or args.tokenizer is None:
        parser.error("--mmlu and --tokenizer are needed")
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        write_weights(folder / "weights", args.shape)
        tokens = write_work(folder, args.mmlu, args.tokenizer)
        (folder / "tokenizer").symlink_to(args.tokenizer.resolve())
        compare(folder, args, tokens)


if __name__ == "__main__":
    main()
