"""`tulu eval preferences`: stored judgements of many models, as win rates and as biases."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tulu_jax.cli.flags import path_argument
from tulu_jax.errors import ConfigError, DataError

if TYPE_CHECKING:
    from eval.judge.counts import Judged
    from eval.judge.length_controlled import Weights

DESCRIPTION = """\
Win rates of stored judgements (AlpacaEval), and what they follow over models: the number of
different words, of words, of characters. FILES are annotations.json of the alpaca_eval package,
rows reduced to counts (JSON lines, gzip too), or result folders of `tulu eval alpaca_eval`.

"shown first" is how often the judge prefers the output that it is shown first, of files that hold
its replies: without bias half the time, as the order is drawn.

With --lc_weights and --lc_difficulty: AlpacaEval 2's length-controlled win rates of the models that
have weights. Judgements whose instructions' places are known get our own fit besides."""

OWN_FILE = "annotations.json"
CORRELATIONS = ("linear", "log", "difference")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's flags."""
    parser.add_argument("files", nargs="*", type=path_argument, metavar="FILES")
    parser.add_argument(
        "--leave_out", nargs="+", default=[], metavar="MODEL", help="models not to look at"
    )
    parser.add_argument(
        "--lc_weights", type=path_argument, metavar="CSV",
        help="coefficients by model, as the package's baseline_*.csv",
    )  # fmt: skip
    parser.add_argument(
        "--lc_difficulty", type=path_argument, metavar="CSV",
        help="AlpacaEval 2's instruction_difficulty.csv",
    )  # fmt: skip
    parser.add_argument(
        "--against", metavar="MODEL", help="take length-controlled rates against this model"
    )
    parser.add_argument("--plot", type=path_argument, metavar="FILE", help="SVG, PNG or PDF")
    parser.add_argument("--json", type=path_argument, metavar="FILE", help="write all of it")


def run(args: argparse.Namespace) -> int:
    """Prints the tables and writes the files; the exit status."""
    from eval.harness.reading import refuse_own_file
    from tulu_jax.files import write_json

    if not args.files and args.lc_weights is None:
        raise ConfigError("no judgements", expected="FILES, or --lc_weights")
    if args.lc_weights is not None and args.lc_difficulty is None:
        raise ConfigError(
            "length-controlled rates need difficulties", at="--lc_weights",
            do="give --lc_difficulty, AlpacaEval 2's instruction_difficulty.csv",
        )  # fmt: skip
    for flag in ("json", "plot"):
        refuse_own_file(getattr(args, flag), f"--{flag}")
    models, of = _read(args.files, set(args.leave_out))
    difficulty = _difficulty(args.lc_difficulty)
    found: dict[str, Any] = {"models": _rates(models, difficulty), "unique_of": of}
    _points(models, found)
    if args.lc_weights is not None:
        found["length_controlled"] = _length_controlled(args, difficulty)
    _print(found)
    if args.json is not None:
        write_json(args.json, found)
    if args.plot is not None:
        _plot(found, args.plot)
    return 0


Rows = list[tuple[int | None, "Judged"]]
"""Judged pairs with the place of each instruction, where it is known."""


def _read(files: Sequence[Path], without: set[str]) -> tuple[dict[str, Rows], str]:
    """The judged pairs by model, and what their unique counts are of.

    Raises:
      DataError: a file that cannot be read, or a model that several have.
    """
    models: dict[str, Rows] = {}
    kinds = set()
    for file in files:
        found, of = _read_one(file)
        kinds.add(of)
        twice = sorted(set(found) & set(models) - without)
        if twice:
            raise DataError("model is judged in two files", got=twice[0], at=file,
                            do="name one of them, or --leave_out it")  # fmt: skip
        models |= {name: rows for name, rows in found.items() if name not in without}
    if len(kinds) > 1:
        raise DataError(
            "unique tokens cannot be told beside unique words", got="results of both",
            do="grade the results again with one: tulu eval score",
        )  # fmt: skip
    return models, next(iter(kinds), "words")


def _read_one(file: Path) -> tuple[dict[str, Rows], str]:
    from eval.alpaca_farm.files import read_annotations
    from eval.alpaca_farm.results import judged_of
    from eval.harness.data import read_jsonl
    from eval.harness.reading import PREDICTIONS, read_result
    from eval.judge.counts import Judged

    if file.is_dir():
        result = read_result(file)
        fields = ("preference", "gold", "output", "unique")
        rows = [row for row in read_jsonl(file / PREDICTIONS) if "error" not in row]
        if not rows or any(name not in row for row in rows for name in fields):
            raise DataError(
                "result has no judgements", at=file, expected="one of tulu eval alpaca_eval"
            )
        places = [int(row["id"]) if str(row["id"]).isdecimal() else None for row in rows]
        pairs = list(zip(places, judged_of(rows), strict=True))
        return {result.model: pairs}, str(rows[0]["unique"]["of"])
    models: dict[str, Rows] = {}
    for one in read_annotations(file):
        name = one.model or (file.parent.name if file.name == OWN_FILE else file.stem)
        judged = Judged(one.preference, one.reference, one.output, one.first)
        models.setdefault(name, []).append((one.index, judged))
    return models, "words"


def _difficulty(path: Path | None) -> dict[int, float] | None:
    from eval.judge.length_controlled import read_difficulty

    return None if path is None else read_difficulty(path)


def _rates(models: dict[str, Rows], difficulty: dict[int, float] | None) -> list[dict[str, Any]]:
    """Win rates and lengths by model, the best first."""
    import math

    from eval.judge import bias, counts
    from eval.judge.length_controlled import OWN, fit, rate
    from eval.judge.winrate import win_rate

    found = []
    for name, rows in models.items():
        judged = [one for _, one in rows]
        numbers = win_rate([one.preference for one in judged])
        if not numbers["n_total"]:
            raise DataError("model has no verdict", got=name)
        mine = [one.output.chars for one in judged]
        theirs = [one.reference.chars for one in judged]
        places = [place for place, _ in rows]
        hard = None
        if difficulty is not None and all(place in difficulty for place in places):
            hard = [difficulty[place] for place in places if place is not None]
        weights = fit([one.preference for one in judged], theirs, mine, hard)
        own = rate(weights, hard if hard is not None else [0.0] * len(judged))[0]
        error = numbers["standard_error"]
        numbers["standard_error"] = error if math.isfinite(error) else None
        firsts = [choice for one in judged for choice in one.first]
        found.append({
            "name": name, **numbers, "avg_length": counts.avg_length(judged), OWN: own,
            "difficulty_known": hard is not None,
            "instances": counts.over_instances(judged, ["unique"])["unique"],
            "position": bias.position(firsts) if firsts else None,
        })  # fmt: skip
    return sorted(found, key=lambda row: -row["win_rate"])


def _points(models: dict[str, Rows], found: dict[str, Any]) -> None:
    """Adds each model's place in the paper's figure 2, and the correlations over them."""
    from eval.judge import counts

    rates = {row["name"]: row["win_rate"] for row in found["models"]}
    points = [
        {"name": name, **counts.point_of(rates[name], [one for _, one in rows])}
        for name, rows in models.items()
    ]
    found["points"] = points
    if points:
        found["over_models"] = counts.over_models(points)


def _length_controlled(
    args: argparse.Namespace, difficulty: dict[int, float] | None
) -> list[dict[str, Any]]:
    """AlpacaEval 2's rates of the models that have weights, the best first."""
    from eval.judge.length_controlled import Weights, rate, read_weights

    weights: dict[str, Weights] = read_weights(args.lc_weights)
    if args.against is not None and args.against not in weights:
        raise ConfigError("model has no weights", got=args.against, at="--against")
    base = Weights(0.0, 0.0, 0.0) if args.against is None else weights[args.against]
    hard = [value for _, value in sorted((difficulty or {}).items())]
    rows = []
    for name, own in weights.items():
        if name not in args.leave_out:
            value, error = rate(own.minus(base), hard)
            rows.append({"name": name, "lc_win_rate": value, "lc_standard_error": error})
    return sorted(rows, key=lambda row: -row["lc_win_rate"])


def _print(found: dict[str, Any]) -> None:
    from rich.table import Table

    from eval.alpaca_farm.plot import said
    from tulu_jax.cli.report import WIDE
    from tulu_jax.console import one_line, plain_console, print_line

    console = plain_console()
    if not console.is_terminal:
        console.width = WIDE
    if found["models"]:
        heads = ["model", "win rate", "±", "wins", "draws", "losses", "n", "length", "own LC"]
        told = any(row["position"] for row in found["models"])
        table = Table(*heads, *(["shown first"] if told else []))
        for row in found["models"]:
            counts = [f"{row[name]:,}" for name in ("n_wins", "n_draws", "n_wins_base", "n_total")]
            error = "-" if row["standard_error"] is None else f"{row['standard_error']:.2f}"
            own = f"{row['length_controlled_winrate_own_fit']:.2f}"
            length = f"{row['avg_length']:,}"
            cells = [
                one_line(row["name"], 60),
                f"{row['win_rate']:.2f}",
                error,
                *counts,
                length,
                own,
            ]
            table.add_row(*cells, *([_position(row["position"])] if told else []))
        console.print(table)
    for name, kinds in found.get("over_models", {}).items():
        words = found["unique_of"] if name == "unique" else name
        label = f"unique {words}" if name == "unique" else words
        for kind in CORRELATIONS:
            print_line(console, f"win rate against {label} ({kind}): {said(kinds[kind])}")
    if "length_controlled" in found:
        table = Table("model", "LC win rate", "±")
        for row in found["length_controlled"]:
            value, error = row["lc_win_rate"], row["lc_standard_error"]
            table.add_row(one_line(row["name"], 60), f"{value:.2f}", f"{error:.2f}")
        console.print(table)


def _position(found: dict[str, Any] | None) -> str:
    """How often what is shown first is preferred, with chance's p."""
    if found is None:
        return "-"
    return f"{100 * found['first_preferred']:.1f} % (p {found['p']:.2g})"


def _plot(found: dict[str, Any], path: Path) -> None:
    from eval.alpaca_farm.plot import plot_models

    if not found["points"]:
        raise ConfigError("nothing to plot", got="no judgements", at="--plot", do="name FILES")
    facet = found["over_models"]["unique"]["linear"]
    plot_models(found["points"], facet, found["unique_of"], path)
