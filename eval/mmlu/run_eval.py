r"""MMLU, 0- or 5-shot: which of four letters is the likeliest next token.

    python -m eval.mmlu.run_eval --ntrain 5 --data_dir data/eval/mmlu --save_dir results/mmlu \
        --model_name_or_path MODEL --use_chat_format

Source: Hendrycks et al. (arXiv 2009.03300); allenai/open-instruct:eval/mmlu/run_eval.py@662c2ad49.
"""

from __future__ import annotations

import csv
import dataclasses
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from eval.harness.asks import Choose, Instance, Prompt
from eval.harness.backends import probabilities
from eval.harness.benchmark import Benchmark, Item, Metrics, Row, by_group
from eval.harness.context import Context
from eval.harness.data import read_csv, read_json
from eval.harness.quirks import Quirk
from tulu_jax.errors import ConfigError, DataError
from tulu_jax.fields import check_fields, least, setting
from tulu_jax.files import whole_file

LETTERS = "ABCD"
MOST_TOKENS = 2048
"""Shots are left out, from the last one, until a prompt has no more, BOS not counted."""
NOT_AVAILABLE = frozenset(
    ("", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN",
     "<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null")
)  # fmt: skip
"""What pandas reads as a missing value (its documentation of `read_csv`, na_values)."""

QUIRKS = (
    Quirk(
        "mmlu_answer_ids",
        "which tokens stand for the answers A to D, and what their probabilities are of",
        "the first token of each letter alone; probabilities among the four",
        "the token that follows the prompt; probabilities among the whole vocabulary",
    ),
    Quirk(
        "mmlu_nan_options",
        "options such as None or N/A, and columns of numbers",
        "read by pandas: they become nan, and numbers may be written otherwise",
        "read as the text that stands there",
    ),
    Quirk(
        "mmlu_shot_limit",
        "how many of the shots are shown where a prompt is long",
        "as many as 2,048 tokens hold",
        "likewise, and as many as the model's length holds",
    ),
)


@dataclasses.dataclass(frozen=True)
class Options:
    """Settings of MMLU."""

    ntrain: int = setting(5, least(0), help="examples shown before each question")
    subjects: tuple[str, ...] = setting((), help="which subjects (default: all 57)")
    n_instances: int | None = setting(None, least(1), help="at most so many of each subject")

    def __post_init__(self) -> None:
        """Checks the values."""
        check_fields(self)


@dataclasses.dataclass(frozen=True)
class Question:
    """A row of a subject's file."""

    fields: tuple[str, ...]
    """The question, four options, and the letter."""
    row: int

    def text(self, *, answered: bool) -> str:
        r"""The question as it is shown.

        >>> Question(("2+2?", "3", "4", "5", "6", "B"), 0).text(answered=True)
        '2+2?\nA. 3\nB. 4\nC. 5\nD. 6\nAnswer: B\n\n'
        """
        question, *options, letter = self.fields
        lines = [question, *(f"{x}. {y}" for x, y in zip(LETTERS, options, strict=True)), "Answer:"]
        return "\n".join(lines) + (f" {letter}\n\n" if answered else "")


class Mmlu(Benchmark):
    """See the module."""

    name = "mmlu"
    title = "multiple choice in 57 subjects"
    options = Options
    tasks = {"mmlu_0shot": {"ntrain": 0}, "mmlu_5shot": {"ntrain": 5}}
    own_quirks = QUIRKS
    data = "mmlu"
    questions = 14_042
    metric = "average_acc"
    needs = frozenset({"choose"})

    def load(self, context: Context) -> list[Instance]:
        """See `Benchmark`; instances are called `subject/row`."""
        instances = []
        for subject in _chosen(context):
            shots = _read(context, "dev", subject)[: context.options.ntrain]
            if len(shots) < context.options.ntrain:
                raise DataError(
                    "subject has too few examples to show", got=len(shots),
                    at=context.data_dir / "dev" / f"{subject}_dev.csv",
                    expected=f"--ntrain {context.options.ntrain}",
                )  # fmt: skip
            questions = _drawn(_read(context, "test", subject), context.options.n_instances)
            prompts, shown = _prompts(context, subject, shots, questions)
            choices = _choices(context, prompts[0]) if prompts else ()
            for question, prompt, count in zip(questions, prompts, shown, strict=True):
                *fields, letter = question.fields
                fewer = {"shots": count} if count < len(shots) else {}
                instances.append(
                    Instance(
                        f"{subject}/{question.row}",
                        Choose(prompt, choices),
                        letter,
                        {"question": fields[0], "options": fields[1:], **fewer},
                        group=subject,
                        cluster=subject,
                    )
                )
        return instances

    def items(self, data: Path) -> Iterator[Item]:
        """See `Benchmark`; without `dev`, which is shown and not asked."""
        for subject in _subjects(data):
            for number, row in enumerate(_rows(data, "test", subject)):
                question, *options, letter = row
                prompt = "\n".join([question, *options])
                yield Item(f"{subject}_test:{number}", prompt, options[LETTERS.index(letter)])

    def notes(self, instances: Sequence[Instance], context: Context) -> list[str]:
        """Says which letters are not one token after the prompt."""
        if context.paper("mmlu_answer_ids"):
            return []
        unclear = ", ".join(unclear_choices(context, instances[0].ask.prompt))
        return [f"not one token after the prompt, the last is compared: {unclear}"] * bool(unclear)

    def grade(self, row: Row, context: Context) -> Row:
        """See `Benchmark`; of an endpoint's answer the letter counts that it begins with."""
        if (logprobs := row.get("choice_logprobs")) is None:
            letter = letter_of(row["output"] or "")
            prediction = (row["output"] or "").strip() if letter is None else letter
            found: Row = {"prediction": prediction, "extracted": letter is not None}
        elif len(logprobs) != len(LETTERS):
            return {"error": f"{len(logprobs)} log-probabilities of {len(LETTERS)} choices"}
        else:
            whole, among = probabilities(logprobs)
            saved = among if context.paper("mmlu_answer_ids") else whole
            found = {"prediction": LETTERS[int(np.argmax(logprobs))]}
            found |= {f"choice{x}_prob": p for x, p in zip(LETTERS, saved, strict=True)}
            found |= {f"choice{x}_prob_renorm": p for x, p in zip(LETTERS, among, strict=True)}
        return {**found, "correct": found["prediction"] == row["gold"]}

    def metrics(self, rows: Sequence[Row], context: Context) -> Metrics:
        """Accuracy over all questions, by the 17 groups of subjects and by the 4 of those."""
        table = read_json(Path(__file__).with_name("categories.json"))
        subjects = by_group(rows)
        groups: dict[str, list[float]] = {}
        categories: dict[str, list[float]] = {name: [] for name in table["categories"]}
        for subject, members in subjects.items():
            scores = self.scores(members)
            for group in table["subcategories"].get(subject, ()):
                groups.setdefault(group, []).extend(scores)
                for name, members_of in table["categories"].items():
                    if group in members_of:
                        categories[name] += scores
        return {
            "average_acc": float(np.mean(self.scores(rows))),
            "subcat_acc": {name: float(np.mean(found)) for name, found in groups.items()},
            "cat_acc": {name: float(np.mean(s)) for name, s in categories.items() if s},
            "macro_acc": float(np.mean([np.mean(self.scores(m)) for m in subjects.values()])),
        }

    def remarks(self, rows: Sequence[Row], metrics: Metrics, context: Context) -> list[str]:
        """See `Benchmark`: questions that had less examples before them than were asked for."""
        fewer = [row["shots"] for row in rows if "shots" in row]
        return [
            f"{len(fewer)} of {len(rows)} questions are shown with fewer than "
            f"{context.options.ntrain} examples, {sum(fewer) / len(fewer):.1f} in the mean, for "
            "want of room (--max_length)"
            for _ in fewer[:1]
        ]

    def write(self, rows: Sequence[Row], metrics: Metrics, folder: Path, context: Context) -> None:
        """A CSV a subject: the test row, whether it was right, and four probabilities."""
        for subject, members in by_group(rows).items():
            with whole_file(folder / f"{subject}.csv") as file:
                writer = csv.writer(file, lineterminator="\n")
                writer.writerow([*range(6), "correct", *(f"choice{x}_probs" for x in LETTERS)])
                for row in members:
                    probs = [row.get(f"choice{x}_prob", 0.25) for x in LETTERS]
                    fields = [row["question"], *row["options"], row["gold"]]
                    if context.paper("mmlu_nan_options"):  # as pandas writes what it lacks
                        fields = ["" if field == "nan" else field for field in fields]
                    writer.writerow([*fields, row["correct"], *probs])


def _subjects(folder: Path) -> list[str]:
    """The subjects that are there, in order.

    Raises:
      DataError: none is.
    """
    files = (folder / "test").glob("*_test.csv")
    found = sorted(path.name.removesuffix("_test.csv") for path in files)
    if not found:
        raise DataError(
            "no subject of MMLU", at=folder / "test", expected="files such as anatomy_test.csv",
            do="name the folder with --data_dir, or: tulu data download --eval mmlu",
        )  # fmt: skip
    return found


def _chosen(context: Context) -> list[str]:
    """The subjects to ask, in order.

    Raises:
      ConfigError: a subject that is none.
      DataError: no subject is there.
    """
    found = _subjects(context.data_dir)
    wanted = list(context.options.subjects) or found
    unknown = [name for name in wanted if name not in found]
    if unknown:
        raise ConfigError(
            "unknown subject", got=", ".join(unknown), at="--subjects", expected=", ".join(found)
        )
    return list(dict.fromkeys(wanted))


def _rows(folder: Path, part: str, subject: str) -> list[list[str]]:
    """Question, four options and letter of each row of a file.

    Raises:
      DataError: a damaged file, or an answer that is no letter.
    """
    path = folder / part / f"{subject}_{part}.csv"
    rows = read_csv(path, columns=6)
    for number, row in enumerate(rows, 1):
        if row[-1] not in tuple(LETTERS):
            raise DataError(
                "answer is no letter", got=repr(row[-1]), at=f"{path} row {number}",
                expected="A, B, C or D", do="the file has no header: remove it if there is one",
            )  # fmt: skip
    return rows


def _read(context: Context, part: str, subject: str) -> list[Question]:
    rows = _rows(context.data_dir, part, subject)
    if context.paper("mmlu_nan_options"):
        columns = [as_pandas(column) for column in zip(*rows, strict=True)]
        rows = [list(row) for row in zip(*columns, strict=True)]
    return [Question(tuple(row), index) for index, row in enumerate(rows)]


def as_pandas(column: Sequence[str]) -> list[str]:
    """How pandas writes a column that it read: numbers as numbers, missing values as nan.

    >>> as_pandas(["1", "None"]), as_pandas(["x", "None"]), as_pandas(["0.50", "2"])
    (['1.0', 'nan'], ['x', 'nan'], ['0.5', '2.0'])
    """
    there = [text for text in column if text not in NOT_AVAILABLE]
    whole = len(there) == len(column)
    kinds = ([int] if whole else []) + [float]
    for kind in kinds if there else []:
        try:
            if any("_" in text for text in there):
                break
            return [str(kind(x)) if x not in NOT_AVAILABLE else "nan" for x in column]
        except ValueError:
            continue
    return ["nan" if text in NOT_AVAILABLE else text for text in column]


def _drawn(questions: list[Question], count: int | None) -> list[Question]:
    """`count` questions as pandas' `sample(count, random_state=42)` draws them."""
    if count is None or count >= len(questions):
        return questions
    order = np.random.RandomState(42).permutation(len(questions))
    return [questions[index] for index in order[:count]]


def _prompts(
    context: Context, subject: str, shots: list[Question], questions: list[Question]
) -> tuple[list[Prompt], list[int]]:
    """The prompt of each question, with as many shots as fit, and how many these are."""

    def made(indices: Sequence[int], count: int) -> list[Prompt]:
        shown = header(subject) + "".join(shot.text(answered=True) for shot in shots[:count])
        texts = [shown + questions[index].text(answered=False) for index in indices]
        return context.prompts([context.text(text, "The answer is:") for text in texts])

    prompts, shown = made(range(len(questions)), len(shots)), [len(shots)] * len(questions)
    most = _most_tokens(context)
    for count in range(len(shots) - 1, -1, -1):
        long = [i for i, prompt in enumerate(prompts) if len(prompt.ids or ()) > most]
        for index, prompt in zip(long, made(long, count), strict=True):
            prompts[index], shown[index] = prompt, count
    return prompts, shown


def _most_tokens(context: Context) -> int:
    if context.tokenizer is None:
        return MOST_TOKENS
    start = len(context.start_ids())
    fits = MOST_TOKENS + start
    if context.max_length is not None and not context.paper("mmlu_shot_limit"):
        fits = min(fits, context.max_length - 1)
    return fits


def header(subject: str) -> str:
    r"""What stands before the shots; two spaces before the name, as in Hendrycks' own code.

    >>> header("abstract_algebra")
    'The following are multiple choice questions (with answers) about  abstract algebra.\n\n'
    """
    name = "".join(f" {word}" for word in subject.split("_"))
    return f"The following are multiple choice questions (with answers) about {name}.\n\n"


def letter_of(answer: str) -> str | None:
    """The letter that an answer in words begins with, or says to be the answer; else None.

    >>> letter_of(" B"), letter_of("(B)."), letter_of("**B**. Paris"), letter_of("The answer is B.")
    ('B', 'B', 'B', 'B')
    >>> letter_of("A dog is"), letter_of("I'd say B"), letter_of("Both A and B")
    (None, None, None)
    """
    found = re.match(
        r"(?:.*\banswer is:?)?[\W_]*([A-D])(?=[^\w\s'’]|\s*(?:\n|$))", answer, re.DOTALL
    )
    return found[1] if found else None


def _choices(context: Context, prompt: Prompt) -> tuple[int, ...]:
    """The tokens that stand for A to D after a prompt; none where the other side tokenizes."""
    if context.tokenizer is None or prompt.ids is None:
        return ()
    if context.paper("mmlu_answer_ids"):
        return tuple(context.encode([letter])[0][0] for letter in LETTERS)
    followed = context.prompts([f"{prompt.text} {letter}" for letter in LETTERS])
    return tuple((ids.ids or (0,))[-1] for ids in followed)


def unclear_choices(context: Context, prompt: Prompt) -> list[str]:
    """The letters that are not exactly one token after a prompt."""
    if context.tokenizer is None or prompt.ids is None:
        return []
    followed = context.prompts([f"{prompt.text} {letter}" for letter in LETTERS])
    size = len(prompt.ids)
    return [
        letter
        for letter, more in zip(LETTERS, followed, strict=True)
        if more.ids is None or more.ids[:size] != prompt.ids or len(more.ids) != size + 1
    ]


if __name__ == "__main__":
    from tulu_jax.cli.evaluate import run_benchmark

    sys.exit(run_benchmark("mmlu"))
