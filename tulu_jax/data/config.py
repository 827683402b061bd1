"""`DataConfig`: which data a run reads and how it becomes rows. gin binds it; it checks itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tulu_jax.chat import AddTokens, check_add_tokens, check_template_name
from tulu_jax.data.packing import PackingMode
from tulu_jax.data.specs import TASK_PREFIX
from tulu_jax.errors import ConfigError
from tulu_jax.fields import above, check_fields, least, one_of, setting
from tulu_jax.files import user_paths

ENCODINGS = ("hf", "paper")
Schedule = Literal["concat", "rates"]


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The data of a training run."""

    mixture: str = setting(
        macro="MIXTURE_OR_TASK_NAME",
        help="a mixture, a task, the path of your own files, or several, by commas",
    )
    tokenizer: str = setting(path="model", macro="TOKENIZER", help="folder of the tokenizer")
    length: int = setting(
        2048, least(1), macro="TASK_FEATURE_LENGTHS",
        help="{'targets': tokens in a row}; longer conversations are cut there when prepared",
    )  # fmt: skip
    batch_size: int = setting(128, least(1), macro="BATCH_SIZE", help="rows in a global batch")
    epochs: int | None = setting(
        None, least(1), macro="EPOCHS", help="passes over the data (under the schedule 'rates' on "
        "average); None trains for TRAIN_STEPS",
    )  # fmt: skip
    packing: PackingMode = setting(
        "best_fit", macro="PACKING",
        help="'best_fit', or 'padded' (one example a row, as in the paper)",
    )  # fmt: skip
    seed: int = setting(
        42, least(0), macro="RANDOM_SEED", help="packing ties, order of rows, who is held out"
    )
    heldout_examples: int = setting(
        0, least(0), macro="HELDOUT_EXAMPLES", help="examples of each task without a "
        "validation split kept out of training to measure loss on",
    )  # fmt: skip
    encoding: str = setting(
        "hf", one_of(*ENCODINGS), macro="ENCODING",
        help="'hf', or 'paper' (token for token the paper's slow tokenizer)",
    )  # fmt: skip
    chat_template: str = setting(
        "tulu", macro="CHAT_TEMPLATE", help="'tulu', 'llama2', 'llama3', 'mistral', 'chatml', "
        "'zephyr', 'alpaca'; or 'checkpoint': the tokenizer folder's own",
    )  # fmt: skip
    add_tokens: AddTokens = setting(
        (), macro="ADD_TOKENS", help="special tokens to add, or 'template': those that the chat "
        "template needs and the tokenizer lacks",
    )  # fmt: skip
    data_dir: str = setting(
        "data", path="place", macro="DATA_DIR", help="folder of tokenized stores"
    )
    raw_dir: str | None = setting(
        None, path=True, macro="RAW_DIR",
        help="folder of raw files, RAW_DIR/<dataset>/<file>; None downloads them",
    )  # fmt: skip
    num_processes: int | None = setting(
        None, least(1), help="processes that prepare data; None: as many as there are cores"
    )
    options: Mapping[str, Mapping[str, Any]] = setting(
        factory=dict, help="reading options by task: {'tulu_oasst1': {'rule': 'every'}}"
    )
    max_examples: Mapping[str, int] = setting(
        check=least(1), factory=dict,
        help="at most so many examples of a task, chosen by a seed: {'tulu_cot': 50000}",
    )  # fmt: skip
    seeds: Mapping[str, int] = setting(
        check=least(0), factory=dict, help="by task, what decides the choice of examples and, "
        "under the schedule 'rates', packing and order; others: RANDOM_SEED",
    )  # fmt: skip
    schedule: Schedule = setting(
        "concat", help="'concat' (each example once an epoch), or 'rates' (see rates.RatedRows)"
    )
    rates: Mapping[str, float] = setting(
        check=above(0), factory=dict,
        help="by task, its rate in examples under 'rates'; others go by their size: (examples x "
        "rate_scale, at most rate_maximum) to the power of 1 / rate_temperature, as SeqIO's "
        "mixing_rate_num_examples",
    )  # fmt: skip
    rate_scale: float = setting(1.0, above(0))
    rate_maximum: int | None = setting(None, least(1))
    rate_temperature: float = setting(1.0, above(0))
    exclude: str | Sequence[str] | None = setting(
        None, macro="EXCLUDE", help="files of examples to leave out (`tulu data check "
        "--write_exclude`): a path, several by commas, or a list of paths",
    )  # fmt: skip

    def __post_init__(self) -> None:
        """Raises: ConfigError naming the field, for a value out of range."""
        for name in ("mixture", "tokenizer"):
            if not getattr(self, name):
                got = repr(getattr(self, name))
                raise ConfigError(f"{name} is not set", got=got, at="DataConfig", expected="text")
        check_template_name(self.chat_template)
        check_add_tokens(self.add_tokens)
        check_fields(self)
        if self.exclude is not None:
            paths = user_paths(self.exclude, name="EXCLUDE")
            object.__setattr__(self, "exclude", [str(path) for path in paths])
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
