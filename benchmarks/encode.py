"""Our encoding beside the prefix method, on the same conversations, in one run.

    python benchmarks/encode.py --records sharegpt.jsonl --tokenizer DIR [--peer_tokenizer DIR]

The work: conversations (JSON lines with `id` and `messages`) become tokens and loss masks. Ours
also writes them to a tokenized store. The peer is the usual way to such masks: transformers' fast
tokenizer, called for the whole text and twice for every message without loss, on the text before
and on the text with it. Each lives in its own process and works when told to, in turn, so
that never two run at once; every round starts with nothing remembered of the round before.

Then ours once more, in fresh processes, on the sample and on four times as much, for peak memory.
Run it with nothing else on the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

MAX_LENGTH = 2048
CHUNK = 256
"""Conversations read, encoded and written at a time."""
PEERS = ("ours", "prefixes")
PAUSE_S = 0.5


def read(path: Path, copies: int = 1) -> Iterator[list[dict[str, Any]]]:
    """The records, `copies` times over, in chunks; each copy's words are made to differ."""
    chunk: list[dict[str, Any]] = []
    for copy in range(copies):
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                record = json.loads(line)
                record["id"] += f"_{copy}"
                if copy:
                    for message in record["messages"]:
                        message["content"] = message["content"].replace("e ", f"e{copy} ")
                chunk.append(record)
                if len(chunk) == CHUNK:
                    yield chunk
                    chunk = []
    if chunk:
        yield chunk


def ours(args: argparse.Namespace) -> Callable[[], int]:
    """A function that encodes and writes everything, and returns how many tokens that was."""
    from tulu_jax.chat import encode_many, load_tokenizer
    from tulu_jax.data.store import Example, write_store

    tokenizer = load_tokenizer(args.tokenizer)
    chunks = read(args.records, args.copies) if args.copies else list(read(args.records))

    def examples() -> Iterator[Example]:
        for chunk in chunks:
            messages = [record["messages"] for record in chunk]
            encoded = encode_many(messages, tokenizer, MAX_LENGTH)
            for record, one in zip(chunk, encoded, strict=True):
                yield Example(record["id"], one.tokens, one.loss_mask)

    def run() -> int:
        with tempfile.TemporaryDirectory() as folder:
            meta = {"vocab_size": tokenizer.vocab_size}
            store = write_store(Path(folder) / "store", examples(), meta=meta)
            return int(store.lengths.sum())

    return run


def prefixes(args: argparse.Namespace) -> Callable[[], int]:
    """A function that encodes everything by prefixes, and returns how many tokens that was."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(args.peer_tokenizer or args.tokenizer)
    eos = tokenizer.eos_token
    conversations = [record["messages"] for chunk in read(args.records) for record in chunk]

    def tokens(text: str) -> list[int]:
        return tokenizer(text, max_length=MAX_LENGTH, truncation=True)["input_ids"]

    def text(messages: list[dict[str, str]]) -> str:
        ends = {"assistant": eos + "\n"}
        return "".join(
            f"<|{m['role']}|>\n{m['content'].strip()}" + ends.get(m["role"], "\n") for m in messages
        )

    def encode(messages: list[dict[str, str]]) -> int:
        ids = tokens(text(messages).strip())
        mask = [True] * len(ids)
        for index, message in enumerate(messages):
            if message["role"] == "assistant":
                continue
            start = len(tokens(text(messages[:index]))) if index else 0
            answered = messages[index + 1 : index + 2]
            marker = "<|assistant|>\n" if answered and answered[0]["role"] == "assistant" else ""
            end = len(tokens(text(messages[: index + 1]) + marker))
            mask[start:end] = [False] * (min(end, len(ids)) - start)
            if end >= MAX_LENGTH:
                break
        return len(ids)

    return lambda: sum(map(encode, conversations))


def work(args: argparse.Namespace) -> None:
    """Does the work once for every line on standard input, answering with tokens and time."""
    start = {"ours": ours, "prefixes": prefixes}[args.worker]
    for _ in sys.stdin:
        run = start(args)
        begin = time.perf_counter()
        tokens = run()
        seconds = time.perf_counter() - begin
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        answer = {"tokens": tokens, "seconds": seconds, "rss_mib": peak}
        print(json.dumps(answer), flush=True)


class Worker:
    """A process that encodes when told to."""

    def __init__(self, name: str, args: argparse.Namespace, copies: int = 0) -> None:
        """Starts it; `copies` are read as it encodes (0: one copy, read before)."""
        self.name = name
        flags = ["--records", args.records, "--tokenizer", args.tokenizer]
        flags += ["--peer_tokenizer", args.peer_tokenizer] if args.peer_tokenizer else []
        command = [sys.executable, __file__, "--worker", name, "--copies", copies, *flags]
        self._process = subprocess.Popen(
            list(map(str, command)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.rounds: list[dict[str, float]] = []

    def run(self) -> dict[str, float]:
        """Does the work once."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} ended without an answer")
        self.rounds.append(json.loads(line))
        return self.rounds[-1]

    def close(self) -> None:
        """Ends the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def report(workers: list[Worker]) -> Iterator[str]:
    """The table of medians, and ratios to the last worker taken round by round."""
    yield f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"
    yield "| way | tokens | s | tokens/s | ratio | peak RSS MiB |"
    yield "|---|---|---|---|---|---|"
    rates = [[r["tokens"] / r["seconds"] for r in worker.rounds] for worker in workers]
    for worker, rate in zip(workers, rates, strict=True):
        ratio = statistics.median(a / b for a, b in zip(rate, rates[-1], strict=True))
        last = worker.rounds[-1]
        seconds = statistics.median(r["seconds"] for r in worker.rounds)
        yield (
            f"| {worker.name} | {last['tokens']:,} | {seconds:.2f} | "
            f"{statistics.median(rate):,.0f} | {ratio:.1f} | {last['rss_mib']:.0f} |"
        )


def memory(args: argparse.Namespace) -> Iterator[str]:
    """Peak memory of ours, reading from the file, on the sample and on four of it."""
    for copies in (1, 4):
        worker = Worker("ours", args, copies)
        done = worker.run()
        worker.close()
        rate = done["tokens"] / done["seconds"]
        yield (
            f"{copies} x the sample, read as it is encoded: {done['tokens']:,} tokens, "
            f"{rate:,.0f} a second, peak {done['rss_mib']:.0f} MiB"
        )


def main() -> None:
    """Parses flags; as a controller runs the rounds, as a worker encodes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=Path, required=True, help="JSON lines of conversations")
    parser.add_argument("--tokenizer", type=Path, required=True, help="tokenizer folder")
    parser.add_argument("--peer_tokenizer", type=Path, help="transformers' folder, if another")
    parser.add_argument("--rounds", type=int, default=3, help="of each, in turn")
    parser.add_argument("--worker", choices=PEERS, help=argparse.SUPPRESS)
    parser.add_argument("--copies", type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        work(args)
        return
    workers = [Worker(name, args) for name in PEERS]
    for _ in range(args.rounds):
        for worker in workers:
            time.sleep(PAUSE_S)
            worker.run()
    counts = {worker.rounds[-1]["tokens"] for worker in workers}
    for line in report(workers):
        print(line)
    assert len(counts) == 1, f"not the same tokens: {counts}"
    for worker in workers:
        worker.close()
    for line in memory(args):
        print(line)


if __name__ == "__main__":
    main()
