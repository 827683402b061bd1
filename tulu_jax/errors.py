"""The errors a user can meet, all worded the same way.

A message says *what is wrong - got X at P - expected Y - do Z*. Parts that are not given are left
out. The command line prints such an error without a traceback and exits with status 2.
"""

from __future__ import annotations


class TuluError(ValueError):
    """An error whose message tells the user what to do about it.

    >>> print(TuluError("unknown role", got="'bot'", at="row 3", expected="user or assistant"))
    unknown role - got 'bot' at row 3 - expected user or assistant
    """

    def __init__(
        self,
        what: str,
        *,
        got: object = None,
        at: object = None,
        expected: object = None,
        do: object = None,
    ) -> None:
        """Joins the parts that are given, in reading order."""
        found = " ".join(
            f"{word} {part}" for word, part in (("got", got), ("at", at)) if part is not None
        )
        parts = [what, found]
        if expected is not None:
            parts.append(f"expected {expected}")
        if do is not None:
            parts.append(str(do))
        super().__init__(" - ".join(part for part in parts if part))


class DataError(TuluError):
    """A record, file, store or batch is not what it must be."""


class TokenizerError(TuluError):
    """A tokenizer is missing, corrupt, or not the one it should be."""


class ConfigError(TuluError):
    """A setting (gin binding, flag, model config) is unknown or impossible."""


class CheckpointError(TuluError):
    """A checkpoint or Hugging Face folder is incomplete, corrupt, or does not fit the model."""


class GuardError(TuluError):
    """A check that runs by itself refused to go on, because the result would be silently wrong."""
