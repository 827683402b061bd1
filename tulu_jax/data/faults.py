"""Bad records of a raw file: skipped and counted up to a limit, or refused at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tulu_jax.errors import DataError

LIMIT = 0.01
"""The share of bad records above which a dataset is refused all the same."""

KEPT_MESSAGES = 20
KEPT_LINES = 12
KEPT_FIELDS = 100


class Faults:
    """The faults of the records read so far.

    A reader calls `saw` for each record and gives the error of a bad one to `skip`; whoever
    started the reader calls `check` at its end. With `strict` the first bad record is raised.
    What a reader leaves out by rule is no fault and is counted apart, in `left_out`, and so are
    fields that it does not use, in `unused`.

    >>> faults = Faults(strict=False)
    >>> for record in range(200):
    ...     faults.saw()
    >>> faults.skip(DataError("malformed JSON", at="data.jsonl, line 7"))
    >>> faults.check("dolly")
    >>> faults.skipped, faults.messages
    (1, ['malformed JSON - at data.jsonl, line 7'])
    """

    def __init__(self, *, strict: bool = False) -> None:
        """Nothing read yet."""
        self.strict = strict
        self.records = 0
        self.skipped = 0
        self.messages: list[str] = []
        self.kinds: dict[str, int] = {}
        self.left_out: dict[str, int] = {}
        self.unused: dict[str, dict[str, list[Any]]] = {}
        self.metadata: dict[str, int] = {}

    def saw(self) -> None:
        """Counts one record, good or bad."""
        self.records += 1

    def skip(self, error: DataError) -> None:
        """Counts one bad record and keeps its message if it is among the first.

        Raises: the error itself when strict.
        """
        if self.strict:
            raise error
        self.skipped += 1
        kind = str(error).partition(" - ")[0]
        self.kinds[kind] = self.kinds.get(kind, 0) + 1
        if len(self.messages) < KEPT_MESSAGES:
            self.messages.append(str(error))

    def leave_out(self, reason: str, count: int = 1) -> None:
        """Counts records that are sound but left out on purpose, by the reason for it."""
        self.left_out[reason] = self.left_out.get(reason, 0) + count

    def ignore(self, field: str, at: str) -> None:
        """Counts, file by file, that `field` was not used `at` (`file, line n`), and keeps the
        first place.
        """
        of_file = self.unused.setdefault(at.rpartition(", ")[0], {})
        if len(of_file) >= KEPT_FIELDS and field not in of_file:
            field = "one field or other"
        of_file.setdefault(field, [0, at])[0] += 1

    def ignore_metadata(self, field: str) -> None:
        """Counts a field that is not used and says nothing about the conversation."""
        field = field or "a column without a name"
        self.metadata[field] = self.metadata.get(field, 0) + 1

    def as_json(self) -> dict[str, Any]:
        """Everything, as plain values."""
        names = ("records", "skipped", "messages", "kinds", "left_out", "unused", "metadata")
        return {name: getattr(self, name) for name in names}

    def check(self, at: str, *, own: bool = False) -> None:
        """Passes when at most 1 % of the records were bad. `own`: the files are a user's own.

        Raises: DataError with the kinds of faults and the first ones otherwise.
        """
        if self.skipped > LIMIT * max(self.records, 1):
            mend = "mend these records or take them out" if own else "download the files again"
            kinds = f"; in all {kinds_text(self.kinds)}" if len(self.kinds) > 1 else ""
            first = "; ".join(self.messages[:3])
            raise DataError(
                "too many bad records",
                got=f"{self.skipped:,} of {self.records:,}; first: {first}{kinds}",
                at=at,
                expected=f"at most {LIMIT:.0%}",
                do=f"{mend}; `tulu data prepare --strict` stops at the first one",
            )


def unused_lines(counts: Mapping[str, Any]) -> list[str]:
    """What was not used, a line for each field that may mean something and one for all others.

    `counts` is what `Faults.as_json` gave.

    >>> faults = Faults()
    >>> for line in (3, 8):
    ...     faults.ignore("field 'tools'", f"a.jsonl, line {line}")
    ...     faults.ignore_metadata("source")
    >>> for line in unused_lines(faults.as_json()):
    ...     print(line)
    field 'tools' is not used: 2 times, first at a.jsonl, line 3
    not used: source (2)
    """
    lines = [
        f"{field} is not used: {count:,} time{'s' * (count > 1)}, first at {first}"
        for fields in counts.get("unused", {}).values()
        for field, (count, first) in fields.items()
    ]
    if len(lines) > KEPT_LINES:
        lines[KEPT_LINES:] = [f"{len(lines) - KEPT_LINES:,} fields more are not used"]
    metadata = counts.get("metadata", {})
    if metadata:
        shown = [f"{name} ({count:,})" for name, count in list(metadata.items())[:KEPT_LINES]]
        more = len(metadata) - len(shown)
        lines.append(f"not used: {', '.join(shown)}" + (f" and {more} more" if more else ""))
    return lines


def kinds_text(kinds: Mapping[str, int]) -> str:
    """Kinds of faults with how many there were of each, the commonest first.

    >>> kinds_text({"malformed JSON": 1, "unknown role": 38})
    '38 unknown role, 1 malformed JSON'
    """
    ordered = sorted(kinds.items(), key=lambda one: -one[1])
    shown = ", ".join(f"{count:,} {kind}" for kind, count in ordered[:5])
    return shown if len(ordered) <= 5 else f"{shown}, {len(ordered) - 5} kinds more"
