"""From a `DataConfig` to rows to train on, preparing first what is missing."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tulu_jax.chat import Tokenizer
from tulu_jax.console import plain_console, write_verbatim
from tulu_jax.data.config import DataConfig
from tulu_jax.data.exclude import Exclusion, read_exclusion
from tulu_jax.data.keys import PrepareOptions, store_keys
from tulu_jax.data.measured_twice import notes_on_measured
from tulu_jax.data.mixtures import Component, resolve
from tulu_jax.data.prepare import find_store, prepare_each
from tulu_jax.data.rates import make_rated_rows, size_rate
from tulu_jax.data.rows import (
    RowSource,
    RowStream,
    choose_examples,
    choose_heldout,
    make_rows,
)
from tulu_jax.data.specs import how_read
from tulu_jax.data.store import Store
from tulu_jax.processes import all_cores


@dataclass(frozen=True, eq=False)
class TrainingData:
    """Rows to train on, rows to measure loss on by task, and the stores they come from.

    `mixing` says, in JSON values, which examples are chosen and at which rates they are drawn;
    it is empty where every example comes once an epoch. `exclusion` is what was left out of that
    choice, and `notes` say what should be known about it.
    """

    train: RowStream
    heldout: dict[str, RowSource]
    stores: list[Store]
    tokenizer: Tokenizer
    mixing: dict[str, Any] = field(default_factory=dict)
    exclusion: Exclusion = field(default_factory=Exclusion)
    notes: list[str] = field(default_factory=list)


def prepare_options(config: DataConfig) -> PrepareOptions:
    """How the config's tasks are prepared."""
    return PrepareOptions(
        tokenizer=config.tokenizer,
        encoding=config.encoding,
        chat_template=config.chat_template,
        add_tokens=config.add_tokens,
        max_length=config.length,
        data_dir=config.data_dir,
        raw_dir=config.raw_dir,
        num_processes=config.num_processes or all_cores(),
        options=config.options,
    )


def ensure_prepared(config: DataConfig) -> dict[str, dict[str, Store]]:
    """The stores by task and split; those that are missing are made, and said.

    Raises: as `prepare`.
    """
    options = prepare_options(config)
    tokenizer = options.load_tokenizer()
    keys = {
        spec.task_name: store_keys(spec, options, tokenizer=tokenizer)
        for spec in options.specs(config.mixture)
    }
    found = {t: {s: find_store(k, options) for s, k in ks.items()} for t, ks in keys.items()}
    if any(None in splits.values() for splits in found.values()):
        found = _prepare(config.mixture, options)
    return {
        task: {split: store for split, store in splits.items() if store is not None}
        for task, splits in found.items()
    }


def _prepare(mixture: str, options: PrepareOptions) -> dict[str, dict[str, Store | None]]:
    """As `tulu data prepare`, without the datasets' table: a run prints that itself."""
    for spec in options.specs(mixture):
        for line in how_read(spec, options.raw_dir):
            write_verbatim(line, file=sys.stderr)
    stores: dict[str, dict[str, Store | None]] = {}
    for prepared in prepare_each(mixture, options):
        for line in prepared.lines() if prepared.made else ():
            plain_console().print(line, soft_wrap=True)
        store = prepared.store
        stores.setdefault(store.meta["task"], {})[store.meta["split"]] = store
    return stores


def open_training_data(config: DataConfig) -> TrainingData:
    """Everything a run reads, prepared first where needed.

    A task with a `validation` split is measured on that; of the others `heldout_examples` are
    kept out of training for it. With `heldout_examples=0` such a task has no held-out rows.
    """
    prepared = ensure_prepared(config)
    parts = resolve(
        config.mixture,
        max_examples=config.max_examples,
        rates=config.rates,
        seeds=config.seeds,
        seed=config.seed,
    )
    return assemble(config, parts, prepared, prepare_options(config).load_tokenizer())


def assemble(
    config: DataConfig,
    parts: list[Component],
    prepared: dict[str, dict[str, Store]],
    tokenizer: Tokenizer,
) -> TrainingData:
    """What a run reads, from resolved components and the stores by task and split.

    What exclude files name is left out first: the held-out and the chosen come from the rest.
    """
    exclusion = read_exclusion(config.exclude)
    every = [store for part in parts for store in prepared[part.task].values()]
    notes = exclusion.check_fits(every)
    stores, chosen, measured = [], [], {}
    for part in parts:
        splits = prepared[part.task]
        store = splits["train"]
        kept = exclusion.keep(store)
        if "validation" in splits:
            validation = splits["validation"]
            measured[part.task] = (validation, exclusion.keep(validation))
        elif config.heldout_examples:
            kept, out = choose_heldout(store, config.heldout_examples, seed=config.seed, among=kept)
            measured[part.task] = (store, out)
        if part.max_examples is not None:
            kept = choose_examples(store.ids, kept, part.max_examples, seed=part.seed or 0)
        stores.append(store)
        chosen.append(kept)
    train, mixing = _training_rows(config, parts, stores, chosen)
    read = [s for s in every if s.meta["split"] in ("train", "validation")]
    if excluded := exclusion.record(read):
        mixing["exclude"] = excluded
    notes += notes_on_measured(measured, list(zip(stores, chosen, strict=True)))
    heldout = {task: _heldout_rows(config, *part) for task, part in measured.items()}
    return TrainingData(train, heldout, stores, tokenizer, mixing, exclusion, notes)


def _heldout_rows(config: DataConfig, store: Store, examples: np.ndarray) -> RowSource:
    return make_rows(
        [store],
        examples=examples,
        row_length=config.length,
        packing=config.packing,
        seed=config.seed,
        epochs=1,
    )


def _training_rows(
    config: DataConfig, parts: list[Component], stores: list[Store], chosen: list[np.ndarray]
) -> tuple[RowStream, dict[str, Any]]:
    """The rows of the run's schedule, and what decides them beyond the plain concatenation."""
    seeds = [part.seed or 0 for part in parts]
    caps = {part.task: part.max_examples for part in parts if part.max_examples is not None}
    mixing: dict[str, Any] = {}
    if caps:
        mixing["max_examples"] = caps
        mixing["seeds"] = dict(zip((part.task for part in parts), seeds, strict=True))
    common: dict[str, Any] = {
        "row_length": config.length,
        "packing": config.packing,
        "seed": config.seed,
        "epochs": config.epochs,
    }
    if config.schedule == "concat":
        starts = np.cumsum([0, *(len(store) for store in stores[:-1])])
        examples = np.concatenate([c + s for c, s in zip(chosen, starts, strict=True)])
        return make_rows(stores, examples=examples, **common), mixing
    rates = [_rate(config, part, len(mine)) for part, mine in zip(parts, chosen, strict=True)]
    mixing["schedule"] = "rates"
    mixing["rates"] = dict(zip((part.task for part in parts), rates, strict=True))
    mixing["seeds"] = dict(zip((part.task for part in parts), seeds, strict=True))
    return make_rated_rows(stores, examples=chosen, rates=rates, seeds=seeds, **common), mixing


def _rate(config: DataConfig, part: Component, examples: int) -> float:
    """A task's rate under `rates`, in examples: its own, or by its size."""
    if part.rate is not None:
        return float(part.rate)
    return size_rate(
        examples,
        maximum=config.rate_maximum,
        temperature=config.rate_temperature,
        scale=config.rate_scale,
    )
