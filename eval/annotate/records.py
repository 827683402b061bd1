"""Answers of people about two completions, in the columns of the paper's released sheet.

Source: allenai/open-instruct `human_eval/data/eval_annotations_tulu_1.xlsx`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tulu_jax.errors import DataError

COLUMNS = (
    "id",
    "instance_index",
    "instance_id",
    "prompt",
    "model_a",
    "model_b",
    "completion_a",
    "completion_b",
    "completion_a_is_acceptable",
    "completion_b_is_acceptable",
    "preference",
    "instance_quality",
    "comment",
    "evaluator",
    "timestamp",
)
"""Columns of the sheet, in order."""

PREFERENCES = ("a-is-better", "a-is-slightly-better", "tie", "b-is-slightly-better", "b-is-better")
"""What an annotator prefers; place 2 is a tie."""
ACCEPTABLE = ("yes", "no")
QUALITIES = ("good", "bad", "hard")
"""What an instance itself is like."""


@dataclass(frozen=True, slots=True)
class Instance:
    """One prompt and the completions of two models. `gold` says what is right, if that is known."""

    id: str
    prompt: str
    models: tuple[str, str]
    completions: tuple[str, str]
    gold: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Annotation:
    """One annotator's answer about one instance; of each pair the first is completion A's.

    `time` is in seconds since 1970 in UTC.
    """

    instance_id: str
    models: tuple[str, str]
    acceptable: tuple[bool, bool]
    preference: str
    evaluator: str
    time: float
    prompt: str = ""
    completions: tuple[str, str] = ("", "")
    quality: str = ""
    comment: str = ""
    instance_index: int = 0
    id: int = 0

    @property
    def pair(self) -> frozenset[str]:
        """The two models, in no order."""
        return frozenset(self.models)

    @property
    def winner(self) -> str | None:
        """The model that was preferred, slightly or clearly; None for a tie."""
        step = PREFERENCES.index(self.preference) - 2
        return None if step == 0 else self.models[step > 0]

    def margin(self, model: str) -> int:
        """How much a model was preferred: 2 clearly, 1 slightly, 0 a tie, -1, -2.

        >>> Annotation("x", ("m", "n"), (True, True), "b-is-better", "eve", 0.0).margin("m")
        -2
        """
        step = PREFERENCES.index(self.preference) - 2
        return step if self.models[1] == model else -step

    def accepted(self, model: str) -> bool:
        """Whether the model's completion was called acceptable."""
        return self.acceptable[self.models.index(model)]


def check_models(first: str, second: str, at: object) -> None:
    """Passes for two names that can be told apart, and from a tie.

    Raises: DataError.
    """
    if first == second:
        raise DataError("one model is compared with itself", got=repr(first), at=at,
                        expected="two names", do="rename one")  # fmt: skip
    if "tie" in (first, second) or "" in (first, second):
        raise DataError("impossible name of a model", at=at, expected="another name",
                        got=repr("" if "" in (first, second) else "tie"))  # fmt: skip
