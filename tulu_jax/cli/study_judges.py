"""What the judges of an evaluation cost a model, before it has said anything."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from eval.study.study import Evaluation

PAPERS_PAIR = (560, 805)
"""Tokens that `eval.judge.cost` counts in an AlpacaEval pair with the reference's output twice,
prompt and all, and how many pairs there are; for a plan without the data."""


def judge_dollars(asked: Evaluation, data_dir: str) -> float | None:
    """Dollars a model, if outputs are as long as the reference's; None where nobody knows.

    What the study says itself comes first. A judge without a listed price is not known.
    """
    from eval.harness.registry import find_task
    from tulu_jax.cli.eval_flags import override_options

    if asked.judge_dollars is not None:
        return asked.judge_dollars
    total = 0.0
    for task in asked.members:
        entry = find_task(task)
        options = override_options(entry.options, entry.benchmark.name, asked.options)
        if not entry.benchmark.judges(options):
            continue
        if entry.benchmark.name != "alpaca_farm":
            return None
        one = _pairs(options, Path(data_dir) / str(entry.benchmark.data), asked.instances)
        if one is None:
            return None
        total += one
    return total


def _pairs(options: Any, folder: Path, limit: int | None) -> float | None:
    """Of AlpacaEval's pairs."""
    from eval.alpaca_farm.judging import annotator_of, pairs_cost, price
    from eval.alpaca_farm.run_eval import FILES, read_outputs
    from eval.judge.pairs import Pair
    from tulu_jax.errors import TuluError

    cost = price(options)
    if cost is None:
        return None if options.judge == "openai" else 0.0
    path = next((folder / name for name in FILES if (folder / name).is_file()), None)
    if path is None:
        tokens, count = PAPERS_PAIR
        count = min(count, limit or count) * (2 if options.both_orders else 1)
        return cost.of(tokens * count, annotator_of(options).max_tokens * count)
    try:
        rows = read_outputs(path)[:limit]
    except (TuluError, OSError):
        return None
    # Pairs of one output are not judged: the model's is one letter longer.
    pairs = [
        Pair(str(i), row.instruction, row.output, f"{row.output}.") for i, row in enumerate(rows)
    ]
    return pairs_cost(pairs, options, cost)
