"""The figures of a human evaluation: acceptance, wins, agreement, each with its interval.

As the paper counts them: of each evaluator the latest answer about an instance, of each instance
the first evaluator; agreement is between the first two. Source: section 5.3 and appendix of arXiv
2306.04751, and allenai/open-instruct `human_eval/compute_metrics.py`. That code finds a model in a
sentence by its name, so that one whose name is part of another's wins twice; here names are equal
or not.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from eval.annotate.records import Annotation
from eval.harness.statistics import bootstrap_means

RESAMPLES = 2_000
LEVEL = 0.95
"""Of the intervals: percentiles of the bootstrap over instances, see `share`."""


@dataclass(frozen=True)
class Share:
    """A mean over instances with its bootstrap interval; NaN where there is none."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Agreement:
    """How far the first two annotators of `n` instances agree.

    Shares are the paper's: equal labels of acceptability; equal winner; and the same with half a
    point where one of two said tie. `kappa` is Cohen's, of first against second annotator; `alpha`
    Krippendorff's over all annotators, of preference on its five ordered steps.
    """

    n: int
    acceptance: Share
    comparison: Share
    relaxed: Share
    acceptance_kappa: float
    comparison_kappa: float
    acceptance_alpha: float
    preference_alpha: float


@dataclass(frozen=True)
class PairFigures:
    """What one pair of models got; shares of preference sum to 1."""

    models: tuple[str, str]
    n: int
    acceptance: dict[str, Share]
    wins: dict[str, Share]
    """By model, and `tie`: slight and clear together."""
    steps: tuple[Share, ...]
    """From the first model clearly better to the second clearly better."""
    agreement: Agreement


@dataclass(frozen=True)
class Figures:
    """All pairs of a study, and agreement over all of them."""

    pairs: tuple[PairFigures, ...]
    agreement: Agreement
    annotations: int
    """Rows that were counted: the latest of each evaluator and instance."""
    evaluators: int
    repeated: int = 0
    """Earlier rows of the same evaluator and instance."""
    blank: int = field(default=0)

    def as_json(self) -> dict[str, Any]:
        """The figures as JSON takes them: NaN is null."""
        return _no_nan(asdict(self))


def _no_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _no_nan(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_no_nan(one) for one in value]
    return None if isinstance(value, float) and math.isnan(value) else value


Group = list[Annotation]
"""The annotations of one instance, one an evaluator, in order of time."""


def latest(annotations: Iterable[Annotation]) -> list[Annotation]:
    """Of each evaluator the last answer about each instance, in order of time.

    Of two of one time, as in sheets that have whole seconds or minutes, the later row is the last.
    """
    kept: dict[tuple[frozenset[str], str, str], Annotation] = {}
    for one in annotations:
        key = (one.pair, one.instance_id, one.evaluator)
        if key not in kept or one.time >= kept[key].time:
            kept[key] = one
    return sorted(kept.values(), key=lambda one: one.time)


def groups(annotations: Iterable[Annotation]) -> dict[frozenset[str], list[Group]]:
    """For each pair of models its instances, each with what `latest` keeps of it."""
    found: dict[frozenset[str], dict[str, Group]] = {}
    for one in latest(annotations):
        found.setdefault(one.pair, {}).setdefault(one.instance_id, []).append(one)
    return {pair: list(by_id.values()) for pair, by_id in found.items()}


def compute(annotations: Sequence[Annotation], *, blank: int = 0) -> Figures:
    """The figures of these annotations."""
    by_pair = groups(annotations)
    common = Counter(model for pair in by_pair for model in pair)
    names = {pair: _in_order(pair, common) for pair in by_pair}
    pairs = sorted(by_pair, key=lambda pair: names[pair])
    flat = [(group, names[pair]) for pair in pairs for group in by_pair[pair]]
    kept = sum(len(group) for group, _ in flat)
    return Figures(
        pairs=tuple(_pair(by_pair[pair], names[pair]) for pair in pairs),
        agreement=_agreement(flat),
        annotations=kept,
        evaluators=len({one.evaluator for group, _ in flat for one in group}),
        repeated=len(annotations) - kept,
        blank=blank,
    )


def _in_order(pair: frozenset[str], common: Counter[str]) -> tuple[str, str]:
    """The model that is in more pairs first: what the others are compared with."""
    first, second = sorted(pair, key=lambda model: (-common[model], model))
    return first, second


def share(scores: Sequence[float]) -> Share:
    """The mean of scores, one an instance, and the interval that the bootstrap gives.

    Where all are 1, or all 0, draws from them tell nothing: then the exact interval of a share.

    >>> one = share([1.0])  # nobody knows of how many this is true
    >>> round(one.low, 3), one.high
    (0.025, 1.0)
    """
    if not scores:
        return Share(math.nan, math.nan, math.nan, 0)
    value, n, tail = math.fsum(scores) / len(scores), len(scores), (1 - LEVEL) / 2
    if value in (0.0, 1.0):
        far = tail ** (1 / n)
        return Share(value, far, 1.0, n) if value else Share(value, 0.0, 1 - far, n)
    low, high = np.quantile(bootstrap_means(scores, resamples=RESAMPLES), [tail, 1 - tail])
    return Share(value, float(low), float(high), n)


def _pair(instances: list[Group], models: tuple[str, str]) -> PairFigures:
    firsts = [group[0] for group in instances]
    winners = [one.winner for one in firsts]
    wins = {model: share([float(w == model) for w in winners]) for model in models}
    steps = [one.margin(models[0]) for one in firsts]
    return PairFigures(
        models=models,
        n=len(firsts),
        acceptance={m: share([float(one.accepted(m)) for one in firsts]) for m in models},
        wins={models[0]: wins[models[0]], "tie": share([float(w is None) for w in winners]),
              models[1]: wins[models[1]]},
        steps=tuple(share([float(s == step) for s in steps]) for step in (2, 1, 0, -1, -2)),
        agreement=_agreement([(group, models) for group in instances]),
    )  # fmt: skip


def _agreement(instances: list[tuple[Group, tuple[str, str]]]) -> Agreement:
    twice = [(group, models) for group, models in instances if len(group) > 1]
    labels = [
        (group[0].accepted(model), group[1].accepted(model))
        for group, models in twice
        for model in models
    ]
    same = [a == b for a, b in labels]
    winners = [tuple(_side(one, models) for one in group[:2]) for group, models in twice]
    equal = [float(a == b) for a, b in winners]
    relaxed = [1.0 if a == b else 0.5 * (0 in (a, b)) for a, b in winners]
    return Agreement(
        n=len(twice),
        acceptance=share([(x + y) / 2 for x, y in zip(same[::2], same[1::2], strict=True)]),
        comparison=share(equal),
        relaxed=share(relaxed),
        acceptance_kappa=cohen_kappa(labels),
        comparison_kappa=cohen_kappa(winners),
        acceptance_alpha=_alpha(
            [
                {one.evaluator: float(one.accepted(model)) for one in group}
                for group, models in instances
                for model in models
            ],
            "nominal",
        ),
        preference_alpha=_alpha(
            [
                {one.evaluator: float(one.margin(models[0])) for one in group}
                for group, models in instances
            ],
            "ordinal",
        ),
    )


def _side(one: Annotation, models: tuple[str, str]) -> int:
    """1 where the first model was preferred, 0 for a tie, -1 for the second."""
    return int(np.sign(one.margin(models[0])))


def cohen_kappa(labels: Sequence[tuple[Any, ...]]) -> float:
    """Cohen's kappa of pairs of labels; NaN where chance alone agrees always, or without pairs.

    >>> cohen_kappa([(1, 1), (1, 1), (0, 0), (1, 0)])  # observed 3/4, by chance 1/2
    0.5
    """
    n = len(labels)
    if not n:
        return math.nan
    first, second = Counter(a for a, _ in labels), Counter(b for _, b in labels)
    observed = sum(a == b for a, b in labels) / n
    chance = sum(first[label] * second[label] for label in first) / n**2
    return math.nan if chance == 1 else (observed - chance) / (1 - chance)


def _alpha(units: list[dict[str, float]], level: Literal["nominal", "ordinal"]) -> float:
    """Krippendorff's alpha of units, each the values by annotator; NaN where it is not defined."""
    import krippendorff

    units = [unit for unit in units if len(unit) > 1]
    domain = sorted({value for unit in units for value in unit.values()})
    if len(domain) < 2:
        return math.nan
    raters = sorted({name for unit in units for name in unit})
    table = np.array([[unit.get(name, math.nan) for unit in units] for name in raters])
    return float(
        krippendorff.alpha(reliability_data=table, level_of_measurement=level, value_domain=domain)
    )


def describe(figures: Figures) -> list[str]:
    """The figures as lines of text, shares in per cent with their intervals."""
    lines = [
        f"{figures.annotations:,} annotations of {figures.evaluators} people ("
        f"{figures.repeated} earlier ones of the same people, {figures.blank} blank rows left out)"
    ]
    for pair in figures.pairs:
        first, second = pair.models
        lines += [
            "",
            f"{first} against {second}: {pair.n} instances",
            *(f"  acceptable  {m:24} {_per_cent(s)}" for m, s in pair.acceptance.items()),
            *(f"  {'tie' if m == 'tie' else 'wins':10}  {'' if m == 'tie' else m:24} {_per_cent(s)}"
              for m, s in pair.wins.items()),
            "  steps       " + ", ".join(
                f"{name} {step.value:.1%}" for name, step in
                zip(_step_names(pair.models), pair.steps, strict=True)),
            *(f"  {line}" for line in _agreement_lines(pair.agreement)),
        ]  # fmt: skip
    if len(figures.pairs) > 1:
        lines += ["", "all pairs", *(f"  {line}" for line in _agreement_lines(figures.agreement))]
    return lines


def _step_names(models: tuple[str, str]) -> list[str]:
    first, second = models
    return [f"{first} clearly", f"{first} slightly", "tie", f"{second} slightly",
            f"{second} clearly"]  # fmt: skip


def _per_cent(one: Share) -> str:
    if math.isnan(one.value):
        return "-"
    return f"{100 * one.value:5.1f} %  ({100 * one.low:.1f} to {100 * one.high:.1f})"


def _agreement_lines(one: Agreement) -> list[str]:
    if not one.n:
        return ["agreement   no instance was annotated twice"]
    number: Callable[[float], str] = lambda v: "-" if math.isnan(v) else f"{v:.3f}"  # noqa: E731
    rows = (
        ("on acceptability", one.acceptance, one.acceptance_kappa, one.acceptance_alpha),
        ("on the winner", one.comparison, one.comparison_kappa, None),
        ("the same, relaxed", one.relaxed, None, one.preference_alpha),
    )
    lines = [f"agreement   of the first two annotators of {one.n} instances"]
    for name, found, kappa, alpha in rows:
        more = "" if kappa is None else f"  kappa {number(kappa)}"
        more += "" if alpha is None else f"  alpha {number(alpha)}"
        lines.append(f"  {name:18} {found.value:.4f} ({found.low:.2f} to {found.high:.2f}){more}")
    return lines
