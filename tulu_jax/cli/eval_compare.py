"""`tulu eval compare A B`: what it takes, and what it prints."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tulu_jax.cli.flags import path_argument, whole
from tulu_jax.errors import DataError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from eval.harness.compare import Comparison, TaskComparison
    from eval.harness.reading import Unit

DESCRIPTION = """\
Pairs the instances of two results, or of two suites task by task, and says how much better B is
than A, with the standard error of that difference (clustered), a p-value (exact McNemar where
instances are right or wrong, paired bootstrap where they have scores), the same adjusted for the
number of tasks (Holm), and the smallest difference that so many instances find with a power of
80 %. Then the instances that flipped, side by side."""

WIDTH = 110
"""Room for the table in columns, also where nobody says how wide the terminal is."""

LONGEST = 600
"""How much of an output is printed, in characters."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `tulu eval compare`."""
    for name, text in (("a", "result or suite folder"), ("b", "the one compared with it")):
        parser.add_argument(name, type=path_argument, metavar=name.upper(), help=text)
    parser.add_argument(
        "--show",
        type=whole(0),
        default=3,
        metavar="N",
        help="flipped instances shown of each task and direction (default 3)",
    )
    parser.add_argument(
        "--json", type=path_argument, metavar="FILE", help="write everything as JSON, all flips too"
    )


def run(args: argparse.Namespace) -> int:
    """Compares and prints; the exit status."""
    from eval.harness.compare import compare
    from eval.harness.reading import refuse_own_file
    from tulu_jax.console import plain_console, print_line

    refuse_own_file(args.json, "--json")
    comparison = compare(args.a, args.b)
    if args.json:
        _write(args.json, comparison)
    console = plain_console()
    console.width = max(console.width, WIDTH)
    print_line(console, f"A: {comparison.a} ({args.a})")
    print_line(console, f"B: {comparison.b} ({args.b})")
    console.print(comparison_table(comparison))
    print_line(console, "differences are B - A, in points with their standard error; p: McNemar "
               "(m) or bootstrap (b), then by Holm; MDE: found with a power of 80 %")  # fmt: skip
    for line in comparison.warnings:
        print_line(console, line, "yellow")
    for task in comparison.tasks:
        for line in task.warnings:
            print_line(console, f"{task.task}: {line}", "yellow")
    for task in comparison.tasks:
        show_flips(console, task, args.show)
    return 0


def _write(path: Path, comparison: Comparison) -> None:
    from tulu_jax.files import advice, write_whole

    try:
        write_whole(path, json.dumps(comparison.as_json(), indent=1, allow_nan=False) + "\n")
    except OSError as error:
        raise DataError("cannot write the comparison", got=error.strerror or error, at=path,
                        do=advice(error)) from error  # fmt: skip


def comparison_table(comparison: Comparison) -> Table:
    """The table of all tasks; a difference that Holm leaves at 5 % is coloured."""
    from rich.table import Table
    from rich.text import Text

    table = Table()
    for name in ("task", "n", "A", "B", "B - A", "p", "Holm", "MDE", "better", "worse"):
        table.add_column(name, justify="left" if name == "task" else "right", no_wrap=True)
    for task in comparison.tasks:
        good = (task.difference > 0) == task.higher_is_better
        found = task.p_holm <= 0.05 and task.difference != 0
        table.add_row(
            task.task,
            f"{task.n:,}",
            f"{task.mean_a:.1f}",
            f"{task.mean_b:.1f}",
            Text(f"{task.difference:+.1f} ±{_number(task.stderr)}",
                 style=("green" if good else "red") if found else ""),
            f"{p_text(task.p)} {task.test[0]}",
            p_text(task.p_holm),
            _number(task.detectable),
            f"{len(task.improved):,}",
            f"{len(task.worsened):,}",
        )  # fmt: skip
    return table


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.1f}"


def p_text(p: float) -> str:
    """A p-value with three digits behind the point.

    >>> p_text(0.0312), p_text(0.00001)
    ('0.031', '<0.001')
    """
    if math.isnan(p):
        return "–"
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def show_flips(console: Console, task: TaskComparison, most: int) -> None:
    """Prints up to so many instances that got better, and that got worse, with both outputs."""
    from tulu_jax.console import print_line

    for ids, word in ((task.improved, "better in B"), (task.worsened, "worse in B")):
        for number, name in enumerate(ids[:most], 1):
            console.print()
            print_line(console, f"{task.task}: {word}, {number} of {len(ids):,}: "
                       f"{shown(name, 80)}", "bold")  # fmt: skip
            for line in _sides(task, name):
                print_line(console, line)


def _sides(task: TaskComparison, name: str) -> Iterator[str]:
    """Both answers to an instance: of a problem with samples, one that tells the two apart."""
    pair = task.pairs[name]
    rows = [_telling(result, unit) for result, unit in zip(task.results, pair, strict=True)]
    yield f"  prompt ends: {shown(str(rows[0].get('prompt') or '')[-300:], 300)}"
    yield f"  gold: {shown(_text(rows[0].get('gold')), 200)}"
    for letter, row, unit in zip("AB", rows, pair, strict=True):
        many = f" over {len(unit.instances)} samples" if len(unit.instances) > 1 else ""
        output = row.get("output")
        said = "no output" if output is None else shown(_text(output), LONGEST)
        answer = shown(_text(row.get("prediction")), 100)
        yield f"  {letter} {unit.value:g}{many}, answer {answer}: {said}"


def _telling(result: Any, unit: Unit) -> dict[str, Any]:
    """The sample nearest to the problem's value."""
    near: Sequence[Any] = sorted(unit.instances, key=lambda one: abs(one.value - unit.value))
    return next(result.texts(near[:1]))


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def shown(text: str, most: int) -> str:
    """A text on one line of at most so many characters, nothing in it a control character."""
    from tulu_jax.console import one_line

    return one_line(text.encode(errors="backslashreplace").decode(), most)
