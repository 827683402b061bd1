"""Ids that upstream gives its records, made distinct: prepared data has one record an id."""

from __future__ import annotations


class DistinctIds:
    """Gives each id back, and one seen before with a number behind it.

    >>> distinct = DistinctIds()
    >>> [distinct(name) for name in ("a", "b", "a", "a#2", "a")]
    ['a', 'b', 'a#2', 'a#2#2', 'a#3']
    """

    def __init__(self) -> None:
        """No id seen yet."""
        self._seen: set[str] = set()
        self._repeats: dict[str, int] = {}

    def __call__(self, name: str) -> str:
        """`name` itself the first time; later `name#2`, `name#3` and so on."""
        given = name
        while given in self._seen:
            self._repeats[name] = self._repeats.get(name, 1) + 1
            given = f"{name}#{self._repeats[name]}"
        self._seen.add(given)
        return given
