"""Pages through texts in the terminal: one at a time, with keys."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from rich.console import Console
from rich.segment import Segment
from rich.text import Text

Item = TypeVar("Item")

HELP = "n next  p previous  space/b scroll  g go to  / search  q quit"
_ESCAPES = {"\x1b[C": "n", "\x1b[D": "p", "\x1b[B": "down", "\x1b[A": "up", "\x1b[6~": " ",
            "\x1b[5~": "b", "\x03": "q", "\x04": "q", "j": "down", "k": "up", "": "q"}  # fmt: skip


def read_key() -> str:
    """The next key pressed: a character, or `down`, `up` and so on for keys that send several."""
    import termios
    import tty

    file = sys.stdin.fileno()
    before = termios.tcgetattr(file)
    try:
        tty.setraw(file, termios.TCSADRAIN)
        key = os.read(file, 32).decode("utf-8", "replace")
    finally:
        termios.tcsetattr(file, termios.TCSADRAIN, before)
    return _ESCAPES.get(key, key)


class Pager(Generic[Item]):
    """Shows one item at a time; items are made as they are reached."""

    def __init__(
        self,
        items: Iterator[Item],
        show: Callable[[Item], Text],
        *,
        console: Console,
        keys: Callable[[], str] = read_key,
    ) -> None:
        """A pager that stands at the first item."""
        self.items, self.show, self.console, self.keys = items, show, console, keys
        self.seen: list[Item] = []
        self.whole = False
        self.at = 0
        self.top = 0
        self.message = ""

    def run(self) -> None:
        """Shows items until `q`."""
        if not self._reach(0):
            self.console.print("nothing to show")
            return
        while True:
            lines = self._draw()
            if self._act(self.keys(), len(lines)):
                return

    @property
    def _room(self) -> int:
        """Lines for the text; two are for the status."""
        return max(1, self.console.height - 2)

    def _draw(self) -> list[list[Segment]]:
        text = self.show(self.seen[self.at])
        lines = self.console.render_lines(text, pad=False)
        self.top = max(0, min(self.top, len(lines) - self._room))
        self.console.clear()
        for line in lines[self.top : self.top + self._room]:
            self.console.print(Text.assemble(*((s.text, s.style or "") for s in line)))
        of = f"of {len(self.seen):,}{'' if self.whole else '+'}"
        more = " (more below)" if self.top + self._room < len(lines) else ""
        status = self.message or HELP
        self.console.print(f"{self.at + 1:,} {of}{more}   {status}", style="reverse", end="")
        self.message = ""
        return lines

    def _act(self, key: str, lines: int) -> bool:
        """Does what the key says; True ends the pager."""
        below = self.top + self._room < lines
        scroll = {"down": 1, "up": -1, " ": self._room - 1, "b": 1 - self._room}
        if key == "q":
            self.console.print()
            return True
        if key in ("n", "\r", "\n") or (key == " " and not below):
            self._go(self.at + 1)
        elif key == "p":
            self._go(self.at - 1)
        elif key in scroll:
            self.top += scroll[key]
        elif key == "g":
            number = self._ask("go to number: ")
            if number.isdecimal() and int(number):
                self._go(int(number) - 1)
        elif key == "/":
            self._find(self._ask("search: "))
        else:
            self.message = HELP
        return False

    def _go(self, number: int) -> None:
        number = max(0, number)
        if not self._reach(number):
            self.message = f"that is all: {len(self.seen):,}"
            number = len(self.seen) - 1
        if number != self.at:
            self.at, self.top = number, 0

    def _find(self, words: str) -> None:
        """Goes to the next item whose text holds these words."""
        number = self.at + 1
        while words and self._reach(number):
            if words.casefold() in self.show(self.seen[number]).plain.casefold():
                return self._go(number)
            number += 1
        self.message = f"not found below: {words}"
        return None

    def _ask(self, question: str) -> str:
        """A line typed at the bottom, empty when it is given up with Escape."""
        typed = ""
        while True:
            self.console.print(f"\r{question}{typed} \b", end="", markup=False, highlight=False)
            key = self.keys()
            if key in ("\r", "\n"):
                return typed
            if key == "\x1b":
                return ""
            if key in ("\x7f", "\b"):
                typed = typed[:-1]
            else:
                typed += {"down": "j", "up": "k"}.get(key, key if key.isprintable() else "")

    def _reach(self, number: int) -> bool:
        """Whether there is such an item; fetches up to it."""
        while len(self.seen) <= number and not self.whole:
            item = next(self.items, None)
            if item is None:
                self.whole = True
            else:
                self.seen.append(item)
        return number < len(self.seen)
