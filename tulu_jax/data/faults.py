"""Bad records of a raw file: skipped and counted up to a limit, or refused at once."""

from __future__ import annotations

from tulu_jax.errors import DataError

LIMIT = 0.01
"""The share of bad records above which a dataset is refused all the same."""

KEPT_MESSAGES = 20


class Faults:
    """What was wrong with the records read so far.

    A reader calls `saw` for each record and gives the error of a bad one to `skip`; whoever
    started the reader calls `check` at its end. With `strict` the first bad record is raised.
    What a reader leaves out by rule is no fault and is counted apart, in `left_out`.

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
        self.left_out: dict[str, int] = {}

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
        if len(self.messages) < KEPT_MESSAGES:
            self.messages.append(str(error))

    def leave_out(self, reason: str, count: int = 1) -> None:
        """Counts records that are sound but left out on purpose, by the reason for it."""
        self.left_out[reason] = self.left_out.get(reason, 0) + count

    def check(self, at: str) -> None:
        """Passes when at most 1 % of the records were bad.

        Raises: DataError with the first faults otherwise.
        """
        if self.skipped > LIMIT * max(self.records, 1):
            raise DataError(
                "too many bad records",
                got=f"{self.skipped:,} of {self.records:,}; first: " + "; ".join(self.messages[:3]),
                at=at,
                expected=f"at most {LIMIT:.0%}",
                do="download the files again; --strict stops at the first bad record",
            )
