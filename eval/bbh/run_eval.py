r"""BIG-Bench Hard: 27 tasks, three examples each, answered directly or with a chain of thought.

    python -m eval.bbh.run_eval --data_dir data/eval/bbh --max_num_examples_per_task 40 \
        --save_dir results/bbh-cot --model_name_or_path MODEL --use_chat_format

Source: Suzgun et al. (arXiv 2210.09261); allenai/open-instruct:eval/bbh/run_eval.py@662c2ad49.
"""

from __future__ import annotations

import dataclasses
import random
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from eval.harness.asks import Generate, Instance
from eval.harness.benchmark import Benchmark, Item, Metrics, Row, by_group
from eval.harness.context import Context
from eval.harness.data import check_texts, list_in, read_json, read_text, take, write_jsonl
from eval.harness.matching import exact_match
from eval.harness.quirks import Quirk
from tulu_jax.errors import DataError
from tulu_jax.fields import check_fields, least, setting

MAX_NEW_TOKENS = 512
SHOTS = 3
ANSWER = "So the answer is"
NUMBERS = "multistep_arithmetic_two"
"""The task whose answers are whole numbers with a sign."""
FILES = "bbh/*.json, cot-prompts/*.txt"
DOWNLOAD = "name the folder with --data_dir, or: tulu data download --eval bbh"

QUIRKS = (
    Quirk(
        "bbh_never_stops",
        "what ends an output",
        "nothing but the end of the answer's room: the stop is nested one level too deep",
        "an empty line",
    ),
    Quirk(
        "bbh_extraction",
        "where the answer stands in an output",
        '"So the answer is ..." up to the next full stop, in all of a run-on output',
        '"the answer is ..." up to a full stop that ends a sentence, or the end of the line, '
        "before the first empty line",
    ),
    Quirk(
        "bbh_dyck_by_count",
        "whether an answer in dyck_languages is right",
        "by the number of brackets: punctuation is taken away before texts are compared",
        "bracket by bracket",
    ),
    Quirk(
        "bbh_lost_sign",
        "whether an answer in multistep_arithmetic_two is right",
        "whatever its sign: the minus is punctuation, which is taken away",
        "with its sign",
    ),
)


@dataclasses.dataclass(frozen=True)
class Options:
    """Settings of BIG-Bench Hard."""

    no_cot: bool = setting(False, help="show answers without their chain of thought")
    max_num_examples_per_task: int | None = setting(
        None, least(1), help="at most so many questions of each task"
    )

    def __post_init__(self) -> None:
        """Checks the values."""
        check_fields(self)


class Bbh(Benchmark):
    """See the module."""

    name = "bbh"
    title = "27 tasks of BIG-Bench Hard"
    options = Options
    tasks = {
        "bbh_direct": {"no_cot": True, "max_num_examples_per_task": 40},
        "bbh_cot": {"max_num_examples_per_task": 40},
    }
    own_quirks = QUIRKS
    data = "bbh"
    questions = 6511
    metric = "average_exact_match"
    macro = True

    def load(self, context: Context) -> list[Instance]:
        """See `Benchmark`; instances are called `task/line`."""
        options: Options = context.options
        never = context.endpoint or context.paper("bbh_never_stops")
        stops = () if never else ("\n\n",)
        instances = []
        for task, examples in _tasks(context.data_dir).items():
            # A task's draw depends on no other task, nor on the order of files in a folder.
            rng = random.Random(f"42:{task}")
            drawn = take(list(enumerate(examples)), options.max_num_examples_per_task, rng)
            file = context.data_dir / "cot-prompts" / f"{task}.txt"
            shown = _shown(file, cot=not options.no_cot)
            count, before = len(re.findall(r"^Q:", shown, re.MULTILINE)), f"{shown}\n\nQ: "
            texts = [context.text(before + row["input"], "A:", plain="\nA:") for _, row in drawn]
            for (index, row), prompt in zip(drawn, context.prompts(texts), strict=True):
                ask = Generate(prompt, MAX_NEW_TOKENS, stops)
                data = {"input": row["input"], "target": row["target"]}
                data |= {"shots": count} if count != SHOTS else {}
                instances.append(Instance(f"{task}/{index}", ask, row["target"], data, group=task))
        return instances

    def items(self, data: Path) -> Iterator[Item]:
        """See `Benchmark`."""
        for task, examples in _examples(data).items():
            for index, row in enumerate(examples):
                yield Item(f"{task}:{index}", row["input"], row["target"])

    def grade(self, row: Row, context: Context) -> Row:
        """See `Benchmark`; both scores of the tasks that punctuation decides."""
        prediction, found = extract(row["output"], paper=context.paper("bbh_extraction"))
        loose, strict = exact_match(prediction, row["gold"]), exactly(row["group"], prediction, row)
        quirk = {
            "dyck_languages": "bbh_dyck_by_count",
            NUMBERS: "bbh_lost_sign",
        }.get(row["group"])
        graded: Row = {"raw_output": row["output"], "prediction": prediction, "extracted": found}
        if quirk is None:
            return {**graded, "correct": loose}
        chosen = loose if context.paper(quirk) else strict
        return {**graded, "correct": chosen, "correct_paper": loose, "correct_fixed": strict}

    def metrics(self, rows: Sequence[Row], context: Context) -> Metrics:
        """The share of right answers in each task, and the mean of those."""
        found = {task: float(np.mean(self.scores(rs))) for task, rs in by_group(rows).items()}
        return {**found, "average_exact_match": sum(found.values()) / len(found)}

    def remarks(self, rows: Sequence[Row], metrics: Metrics, context: Context) -> list[str]:
        """See `Benchmark`: tasks whose file has another number of examples, as one that was cut."""
        other = {row["group"]: row["shots"] for row in rows if "shots" in row}
        return [
            f"{len(other)} tasks are shown with another number of examples than {SHOTS}: "
            + ", ".join(f"{task} {count}" for task, count in list(other.items())[:4])
        ] * bool(other)

    def write(self, rows: Sequence[Row], metrics: Metrics, folder: Path, context: Context) -> None:
        """The examples of each task with the output and what was read from it."""
        names = ("input", "target", "raw_output", "prediction")
        for task, members in by_group(rows).items():
            lines = [{name: row[name] for name in names} for row in members]
            write_jsonl(folder / "predictions" / f"{task}.jsonl", lines)


def _tasks(folder: Path) -> dict[str, list[Any]]:
    """The examples of each task, all of which have a prompt, in the order of their names.

    Raises:
      DataError: none, one without its prompt, or a damaged one.
    """
    tasks = _examples(folder)
    prompts = {path.stem for path in (folder / "cot-prompts").glob("*.txt")}
    lonely = sorted(tasks.keys() ^ prompts)
    if lonely:
        raise DataError(
            "tasks and their prompts do not match", got=", ".join(lonely[:4]), at=folder,
            expected=FILES, do=DOWNLOAD,
        )  # fmt: skip
    return tasks


def _examples(folder: Path) -> dict[str, list[Any]]:
    """The examples of each task, in the order of their names.

    Raises:
      DataError: none, or a damaged one.
    """
    files = sorted((folder / "bbh").glob("*.json"))
    if not files:
        raise DataError("no task of BIG-Bench Hard", at=folder, expected=FILES, do=DOWNLOAD)
    tasks = {}
    for path in files:
        tasks[path.stem] = list_in(read_json(path), "examples", path)
        for index, row in enumerate(tasks[path.stem]):
            at = f"{path} example {index}"
            check_texts(row, ("input", "target"), at)
            if path.stem == NUMBERS and _number(row["target"]) is None:
                raise DataError("target is no number", got=repr(row["target"][:40]), at=at)
    return tasks


def _shown(path: Path, *, cot: bool) -> str:
    """What stands before the question: the task, and three examples.

    The canary and the dashes below it go, where the file has them; copies without it are about.

    Raises:
      DataError: an example without an answer.
    """
    lines = read_text(path).replace("\r\n", "\n").split("\n")
    under_canary = len(lines) > 1 and lines[1] != "" and not lines[1].strip("-")
    text = "\n".join(lines[2 if under_canary else 0 :])
    if cot:
        return text.strip()
    return "\n\n".join(_direct(block, path) for block in text.split("\n\n")).strip()


def _direct(block: str, path: Path) -> str:
    """An example without its chain of thought; other paragraphs as they are."""
    if not block.startswith("Q:"):
        return block
    question, mark, rest = block.partition("\nA:")
    if not mark or ANSWER not in rest:
        raise DataError(
            "example has no answer", got=repr(block[-60:]), at=path, expected=f"A: ... {ANSWER} ..."
        )
    return f"{question.strip()}\nA: {rest.rsplit(ANSWER, 1)[1].strip()}"


def extract(output: str, *, paper: bool) -> tuple[str, bool]:
    r"""The answer in an output, and whether it was announced; else what comes before a blank line.

    >>> extract("It is so. So the answer is (A).\n\nQ: ...", paper=True)
    ('(A)', True)
    >>> extract("Then the answer is 3.5. And more", paper=False)
    ('3.5', True)
    >>> extract("So the answer is: (A)", paper=False)
    ('(A)', True)
    >>> extract(" (B)\n\nQ: Another", paper=False)
    ('(B)', False)
    """
    first = output.strip().split("\n\n")[0].strip()
    if paper:
        found = re.search(r"So the answer is (.*?)\.", output)
    else:
        found = re.search(r"(?i:the answer is)[:\s]*(.+?)(?:\.(?:\s|$)|\n|$)", first)
    return (found.group(1).strip(), True) if found else (first, False)


def exactly(task: str | None, prediction: str, row: Row) -> bool:
    """Whether the answer is right where punctuation decides.

    >>> exactly("dyck_languages", "]  )", {"gold": "] )"}), exactly("", "Yes.", {"gold": "yes"})
    (True, True)
    >>> exactly("dyck_languages", "] ]", {"gold": "] )"})
    False
    >>> exactly("multistep_arithmetic_two", "-12", {"gold": "12"})
    False
    """
    if task == "dyck_languages":
        return prediction.split() == row["gold"].split()
    if task == NUMBERS:
        text = prediction.replace(",", "").replace("\u2212", "-")
        numbers = re.findall(r"[-+]?\d+(?:\.\d+)?", text)
        return bool(numbers) and float(numbers[-1]) == _number(row["gold"])
    return exact_match(prediction, row["gold"])


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


if __name__ == "__main__":
    from tulu_jax.cli.evaluate import run_benchmark

    sys.exit(run_benchmark("bbh"))
