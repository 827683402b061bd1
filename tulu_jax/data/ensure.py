"""From a `DataConfig` to rows to train on, preparing first, in a child process, what is missing.

The child alone imports TensorFlow; the process that trains never does.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass

import numpy as np

from tulu_jax.chat import Tokenizer
from tulu_jax.data.config import DataConfig
from tulu_jax.data.keys import PrepareOptions, mixture_specs, store_keys
from tulu_jax.data.prepare import find_store
from tulu_jax.data.rows import RowSource, choose_heldout, make_rows
from tulu_jax.data.store import Store, open_store
from tulu_jax.errors import DataError


@dataclass(frozen=True, eq=False)
class TrainingData:
    """Rows to train on, rows to measure loss on by task, and the stores they come from."""

    train: RowSource
    heldout: dict[str, RowSource]
    stores: list[Store]
    tokenizer: Tokenizer


def prepare_options(config: DataConfig) -> PrepareOptions:
    """How the config's tasks are prepared."""
    return PrepareOptions(
        tokenizer=config.tokenizer,
        encoding=config.encoding,
        max_length=config.length,
        data_dir=config.data_dir,
        raw_dir=config.raw_dir,
        num_processes=config.num_processes,
    )


def ensure_prepared(config: DataConfig) -> dict[str, dict[str, Store]]:
    """The stores by task and split; those that are missing are made by a child process.

    Raises: DataError when the child fails or leaves no store.
    """
    options = prepare_options(config)
    tokenizer = options.load_tokenizer()
    keys = {
        spec.task_name: store_keys(spec, options, tokenizer=tokenizer)
        for spec in mixture_specs(config.mixture)
    }
    found = {t: {s: find_store(k, options) for s, k in ks.items()} for t, ks in keys.items()}
    missing = [task for task, splits in found.items() if None in splits.values()]
    if missing:
        _run_child(",".join(missing), options)
    return {
        task: {
            split: found[task][split] or open_store(key.folder(options.data_dir))
            for split, key in splits.items()
        }
        for task, splits in keys.items()
    }


def open_training_data(config: DataConfig) -> TrainingData:
    """Everything a run reads, prepared first where needed.

    A task with a `validation` split is measured on that; of the others `heldout_examples` are
    kept out of training for it. With `heldout_examples=0` such a task has no held-out rows.
    """
    prepared = ensure_prepared(config)
    tokenizer = prepare_options(config).load_tokenizer()
    common = {
        "row_length": config.length,
        "packing": config.packing,
        "seed": config.seed,
    }
    stores, chosen, heldout, offset = [], [], {}, 0
    for task, splits in prepared.items():
        store = splits["train"]
        kept = np.arange(len(store))
        if "validation" in splits:
            heldout[task] = make_rows([splits["validation"]], epochs=1, **common)
        elif config.heldout_examples:
            kept, out = choose_heldout(store, config.heldout_examples, seed=config.seed)
            heldout[task] = make_rows([store], examples=out, epochs=1, **common)
        stores.append(store)
        chosen.append(kept + offset)
        offset += len(store)
    train = make_rows(stores, examples=np.concatenate(chosen), epochs=config.epochs, **common)
    return TrainingData(train, heldout, stores, tokenizer)


def _run_child(mixture: str, options: PrepareOptions) -> None:
    command = [sys.executable, "-m", "tulu_jax", "data", "prepare", mixture]
    command += ["--tokenizer", options.tokenizer, "--encoding", options.encoding]
    command += ["--max_length", str(options.max_length), "--data_dir", options.data_dir]
    command += ["--num_processes", str(options.num_processes)]
    if options.raw_dir is not None:
        command += ["--raw_dir", options.raw_dir]
    status = subprocess.run(command, check=False).returncode
    if status:
        raise DataError(
            "preparing the data failed",
            got=f"exit status {status}",
            at=mixture,
            do="see the message above, or run it alone: " + " ".join(command[1:]),
        )
