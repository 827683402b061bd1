"""Progress bars of downloads in a terminal; plain lines elsewhere."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.progress import Progress as Bars

from tulu_jax.console import print_line, task_name
from tulu_jax.download.options import Progress


class Lines(Progress):
    """One line for each thing worth telling; for logs."""

    def __init__(self, console: Console) -> None:
        """Prints to `console`."""
        self._console = console

    def note(self, name: str, text: str) -> None:
        """Prints it."""
        print_line(self._console, f"{name}: {text}")


class FileBars(Lines):
    """A bar a file: bytes, speed, time left."""

    def __init__(self, console: Console, bars: Bars) -> None:
        """Bars are added as files begin."""
        super().__init__(console)
        self._bars = bars
        self._tasks: dict[str, tuple[str, TaskID]] = {}
        self._lock = threading.Lock()

    def update(self, name: str, done_bytes: int, total_bytes: int | None, stage: str) -> None:
        """Moves the file's bar, a new one for each stage; without a total it only pulses."""
        with self._lock:
            known, task = self._tasks.get(name, (None, None))
            if task is None or known != stage:
                if task is not None:
                    self._bars.remove_task(task)
                task = self._bars.add_task(name, total=None, stage=stage)
                self._tasks[name] = (stage, task)
        self._bars.update(task, completed=done_bytes, total=total_bytes)

    def finish(self, name: str) -> None:
        """Takes the file's bar away; the table at the end says what became of it."""
        with self._lock:
            _, task = self._tasks.pop(name, (None, None))
        if task is not None:
            self._bars.remove_task(task)


@contextlib.contextmanager
def show_progress(console: Console) -> Iterator[Progress]:
    """What shows progress on this console while it is open."""
    if not console.is_terminal:
        yield Lines(console)
        return
    columns = (
        task_name(),
        TextColumn("{task.fields[stage]}", style="dim"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Bars(*columns, console=console, transient=True) as bars:
        yield FileBars(console, bars)
