r"""TydiQA: questions in nine languages, with the gold passage or without any.

    python -m eval.tydiqa.run_eval --data_dir data/eval/tydiqa --n_shot 1 \
        --max_num_examples_per_lang 100 --max_context_length 512 --save_dir results/tydiqa \
        --model_name_or_path MODEL --use_chat_format

Source: Clark et al. (arXiv 2003.05002); allenai/open-instruct:eval/tydiqa/run_eval.py@662c2ad49,
its sampling as of 4a2e9dd0c, where the order of languages is fixed.
"""

from __future__ import annotations

import dataclasses
import random
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from eval.harness.asks import Generate, Instance
from eval.harness.benchmark import Benchmark, Item, Metrics, Row, by_group
from eval.harness.context import Context
from eval.harness.data import check_texts, list_in, read_json, take, write_jsonl
from eval.harness.matching import squad_em, squad_f1
from eval.harness.quirks import Quirk
from tulu_jax.errors import ConfigError, DataError
from tulu_jax.fields import check_fields, least, setting
from tulu_jax.files import sha256

MAX_NEW_TOKENS = 50

QUIRKS = (
    Quirk(
        "tydiqa_bos_in_passage",
        "a passage that is cut to its first tokens",
        "is encoded with BOS, so that a literal <s> stands before it in the prompt",
        "is the passage's own text",
    ),
    Quirk(
        "tydiqa_blank_line",
        "the end of a question in chat format",
        "a new line too many, so that an empty line stands before <|assistant|>",
        "no empty line",
    ),
)


@dataclasses.dataclass(frozen=True)
class Options:
    """Settings of TydiQA."""

    n_shot: int = setting(1, least(0), help="examples shown before each question")
    no_context: bool = setting(False, help="closed book: show no passage")
    max_context_length: int | None = setting(512, least(0), help="tokens of a passage; 0: all")
    max_num_examples_per_lang: int | None = setting(
        None, least(1), help="at most so many questions of each language"
    )
    languages: tuple[str, ...] = setting((), help="which languages (default: all there are)")

    def __post_init__(self) -> None:
        """Checks the values."""
        check_fields(self)


@dataclasses.dataclass(frozen=True)
class Labels:
    """How a language writes the parts of a prompt."""

    instruction: str
    passage: str
    question: str
    answer: str


class Tydiqa(Benchmark):
    """See the module."""

    name = "tydiqa"
    title = "questions in nine languages (TydiQA-GoldP)"
    options = Options
    tasks = {
        "tydiqa_goldp_1shot": {"max_num_examples_per_lang": 100},
        "tydiqa_no_context_1shot": {"max_num_examples_per_lang": 100, "no_context": True},
    }
    own_quirks = QUIRKS
    data = "tydiqa"
    questions = 5077
    metric = "average_f1"
    unit = "percent"
    macro = True

    def load(self, context: Context) -> list[Instance]:
        """See `Benchmark`; instances have the ids of the data."""
        options: Options = context.options
        rows = _wanted(_dev(context.data_dir), options.languages)
        languages = sorted({row["lang"] for row in rows})
        labels = {language: _labels(language, closed=options.no_context) for language in languages}
        rng = random.Random(42)
        drawn: list[Row] = []
        for language in languages:
            of_it = [row for row in rows if row["lang"] == language]
            drawn += take(of_it, options.max_num_examples_per_lang, rng)
        shots = _shots(context, languages, options.n_shot, rng)
        _cut_passages([*drawn, *(row for rows in shots.values() for row in rows)], context)
        texts = [
            context.text(
                *_prompt(row, shots[row["lang"]], labels[row["lang"]], options, context),
                plain="\n" + labels[row["lang"]].answer,
            )
            for row in drawn
        ]
        return [
            _instance(row, Generate(prompt, MAX_NEW_TOKENS, **context.stops("\n")))
            for row, prompt in zip(drawn, context.prompts(texts), strict=True)
        ]

    def notes(self, instances: Sequence[Instance], context: Context) -> list[str]:
        """See `Benchmark`: passages that could not be cut."""
        options: Options = context.options
        if context.tokenizer is not None or options.no_context or not options.max_context_length:
            return []
        return [
            f"passages are shown whole, not their first {options.max_context_length} tokens: "
            "who answers has the tokenizer"
        ]

    def items(self, data: Path) -> Iterator[Item]:
        """See `Benchmark`; each question with its passage."""
        for row in _dev(data):
            prompt = f"{row['context']}\n{row['question']}"
            yield Item(row["id"], prompt, row["answers"][0]["text"])

    def grade(self, row: Row, context: Context) -> Row:
        """See `Benchmark`; of an endpoint's answer the first line counts."""
        prediction = row["output"].strip()
        if context.endpoint:
            prediction = prediction.split("\n")[0].strip()
        golds = row["gold"]
        return {
            "prediction": prediction,
            "prediction_text": prediction,
            "score": 100 * squad_f1(prediction, golds),
            "exact_match": 100 * squad_em(prediction, golds),
            "extracted": bool(prediction),
        }

    def metrics(self, rows: Sequence[Row], context: Context) -> Metrics:
        """F1 and exact match of each language, 0 to 100, and their means over languages."""
        found = {
            language: {
                "exact_match": float(np.mean([row["exact_match"] for row in members])),
                "f1": float(np.mean(self.scores(members))),
            }
            for language, members in by_group(rows).items()
        }
        average = {
            name: float(np.mean([scores[name] for scores in found.values()]))
            for name in ("f1", "exact_match")
        }
        return {**found, "average": average}

    def write(self, rows: Sequence[Row], metrics: Metrics, folder: Path, context: Context) -> None:
        """The questions with what was answered; the reference spells the file's name so."""
        names = ("id", "lang", "context", "question", "answers", "prediction_text")
        lines = [{name: row[name] for name in names} for row in rows]
        write_jsonl(folder / "tydiaqa_predictions.jsonl", lines)


def _instance(row: Row, ask: Generate) -> Instance:
    data = {name: row[name] for name in ("lang", "context", "question", "answers")}
    if row.get("cut"):
        data["context_truncated"] = row["cut"]
    golds = [answer["text"] for answer in row["answers"]]
    return Instance(row["id"], ask, golds, data, group=row["lang"], cluster=row["passage"])


def _dev(folder: Path) -> list[Row]:
    return _flat(folder / "tydiqa-goldp-v1.1-dev.json")


def _flat(path: Path) -> list[Row]:
    """The questions of a file in SQuAD's layout, in order."""
    rows = []
    for number, article in enumerate(list_in(read_json(path), "data", path)):
        at = f"{path} article {number}"
        for paragraph in list_in(article, "paragraphs", at):
            check_texts(paragraph, ("context",), at)
            passage = sha256(paragraph["context"])[:16]
            for question in list_in(paragraph, "qas", at):
                rows.append(_question(question, paragraph["context"], passage, at))
    if not rows:
        raise DataError("benchmark file has no question", at=path)
    return rows


def _question(question: Any, context: str, passage: str, at: str) -> Row:
    check_texts(question, ("id", "question"), at)
    answers = list_in(question, "answers", at)
    if not answers:
        raise DataError("question has no answer", got=question["id"], at=at)
    for answer in answers:
        check_texts(answer, ("text",), f"{at}, question {question['id']}")
    # Ids may hold two hyphens in a row: the language ends at the first.
    return {
        "id": question["id"],
        "lang": question["id"].partition("-")[0],
        "context": context,
        "question": question["question"],
        "answers": answers,
        "passage": passage,
    }


def _wanted(rows: list[Row], languages: Sequence[str]) -> list[Row]:
    there = sorted({row["lang"] for row in rows})
    unknown = sorted(set(languages) - set(there))
    if unknown:
        raise ConfigError(
            "unknown language", got=", ".join(unknown), at="--languages", expected=", ".join(there)
        )
    return [row for row in rows if not languages or row["lang"] in languages]


def _labels(language: str, *, closed: bool) -> Labels:
    table = read_json(Path(__file__).with_name("templates.json"))
    table = table[f"encoding_templates_{'without' if closed else 'with'}_context"]
    if language not in table:
        raise DataError(
            "no prompt for a language", got=language, expected=", ".join(sorted(table)),
            do="name others with --languages",
        )  # fmt: skip
    instruction, *others = table[language]
    return Labels(instruction, *([""] if closed else []), *others)


def _shots(
    context: Context, languages: Sequence[str], count: int, rng: random.Random
) -> dict[str, list[Row]]:
    """The examples to show, the same for all questions of a language."""
    if not count:
        return {language: [] for language in languages}
    path = _train_file(context.data_dir)
    rows = _flat(path)
    found = {language: [r for r in rows if r["lang"] == language] for language in languages}
    lacking = [language for language, members in found.items() if len(members) < count]
    if lacking:
        rest = " ".join(language for language in languages if language not in lacking)
        raise DataError(
            "languages have no example to show", got=", ".join(lacking), at=path,
            expected=f"{count} of each",
            do=f"--n_shot 0, or --languages {rest}" if rest else "--n_shot 0",
        )  # fmt: skip
    return {language: rng.sample(members, count) for language, members in found.items()}


def _train_file(folder: Path) -> Path:
    """The training file, or one that holds a part of it."""
    whole = folder / "tydiqa-goldp-v1.1-train.json"
    parts = sorted(folder.glob("tydiqa-goldp-v1.1-train*.json"))
    return whole if whole.exists() or not parts else parts[0]


def _cut_passages(rows: Sequence[Row], context: Context) -> None:
    """Cuts passages to their first tokens, and notes how many tokens went."""
    most = context.options.max_context_length
    if not most or context.tokenizer is None:
        return
    bos = context.paper("tydiqa_bos_in_passage")
    for row in rows:
        row["context"], row["cut"] = context.cut(row["context"], most, bos=bos)


def _prompt(
    row: Row, shots: Sequence[Row], labels: Labels, options: Options, context: Context
) -> tuple[str, str]:
    """The question as it is asked, without its last new line, and how the answer begins."""

    def shown(part: Row) -> str:
        passage = "" if options.no_context else f"{labels.passage} {part['context']}\n"
        return f"{passage}{labels.question} {part['question']}"

    examples = [f"{shown(s)}\n{labels.answer} {s['answers'][0]['text']}" for s in shots]
    text = "\n\n".join([labels.instruction, *examples, shown(row)])
    blank = context.chat and context.paper("tydiqa_blank_line")
    return text + "\n" * blank, labels.answer


if __name__ == "__main__":
    from tulu_jax.cli.evaluate import run_benchmark

    sys.exit(run_benchmark("tydiqa"))
