"""What the engine has done, in numbers."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager


@dataclasses.dataclass
class Stats:
    """Counts since the engine was made; seconds are of waiting for the device."""

    prompt_tokens: int = 0
    """Tokens of prompts, those that were shared included."""
    shared_tokens: int = 0
    """Tokens that another row held already."""
    read_tokens: int = 0
    """Tokens that were run through the model, the filling of pieces left out."""
    read_seconds: float = 0.0
    decoded_tokens: int = 0
    decode_seconds: float = 0.0
    dispatches: int = 0
    slot_steps: int = 0
    """Tokens that had been decoded if every slot had had a request in every step."""
    read_bytes: int = 0
    """That decoding had to read from memory: the weights once a step, of each row what it holds;
    those of the first dispatch, whose time is compilation, left out."""
    bandwidth: float | None = None
    """Bytes/s of the devices' memory, where that is known."""
    kernel: str = ""
    """Of attention in decoding, and why it is not the devices' own; empty where nothing is to be
    said."""
    compile_seconds: float = 0.0
    """First calls of the compiled functions, compilation included."""

    def count_prompt(self, tokens: int, shared: int) -> None:
        """Notes a prompt, and how much of it was there already."""
        self.prompt_tokens += tokens
        self.shared_tokens += shared

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Adds the seconds within to a field."""
        start = time.perf_counter()
        yield
        setattr(self, name, getattr(self, name) + time.perf_counter() - start)

    def lines(self) -> list[str]:
        """The numbers as a reader wants them."""
        found = []
        if self.prompt_tokens:
            share = 100 * self.shared_tokens / self.prompt_tokens
            rate = _rate(self.read_tokens, self.read_seconds, "read")
            found.append(f"prompts  {self.prompt_tokens:,} tokens, {share:.0f} % shared{rate}")
        if self.decoded_tokens:
            busy = 100 * self.decoded_tokens / self.slot_steps
            rate = _rate(self.decoded_tokens, self.decode_seconds, "decoded")
            found.append(
                f"answers  {self.decoded_tokens:,} tokens, {busy:.0f} % of slots busy{rate}"
            )
        if self.read_bytes and self.decode_seconds > 0.01:
            rate = self.read_bytes / self.decode_seconds
            of = self.bandwidth and f", {rate / self.bandwidth:.0%} of {self.bandwidth / 1e9:,.0f}"
            found.append(f"memory   {rate / 1e9:,.1f} GB/s read in decoding{of or ''}")
        if self.kernel:
            found.append(f"kernel   {self.kernel}")
        if self.compile_seconds:
            found.append(f"compiled in {self.compile_seconds:.1f} s")
        return found


SECONDS = ("read_seconds", "decode_seconds", "compile_seconds")


def joined(parts: Sequence[Stats]) -> Stats:
    """The numbers of engines that work at the same time: sums, and the mean of seconds."""
    found = Stats(kernel=parts[0].kernel)
    for field in dataclasses.fields(Stats):
        values = [getattr(one, field.name) for one in parts]
        if field.name != "kernel" and None not in values:
            total = sum(values)
            setattr(found, field.name, total / len(parts) if field.name in SECONDS else total)
    return found


def _rate(tokens: int, seconds: float, done: str) -> str:
    """Tokens a second; nothing where all the time was compilation."""
    return f", {done} at {tokens / seconds:,.0f} tokens/s" if seconds > 0.01 else ""
