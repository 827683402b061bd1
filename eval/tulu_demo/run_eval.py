"""tulu_demo: held-out questions of the generated dataset that `tulu demo` trains on.

They need no data; an answer is right where it is the reference, character by character.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence

from eval.harness.asks import Generate, Instance
from eval.harness.benchmark import Benchmark, Metrics, Row, by_group
from eval.harness.context import Context
from tasks.demo import eval_items, score
from tulu_jax.fields import check_fields, one_of, setting

MAX_NEW_TOKENS = 64


@dataclasses.dataclass(frozen=True)
class Options:
    """Settings of tulu_demo."""

    split: str = setting("test", one_of("validation", "test"), help="which held-out questions")

    def __post_init__(self) -> None:
        """Checks the values."""
        check_fields(self)


class TuluDemo(Benchmark):
    """See the module."""

    name = "tulu_demo"
    title = "the generated questions of `tulu demo`"
    options = Options
    tasks = {"tulu_demo": {}}
    data = "tulu_demo"
    metric = "exact_match"

    def load(self, context: Context) -> list[Instance]:
        """See `Benchmark`."""
        items = eval_items(context.options.split)
        prompts = context.prompts([context.conversation(item.messages) for item in items])
        return [
            Instance(
                item.id,
                Generate(prompt, MAX_NEW_TOKENS),
                item.reference,
                {"question": item.messages[-1]["content"], "messages": list(item.messages)},
                group=item.kind,
            )
            for item, prompt in zip(items, prompts, strict=True)
        ]

    def grade(self, row: Row, context: Context) -> Row:
        """See `Benchmark`."""
        prediction = row["output"].strip()
        return {"prediction": prediction, "correct": bool(score(prediction, row["gold"]))}

    def metrics(self, rows: Sequence[Row], context: Context) -> Metrics:
        """The share of right answers, of each kind of question too."""
        scores = {kind: self.scores(members) for kind, members in by_group(rows).items()}
        found = {kind: sum(values) / len(values) for kind, values in scores.items()}
        every = self.scores(rows)
        return {**found, "exact_match": sum(every) / len(every)}


if __name__ == "__main__":
    from tulu_jax.cli.evaluate import run_benchmark

    sys.exit(run_benchmark("tulu_demo"))
