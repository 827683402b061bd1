"""A mixture's composition at full size, from counts alone: no file is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.table import Table

from tulu_jax.data.mixtures import Component
from tulu_jax.data.specs import TASK_PREFIX, DatasetSpec, short_name
from tulu_jax.inspect.table1 import PAPER
from tulu_jax.inspect.tables import plain_table, share_text, short_count

MARKER_TOKENS = 16
"""LLaMA tokens that the chat format adds to a round: the markers, their newlines, and EOS."""

PACKED_SHARE = 0.99
"""How full best-fit rows are expected to be."""


@dataclass(frozen=True, kw_only=True)
class PlannedDataset:
    """One dataset of the mixture: its upstream examples, of which `examples` are taken.

    `tokens` is estimated from the paper's mean lengths; None where the paper has none. With
    `other_reading` the task reads the dataset in another way than the first paper (Tülu 2).
    Exclude files name `excluded` of the upstream ones.
    """

    task: str
    upstream: int | None
    examples: int | None
    tokens: int | None
    other_reading: bool = False
    excluded: int = 0


@dataclass(frozen=True, kw_only=True)
class MixturePlan:
    """A mixture at full size. Row and step counts are estimates; see `notes`."""

    mixture: str
    datasets: list[PlannedDataset]
    row_length: int
    batch_size: int
    epochs: int
    packing: str

    @property
    def examples(self) -> int:
        """Conversations of all datasets whose count is known."""
        return sum(one.examples or 0 for one in self.datasets)

    @property
    def tokens(self) -> int:
        """Estimated tokens of all datasets whose lengths are known."""
        return sum(one.tokens or 0 for one in self.datasets)

    @property
    def rows(self) -> int:
        """Estimated rows of an epoch."""
        if self.packing == "padded":
            return self.examples
        return -int(-self.tokens // (self.row_length * PACKED_SHARE))

    @property
    def steps(self) -> int:
        """Estimated steps of all epochs."""
        return -(-self.epochs * self.rows // self.batch_size)

    @property
    def notes(self) -> list[str]:
        """What the numbers leave out."""
        notes = [
            f"tokens: the paper's mean lengths (LLaMA's tokenizer) and {MARKER_TOKENS} for the "
            f"markers of a round; what is cut at {self.row_length} is not taken off",
        ]
        if self.packing != "padded":
            notes.append(f"rows: taken to be {PACKED_SHARE:.0%} full")
        if other := [one.task for one in self.datasets if one.other_reading and one.tokens]:
            notes.append(f"lengths are of the first paper's reading, not: {_names(other)}")
        if unknown := [one.task for one in self.datasets if one.tokens is None]:
            notes.append(f"of unknown length, so not counted in tokens and rows: {_names(unknown)}")
        if out := [f"{short_name(d.task)} {d.excluded:,}" for d in self.datasets if d.excluded]:
            notes.append(f"excluded, if they are there (not looked up): {', '.join(out)}")
        return notes

    def as_json(self) -> dict[str, object]:
        """The plan as dictionaries, lists, texts and numbers."""
        return {
            "mixture": self.mixture,
            "examples": self.examples,
            "estimated_tokens": self.tokens,
            "row_length": self.row_length,
            "batch_size": self.batch_size,
            "epochs": self.epochs,
            "packing": self.packing,
            "estimated_rows": self.rows,
            "estimated_steps": self.steps,
            "notes": self.notes,
            "datasets": [
                {
                    "task": one.task,
                    "upstream": one.upstream,
                    "examples": one.examples,
                    "excluded": one.excluded,
                    "share": (one.examples or 0) / max(self.examples, 1),
                    "estimated_tokens": one.tokens,
                    "token_share": (one.tokens or 0) / max(self.tokens, 1),
                }
                for one in self.datasets
            ],
        }


def plan_mixture(
    mixture: str,
    parts: Sequence[tuple[Component, DatasetSpec]],
    *,
    row_length: int,
    batch_size: int,
    epochs: int,
    packing: str = "best_fit",
    excluded: Mapping[str, int] | None = None,
) -> MixturePlan:
    """The composition of the whole mixture, by the datasets' upstream counts and the caps.

    `excluded` is how many examples of a task exclude files name.
    """
    out = excluded or {}
    datasets = [_planned(one, spec, out.get(one.task, 0)) for one, spec in parts]
    return MixturePlan(
        mixture=mixture,
        datasets=datasets,
        row_length=row_length,
        batch_size=batch_size,
        epochs=epochs,
        packing=packing,
    )


def _planned(component: Component, spec: DatasetSpec, excluded: int) -> PlannedDataset:
    upstream = spec.expected_examples.get("train")
    examples = None if upstream is None else max(upstream - excluded, 0)
    if component.max_examples is not None:
        most = component.max_examples
        examples = most if examples is None else min(most, examples)
    paper = PAPER.get(spec.name)
    tokens = None
    if paper is not None and examples is not None:
        tokens = round(examples * (paper.tokens_per_instance + MARKER_TOKENS * paper.rounds))
    return PlannedDataset(
        task=spec.task_name,
        upstream=upstream,
        examples=examples,
        tokens=tokens,
        other_reading=spec.task_name != TASK_PREFIX + spec.name,
        excluded=excluded,
    )


def plan_table(plan: MixturePlan) -> Table:
    """The plan as a table of at most 100 columns."""
    columns = ("upstream", "examples", "share", "est. tokens", "token share")
    table = plain_table("dataset", *columns)
    for one in plan.datasets:
        table.add_row(
            short_name(one.task),
            _count(one.upstream),
            _count(one.examples),
            share_text(one.examples or 0, plan.examples),
            "unknown" if one.tokens is None else short_count(one.tokens),
            "" if one.tokens is None else share_text(one.tokens, plan.tokens),
        )
    table.add_section()
    table.add_row("all", "", f"{plan.examples:,}", "", short_count(plan.tokens), "")
    rows = (
        f"about {plan.rows:,} rows of {plan.row_length} ({plan.packing}): {plan.steps:,} steps of "
        f"{plan.batch_size} rows for {plan.epochs} epochs"
    )
    table.caption = "\n".join([rows, *plan.notes])
    return table


def _count(count: int | None) -> str:
    return "unknown" if count is None else f"{count:,}"


def _names(tasks: Sequence[str]) -> str:
    return ", ".join(map(short_name, tasks))
