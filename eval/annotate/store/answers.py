"""Answers as they come in: each a new row, durable before it is acknowledged, and kept once."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection, Row

from eval.annotate.instances import fit
from eval.annotate.records import ACCEPTABLE, PREFERENCES, QUALITIES
from eval.annotate.store import assign
from eval.annotate.store.database import CLOSED, OPEN, Database, Study
from eval.annotate.store.tables import answers, assignments, instances, study
from tulu_jax.errors import DataError
from tulu_jax.files import json_sha256

COMMENT = 10_000
"""Characters of a comment, at most."""
KEY = 40


class NotOpenError(Exception):
    """The study takes no answers now: it is paused or closed."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What an annotator says about an instance as it was shown: A and B."""

    acceptable: tuple[bool, bool]
    preference: str
    quality: str = ""
    comment: str = ""


@dataclass(frozen=True, slots=True)
class Task:
    """What an annotator sees: nothing here tells which model is which."""

    position: int
    prompt: str
    completions: tuple[str, str]
    later: bool
    answer: Answer | None


@dataclass(frozen=True, slots=True)
class Place:
    """One line of an annotator's list."""

    position: int
    prompt: str
    answered: float | None
    """When, for the last time."""
    later: bool


def read_answer(form: Mapping[str, str]) -> Answer:
    """The answer that a form holds.

    Raises: DataError naming what is missing or unknown.
    """
    quality = _choice(form, "quality", ("", *QUALITIES)) if form.get("quality") else ""
    comment = fit(form.get("comment", "")).strip()
    if len(comment) > COMMENT:
        raise DataError("comment is too long", got=f"{len(comment):,} characters",
                        expected=f"at most {COMMENT:,}")  # fmt: skip
    return Answer(
        acceptable=(_choice(form, "acceptable_a", ACCEPTABLE) == "yes",
                    _choice(form, "acceptable_b", ACCEPTABLE) == "yes"),
        preference=_choice(form, "preference", PREFERENCES),
        quality=quality,
        comment=comment,
    )  # fmt: skip


def _choice(form: Mapping[str, str], name: str, known: tuple[str, ...]) -> str:
    value = form.get(name, "")
    if value not in known:
        words = {"acceptable_a": "whether A is acceptable", "acceptable_b":
                 "whether B is acceptable", "preference": "which one you prefer"}  # fmt: skip
        raise DataError(
            f"please say {words.get(name, name)}", got=repr(value)[:40] if value else None
        )
    return value


_PLACE = (
    sa.select(
        assignments.c.id, assignments.c.position, assignments.c.swapped, assignments.c.later,
        assignments.c.released, assignments.c.instance_id, study.c.state,
    )
    .join_from(assignments, study, sa.true())
    .where(
        assignments.c.user_id == sa.bindparam("user"),
        assignments.c.position == sa.bindparam("position"),
    )
)  # fmt: skip


def submit(
    database: Database,
    user_id: int,
    position: int,
    key: str,
    answer: Answer,
    seconds: float | None = None,
) -> int | None:
    """Keeps an answer; the position that comes next, or None at the end.

    The same answer under the same `key` is kept once. When this returns, it is durable.

    Raises:
      LookupError: the annotator has no instance at this position.
      NotOpenError: the study is paused or closed.
    """  # fmt: skip
    said = [answer.acceptable, answer.preference, answer.quality, answer.comment]
    row = {"key": f"{key[:KEY]}:{json_sha256(said)[:16]}", "acceptable_a": answer.acceptable[0],
           "acceptable_b": answer.acceptable[1], "preference": answer.preference,
           "quality": answer.quality, "comment": answer.comment, "seconds": seconds,
           "created": time.time()}  # fmt: skip
    kind = postgresql if database.engine.dialect.name == "postgresql" else sqlite
    with database.write() as connection:
        place = connection.execute(_PLACE, {"user": user_id, "position": position}).one_or_none()
        if place is None:
            raise LookupError(position)
        if place.state != OPEN:
            raise NotOpenError(place.state)
        connection.execute(
            kind.insert(answers).on_conflict_do_nothing(), {**row, "assignment_id": place.id}
        )
        if place.later or place.released:
            connection.execute(
                assignments.update().where(assignments.c.id == place.id)
                .values(later=False, released=False)
            )  # fmt: skip
        found = _next_open(connection, user_id, position)
    return next_position(database, user_id, position) if found is None else found


def put_off(database: Database, user_id: int, position: int) -> int | None:
    """Leaves an instance for later; the position that comes next.

    Raises: LookupError, as `submit`.
    """
    with database.write() as connection:
        place = connection.execute(_PLACE, {"user": user_id, "position": position}).one_or_none()
        if place is None:
            raise LookupError(position)
        connection.execute(
            assignments.update().where(assignments.c.id == place.id).values(later=True)
        )
    return next_position(database, user_id, position)


_OPEN = (
    sa.select(assignments.c.position)
    .where(
        assignments.c.user_id == sa.bindparam("user"),
        ~assignments.c.later,
        ~assignments.c.released,
        ~assign.is_answered(),
    )
    .order_by(assignments.c.position <= sa.bindparam("after"), assignments.c.position)
    .limit(1)
)


def _next_open(connection: Connection, user_id: int, after: int) -> int | None:
    return connection.scalar(_OPEN, {"user": user_id, "after": after})


def next_position(database: Database, user_id: int, after: int = 0) -> int | None:
    """What an annotator does next: an open instance, else a new batch, else what was put off."""
    with database.read() as connection:
        found = _next_open(connection, user_id, after)
    if found is not None:
        return found
    with database.write() as connection:
        now = database.study(connection, lock=True)
        if now.state == OPEN and assign.draw(connection, user_id, now.settings.batch):
            return _next_open(connection, user_id, after)
        return connection.scalar(
            sa.select(sa.func.min(assignments.c.position)).where(
                assignments.c.user_id == user_id,
                assignments.c.later,
                assignments.c.position != after,
                ~assignments.c.released,
                ~assign.is_answered(),
            )
        )


def _last(connection: Connection, assignment_id: int) -> Row[Any] | None:
    return connection.execute(
        sa.select(answers).where(answers.c.assignment_id == assignment_id)
        .order_by(answers.c.id.desc()).limit(1)
    ).one_or_none()  # fmt: skip


def read_task(database: Database, user_id: int, position: int) -> tuple[Task, Study]:
    """What an annotator sees at a position, with the last answer.

    Raises: LookupError, as `submit`.
    """
    with database.read() as connection:
        place = connection.execute(_PLACE, {"user": user_id, "position": position}).one_or_none()
        if place is None:
            raise LookupError(position)
        one = connection.execute(
            sa.select(instances.c.prompt, instances.c.completion_0, instances.c.completion_1)
            .where(instances.c.id == place.instance_id)
        ).one()  # fmt: skip
        last = _last(connection, place.id)
        now = database.study(connection)
    shown = (one.completion_0, one.completion_1)
    answer = None
    if last is not None:
        labels = (last.acceptable_a, last.acceptable_b)
        answer = Answer(labels, last.preference, last.quality, last.comment)
    return Task(position, one.prompt, shown[::-1] if place.swapped else shown, place.later,
                answer), now  # fmt: skip


def read_places(database: Database, user_id: int) -> list[Place]:
    """An annotator's list, without what was given back."""
    when = (
        sa.select(sa.func.max(answers.c.created))
        .where(answers.c.assignment_id == assignments.c.id)
        .scalar_subquery()
    )
    with database.read() as connection:
        rows = connection.execute(
            sa.select(assignments.c.position, assignments.c.later, when.label("answered"),
                      sa.func.substr(instances.c.prompt, 1, 200).label("prompt"))
            .join(instances, instances.c.id == assignments.c.instance_id)
            .where(assignments.c.user_id == user_id, ~assignments.c.released)
            .order_by(assignments.c.position)
        ).all()  # fmt: skip
    return [Place(r.position, r.prompt, r.answered, r.later and not r.answered) for r in rows]


def count_places(database: Database, user_id: int) -> tuple[int, int]:
    """How many instances an annotator has answered, and how many are assigned."""
    with database.read() as connection:
        row = connection.execute(_COUNT, {"user": user_id}).one()
    return int(row.done or 0), row.total


_COUNT = sa.select(
    sa.func.sum(sa.case((assign.is_answered(), 1), else_=0)).label("done"),
    sa.func.count().label("total"),
).where(assignments.c.user_id == sa.bindparam("user"), ~assignments.c.released)  # fmt: skip


def models_of(database: Database, user_id: int, position: int) -> tuple[str, str]:
    """Which models A and B are: for a study that is closed.

    Raises: LookupError, as `submit`; PermissionError while the study goes on.
    """
    with database.read() as connection:
        place = connection.execute(_PLACE, {"user": user_id, "position": position}).one_or_none()
        if place is None:
            raise LookupError(position)
        if place.state != CLOSED:
            raise PermissionError("the study is not closed")
        one = connection.execute(
            sa.select(instances.c.model_0, instances.c.model_1)
            .where(instances.c.id == place.instance_id)
        ).one()  # fmt: skip
    names = (one.model_0, one.model_1)
    return names[::-1] if place.swapped else names
