"""AlpacaEval's judges: from answered rows to rows with a preference."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eval.alpaca_farm.files import Annotation, read_annotations
from eval.harness.asks import Answer, Instance
from eval.harness.benchmark import Row
from eval.harness.context import Context
from eval.harness.endpoint import KEY, OPENAI, address, key_of_environment
from eval.judge.annotators import ANNOTATORS, Annotator, plain
from eval.judge.cost import Metered, Price, estimate_texts, price_of
from eval.judge.counts import Count
from eval.judge.pairs import DRAW, Pair, Verdict, by_count, judge_pairs, prompts_of
from eval.judge.winrate import share
from tulu_jax.errors import ConfigError, DataError
from tulu_jax.files import hub_advice, user_path

JUDGES = ("openai", "checkpoint", "replay", "unique_tokens", "length", "none")
MODELS = ("openai", "checkpoint")
"""Judges that are asked with an annotator's prompt."""


def annotator_of(options: Any) -> Annotator:
    """The prompt that the options name."""
    return ANNOTATORS[options.annotator]


def judge_of(options: Any) -> str:
    """The model that judges."""
    return options.judge_model or annotator_of(options).model


def name_of(options: Any) -> str:
    """What results call the judge."""
    if options.judge == "replay":
        return f"replay of {Path(options.annotations).name}"
    if options.judge not in MODELS:
        return options.judge
    prompt, model = annotator_of(options), judge_of(options)
    return prompt.name if model == prompt.model else f"{prompt.name} by {Path(model).name}"


def price(options: Any) -> Price | None:
    """The price of the judge's tokens; None where it is not known, or costs nothing.

    Raises:
      ConfigError: a limit of cost, and no price.
    """
    if options.judge != "openai":
        return None
    found = price_of(judge_of(options), options.price_in, options.price_out)
    if found is None and options.max_cost is not None:
        raise ConfigError(
            "price of the judge is not known", got=judge_of(options), at="--max_cost",
            do="give --price_in and --price_out, dollars for a million tokens",
        )  # fmt: skip
    return found


def check(context: Context) -> None:
    """Refuses a judge that could not be asked.

    Raises:
      ConfigError: no key, no folder, no price, or nobody to ask where this runs.
      DataError: annotations that cannot be read.
    """
    options = context.options
    price(options)
    if options.judge in MODELS and context.extras.get("judges") is False:
        raise ConfigError("task asks a judge", do="choose one that counts: --judge unique_tokens")
    if options.judge == "openai":
        at = address(options.judge_base_url)
        answered = context.extras.get("answered", False)  # the judge may have answered too
        if at == OPENAI and key_of_environment() is None and not answered:
            raise ConfigError(
                "judge needs a key", at=at, expected=f"{KEY} in the environment",
                do="set it, name another --judge_base_url, or choose --judge unique_tokens or none",
            )  # fmt: skip
    if options.judge == "checkpoint" and not user_path(options.judge_model).is_dir():
        path = user_path(options.judge_model)
        raise ConfigError(
            "judge is not there", got=path, at="--judge_model", expected="a folder of a checkpoint",
            do=hub_advice(path),
        )  # fmt: skip
    if options.judge == "replay":
        _stored(options)


def notes(instances: Sequence[Instance], context: Context) -> list[str]:
    """What judging will cost, as far as that can be said before there are outputs.

    Raises:
      ConfigError: it cannot be done for what it may cost.
    """
    options, cost = context.options, price(context.options)
    if options.judge == "none":
        return [
            "no judge: outputs are kept and nothing is scored; later: "
            "tulu eval score RESULTS --option alpaca_farm.judge=..."
        ]
    if cost is None:
        unknown = options.judge == "openai"
        return [f"price of the judge {judge_of(options)} is not known"] if unknown else []
    pairs = [Pair(one.id, one.data["instruction"], one.gold, "x") for one in instances]
    least = pairs_cost(pairs, options, cost)
    shown = len(pairs) * (2 if options.both_orders else 1)
    most = least + cost.of(shown * options.max_new_tokens, 0)
    if options.max_cost is not None and least > options.max_cost:
        raise ConfigError(
            "judging will cost more than it may", got=f"${least:.2f} however short outputs are",
            at="--max_cost", expected=f"${options.max_cost:.2f} at most",
            do="raise it, judge fewer (--limit), or choose a cheaper judge (--judge_model)",
        )  # fmt: skip
    return [
        f"judging by {judge_of(options)} costs ${least:.2f}, and ${most:.2f} if all outputs are as "
        "long as they may be; what is judged already costs nothing"
    ]


def pairs_cost(pairs: Sequence[Pair], options: Any, cost: Price) -> float:
    """Dollars that judging these pairs costs, about, at this price."""
    annotator = annotator_of(options)
    _, prompts = prompts_of(pairs, annotator, both_orders=options.both_orders)
    return estimate_texts(prompts, annotator.max_tokens, cost)


def grade_all(rows: Sequence[Row], context: Context) -> list[Row]:
    """What judging adds to each row.

    Those are `preference` (1 to 2, None without a verdict), `verdict` (how the pair ended),
    `score` in per cent where there is a preference, `unique` of both outputs and of what; `first`,
    `replies` and `judge_tokens` of a model that judges.
    """
    options = context.options
    stored = _stored(options) if options.judge == "replay" else {}
    pairs, missing = [], {}
    for row in rows:
        reference = row["gold"]
        if options.judge == "replay":
            known = stored.get(row["instruction"])
            missing[row["id"]] = _unlike(known, row["output"])
            reference = known.texts[0] if known is not None and known.texts else reference
        pairs.append(Pair(row["id"], row["instruction"], reference, row["output"]))
    counts = _unique(rows, pairs, context)
    verdicts = _verdicts(pairs, counts, stored, context)
    graded = []
    for pair, verdict, count in zip(pairs, verdicts, counts, strict=True):
        error = missing.get(pair.id) or (verdict.error if verdict.kind == "failed" else None)
        graded.append({"error": error} if error else _fields(pair, verdict, count))
    return graded


def _fields(pair: Pair, verdict: Verdict, unique: Row) -> Row:
    row: Row = {
        "gold": pair.reference,
        "preference": verdict.preference,
        "verdict": verdict.kind,
        "prediction": _winner(verdict.preference),
        "unique": unique,
    }
    if (won := share(verdict.preference)) is not None:
        row["score"] = 100 * won
    if verdict.replies:
        row |= {"replies": list(verdict.replies), "judge_tokens": list(verdict.tokens)}
    if verdict.replies or verdict.first:
        row["first"] = [list(first) for first in verdict.first]
    if verdict.answered_by:
        row["judged_by"] = list(verdict.answered_by)
    return row


def _winner(preference: float | None) -> str | None:
    if preference is None or preference == DRAW:
        return None if preference is None else "draw"
    return "model" if preference > DRAW else "reference"


def _verdicts(
    pairs: Sequence[Pair], counts: Sequence[Row], stored: dict[str, Annotation], context: Context
) -> list[Verdict]:
    options = context.options
    if options.judge == "none":
        return [Verdict("unread") for _ in pairs]
    if options.judge == "replay":
        return [_replayed(pair, stored.get(pair.instruction)) for pair in pairs]
    if options.judge == "length":
        return by_count(pairs, [(len(pair.reference), len(pair.output)) for pair in pairs])
    if options.judge == "unique_tokens":
        return by_count(pairs, [(count["reference"], count["output"]) for count in counts])
    return judge_pairs(
        pairs,
        annotator_of(options),
        lambda prompts: _ask(prompts, context),
        seed=options.judge_seed,
        both_orders=options.both_orders,
        consistent=not context.paper("alpaca_contradictions"),
    )


def _ask(prompts: Sequence[tuple[str, str]], context: Context) -> list[Answer]:
    options, annotator = context.options, annotator_of(context.options)
    judges = context.extras["judge"]
    cost = price(options)
    return judges.answers(
        "model" if options.judge == "checkpoint" else "engine",
        judge_of(options),
        prompts,
        max_new_tokens=annotator.max_tokens,
        words=annotator.words,
        base_url=options.judge_base_url,
        concurrency=options.judge_concurrency,
        requests_per_minute=options.judge_requests_per_minute,
        meter=lambda backend: Metered(
            backend, cost, max_cost=options.max_cost, say=judges.say
        ),
    )  # fmt: skip


def _stored(options: Any) -> dict[str, Annotation]:
    """The annotations by instruction.

    Raises:
      DataError: see `read_annotations`; they hold no texts, or an instruction twice.
    """
    path = Path(options.annotations)
    found: dict[str, Annotation] = {}
    for one in read_annotations(path):
        if one.instruction is None:
            raise DataError(
                "annotations hold no texts", at=path, expected="annotations.json of alpaca_eval",
                do="their numbers: tulu eval preferences FILE",
            )  # fmt: skip
        if one.instruction in found:
            raise DataError("instruction is there twice", got=repr(one.instruction[:60]), at=path)
        found[one.instruction] = one
    return found


def _unlike(known: Annotation | None, output: str) -> str | None:
    """Why a stored annotation is not of this output; None where it is."""
    if known is None:
        return "the annotations have no judgement of this instruction"
    if known.texts is not None and known.texts[1] != output:
        return "the stored judgement is of another output"
    return None


def _replayed(pair: Pair, known: Annotation | None) -> Verdict:
    if known is None or known.preference is None:
        return Verdict("unread")
    if pair.reference == pair.output:
        return Verdict("same", DRAW)
    preference = known.preference or DRAW
    return Verdict(
        "judged", preference, tuple((_shown_first(one, preference), one) for one in known.first)
    )


def _shown_first(choice: float, preference: float) -> str | None:
    """Whose output a stored reply was shown first; None where a draw does not tell it."""
    if DRAW in (choice, preference):
        return None
    return "reference" if (choice < DRAW) == (preference < DRAW) else "model"


def _unique(rows: Sequence[Row], pairs: Sequence[Pair], context: Context) -> list[Row]:
    """How many different tokens both outputs of a pair have; words without a tokenizer.

    Tokens are the model's, counted when it was asked: they stay when outputs are graded again.
    """
    if context.tokenizer is not None:
        texts = [plain(text) for pair in pairs for text in (pair.reference, pair.output)]
        sizes = iter([len(set(ids)) for ids in context.encode(texts)])
        return [{"of": "tokens", "reference": next(sizes), "output": next(sizes)} for _ in pairs]
    found = []
    for row, pair in zip(rows, pairs, strict=True):
        kept = row.get("unique") or {}
        if kept.get("of") == "tokens" and pair.reference == row["gold"]:
            found.append(kept)
        else:
            sides = {"reference": pair.reference, "output": pair.output}
            counts = {side: Count.of(text).unique for side, text in sides.items()}
            found.append({"of": "words", **counts})
    return found


def scored(rows: Sequence[Row]) -> list[Row]:
    """The rows with a preference."""
    return [row for row in rows if "score" in row]


def price_of_row(row: Row, options: Any) -> float | None:
    """Dollars of a row's judgement; None where nobody was paid, or price or tokens are unknown."""
    cost = price(dataclasses.replace(options, max_cost=None))
    if cost is None or "judge_tokens" not in row:
        return None
    told = row["judge_tokens"][0] > 0 or all(reply is None for reply in row["replies"])
    return cost.of(*row["judge_tokens"]) if told else None
