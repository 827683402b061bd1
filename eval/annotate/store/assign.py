"""Who annotates what: instances are drawn in small batches, in a blind order of each one's own.

An instance has as many places as people are wanted for it. A batch is drawn from the instances with
a free place, so that nobody holds many who never comes back; gold instances are mixed in and take
no place. Which completion is shown as A is drawn with each: half of a batch either way, in random
order. It is kept here and nowhere else.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from eval.annotate.records import Instance
from eval.annotate.store.tables import answers, assignments, instances
from tulu_jax.files import sha256

GOLD_EVERY = 10
"""So many drawn instances bring one gold instance, while there are any."""

_random = random.SystemRandom()


def plan_places(
    found: Sequence[Instance], *, annotators: int, overlap: float, seed: int
) -> list[int]:
    """How many people are wanted for each instance.

    Args:
      found: the instances.
      annotators: people that annotate an instance of the overlap.
      overlap: share of the instances that so many annotate; the others have one.
      seed: of the draw of that share.

    Returns: one number an instance; 0 for gold, which everybody gets.
    """
    plain = [i for i, one in enumerate(found) if one.gold is None]
    several = set(random.Random(seed).sample(plain, round(overlap * len(plain))))
    return [0 if one.gold is not None else annotators if i in several else 1
            for i, one in enumerate(found)]  # fmt: skip


def draw(connection: Connection, user_id: int, batch: int) -> int:
    """Gives an annotator up to `batch` more instances; how many. The study must be locked."""
    mine = sa.select(assignments.c.instance_id).where(assignments.c.user_id == user_id)
    taken = (
        sa.select(assignments.c.instance_id, sa.func.count().label("people"))
        .where(~assignments.c.released)
        .group_by(assignments.c.instance_id)
        .subquery()
    )
    free = connection.scalars(
        sa.select(instances.c.id)
        .outerjoin(taken, taken.c.instance_id == instances.c.id)
        .where(instances.c.wanted > sa.func.coalesce(taken.c.people, 0))
        .where(instances.c.id.not_in(mine))
    ).all()
    if not free:
        return 0
    chosen = _random.sample(free, min(batch, len(free)))
    gold = connection.scalars(
        sa.select(instances.c.id).where(instances.c.gold.is_not(None), instances.c.id.not_in(mine))
    ).all()
    chosen += _random.sample(gold, min(len(gold), -(-len(chosen) // GOLD_EVERY)))
    _random.shuffle(chosen)
    add(connection, user_id, chosen)
    return len(chosen)


def add(connection: Connection, user_id: int, chosen: Sequence[int]) -> None:
    """Assigns these instances to an annotator, in this order, after those there are."""
    last = connection.scalar(
        sa.select(sa.func.max(assignments.c.position)).where(assignments.c.user_id == user_id)
    )
    swapped = blind_orders(len(chosen))
    now = time.time()
    connection.execute(
        assignments.insert(),
        [
            {"user_id": user_id, "instance_id": one, "position": (last or 0) + place,
             "swapped": swap, "later": False, "released": False, "created": now}
            for place, (one, swap) in enumerate(zip(chosen, swapped, strict=True), 1)
        ],
    )  # fmt: skip


def blind_orders(count: int) -> list[bool]:
    """Half of them true, half false, in random order; a coin says of which an odd one is."""
    orders = [i % 2 == 0 for i in range(count + _random.randrange(2) * (count % 2))]
    orders = orders[-count:] if count else []
    _random.shuffle(orders)
    return orders


def is_answered() -> Any:
    """The condition that an assignment has an answer."""
    return sa.exists().where(answers.c.assignment_id == assignments.c.id)


def release(connection: Connection, user_id: int) -> int:
    """Gives back what an annotator has not answered, for others to draw; how many."""
    return connection.execute(
        assignments.update()
        .where(assignments.c.user_id == user_id, ~assignments.c.released, ~is_answered())
        .values(released=True)
    ).rowcount


def adjudication_order(secret: str, user_id: int, instance_id: int) -> bool:
    """Whether an adjudicator sees completion 1 as A: drawn by the study's secret, and stable."""
    return int(sha256(f"{secret}/adjudication/{user_id}/{instance_id}"), 16) % 2 == 1
