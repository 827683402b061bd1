"""What an administrator sees of a study that goes on: progress, people, and who stands out."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from eval.annotate.figures import Figures, compute
from eval.annotate.store import assign
from eval.annotate.store.accounts import ANNOTATOR
from eval.annotate.store.annotations import gold_scores, read_annotations
from eval.annotate.store.database import Database, Study
from eval.annotate.store.tables import answers, assignments, instances, users
from eval.harness.statistics import binomial_p

FEWEST = 10
"""Answers before anybody is said to stand out."""
ONE_SIDE_P = 0.001
"""Chance of as many preferences for one side, below which that is said."""
FAST = 1 / 3
"""Of the others' median time: who is faster is said to be."""
GOLD = 0.7
"""Share of gold instances that should be right."""


@dataclass(frozen=True)
class Person:
    """An annotator's work, by the last answer about each instance."""

    id: int
    name: str
    disabled: bool
    assigned: int
    answered: int
    later: int
    seconds: float | None
    """Median time for an instance."""
    sides: tuple[int, int, int]
    """How often A, neither and B were preferred."""
    gold: tuple[int, int]
    """Gold instances answered right, and at all."""
    remarks: tuple[str, ...]


@dataclass(frozen=True)
class Dashboard:
    """The whole of it."""

    study: Study
    wanted: int
    done: int
    """Answers that are wanted in all, and that there are; gold counts in neither."""
    instances: int
    people: tuple[Person, ...]
    figures: Figures
    stamp: tuple[int, ...]


def read_stamp(database: Database) -> tuple[int, ...]:
    """What is another number as soon as anything on the dashboard may be another."""
    counts = (
        sa.select(sa.func.coalesce(sa.func.max(answers.c.id), 0)).scalar_subquery(),
        sa.select(sa.func.count()).select_from(users).scalar_subquery(),
        sa.select(sa.func.count()).select_from(assignments)
        .where(~assignments.c.released).scalar_subquery(),
        sa.select(sa.func.count()).select_from(assignments)
        .where(assignments.c.later).scalar_subquery(),
        sa.select(sa.func.count()).select_from(users).where(users.c.disabled).scalar_subquery(),
    )  # fmt: skip
    with database.read() as connection:
        return tuple(connection.execute(sa.select(*counts)).one())


def read_dashboard(database: Database) -> Dashboard:
    """How the study stands."""
    stamp = read_stamp(database)
    with database.read() as connection:
        wanted, count = connection.execute(
            sa.select(sa.func.sum(instances.c.wanted), sa.func.count())
            .where(instances.c.gold.is_(None))
        ).one()  # fmt: skip
        done = connection.scalar(
            sa.select(sa.func.count())
            .select_from(assignments)
            .join(instances, instances.c.id == assignments.c.instance_id)
            .where(instances.c.gold.is_(None), assign.is_answered())
        )
    return Dashboard(
        study=database.study(),
        wanted=max(int(wanted or 0), done or 0),
        done=done or 0,
        instances=count,
        people=tuple(_people(database)),
        figures=compute(read_annotations(database)),
        stamp=stamp,
    )


def _people(database: Database) -> list[Person]:
    last = sa.select(sa.func.max(answers.c.id)).group_by(answers.c.assignment_id)
    with database.read() as connection:
        accounts = connection.execute(
            sa.select(users).where(users.c.role == ANNOTATOR).order_by(users.c.folded)
        ).all()
        places = connection.execute(
            sa.select(assignments.c.user_id, assignments.c.later, answers.c.preference,
                      answers.c.seconds, answers.c.id.label("answer"))
            .outerjoin(answers, sa.and_(answers.c.assignment_id == assignments.c.id,
                                        answers.c.id.in_(last)))
            .where(~assignments.c.released)
        ).all()  # fmt: skip
    gold = gold_scores(database)
    mine: dict[int, list[Any]] = {one.id: [] for one in accounts}
    for place in places:
        mine.get(place.user_id, []).append(place)
    times = {key: [p.seconds for p in rows if p.seconds is not None] for key, rows in mine.items()}
    return [_person(one, mine[one.id], times, gold.get(one.name, (0, 0))) for one in accounts]


def _person(
    user: Any, places: list[Any], times: dict[int, list[float]], gold: tuple[int, int]
) -> Person:
    given = [p.preference for p in places if p.answer is not None]
    a, tie, b = (sum(one.startswith(side) for one in given) for side in ("a-", "tie", "b-"))
    own = times[user.id]
    others = [s for key, seconds in times.items() if key != user.id for s in seconds]
    remarks = []
    if a + b >= FEWEST and binomial_p(a, b) < ONE_SIDE_P:
        remarks.append(f"prefers {'A' if a > b else 'B'} nearly always")
    if len(given) >= FEWEST and len(set(given)) == 1:
        remarks.append("always the same preference")
    enough = len(own) >= FEWEST and len(others) >= FEWEST
    if enough and statistics.median(own) < FAST * statistics.median(others):
        remarks.append("much faster than the others")
    if gold[1] >= 3 and gold[0] < GOLD * gold[1]:
        remarks.append("misses gold instances")
    return Person(
        id=user.id,
        name=user.name,
        disabled=user.disabled,
        assigned=len(places),
        answered=len(given),
        later=sum(p.later and p.answer is None for p in places),
        seconds=statistics.median(own) if own else None,
        sides=(a, tie, b),
        gold=gold,
        remarks=tuple(remarks),
    )
