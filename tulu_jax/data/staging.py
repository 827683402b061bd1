"""From raw files to the files of a TFDS builder, in a process that may import TensorFlow."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tulu_jax.data.specs import DatasetSpec
from tulu_jax.data.workers import Context


@dataclass(frozen=True)
class Staged:
    """The builder's ArrayRecord files of each split, and what was wrong with the raw files.

    `faults` has `records`, `skipped`, `messages` and `left_out` of each split.
    """

    files: Mapping[str, tuple[str, ...]]
    faults: Mapping[str, Mapping[str, Any]]


def stage(context: Context, number: int, spec: DatasetSpec) -> Staged:
    """Dataset `number` of those that are prepared, its builder's files written if need be.

    Raises: DataError for bad or missing raw files, or a folder that cannot be written.
    """
    options = context.options

    def progress(count: int) -> None:
        context.progress[number] = count

    _remove_unfinished(Path(options.data_dir), spec)
    with quiet_tensorflow():
        from tulu_jax.data import seqio_glue

        builder = seqio_glue.prepared_builder(
            spec,
            data_dir=options.data_dir,
            raw_dir=options.raw_dir,
            tokenizer=context.tokenizer,
            strict=options.strict,
            progress=progress,
        )
        splits = builder.info.splits
        files = {name: tuple(str(p) for p in splits[name].filepaths) for name in spec.splits}
        progress(sum(splits[name].num_examples for name in spec.splits))
        return Staged(files, seqio_glue.builder_faults(builder))


def _remove_unfinished(data_dir: Path, spec: DatasetSpec) -> None:
    """Deletes what a builder that was killed had written."""
    for folder in data_dir.glob(f"tfds/*/{spec.task_name}/*incomplete*"):
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def quiet_tensorflow() -> Iterator[None]:
    """Silences TensorFlow's start-up lines, which C++ writes to the file descriptor itself.

    TensorFlow sees no GPU: it would take the memory of the run that waits for the data.
    """
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    for name in ("absl", "tensorflow", "tensorflow_datasets"):
        logging.getLogger(name).setLevel(logging.ERROR)
    sys.stderr.flush()
    saved, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nothing)
