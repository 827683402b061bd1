"""`DataConfig`: which data a run reads and how it becomes rows. gin binds it; it checks itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from tulu_jax.chat import AddTokens, check_add_tokens, check_template_name
from tulu_jax.data.packing import PACKING_MODES, PackingMode
from tulu_jax.data.specs import TASK_PREFIX
from tulu_jax.errors import ConfigError
from tulu_jax.fields import check_field_types, set_paths
from tulu_jax.files import user_paths

ENCODINGS = ("hf", "paper")
Schedule = Literal["concat", "rates"]
SCHEDULES: tuple[Schedule, ...] = ("concat", "rates")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The data of a training run.

    Attributes:
        mixture: a mixture (`tulu_v1_human`), a task (`tulu_demo`), the path of files of
            one's own, or several of these joined by commas.
        tokenizer: folder of the tokenizer.
        length: tokens in a row; longer conversations are cut there when prepared.
        batch_size: rows in a global batch.
        epochs: how often each example is seen (under `rates`: on average); None means without end.
        packing: `best_fit`, or `padded` (one example a row, as in the paper).
        seed: decides packing ties, the order of rows, and who is held out.
        heldout_examples: how many examples of each task without a validation split are kept out
            of training to measure loss on; 0 means none.
        encoding: `hf` or `paper`.
        chat_template: how conversations are written: a name of `tulu_jax.chat.TEMPLATES`, or
            `checkpoint` for the tokenizer folder's own.
        add_tokens: special tokens to add to the tokenizer, or `template` for those that the chat
            template needs and the tokenizer lacks.
        data_dir: where tokenized stores lie.
        raw_dir: where raw files lie; None downloads them.
        num_processes: processes that prepare data; None: as many as there are cores.
        options: reading options by task: `{"tulu_oasst1": {"rule": "every"}}`.
        max_examples: at most so many examples of a task, chosen by a seed: `{"tulu_cot": 50000}`.
        seeds: by task, what decides the choice and, under `rates`, packing and order; else `seed`.
        schedule: `concat` (each example once an epoch), or `rates` (see `rates.RatedRows`).
        rates: by task, its rate in examples under `rates`; others go by their size:
        rate_scale, rate_maximum, rate_temperature: (examples x scale, no more than the maximum) to
            the power of 1 / temperature, as SeqIO's `mixing_rate_num_examples`.
        exclude: files of examples to leave out (`tulu data check --write_exclude`): a path, paths
            joined by commas, or a list of paths.
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
    chat_template: str = "tulu"
    add_tokens: AddTokens = ()
    data_dir: str = "data"
    raw_dir: str | None = None
    num_processes: int | None = None
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    max_examples: Mapping[str, int] = field(default_factory=dict)
    seeds: Mapping[str, int] = field(default_factory=dict)
    schedule: Schedule = "concat"
    rates: Mapping[str, float] = field(default_factory=dict)
    rate_scale: float = 1.0
    rate_maximum: int | None = None
    rate_temperature: float = 1.0
    exclude: str | Sequence[str] | None = None

    def __post_init__(self) -> None:
        """Raises: ConfigError naming the field, for a value out of range."""
        for name in ("length", "batch_size"):
            _at_least(name, getattr(self, name), 1)
        if self.num_processes is not None:
            _at_least("num_processes", self.num_processes, 1)
        _at_least("seed", self.seed, 0)
        _at_least("heldout_examples", self.heldout_examples, 0)
        if self.epochs is not None:
            _at_least("epochs", self.epochs, 1)
        if self.rate_maximum is not None:
            _at_least("rate_maximum", self.rate_maximum, 1)
        _above_zero("rate_scale", self.rate_scale)
        _above_zero("rate_temperature", self.rate_temperature)
        for name, check in (("max_examples", _one_or_more), ("seeds", _zero_or_more),
                            ("rates", _above_zero), ("options", _options)):  # fmt: skip
            _each(name, getattr(self, name), check)
        _one_of("schedule", self.schedule, SCHEDULES)
        _one_of("packing", self.packing, PACKING_MODES)
        _one_of("encoding", self.encoding, ENCODINGS)
        check_template_name(self.chat_template)
        check_add_tokens(self.add_tokens)
        for name in ("mixture", "tokenizer", "data_dir"):
            if not isinstance(getattr(self, name), str) or not getattr(self, name):
                got = repr(getattr(self, name))
                raise ConfigError(f"{name} is not set", got=got, at="DataConfig", expected="text")
        _paths("exclude", self.exclude)
        if self.exclude is not None:
            paths = user_paths(self.exclude, name="EXCLUDE")
            object.__setattr__(self, "exclude", [str(path) for path in paths])
        check_field_types(self)
        set_paths(self, tokenizer="TOKENIZER", data_dir="DATA_DIR", raw_dir="RAW_DIR")
        self._check_rates_are_used()

    def _check_rates_are_used(self) -> None:
        """Refuses rates and seeds that would change nothing."""
        plain = (self.rate_scale, self.rate_maximum, self.rate_temperature) == (1.0, None, 1.0)
        if self.schedule == "concat" and (self.rates or not plain):
            raise ConfigError(
                "rates are given but not used",
                got="schedule 'concat'",
                expected="schedule 'rates'",
                do="set DataConfig.schedule = 'rates', or leave the rates out",
            )
        capped = {name.removeprefix(TASK_PREFIX) for name in self.max_examples}
        useless = [name for name in self.seeds if name.removeprefix(TASK_PREFIX) not in capped]
        if self.schedule == "concat" and useless:
            raise ConfigError(
                "seeds are given but not used",
                got=f"seeds of {', '.join(sorted(useless))} with schedule 'concat'",
                expected="seeds of tasks with max_examples, or schedule 'rates'",
                do="leave them out: RANDOM_SEED decides the order of rows",
            )


def _at_least(name: str, value: object, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        expected = f"a whole number of at least {least}"
        raise ConfigError(f"{name} is out of range", got=repr(value), expected=expected)


def _one_or_more(name: str, value: object) -> None:
    _at_least(name, value, 1)


def _zero_or_more(name: str, value: object) -> None:
    _at_least(name, value, 0)


def _above_zero(name: str, value: object) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not (number and 0 < value < float("inf")):  # type: ignore[operator]
        raise ConfigError(f"{name} is out of range", got=repr(value), expected="a number above 0")


def _options(name: str, value: object) -> None:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        expected = "{option: value}"
        raise ConfigError(f"{name} is not understood", got=repr(value), expected=expected)


def _paths(name: str, value: object) -> None:
    several: Any = [] if value is None else [value] if isinstance(value, str) else value
    texts = isinstance(several, list | tuple) and all(isinstance(one, str) for one in several)
    if not texts or not all(one.strip(" ,") for one in several):
        expected = "a path, a list of paths, or None"
        raise ConfigError(f"{name} is not understood", got=repr(value), expected=expected)


def _each(name: str, values: object, check: Callable[[str, object], None]) -> None:
    """Checks that `values` are by task, and each value with `check`."""
    if not isinstance(values, Mapping) or not all(isinstance(key, str) for key in values):
        raise ConfigError(f"{name} is not understood", got=repr(values), expected="{task: value}")
    for key, value in values.items():
        check(f"{name}[{key!r}]", value)


def _one_of(name: str, value: object, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ConfigError(f"unknown {name}", got=repr(value), expected=" or ".join(known))
