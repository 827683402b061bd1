"""AlpacaEval's numbers, what is to be said of them, and the files of its results."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eval.alpaca_farm import files, judging
from eval.alpaca_farm.plot import plot_preference
from eval.harness.benchmark import Metrics, Row, by_group
from eval.harness.context import Context
from eval.harness.data import write_jsonl
from eval.judge import bias, counts, length_controlled
from eval.judge.counts import Count, Judged
from eval.judge.winrate import win_rate

PLOT = "preference_by_unique.svg"
PAPER = ("alpaca_eval_gpt4", "alpaca_eval_gpt4_0314", "alpaca_farm_greedy_gpt4")
"""What the paper's two versions judged with, and the reference's code after them."""
UNLIKELY = 0.01
"""A position bias less likely than that by chance is told."""


def judged_of(rows: Sequence[Row]) -> list[Judged]:
    """The rows as numbers."""
    return [
        Judged(
            row["preference"],
            Count.of(row["gold"], row["unique"]["reference"]),
            Count.of(row["output"], row["unique"]["output"]),
            tuple(choice for _, choice in row.get("first", ())),
        )
        for row in rows
    ]


def metrics(rows: Sequence[Row], context: Context) -> Metrics:
    """See `AlpacaEval.metrics`; without a judge lengths and diversity alone."""
    options, judged = context.options, judged_of(rows)
    verdicts = Counter(row["verdict"] for row in rows)
    found: Metrics = {"judge": judging.name_of(options)}
    if options.judge != "none":
        found |= _finite(win_rate([one.preference for one in judged]))
        found |= {
            "n_same_outputs": verdicts["same"],
            "n_ties": verdicts["tie"],
            "n_refused": verdicts["refused"],
            "n_unread": verdicts["unread"],
            "n_too_long": verdicts["too_long"],
        }
    found |= {
        "avg_length": counts.avg_length(judged),
        "lengths": counts.lengths(judged),
        "unique_of": rows[0]["unique"]["of"],
        "diversity": bias.diversity([row["output"] for row in rows]),
    }
    if not judging.scored(rows):
        return found
    found["bias"] = counts.over_instances(judged)
    firsts = [choice for one in judged for choice in one.first]
    if firsts:
        found["position"] = bias.position(firsts)
    pairs = [(one.first[0], one.first[1]) for one in judged if len(one.first) == 2]
    if pairs:
        found["orders"] = bias.orders(pairs)
    found |= _length_controlled(rows, judged, context)
    found["datasets"] = {
        name: _finite(win_rate([row["preference"] for row in members]))["win_rate"]
        for name, members in by_group(rows).items()
        if name
    }
    paid = [judging.price_of_row(row, options) for row in rows if "judge_tokens" in row]
    if paid and None not in paid:
        found["judge_cost"] = math.fsum(one for one in paid if one is not None)
    return found


def _finite(numbers: dict[str, Any]) -> dict[str, Any]:
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in numbers.items()
    }


def _length_controlled(
    rows: Sequence[Row], judged: Sequence[Judged], context: Context
) -> dict[str, Any]:
    """Our own fit, with difficulties where there are any; see `length_controlled`."""
    named = context.options.lc_difficulty
    difficulty = None
    if named is not None:
        known = length_controlled.read_difficulty(Path(named))
        difficulty = [known.get(int(row["id"]), 0.0) for row in rows]
    weights = length_controlled.fit(
        [one.preference for one in judged],
        [one.reference.chars for one in judged],
        [one.output.chars for one in judged],
        difficulty,
    )
    hard = [0.0] * len(judged) if difficulty is None else difficulty
    value, error = length_controlled.rate(weights, hard)
    return {
        length_controlled.OWN: value,
        "own_fit": {
            "length": weights.length,
            "instruction_difficulty": weights.difficulty,
            "baseline": weights.baseline,
            "standard_error": error if math.isfinite(error) else None,
            "difficulty_known": difficulty is not None,
        },
    }


def remarks(found: Metrics, context: Context) -> list[str]:
    """What is to be said of the numbers."""
    options, said = context.options, []
    if found["diversity"]["low"]:
        said.append(
            f"outputs are much alike ({100 * found['diversity']['distinct']:.0f} % distinct, "
            f"{100 * found['diversity']['overlap']:.0f} % of words in common): a judge can be won "
            "by one text for all (a constant one scored 86.5 length-controlled with GPT-4), so the "
            "win rate says nothing"
        )
    if options.judge in ("unique_tokens", "length"):
        said.append(f"judged by {options.judge}: not to be compared with the paper's GPT-4")
    elif options.judge in judging.MODELS and found["judge"] not in PAPER:
        said.append(f"judged by {found['judge']}: not to be compared with the paper's GPT-4")
    lost = [
        f"{found[name]:,} {words}"
        for name, words in (
            ("n_refused", "refused"), ("n_unread", "without a verdict that can be read"),
            ("n_too_long", "too long for the judge"),
        )
        if found.get(name)
    ]  # fmt: skip
    if lost:
        said.append(f"pairs in no win rate: {', '.join(lost)}")
    place = found.get("position")
    if place and place["p"] is not None and place["p"] < UNLIKELY:
        said.append(
            f"the judge prefers what is shown first in {100 * place['first_preferred']:.1f} % of "
            f"{place['n']:,} replies (p {place['p']:.1g}): see --both_orders"
        )
    return said


def write(rows: Sequence[Row], found: Metrics, folder: Path, context: Context) -> None:
    """Writes all files beside predictions.jsonl: the package's, the reference's, and the plot.

    The reference's file of outputs holds JSON lines, whatever its name says.
    """
    options = context.options
    named = Path(str(context.extras.get("model", "model")))
    model = named.stem if named.suffix in (".json", ".jsonl") else named.name
    outputs = [
        {
            "instruction": row["instruction"],
            "output": row["output"],
            "generator": model,
            "dataset": row.get("group"),
        }
        for row in rows
    ]
    files.write_list(folder / "model_outputs.json", outputs)
    long = [{**one, "generator": f"{model}-greedy-long"} for one in outputs]
    write_jsonl(folder / f"{model}-greedy-long-output.json", long)
    if options.judge == "none":
        return
    annotations = [_annotation(row, model, options) for row in rows]
    files.write_list(folder / "annotations.json", annotations)
    if found.get("win_rate") is not None:
        row = {name: found[name] for name in files.LEADERBOARD if found.get(name) is not None}
        files.write_leaderboard(folder / "leaderboard.csv", {model: {**row, "mode": files.MODE}})
        plot_preference(found["bias"]["unique"], found["unique_of"], model, folder / PLOT)


def _annotation(row: Row, model: str, options: Any) -> dict[str, Any]:
    replies = row.get("replies") or [None]
    return {
        "instruction": row["instruction"],
        "output_1": row["gold"],
        "generator_1": row.get("reference_generator"),
        "dataset": row.get("group"),
        "output_2": row["output"],
        "generator_2": model,
        "annotator": judging.name_of(options),
        "preference": row["preference"],
        "price_per_example": judging.price_of_row(row, options),
        "time_per_example": None,
        "raw_completion": replies[0] if len(replies) == 1 else replies,
    }
