r"""GSM8K: word problems, answered directly or with a chain of thought.

    python -m eval.gsm.run_eval --data_dir data/eval/gsm --max_num_examples 200 --n_shot 8 \
        --save_dir results/gsm-cot --model_name_or_path MODEL --use_chat_format

Source: Cobbe et al. (arXiv 2110.14168), examples of Wei et al. (arXiv 2201.11903), table 20;
allenai/open-instruct:eval/gsm/run_eval.py@662c2ad49.
"""

from __future__ import annotations

import dataclasses
import random
import re
import sys
from collections.abc import Iterator, Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path

import numpy as np

from eval.harness.asks import Generate, Instance
from eval.harness.benchmark import Benchmark, Item, Metrics, Row
from eval.harness.context import Context
from eval.harness.data import check_texts, read_json, read_jsonl, take
from eval.harness.matching import exact_match
from eval.harness.quirks import Quirk
from tulu_jax.errors import DataError
from tulu_jax.fields import between, check_fields, least, setting

MAX_NEW_TOKENS = 512
EXEMPLARS = 8

QUIRKS = (
    Quirk(
        "gsm_misspelled_question",
        "the word Question in the examples without a chain of thought",
        'spelled "Quesion"',
        "spelled right",
    ),
    Quirk(
        "gsm_numbers",
        "which number of an output is the answer, and when it equals the right one",
        "the sign of whole numbers is lost, and decimals are their digits (18.00 is 1800)",
        "signs stay, and numbers are compared by value",
    ),
)


@dataclasses.dataclass(frozen=True)
class Options:
    """Settings of GSM8K."""

    n_shot: int = setting(8, between(0, EXEMPLARS, "a whole number"), help="examples to show")
    no_cot: bool = setting(False, help="show answers without their chain of thought")
    max_num_examples: int | None = setting(None, least(1), help="at most so many questions")
    zero_shot_chat: bool = setting(
        False, help="ask the bare question, as chat models are asked today; with --n_shot 0"
    )

    def __post_init__(self) -> None:
        """Checks the values."""
        check_fields(self)


class Gsm(Benchmark):
    """See the module."""

    name = "gsm"
    title = "grade-school mathematics (GSM8K)"
    options = Options
    tasks = {
        "gsm_direct": {"no_cot": True, "max_num_examples": 200},
        "gsm_cot": {"max_num_examples": 200},
        "gsm_direct_full": {"no_cot": True},
        "gsm_cot_full": {},
        "gsm_chat": {"n_shot": 0, "zero_shot_chat": True},
    }
    own_quirks = QUIRKS
    data = "gsm"
    questions = 1319
    metric = "exact_match"

    def load(self, context: Context) -> list[Instance]:
        """See `Benchmark`; instances are called by their line in test.jsonl."""
        options: Options = context.options
        rng = random.Random(42)
        questions = take(_questions(context.data_dir / "test.jsonl"), options.max_num_examples, rng)
        before = _shown(options, rng, misspelled=context.paper("gsm_misspelled_question"))
        if options.zero_shot_chat:
            texts = [context.text(row["question"]) for row in questions]
        else:
            texts = [
                context.text(
                    f"{before}Question: {row['question'].strip()}", "Answer:", plain="\nAnswer:"
                )
                for row in questions
            ]
        stops = {} if options.zero_shot_chat else context.stops("\n")
        return [
            Instance(
                row["id"],
                Generate(prompt, MAX_NEW_TOKENS, **stops),
                row["answer"],
                {"question": row["question"], "answer": row["answer"]},
            )
            for row, prompt in zip(questions, context.prompts(texts), strict=True)
        ]

    def notes(self, instances: Sequence[Instance], context: Context) -> list[str]:
        """See `Benchmark`: settings that the bare question does not follow."""
        options: Options = context.options
        if not options.zero_shot_chat or not (options.n_shot or options.no_cot):
            return []
        return ["zero_shot_chat shows no example: n_shot and no_cot change nothing (--n_shot 0)"]

    def items(self, data: Path) -> Iterator[Item]:
        """See `Benchmark`; of the test file alone."""
        for row in _questions(data / "test.jsonl"):
            yield Item(f"line {int(row['id']) + 1}", row["question"], row["said"])

    def grade(self, row: Row, context: Context) -> Row:
        """See `Benchmark`: the last number of the output, or all of it where it has none."""
        paper = context.paper("gsm_numbers")
        number = last_number(row["output"], paper=paper)
        prediction = without_commas(row["output"]) if number is None else number
        right = exact_match(prediction, row["gold"]) if paper else equal(prediction, row["gold"])
        return {
            "model_output": row["output"],
            "prediction": prediction,
            "correct": right,
            "extracted": number is not None,
        }

    def metrics(self, rows: Sequence[Row], context: Context) -> Metrics:
        """The share of right answers."""
        return {"exact_match": float(np.mean(self.scores(rows)))}


def _questions(path: Path) -> list[Row]:
    found = []
    for index, row in enumerate(read_jsonl(path, "question", "answer")):
        at = f"{path} line {index + 1}"
        check_texts(row, ("question", "answer"), at)
        _, mark, said = row["answer"].partition("####")
        answer = without_commas(said.strip())
        if not mark or _value(answer) is None:
            raise DataError(
                "answer ends in no number", got=repr(row["answer"][-40:]),
                at=at, expected="#### and a number",
            )  # fmt: skip
        answers = {"answer": answer, "said": said.strip()}
        found.append({"id": str(index), "question": row["question"], **answers})
    return found


def _shown(options: Options, rng: random.Random, *, misspelled: bool) -> str:
    """What stands before the question: the task, and examples."""
    if not options.n_shot:
        return "Answer the following question.\n\n"
    exemplars = read_json(Path(__file__).with_name("exemplars.json"))["exemplars"]
    shown = []
    for row in take(exemplars, options.n_shot, rng):
        if options.no_cot:
            name = "Quesion" if misspelled else "Question"
            shown.append(f"{name}: {row['question']}\nAnswer: {row['short_answer']}")
        else:
            shown.append(f"Question: {row['question']}\nAnswer: {row['cot_answer']}")
    return "\n\n".join(["Answer the following questions.", *shown, ""])


def without_commas(text: str) -> str:
    """A text without the commas between digits.

    >>> without_commas("1,234,567 and 1, 2")
    '1234567 and 1, 2'
    """
    return re.sub(r"(\d),(\d)", r"\1\2", text)


def last_number(output: str, *, paper: bool) -> str | None:
    """The last number of an output, or None.

    >>> last_number("It is $1,018.00.", paper=True), last_number("It is -10.", paper=True)
    ('1018.00', '10')
    >>> last_number("It is $1,018.00.", paper=False), last_number("It is -10.", paper=False)
    ('1018.00', '-10')
    """
    text = without_commas(output)
    text = text if paper else text.replace("\u2212", "-")  # the minus of mathematics
    pattern = r"[-+]?\d*\.\d+|\d+" if paper else r"(?<![\d.])[-+]?(?:\d+(?:\.\d+)?|\.\d+)"
    found = re.findall(pattern, text)
    return found[-1] if found else None


def equal(prediction: str, gold: str) -> bool:
    """Whether two texts are the same number.

    >>> equal("18.00", "18"), equal("-18", "18"), equal("eighteen", "18")
    (True, False, False)
    """
    value = _value(prediction)
    return value is not None and value == _value(gold)


def _value(text: str) -> Decimal | None:
    try:
        value = Decimal(text.strip())
    except InvalidOperation:
        return None
    return value if value.is_finite() else None


if __name__ == "__main__":
    from tulu_jax.cli.evaluate import run_benchmark

    sys.exit(run_benchmark("gsm"))
