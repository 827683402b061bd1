"""Preparing in a process of its own, so that the one that trains has none of its memory or modules.

    python -m tulu_jax.data.child < {"mixture": ..., "options": {...}}

It prints what `tulu data prepare` does, but for the datasets' table: a run prints that itself.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys

from tulu_jax.console import accept_every_character, plain_console, write_verbatim
from tulu_jax.data.keys import PrepareOptions
from tulu_jax.data.prepare import prepare_each
from tulu_jax.data.specs import how_read
from tulu_jax.errors import DataError, TuluError


def prepare_in_child(mixture: str, options: PrepareOptions) -> None:
    """Makes the missing stores of the mixture's tasks in a child process, which prints.

    Raises: DataError when it fails.
    """
    given = json.dumps({"mixture": mixture, "options": dataclasses.asdict(options)})
    command = [sys.executable, "-m", "tulu_jax.data.child"]
    status = subprocess.run(command, input=given.encode(), check=False).returncode
    if status:
        raise DataError(
            "preparing the data failed",
            got=f"exit status {status}",
            at=mixture,
            do="see the message above; `tulu data prepare` with the same settings shows it alone",
        )


def main() -> int:
    """Prepares what standard input names; the exit status."""
    accept_every_character()
    given = json.load(sys.stdin)
    mixture, options = given["mixture"], PrepareOptions(**given["options"])
    try:
        for spec in options.specs(mixture):
            for line in how_read(spec, options.raw_dir):
                write_verbatim(line, file=sys.stderr)
        every = prepare_each(mixture, options)
    except TuluError as error:
        write_verbatim(f"tulu data prepare: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:  # the parent tells
        return 130
    for prepared in every:
        for line in prepared.lines() if prepared.made else ():
            plain_console().print(line, soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
