"""Checks that run by themselves before a model is asked, and after it answered."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from eval.harness.asks import Choose, Generate, Instance, Weigh
from eval.harness.benchmark import Benchmark, Row
from eval.harness.context import Context
from tulu_jax.chat.messages import has_chat_markers
from tulu_jax.errors import GuardError

FEW = 4
"""Of fewer instances nothing is said about how much they are alike."""
MANY_ALIKE = 10
WORTH_A_WORD = 0.1
"""Where more of the outputs have no answer, or no end, the score is as much about that."""
WHY = 300
"""Characters of an error that are shown."""


def check_data(benchmark: Benchmark, data: Path) -> list[str]:
    """What is to be said of the data: a part of a benchmark can be read, as can one put twice.

    Questions that the whole benchmark itself repeats are not worth a word.
    """
    whole = benchmark.questions
    items = [] if whole is None else list(benchmark.items(data))
    if whole is None or len(items) == whole:
        return []
    again = len(items) - len({(item.prompt, item.answer) for item in items})
    repeats = f", {again:,} of them repeat another" if again else ""
    return [
        f"data have {len(items):,} questions where the whole benchmark has {whole:,}{repeats}: "
        "not to be compared with results on all of it"
    ]


def check_prompts(instances: Sequence[Instance], context: Context) -> list[str]:
    """What is to be said of the prompts.

    Raises:
      GuardError: there are none, two instances have one id, most prompts are one and the same, or
        a prompt has not exactly one BOS.
    """
    if not instances:
        raise GuardError("no instance to evaluate", at=context.data_dir, expected="at least one")
    _check_ids(instances)
    notes = _check_distinct(instances)
    if context.tokenizer is not None:
        notes += _check_bos(instances, context)
    return notes


def _check_ids(instances: Sequence[Instance]) -> None:
    name, count = Counter(instance.id for instance in instances).most_common(1)[0]
    if count > 1:
        raise GuardError("instances share an id", got=f"{count} times {name!r}", expected="once")


def _check_distinct(instances: Sequence[Instance]) -> list[str]:
    """Different questions must be asked in different words (open-instruct's PR #99)."""
    asked: dict[tuple[str, str], set[str]] = {}
    for instance in instances:
        content = json.dumps(instance.data, sort_keys=True, default=str)
        kind, text = type(instance.ask).__name__, instance.ask.prompt.text
        asked.setdefault((kind, text), set()).add(content)
    questions = len(set().union(*asked.values()))
    (_, text), most = max(asked.items(), key=lambda item: len(item[1]))
    if questions >= FEW and len(most) > questions / 2:
        raise GuardError(
            "different questions have one and the same prompt",
            got=f"{len(most)} of {questions} questions as {text[-60:]!r}",
            expected="a prompt of its own for each",
            do="see how the benchmark builds its prompts",
        )
    same = questions - len(asked)
    return [f"{same} of {questions} questions share a prompt with another"] if same > 0 else []


def _check_bos(instances: Sequence[Instance], context: Context) -> list[str]:
    tokenizer = context.tokenizer
    assert tokenizer is not None
    wanted = len(context.start_ids())
    if tokenizer.bos_id is None or tokenizer.bos_id == tokenizer.eos_id:
        return []
    doubled = []
    for instance in instances:
        for ids in _sequences(instance):
            front = sum(1 for token in ids[: wanted + 1] if token == tokenizer.bos_id)
            if front != wanted:
                raise GuardError(
                    "prompt does not begin with exactly one BOS" if wanted else
                    "prompt begins with a BOS that is not wanted",
                    got=list(ids[:3]), at=instance.id, expected=[tokenizer.bos_id] * wanted,
                    do="see --add_bos and the chat format: the tokenizer adds BOS, not the format",
                )  # fmt: skip
            if ids.count(tokenizer.bos_id) > wanted:
                doubled.append(instance.id)
                break
    return [
        f"{len(doubled)} prompts have a BOS in their middle, first {doubled[0]}"
        for _ in doubled[:1]
    ]


def _sequences(instance: Instance) -> list[tuple[int, ...]]:
    if isinstance(instance.ask, Weigh):
        return [before for before, _ in instance.ask.pairs]
    return [] if instance.ask.prompt.ids is None else [instance.ask.prompt.ids]


def check_format(context: Context, *, model_chats: bool | None, chats: bool) -> list[str]:
    """Warns of a chat format on a base model, and of none on a tuned one.

    Args:
      context: the run.
      model_chats: whether the model has a chat format; None where that is unknown.
      chats: whether the benchmark asks tuned models in chat format.
    """
    if context.chat and model_chats is False:
        return [
            "chat format on a model that has none: base models are evaluated without it "
            "(open-instruct's issue #26)"
        ]
    if not context.chat and model_chats and chats and not context.endpoint:
        return ["no chat format on a model that was tuned with one: add --use_chat_format"]
    return []


def look_at_answers(rows: Sequence[Row]) -> tuple[dict[str, Any], list[str]]:
    """Counts over answered rows, and what is to be said of them.

    Returns:
      counts: `n`, `failures`, `truncated_prompts`, `capped`, `stop_reasons`, `not_extracted`,
        `distinct_outputs`.
      notes: sentences, for those that need a look.
    """
    n = len(rows)
    errors = {row["id"]: str(row["error"]) for row in rows if "error" in row}
    failed = list(errors)
    cut = [row["id"] for row in rows if row.get("truncated")]
    capped = [row["id"] for row in rows if row.get("capped")]
    lost = [row["id"] for row in rows if row.get("extracted") is False]
    outputs = [row["output"] for row in rows if row.get("output") is not None]
    reasons = Counter(row["stop_reason"] for row in rows if row.get("stop_reason"))
    counts = {
        "n": n,
        "failures": failed,
        "truncated_prompts": cut,
        "capped": capped,
        "not_extracted": len(lost),
        "stop_reasons": dict(sorted(reasons.items())),
        "distinct_outputs": len(set(outputs)),
    }
    notes = [
        f"{len(ids)} of {n} {what}, first {ids[0]}"
        for ids, what in (
            (
                failed,
                f"instances failed{_why(errors)}: they are in no metric; run again to ask them",
            ),
            (cut, "prompts were cut at their beginning to fit the model's length (--max_length)"),
            (capped, "answers had less room than asked for (--max_length)"),
        )
        if ids
    ]
    if len(lost) > n * WORTH_A_WORD:
        notes.append(f"no answer was found in {len(lost)} of {n} outputs")
    if reasons.get("length", 0) > n * WORTH_A_WORD:
        notes.append(f"{reasons['length']} of {n} outputs did not end by themselves")
    turns = [text for text in outputs if has_chat_markers(text)]
    if turns:
        notes.append(
            f"{len(turns)} of {n} outputs have the markers of a chat format in them: a model that "
            "does not end its answer, or is asked in another format than its own; turns that it "
            "made up are graded too"
        )
    notes += other_names(row.get("answered_by") for row in rows)
    notes += _alike(outputs)
    return counts, notes


def other_names(names: Iterable[str | None], who: str = "answers") -> list[str]:
    """A note of the models that an endpoint says it asked, where it calls them otherwise."""
    found = Counter(name for name in names if name)
    told = ", ".join(f"{name!r} ({count})" for name, count in found.most_common(3))
    return [f"the endpoint says that {who} are by another model than asked: {told}"] * bool(found)


def _why(errors: dict[str, str]) -> str:
    """The error that most of the failed have."""
    if not errors:
        return ""
    why, count = Counter(errors.values()).most_common(1)[0]
    return f" ({count} by {why[:WHY]!r})"


def _alike(outputs: Sequence[str]) -> list[str]:
    if len(outputs) < MANY_ALIKE:
        return []
    text, count = Counter(outputs).most_common(1)[0]
    if count <= len(outputs) / 2:
        return []
    return [f"{count} of {len(outputs)} outputs are one and the same: {text[:60]!r}"]


def can_answer(instance: Instance, can: frozenset[str]) -> bool:
    """Whether a backend that can do this much can answer an instance."""
    kinds = {Generate: "generate", Choose: "choose", Weigh: "weigh"}
    return kinds[type(instance.ask)] in can
