r"""IFEval: 541 prompts with instructions whose following a program can check.

    python -m eval.ifeval.run_eval --data_dir data/eval/ifeval \
        --save_dir results/ifeval --model_name_or_path MODEL --use_chat_format

Source: Zhou et al. (arXiv 2311.07911);
google-research/google-research:instruction_following_eval@d76be32.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from eval.harness.asks import Generate, Instance
from eval.harness.benchmark import Benchmark, Item, Metrics, Row
from eval.harness.context import Context
from eval.harness.data import read_jsonl, write_jsonl
from eval.harness.statistics import mean, standard_error
from eval.ifeval.instructions import check_arguments, follows, is_unstable, variants
from eval.ifeval.language import check_packages
from tulu_jax.errors import DataError

MAX_NEW_TOKENS = 2048
FILE = "input_data.jsonl"
MODES = ("strict", "loose")


@dataclasses.dataclass(frozen=True)
class Options:
    """Settings of IFEval: none."""


class IfEval(Benchmark):
    """See the module."""

    name = "ifeval"
    title = "instructions that a program can check (IFEval)"
    options = Options
    tasks = {"ifeval": {}}
    data = "ifeval"
    questions = 541
    metric = "prompt_level_strict_acc"

    def check(self, context: Context) -> None:
        """Refuses to ask where the answers could not be graded."""
        check_packages()

    def load(self, context: Context) -> list[Instance]:
        """See `Benchmark`; instances are called by their key."""
        rows = _questions(context.data_dir / FILE)
        prompts = context.prompts([context.text(row["question"]) for row in rows])
        return [
            Instance(row.pop("id"), Generate(prompt, MAX_NEW_TOKENS), row["instructions"], row)
            for row, prompt in zip(rows, prompts, strict=True)
        ]

    def items(self, data: Path) -> Iterator[Item]:
        """See `Benchmark`."""
        for row in _questions(data / FILE):
            yield Item(row["id"], row["question"], "")

    def grade(self, row: Row, context: Context) -> Row:
        """See `Benchmark`: which instructions were followed; `correct` is all, strictly."""
        asked = list(zip(row["instructions"], row["kwargs"], strict=True))
        text, *others = variants(row["output"])
        strict = [follows(text, *one) for one in asked]
        loose = [
            ok or any(follows(other, *one) for other in others)
            for ok, one in zip(strict, asked, strict=True)
        ]
        return {
            "prediction": [name for (name, _), ok in zip(asked, strict, strict=True) if ok],
            "follow_strict": strict,
            "follow_loose": loose,
            "correct": all(strict),
            "correct_loose": all(loose),
            "unstable": [index for index, one in enumerate(asked) if is_unstable(*one)],
            "extracted": bool(row["output"].strip()),
        }

    def metrics(self, rows: Sequence[Row], context: Context) -> Metrics:
        """The shares of prompts and of instructions that were followed, strictly and loosely.

        `strict` and `loose` are the same by instruction, and by kind of instruction.
        """
        found: Metrics = {name: mean(values) for name, (values, _) in _levels(rows).items()}
        return found | {mode: _by_instruction(rows, mode) for mode in MODES}

    def stderr(self, rows: Sequence[Row]) -> dict[str, float]:
        """The standard errors of the shares; instructions of one prompt depend on each other."""
        return {name: standard_error(*found) for name, found in _levels(rows).items()}

    def write(self, rows: Sequence[Row], metrics: Metrics, folder: Path, context: Context) -> None:
        """The reference's files of verdicts, with its names and fields."""
        for mode in MODES:
            lines = [
                {
                    "follow_all_instructions": all(row[f"follow_{mode}"]),
                    "follow_instruction_list": row[f"follow_{mode}"],
                    "instruction_id_list": row["instructions"],
                    "prompt": row["question"],
                    "response": row["output"],
                }
                for row in rows
            ]
            write_jsonl(folder / f"eval_results_{mode}.jsonl", lines)


def _questions(path: Path) -> list[Row]:
    """The prompts with their instructions and the arguments of those, checked.

    Raises:
      DataError: damage, an empty prompt, an unknown instruction, or arguments that do not fit.
    """
    found = []
    fields = ("key", "prompt", "instruction_id_list", "kwargs")
    for number, row in enumerate(read_jsonl(path, *fields), 1):
        names, given = row["instruction_id_list"], row["kwargs"]
        at = f"{path} row {number}, key {row['key']}"
        if not (
            isinstance(row["prompt"], str) and row["prompt"].strip()
            and isinstance(names, list) and isinstance(given, list) and len(names) == len(given) > 0
        ):  # fmt: skip
            raise DataError(
                "row is no prompt with instructions", got=str(row)[:80], at=at,
                expected="a text, and as many kwargs as instructions",
            )  # fmt: skip
        kwargs = [check_arguments(name, one, at) for name, one in zip(names, given, strict=True)]
        question = {"question": row["prompt"], "instructions": names, "kwargs": kwargs}
        found.append({"id": str(row["key"]), **question})
    return found


def _levels(rows: Sequence[Row]) -> Mapping[str, tuple[list[float], list[str] | None]]:
    """Verdicts on prompts and on instructions by the name of their share, with their clusters."""
    prompts = [row["id"] for row in rows for _ in row["follow_strict"]]
    found: dict[str, tuple[list[float], list[str] | None]] = {}
    for mode in MODES:
        verdicts = [row[f"follow_{mode}"] for row in rows]
        found[f"prompt_level_{mode}_acc"] = [float(all(one)) for one in verdicts], None
        each = [float(ok) for one in verdicts for ok in one]
        found[f"inst_level_{mode}_acc"] = each, prompts
    return found


def _by_instruction(rows: Sequence[Row], mode: str) -> dict[str, float]:
    """The share of followed instructions, by their names and by what stands before the colon."""
    verdicts: dict[str, list[Any]] = {}
    for row in rows:
        for name, ok in zip(row["instructions"], row[f"follow_{mode}"], strict=True):
            for key in (name.partition(":")[0], name):
                verdicts.setdefault(key, []).append(ok)
    return {key: mean(verdicts[key]) for key in sorted(verdicts)}


if __name__ == "__main__":
    from tulu_jax.cli.evaluate import run_benchmark

    sys.exit(run_benchmark("ifeval"))
