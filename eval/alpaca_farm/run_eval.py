r"""AlpacaEval: a judge prefers the model's output or a reference's, on 805 instructions.

    python -m eval.alpaca_farm.run_eval --save_dir results/alpaca_farm \
        --model_name_or_path MODEL --use_chat_format

Source: Li et al. (github.com/tatsu-lab/alpaca_eval); Dubois et al. (arXiv 2305.14387);
allenai/open-instruct:eval/alpaca_farm/run_eval.py@662c2ad49.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from eval.alpaca_farm import judging, results
from eval.alpaca_farm.files import Output, read_outputs
from eval.harness.asks import Generate, Instance
from eval.harness.benchmark import Benchmark, Headline, Item, Metrics, Row
from eval.harness.context import Context
from eval.harness.guards import other_names
from eval.harness.quirks import Quirk
from eval.judge.annotators import ANNOTATORS
from tulu_jax.errors import ConfigError, DataError
from tulu_jax.fields import Check, check_fields, least, one_of, setting

INSTRUCTIONS = 805
FILES = (
    "alpaca_farm_evaluation.json", "text_davinci_003_model_outputs.json",
    "davinci_003_outputs.json", "alpaca_eval.json",
)  # fmt: skip
"""Names under which the instructions with the reference's outputs are known."""
NOT_NEGATIVE = Check(lambda value: value >= 0, "0 or more")


@dataclasses.dataclass(frozen=True)
class Options:
    """Settings of AlpacaEval."""

    reference_path: str | None = setting(
        None, path=True, help="the reference's outputs (default: those of the data)"
    )
    max_new_tokens: int = setting(8192, least(1), help="tokens of the longest output")
    additional_stop_sequence: tuple[str, ...] = setting((), help="texts that end an output")
    judge: str = setting(
        "openai", one_of(*judging.JUDGES),
        help="who prefers: a model behind an endpoint, a local checkpoint, stored annotations, the "
        "output with more unique tokens, the longer one; or none, for now",
    )  # fmt: skip
    annotator: str = setting("alpaca_eval_gpt4", one_of(*ANNOTATORS), help="the judge's prompt")
    judge_model: str | None = setting(
        None, help="the endpoint's model (default: the annotator's), or the checkpoint's folder"
    )
    judge_base_url: str | None = setting(
        None, help="the judge's endpoint (default: OPENAI_BASE_URL, or OpenAI's own)"
    )
    judge_concurrency: int | None = setting(
        None, least(1), help="requests to the judge at once (default: --concurrency)"
    )
    judge_requests_per_minute: int | None = setting(
        None, least(1), help="most requests to it a minute (default: --requests_per_minute)"
    )
    annotations: str | None = setting(
        None, path=True, help="annotations.json of the alpaca_eval package, for --judge replay"
    )
    judge_seed: int = setting(0, least(0), help="of the order in which outputs are shown")
    both_orders: bool = setting(False, help="judge each pair in both orders, at twice the cost")
    max_cost: float | None = setting(None, NOT_NEGATIVE, help="dollars that judging may cost")
    price_in: float | None = setting(
        None, NOT_NEGATIVE, help="dollars for a million tokens that the judge reads"
    )
    price_out: float | None = setting(None, NOT_NEGATIVE, help="likewise of tokens it writes")
    lc_difficulty: str | None = setting(
        None, path=True, help="AlpacaEval 2's instruction_difficulty.csv, for our own fit"
    )

    def __post_init__(self) -> None:
        """Checks the values."""
        check_fields(self)
        if (self.judge == "replay") != (self.annotations is not None):
            raise ConfigError(
                "--judge replay and --annotations FILE go together",
                got=f"--judge {self.judge}, --annotations {self.annotations}",
            )
        if self.judge == "checkpoint" and self.judge_model is None:
            raise ConfigError(
                "judge has no checkpoint", at="--judge checkpoint", do="name it: --judge_model DIR"
            )


class AlpacaEval(Benchmark):
    """See the module."""

    name = "alpaca_farm"
    title = "instructions on which a judge compares with a reference (AlpacaEval)"
    options = Options
    tasks = {
        "alpaca_eval": {},
        "alpaca_eval_v1": {"max_new_tokens": 2048, "annotator": "alpaca_farm_greedy_gpt4"},
        "alpaca_eval_unique_tokens": {"judge": "unique_tokens", "max_new_tokens": 2048},
        "alpaca_eval_length": {"judge": "length", "max_new_tokens": 2048},
    }
    own_quirks = (
        Quirk(
            "alpaca_contradictions",
            "a judge's reply that gives both outputs one rank, or names others",
            "counts by the rank of model_1 alone",
            "is no verdict",
        ),
    )
    data = "alpaca_farm"
    metric = "win_rate"
    unit = "percent"

    def task_of(self, options: Any) -> str:
        """See `Benchmark`: by the judge, where nothing fits whole."""
        found = super().task_of(options)
        if found != self.name:
            return found
        counting = options.judge in ("unique_tokens", "length")
        return f"alpaca_eval_{options.judge}" if counting else "alpaca_eval"

    def judges(self, options: Any) -> list[str]:
        """See `Benchmark`."""
        return [judging.judge_of(options)] if options.judge in judging.MODELS else []

    def check(self, context: Context) -> None:
        """Refuses a judge that could not be asked, before outputs are made."""
        judging.check(context)

    def load(self, context: Context) -> list[Instance]:
        """See `Benchmark`; an instruction's id is its place among AlpacaEval's."""
        rows = _instructions(context)
        prompts = context.prompts([context.text(row.instruction) for row in rows])
        stops = context.stops(*context.options.additional_stop_sequence, in_chat=True)
        most = context.options.max_new_tokens
        return [
            Instance(
                str(number),
                Generate(prompt, most, **stops),
                row.output,
                {"instruction": row.instruction, "reference_generator": row.generator},
                group=row.dataset,
            )
            for number, (row, prompt) in enumerate(zip(rows, prompts, strict=True))
        ]

    def items(self, data: Path) -> Iterator[Item]:
        """See `Benchmark`; answers are the reference's."""
        for number, row in enumerate(read_outputs(_data_file(data) or data / FILES[1])):
            yield Item(str(number), row.instruction, row.output)

    def notes(self, instances: Sequence[Instance], context: Context) -> list[str]:
        """See `Benchmark`: what judging will cost, and data that are not whole."""
        notes = judging.notes(instances, context)
        count = len(_instructions(context))
        if count != INSTRUCTIONS:
            notes.append(f"{count} of {INSTRUCTIONS} instructions")
        return notes

    def grade(self, row: Row, context: Context) -> Row:
        """See `Benchmark`."""
        return self.grade_all([row], context)[0]

    def grade_all(self, rows: Sequence[Row], context: Context) -> list[Row]:
        """See `Benchmark`; without a verdict a row has no score, and is counted."""
        return judging.grade_all(rows, context)

    def metrics(self, rows: Sequence[Row], context: Context) -> Metrics:
        """The package's numbers by its names, in per cent, and what biases them."""
        return results.metrics(rows, context)

    def headline(self, rows: Sequence[Row], context: Context) -> Headline:
        """See `Benchmark`; of the rows with a verdict."""
        return super().headline(judging.scored(rows), context)

    def stderr(self, rows: Sequence[Row]) -> dict[str, float]:
        """See `Benchmark`."""
        return super().stderr(judging.scored(rows))

    def remarks(self, rows: Sequence[Row], metrics: Metrics, context: Context) -> list[str]:
        """See `Benchmark`: outputs and verdicts that do not mean what they seem to."""
        names = [name for row in rows for name in row.get("judged_by", ())]
        return results.remarks(metrics, context) + other_names(names, "verdicts")

    def write(self, rows: Sequence[Row], metrics: Metrics, folder: Path, context: Context) -> None:
        """The package's files, the reference's, and the plot of preference by unique tokens."""
        results.write(rows, metrics, folder, context)


def _data_file(folder: Path) -> Path | None:
    """The file of instructions in a folder of data, under one of its names."""
    return next((path for name in FILES if (path := folder / name).is_file()), None)


def _instructions(context: Context) -> list[Output]:
    """The instructions with the reference's outputs.

    Raises:
      DataError: no file, or a reference that lacks an instruction.
    """
    named = context.options.reference_path
    found = _data_file(context.data_dir)
    if found is None:
        found = context.data_dir / FILES[1] if named is None else Path(named)
    rows = read_outputs(found)
    if named is None:
        return rows
    outputs = {row.instruction: row for row in read_outputs(Path(named))}
    lacking = [row.instruction for row in rows if row.instruction not in outputs]
    if lacking:
        raise DataError(
            "reference lacks instructions", got=f"{len(lacking)} of {len(rows)}, first "
            f"{lacking[0][:60]!r}", at=named, expected="an output to each of the data's",
        )  # fmt: skip
    return [
        dataclasses.replace(
            row, output=outputs[row.instruction].output,
            generator=outputs[row.instruction].generator,
        )
        for row in rows
    ]  # fmt: skip


if __name__ == "__main__":
    from tulu_jax.cli.evaluate import run_benchmark

    sys.exit(run_benchmark("alpaca_farm"))
