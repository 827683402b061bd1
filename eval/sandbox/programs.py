"""What is run, under which limits, and what came of it."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

from tulu_jax.errors import ConfigError, TuluError

Mode = Literal["paper", "fixed"]
MODES: tuple[Mode, ...] = ("paper", "fixed")


class SandboxError(TuluError):
    """The machinery failed, or cannot isolate here: nothing is said about any program."""


@dataclasses.dataclass(frozen=True)
class Program:
    """A candidate's program and the test of its function.

    Attributes:
      code: the candidate's program, whole.
      test: a program that defines `check(candidate)`.
      entry_point: the name of the candidate's function.
      helpers: the problem's own program, whose functions the test may call (mode `fixed`; in
        `paper` they are those of `code`).
    """

    code: str
    test: str
    entry_point: str
    helpers: str = ""

    def __post_init__(self) -> None:
        """Raises: ConfigError."""
        if not self.entry_point.isidentifier():
            raise ConfigError(
                "entry_point is not the name of a function",
                got=repr(self.entry_point),
                expected="an identifier",
            )

    @property
    def whole(self) -> str:
        """Candidate and test as one program, as the reference runs it."""
        return f"{self.code}\n{self.test}\ncheck({self.entry_point})"


@dataclasses.dataclass(frozen=True)
class Limits:
    """What one program may use. Each is above zero.

    Attributes:
      memory_bytes: address space of each process.
      file_bytes: length of a file it writes.
      tmp_bytes: all that is in its /tmp.
      tmp_files: files and folders there.
      processes: processes and threads, the sandbox's own two among them.
      open_files: descriptors of each process.
      checker_s: processor time of the test's own side in mode `fixed`.
      wall_s: time on the clock after which all is ended; by default ten times the time limit, and
        30 s.
    """

    memory_bytes: int = 4 * 2**30
    file_bytes: int = 16 * 2**20
    tmp_bytes: int = 64 * 2**20
    tmp_files: int = 4096
    processes: int = 32
    open_files: int = 128
    checker_s: float = 120.0
    wall_s: float | None = None

    def __post_init__(self) -> None:
        """Raises: ConfigError."""
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value is not None and not value > 0:
                raise ConfigError(
                    f"{field.name} is out of range", got=value, expected="a number above 0"
                )

    def wall(self, timeout_s: float) -> float:
        """The time on the clock that a program of this time limit may take."""
        return 10 * timeout_s + 30 if self.wall_s is None else self.wall_s


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What came of a program.

    Attributes:
      result: `passed`, `timed out`, `failed: ...` (as the reference says it), or `error: ...`
        where the machinery failed.
      passed: whether it passed; None after an error, which says nothing about the program.
      cpu_s: processor time of its processes, as far as they were waited for.
      isolation: what stood between the program and this machine.
    """

    result: str
    passed: bool | None
    cpu_s: float
    isolation: str

    def as_json(self) -> dict[str, Any]:
        """The fields."""
        return dataclasses.asdict(self)
