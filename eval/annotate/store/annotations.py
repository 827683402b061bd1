"""Answers with their models' names: for figures and exports, never for annotators."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from eval.annotate.figures import latest
from eval.annotate.instances import fit
from eval.annotate.records import PREFERENCES, Annotation, Instance
from eval.annotate.store import accounts
from eval.annotate.store.answers import Answer
from eval.annotate.store.database import Database
from eval.annotate.store.tables import adjudications, answers, assignments, instances, users
from tulu_jax.errors import DataError

SAME_SECONDS = 0.001
"""An answer of a sheet is there already if one of that time is: sheets round times."""

_ROWS = (
    sa.select(
        answers, assignments.c.swapped, assignments.c.instance_id, users.c.name,
        instances.c.reference, instances.c.prompt, instances.c.gold,
        instances.c.model_0, instances.c.model_1, instances.c.completion_0,
        instances.c.completion_1,
    )
    .join(assignments, answers.c.assignment_id == assignments.c.id)
    .join(users, assignments.c.user_id == users.c.id)
    .join(instances, assignments.c.instance_id == instances.c.id)
    .order_by(answers.c.id)
)  # fmt: skip


def instance_rows(found: Sequence[Instance], wanted: Sequence[int]) -> list[dict[str, Any]]:
    """The instances as rows of their table."""
    return [
        {"reference": one.id, "prompt": one.prompt, "model_0": one.models[0],
         "model_1": one.models[1], "completion_0": one.completions[0],
         "completion_1": one.completions[1], "wanted": places,
         "gold": None if one.gold is None else json.dumps(one.gold)}
        for one, places in zip(found, wanted, strict=True)
    ]  # fmt: skip


def read_annotations(database: Database, *, gold: bool = False) -> list[Annotation]:
    """Every answer that was sent, in order; of gold instances too, where they are asked for."""
    with database.read() as connection:
        rows = connection.execute(_ROWS).all()
    return [_annotation(row) for row in rows if gold or row.gold is None]


def _annotation(row: Row[Any]) -> Annotation:
    models, texts = (row.model_0, row.model_1), (row.completion_0, row.completion_1)
    return Annotation(
        instance_id=row.reference,
        models=models[::-1] if row.swapped else models,
        acceptable=(row.acceptable_a, row.acceptable_b),
        preference=row.preference,
        evaluator=row.name,
        time=row.created,
        prompt=row.prompt,
        completions=texts[::-1] if row.swapped else texts,
        quality=row.quality,
        comment=row.comment,
        instance_index=row.instance_id - 1,
        id=row.id,
    )


def settled(database: Database) -> list[Annotation]:
    """One answer an instance: the adjudicator's, where there is one, else the first annotator's."""
    first: dict[tuple[frozenset[str], str], Annotation] = {}
    for one in latest(read_annotations(database)):
        first.setdefault((one.pair, one.instance_id), one)
    with database.read() as connection:
        rows = connection.execute(
            sa.select(adjudications, instances, adjudications.c.id.label("number"),
                      adjudications.c.created.label("at"), users.c.name)
            .join(instances, adjudications.c.instance_id == instances.c.id)
            .join(users, adjudications.c.user_id == users.c.id)
            .order_by(adjudications.c.id)
        ).all()  # fmt: skip
    for row in rows:
        first[frozenset((row.model_0, row.model_1)), row.reference] = Annotation(
            instance_id=row.reference,
            models=(row.model_0, row.model_1),
            acceptable=(row.acceptable_0, row.acceptable_1),
            preference=row.preference,
            evaluator=f"{row.name} (adjudicated)",
            time=row.at,
            prompt=row.prompt,
            completions=(row.completion_0, row.completion_1),
            comment=row.comment,
            instance_index=row.instance_id - 1,
            id=row.number,
        )
    return list(first.values())


def adjudicate(
    connection: Connection, user_id: int, instance_id: int, swapped: bool, answer: Answer
) -> None:
    """Keeps what an adjudicator says, who saw completion 1 as A where `swapped`."""
    acceptable, preference = answer.acceptable, answer.preference
    if swapped:
        acceptable = acceptable[::-1]
        preference = PREFERENCES[-1 - PREFERENCES.index(preference)]
    connection.execute(
        adjudications.insert(),
        {"instance_id": instance_id, "user_id": user_id, "acceptable_0": acceptable[0],
         "acceptable_1": acceptable[1], "preference": preference, "comment": answer.comment,
         "created": time.time()},
    )  # fmt: skip


def add_annotations(database: Database, found: Sequence[Annotation]) -> tuple[int, int]:
    """Brings a sheet's annotations into a study; how many, and how many were there already.

    Instances that the study lacks are added. Evaluators get accounts that nobody can log in to.

    Raises: DataError where the study has an instance of the same id with other texts.
    """
    added = 0
    with database.write() as connection:
        database.study(connection, lock=True)
        known = _known_instances(connection)
        people = {one.evaluator: _evaluator(connection, one.evaluator) for one in found}
        places = {
            (row.user_id, row.instance_id): row
            for row in connection.execute(sa.select(assignments))
        }
        for one in found:
            key = (one.instance_id, one.pair)
            if key not in known:
                known[key] = _add_instance(connection, one)
            row = known[key]
            place = (people[one.evaluator], row.id)
            if place not in places:
                places[place] = _add_place(connection, *place, one.models[0] != row.model_0)
            added += _add_answer(connection, places[place], row, one)
    return added, len(found) - added


def _known_instances(connection: Connection) -> dict[tuple[str, frozenset[str]], Row[Any]]:
    rows = connection.execute(sa.select(instances)).all()
    return {(row.reference, frozenset((row.model_0, row.model_1))): row for row in rows}


def _evaluator(connection: Connection, name: str) -> int:
    user = accounts.find_user(connection, name)
    if user is None:
        user = accounts.add_user(connection, name, accounts.ANNOTATOR, None)
    return user.id


def _add_instance(connection: Connection, one: Annotation) -> Row[Any]:
    new = Instance(one.instance_id, fit(one.prompt), one.models,
                   (fit(one.completions[0]), fit(one.completions[1])))  # fmt: skip
    (values,) = instance_rows([new], [1])
    key = connection.execute(instances.insert(), values).inserted_primary_key
    assert key is not None
    return connection.execute(sa.select(instances).where(instances.c.id == key[0])).one()


def _add_place(connection: Connection, user_id: int, instance_id: int, swapped: bool) -> Row[Any]:
    mine = assignments.c.user_id == user_id
    last = connection.scalar(sa.select(sa.func.max(assignments.c.position)).where(mine))
    connection.execute(
        assignments.insert(),
        {"user_id": user_id, "instance_id": instance_id, "position": (last or 0) + 1,
         "swapped": swapped, "later": False, "released": False, "created": time.time()},
    )  # fmt: skip
    return connection.execute(
        sa.select(assignments).where(mine, assignments.c.instance_id == instance_id)
    ).one()


def _add_answer(connection: Connection, place: Row[Any], row: Row[Any], one: Annotation) -> bool:
    """Whether it was new. A row that was shown in the other order is turned."""
    models = (row.model_0, row.model_1)
    shown = models[::-1] if place.swapped else models
    texts = dict(zip(one.models, one.completions, strict=True))
    ours = dict(zip(models, (row.completion_0, row.completion_1), strict=True))
    # A formula of a completion's became its value in the released sheet: that tells nothing.
    told = {model: fit(text) for model, text in texts.items() if ours[model][:1] != "="}
    if any(text not in ("", ours[model]) for model, text in told.items()):
        raise DataError("sheet has other completions than the study", got=f"id {one.instance_id}",
                        expected="the instances that the study was made of")  # fmt: skip
    acceptable, preference = one.acceptable, one.preference
    if shown != one.models:
        acceptable = acceptable[::-1]
        preference = PREFERENCES[-1 - PREFERENCES.index(preference)]
    labels = "".join("ny"[yes] for yes in acceptable)
    key = f"import:{one.id}:{one.time}:{preference}:{labels}"[:80]
    same = sa.select(answers.c.id).where(
        answers.c.assignment_id == place.id,
        sa.func.abs(answers.c.created - one.time) < SAME_SECONDS,
        answers.c.preference == preference,
        answers.c.acceptable_a == acceptable[0],
        answers.c.acceptable_b == acceptable[1],
    )
    if connection.execute(same).first() is not None:
        return False
    connection.execute(
        answers.insert(),
        {"assignment_id": place.id, "key": key, "acceptable_a": acceptable[0],
         "acceptable_b": acceptable[1], "preference": preference, "quality": one.quality,
         "comment": fit(one.comment), "seconds": None, "created": one.time},
    )  # fmt: skip
    return True


def disagreements(database: Database) -> list[dict[str, Any]]:
    """Instances whose first two annotators differ in a label or the winner, adjudicated or not."""
    pairs: dict[int, list[Annotation]] = {}
    for one in latest(read_annotations(database)):
        pairs.setdefault(one.instance_index + 1, []).append(one)
    with database.read() as connection:
        done = set(connection.scalars(sa.select(adjudications.c.instance_id)))
    found = []
    for instance_id, group in sorted(pairs.items()):
        if len(group) < 2:
            continue
        first, second = group[:2]
        labels = [m for m in first.models if first.accepted(m) != second.accepted(m)]
        if labels or first.winner != second.winner:
            found.append(
                {"instance": instance_id, "reference": first.instance_id, "labels": len(labels),
                 "winner": first.winner != second.winner, "done": instance_id in done,
                 "prompt": first.prompt[:200]}
            )  # fmt: skip
    return found


def gold_right(gold: str, one: Annotation) -> bool:
    """Whether an answer is what a gold instance wants."""
    wanted = json.loads(gold)
    labels: Iterable[tuple[str, str]] = wanted.get("acceptable", {}).items()
    if any(one.accepted(model) != (label == "yes") for model, label in labels):
        return False
    preferred = wanted.get("preference")
    return preferred is None or preferred == (one.winner or "tie")


def gold_scores(database: Database) -> dict[str, tuple[int, int]]:
    """Of each annotator, how many gold instances were answered right, and how many at all."""
    with database.read() as connection:
        rows = [row for row in connection.execute(_ROWS) if row.gold is not None]
    last = {(row.name, row.instance_id): row for row in rows}
    scores: dict[str, tuple[int, int]] = {}
    for (name, _), row in last.items():
        right, all_ = scores.get(name, (0, 0))
        scores[name] = (right + gold_right(row.gold, _annotation(row)), all_ + 1)
    return scores
