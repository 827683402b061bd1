"""The instances that a page can hold: some of each task, with what every model said to them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from eval.harness.reading import Instance, Result, Unit
from eval.report.board import Board
from tulu_jax.files import sha256
from tulu_jax.inspect.html.page import embed_json

CANDIDATES = 600
"""So many instances of a task are looked at; the page takes of them what it has room for."""

LONGEST_PROMPT, LONGEST_OUTPUT, LONGEST_VALUE = 6000, 4000, 500
"""Longer texts are cut in their middle, in characters."""


@dataclass(frozen=True)
class Shown:
    """An instance as models were asked it: by the number of the model, its unit and its row."""

    id: str
    rows: dict[int, tuple[Unit | None, Instance, dict[str, Any]]]


class Sample:
    """What of the instances is on a page: texts that many share once, in `texts`.

    An instance is {task, id, group, flipped, answers: [null or {...} a model]}; a prompt is
    [number of its text that others share, the rest], or the number of an earlier model that was
    asked the same.
    """

    def __init__(self, board: Board, room: int) -> None:
        """Fills at most `room` bytes."""
        self.texts: list[str] = []
        self.instances: list[dict[str, Any]] = []
        self.totals: dict[str, int] = {}
        self._numbers: dict[str, int] = {}
        self._left = room
        self._take([self._of_task(board, task) for task in board.tasks])

    def _take(self, tasks: list[Iterator[dict[str, Any]]]) -> None:
        """Takes of each task in turn, until there is no more room."""
        while tasks and self._left > 0:
            for task in list(tasks):
                instance = next(task, None)
                if instance is None:
                    tasks.remove(task)
                elif self._left > 0:
                    self._left -= _size(instance)
                    if self._left > 0:
                        self.instances.append(instance)

    def _of_task(self, board: Board, task: str) -> Iterator[dict[str, Any]]:
        results = {i: m.results[task] for i, m in enumerate(board.models) if task in m.results}
        found = {i: _by_problem(result) for i, result in results.items()}
        names = list(dict.fromkeys(name for one in found.values() for name in one))
        self.totals[task] = len(names)
        chosen = _chosen(task, names, found)
        shown = _read(results, found, chosen)
        shared = _shared_beginnings(shown)
        for one in shown:
            answers = [
                self._answer(*one.rows[i], shared) if i in one.rows else None
                for i in range(len(board.models))
            ]
            _refer_to_same(answers)
            group = next((row[1].group for row in one.rows.values() if row[1].group), None)
            yield {"task": task, "id": one.id, "group": group, "answers": answers}

    def _answer(
        self,
        unit: Unit | None,
        instance: Instance,
        row: dict[str, Any],
        shared: dict[tuple[str | None, str], str],
    ) -> dict[str, Any]:
        prompt = _text(row.get("prompt"))
        beginning = shared.get((instance.group, prompt[:80]), "")
        beginning = beginning if prompt.startswith(beginning) else ""
        samples = len(unit.instances) if unit else 1
        return {
            "prompt": [self._number(beginning), _cut(prompt[len(beginning) :], LONGEST_PROMPT)],
            "output": None
            if row.get("output") is None
            else _cut(_text(row["output"]), LONGEST_OUTPUT),
            "prediction": _cut(_text(row.get("prediction")), LONGEST_VALUE),
            "gold": _cut(_text(row.get("gold")), LONGEST_VALUE),
            "value": unit.value if unit else None,
            "samples": samples,
            "stop": _cut(_text(row.get("stop_reason")), LONGEST_VALUE),
            "tokens": [_count(row.get(name)) for name in ("prompt_tokens", "output_tokens")],
            "error": None if instance.error is None else _cut(instance.error, LONGEST_VALUE),
        }

    def _number(self, text: str) -> int:
        text = _cut(text, LONGEST_PROMPT)
        if text not in self._numbers:
            self._numbers[text] = len(self.texts)
            self.texts.append(text)
            self._left -= _size(text)
        return self._numbers[text]


def _by_problem(result: Result) -> dict[str, tuple[Unit | None, Instance]]:
    """Each problem with its unit, where it has a score, and the sample that is shown."""
    scored = result.units
    found: dict[str, tuple[Unit | None, Instance]] = {}
    for one in result.instances:
        unit = scored.get(one.problem)
        found.setdefault(one.problem, (unit, unit.instances[0] if unit else one))
    return found


def _chosen(
    task: str, names: Sequence[str], found: dict[int, dict[str, tuple[Unit | None, Instance]]]
) -> list[str]:
    """By turns one drawn at random and one on which models differ, always the same ones."""
    drawn = sorted(names, key=lambda name: sha256(f"{task} {name}".encode(errors="surrogatepass")))

    def differ(name: str) -> bool:
        values = {
            unit.value
            for one in found.values()
            if name in one and (unit := one[name][0]) is not None
        }
        return len(values) > 1

    different = [name for name in drawn if differ(name)]
    turns = [name for pair in zip(drawn, different, strict=False) for name in pair]
    return list(dict.fromkeys([*turns, *drawn]))[:CANDIDATES]


def _read(
    results: dict[int, Result],
    found: dict[int, dict[str, tuple[Unit | None, Instance]]],
    chosen: Sequence[str],
) -> list[Shown]:
    shown = {name: Shown(name, {}) for name in chosen}
    for i, result in results.items():
        named = [(name, *found[i][name]) for name in chosen if name in found[i]]
        rows = result.texts([instance for _, _, instance in named])
        for (name, unit, instance), row in zip(named, rows, strict=True):
            shown[name].rows[i] = (unit, instance, row)
    return list(shown.values())


def _refer_to_same(answers: list[dict[str, Any] | None]) -> None:
    """Puts in place of a prompt that an earlier model was asked too the number of that model."""
    first: dict[tuple[int, str], int] = {}
    for i, answer in enumerate(answers):
        if answer is not None:
            known = first.setdefault(tuple(answer["prompt"]), i)
            if known != i:
                answer["prompt"] = known


def _shared_beginnings(shown: Sequence[Shown]) -> dict[tuple[str | None, str], str]:
    """What prompts of one group share (their examples), by group and first characters.

    It ends with a line, and prompts of which there is but one share nothing.
    """
    prompts: dict[tuple[str | None, str], set[str]] = {}
    for one in shown:
        for _, instance, row in one.rows.values():
            prompt = _text(row.get("prompt"))
            prompts.setdefault((instance.group, prompt[:80]), set()).add(prompt)
    shared = {}
    for key, texts in prompts.items():
        beginning = _common(min(texts), max(texts)) if len(texts) > 1 else ""
        shared[key] = beginning[: beginning.rfind("\n") + 1]
    return shared


def _common(a: str, b: str) -> str:
    """What two texts begin with; all between them in order begin with it too."""
    at = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), None)
    return min(a, b, key=len) if at is None else a[:at]


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else str(value)


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and 0 <= value <= 10**9 else None


def _cut(text: str, most: int) -> str:
    """The text, its middle left out where it is longer than so many characters."""
    if len(text) <= most:
        return text
    left = len(text) - most
    return f"{text[: most // 2]}\n… {left:,} characters left out …\n{text[-(most - most // 2) :]}"


def _size(value: Any) -> int:
    """How many bytes of the page it takes, with its comma."""
    return len(embed_json(value).encode(errors="backslashreplace")) + 1
