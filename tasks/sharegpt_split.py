"""Where a long conversation is cut so that each piece fits a model's window.

Both ways cut between a question and the answer before it, and only look at lengths; what they leave
out they tell `leave_out(reason, count)`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

LeaveOut = Callable[[str, int], None]

PAPER_COST = 6
"""What the reference adds to the tokens of a message, whatever its role."""


def paper_pieces(
    costs: Sequence[int], max_length: int, *, leave_out: LeaveOut
) -> Iterator[tuple[int, int]]:
    """The pieces (first message, message after the last) as the reference cuts them.

    `costs` has one entry a message: tokens, BOS among them, and 6. The messages go in pairs. A pair
    that no longer fits starts the next piece, which is where the reference loses some: the last
    pair, when it is the one that no longer fits, and any pair that is too long by itself. The cost
    of a pair too long counts on, so that the next pair starts a new piece.

    >>> lost = []
    >>> leave_out = lambda reason, count: lost.append((reason, count))
    >>> list(paper_pieces([30, 30, 30, 30, 30, 30], 130, leave_out=leave_out)), lost
    ([(0, 4)], [('last pair, which no longer fits', 1)])

    Source: allenai/open-instruct, `scripts/split_sharegpt_conversations.py`@e44fcf588.
    """
    whole = len(costs) // 2 * 2
    if whole < len(costs):
        leave_out("odd last message", 1)
    start, running = 0, 0
    for here in range(0, whole, 2):
        pair = costs[here] + costs[here + 1]
        last = here == whole - 2
        if running + pair > max_length:
            if start < here:
                yield start, here
            too_long = pair > max_length
            if too_long:
                leave_out("pair longer than max_length", 1)
            elif last:
                leave_out("last pair, which no longer fits", 1)
            start, running = here + 2 if too_long else here, 0
        elif last:
            yield start, here + 2
        running += pair


def pair_starts(roles: Sequence[str | None], *, leave_out: LeaveOut) -> list[int]:
    """The index of every user message that the assistant answers in the next message.

    `roles` has `user`, `assistant`, or None for any other sender. Messages in no such pair are left
    out.

    >>> from unittest.mock import Mock
    >>> roles = ["assistant", "user", "assistant", "user", "user", "assistant", None]
    >>> pair_starts(roles, leave_out=Mock())
    [1, 4]
    """
    reasons = {
        "user": "message of the user without an answer",
        "assistant": "message of the assistant that answers nothing",
        None: "message of another sender",
    }
    starts: list[int] = []
    here = 0
    while here < len(roles):
        if list(roles[here : here + 2]) == ["user", "assistant"]:
            starts.append(here)
            here += 2
        else:
            leave_out(reasons[roles[here]], 1)
            here += 1
    return starts


def all_pairs_pieces(
    starts: Sequence[int],
    lengths: Sequence[int],
    max_length: int,
    *,
    leave_out: LeaveOut,
) -> Iterator[tuple[int, int]]:
    """The pieces that hold every pair which fits `max_length` by itself.

    `lengths` are the tokens of each pair encoded alone, BOS among them; a piece is as long as its
    pairs with one BOS, and a newline between two. Only pairs that follow each other directly are
    in one piece.

    >>> from unittest.mock import Mock
    >>> list(all_pairs_pieces([0, 2, 4, 7], [41, 41, 41, 41], 100, leave_out=Mock()))
    [(0, 4), (4, 6), (7, 9)]
    """
    first, stop, used = 0, 0, 0
    for start, length in zip(starts, lengths, strict=True):
        if length > max_length:
            leave_out("pair longer than max_length", 1)
            continue
        if first < stop == start and used + length <= max_length:
            stop, used = start + 2, used + length
            continue
        if first < stop:
            yield first, stop
        first, stop, used = start, start + 2, length
    if first < stop:
        yield first, stop
