"""Speed and memory of `tulu data check` and of Table 1 on conversations of a JSONL file.

    python benchmarks/check.py RECORDS.jsonl TOKENIZER [--eval_data DIR] [--repeat N]

RECORDS holds one `{"dataset", "id", "messages"}` a line. It is read `--repeat` times over, so that
a peak of memory that grows with the data shows. One process; seconds are CPU time.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Iterator

from tulu_jax.cli.data.benchmarks import read_eval_data
from tulu_jax.data.specs import Conversation
from tulu_jax.inspect.check.run import check_mixture
from tulu_jax.inspect.table1 import count_lengths


def read(path: str, repeat: int) -> Iterator[Conversation]:
    """The file's conversations, `repeat` times over under ids of their own."""
    for turn in range(repeat):
        with open(path, encoding="utf-8") as lines:
            for line in lines:
                conversation = json.loads(line)
                yield {**conversation, "id": f"{conversation['id']}#{turn}"}


def report(what: str, started: float, conversations: int, tokens: float) -> None:
    """Prints rates since `started` (CPU seconds) and the peak of memory so far."""
    seconds = time.process_time() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{what}: {conversations:,} conversations in {seconds:.1f} s, "
        f"{conversations / seconds:,.0f} /s, {tokens / seconds / 1e6:.2f} M tokens/s, "
        f"peak {peak:,.0f} MiB"
    )


def main() -> None:
    """Counts lengths, then checks, without and with evaluation sets."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("records")
    parser.add_argument("tokenizer")
    parser.add_argument("--eval_data")
    parser.add_argument("--repeat", type=int, default=1)
    args = parser.parse_args()
    started = time.process_time()
    *_, (_, lengths) = count_lengths({"x": read(args.records, args.repeat)}, args.tokenizer)
    row = lengths.row()
    tokens = row.instances * row.tokens_per_instance
    report("Table 1", started, row.instances, tokens)
    started = time.process_time()
    check_mixture("x", {"x": read(args.records, args.repeat)})
    report("check", started, row.instances, tokens)
    if args.eval_data:
        started = time.process_time()
        items = read_eval_data(args.eval_data)
        check_mixture("x", {"x": read(args.records, args.repeat)}, items=items)
        report("check with evaluation sets", started, row.instances, tokens)


if __name__ == "__main__":
    main()
