"""`DataConfig`: which data a run reads and how it becomes rows. gin binds it; it checks itself."""

from __future__ import annotations

from dataclasses import dataclass

from tulu_jax.data.packing import PACKING_MODES, PackingMode
from tulu_jax.errors import ConfigError

ENCODINGS = ("hf", "paper")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """What a training run reads.

    Attributes:
        mixture: a task (`tulu_demo`), or several joined by commas: plain concatenation.
        tokenizer: folder of the tokenizer.
        length: tokens in a row; longer conversations are cut there when prepared.
        batch_size: rows in a global batch.
        epochs: how often each example is seen; None means without end.
        packing: `best_fit`, or `padded` (one example a row, as in the paper).
        seed: decides packing ties, the order of rows, and who is held out.
        heldout_examples: how many examples of each task without a validation split are kept out
            of training to measure loss on; 0 means none.
        encoding: `hf` or `paper`.
        data_dir: where tokenized stores lie.
        raw_dir: where raw files lie; None downloads them.
        num_processes: processes that prepare data.
    """

    mixture: str
    tokenizer: str
    length: int = 2048
    batch_size: int = 128
    epochs: int | None = None
    packing: PackingMode = "best_fit"
    seed: int = 42
    heldout_examples: int = 0
    encoding: str = "hf"
    data_dir: str = "data"
    raw_dir: str | None = None
    num_processes: int = 1

    def __post_init__(self) -> None:
        """Raises: ConfigError naming the field, for a value out of range."""
        for name in ("length", "batch_size", "num_processes"):
            _at_least(name, getattr(self, name), 1)
        _at_least("seed", self.seed, 0)
        _at_least("heldout_examples", self.heldout_examples, 0)
        if self.epochs is not None:
            _at_least("epochs", self.epochs, 1)
        _one_of("packing", self.packing, PACKING_MODES)
        _one_of("encoding", self.encoding, ENCODINGS)
        for name in ("mixture", "tokenizer", "data_dir"):
            if not isinstance(getattr(self, name), str) or not getattr(self, name):
                got = repr(getattr(self, name))
                raise ConfigError(f"{name} is not set", got=got, at="DataConfig", expected="text")


def _at_least(name: str, value: object, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        expected = f"a whole number of at least {least}"
        raise ConfigError(f"{name} is out of range", got=repr(value), expected=expected)


def _one_of(name: str, value: object, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ConfigError(f"unknown {name}", got=repr(value), expected=" or ".join(known))
