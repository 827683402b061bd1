"""A command on a TPU slice of its own: asked for, waited for, run on all hosts, given back.

    python -m eval.study.tpu --name tulu-0123 --topology v4:2x2x4 --zone us-central2-b \
        --folder /mnt/shared/study -- tulu train ...

For `Study.submit`: a thin wrapper of gcloud's queued resources. The study's folder must be one that
the slice's hosts see under the same path (Filestore, gcsfuse), with this project installed there. A
slice of this name that is there already, as after a kill, is used.
"""

from __future__ import annotations

import argparse
import math
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

from tulu_jax.errors import ConfigError, TuluError

SIZES = {"v4": ("v4", 2), "v5p": ("v5p", 2), "v5e": ("v5litepod", 1), "v6e": ("v6e", 1)}
"""By chip: what gcloud calls the type, and how many it counts a chip as."""
VERSIONS = {"v4": "tpu-ubuntu2204-base", "v5p": "v2-alpha-tpuv5", "v5e": "v2-alpha-tpuv5-lite",
            "v6e": "v2-alpha-tpuv6e"}  # fmt: skip
OVER = ("FAILED", "SUSPENDED")
"""States of a queued resource that come to nothing."""
POLL_S = 30.0


def accelerator(topology: str) -> tuple[str, str]:
    """The type that is ordered, and the version of its software.

    >>> accelerator("v4:2x2x4"), accelerator("v5e:4x4")[0]
    (('v4-32', 'tpu-ubuntu2204-base'), 'v5litepod-16')

    Raises: ConfigError for what is no slice of a TPU.
    """
    found = re.fullmatch(r"(v4|v5p|v5e|v6e):(\d+(?:x\d+)*)", topology)
    if found is None:
        raise ConfigError("topology is no TPU slice", got=repr(topology), expected="v4:2x2x4")
    name, cores = SIZES[found[1]]
    return f"{name}-{cores * math.prod(map(int, found[2].split('x')))}", VERSIONS[found[1]]


class Slice:
    """A queued resource, by its name."""

    def __init__(self, args: argparse.Namespace) -> None:
        """Asks for nothing yet."""
        self._args = args
        self._place = ["--zone", args.zone, *(["--project", args.project] if args.project else [])]

    def _queued(self, verb: str, *flags: str) -> list[str]:
        start = [self._args.gcloud, "compute", "tpus", "queued-resources", verb, self._args.name]
        return [*start, *self._place, *flags]

    def state(self) -> str | None:
        """Such as ACTIVE; None where there is none of this name."""
        command = self._queued("describe", "--format", "value(state.state)")
        found = subprocess.run(command, capture_output=True, text=True, check=False)
        return found.stdout.strip() if found.returncode == 0 else None

    def ask(self) -> None:
        """Orders it.

        Raises: TuluError where gcloud refuses.
        """
        kind, version = accelerator(self._args.topology)
        flags = ["--node-id", self._args.name, "--accelerator-type", kind]
        flags += ["--runtime-version", self._args.version or version]
        flags += ["--spot"] if self._args.spot else []
        if subprocess.run(self._queued("create", *flags), check=False).returncode:
            raise TuluError("the slice cannot be ordered", got=kind, at=self._args.zone,
                            do="see what gcloud said above")  # fmt: skip

    def wait(self) -> None:
        """Returns when it is there.

        Raises: TuluError where it will never be.
        """
        while (state := self.state()) != "ACTIVE":
            if state is None or state in OVER:
                raise TuluError("the slice never came", got=state or "nothing of this name",
                                at=self._args.name, do="run the study again")  # fmt: skip
            time.sleep(self._args.poll)

    def run(self, command: Sequence[str]) -> int:
        """The exit status of a command on all hosts, in the study's folder."""
        line = f"cd {shlex.quote(self._args.folder)} && {shlex.join(command)}"
        ssh = [self._args.gcloud, "compute", "tpus", "tpu-vm", "ssh", self._args.name, *self._place]
        return subprocess.run([*ssh, "--worker", "all", "--command", line], check=False).returncode

    def give_back(self) -> None:
        """Lets go of it."""
        subprocess.run(self._queued("delete", "--force", "--quiet", "--async"), check=False)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command behind `--`; its exit status."""
    args = _parser().parse_args(argv)
    command = args.command[1:] if args.command[:1] == ["--"] else args.command
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    one = Slice(args)
    try:
        accelerator(args.topology)
        if one.state() is None:
            one.ask()
        try:
            one.wait()
            return one.run(_as_tulu(command))
        finally:
            one.give_back()
    except TuluError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _as_tulu(command: Sequence[str]) -> list[str]:
    """The command with the hosts' own `tulu` in place of this machine's Python."""
    own = [sys.executable, "-m", "tulu_jax"]
    return ["tulu", *command[3:]] if list(command[:3]) == own else list(command)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--name", required=True, help="of the queued resource and of its node")
    parser.add_argument("--topology", required=True, help="such as v4:2x2x4")
    parser.add_argument("--zone", required=True)
    parser.add_argument("--project")
    parser.add_argument("--version", help="of the software (default: the chip's)")
    parser.add_argument("--spot", action="store_true", help="cheaper, and may be taken away")
    parser.add_argument(
        "--folder", default=os.getcwd(), help="where the command runs, on the hosts"
    )
    parser.add_argument("--gcloud", default="gcloud", help="its program")
    parser.add_argument("--poll", type=float, default=POLL_S, help="seconds between two looks")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    return parser


if __name__ == "__main__":
    sys.exit(main())
