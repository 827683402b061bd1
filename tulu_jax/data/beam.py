"""Parts made on Apache Beam, whose workers read the jobs from files and write the parts' files.

The folder must therefore lie where all of them see it, or DATA_DIR in a bucket.
"""

from __future__ import annotations

import contextlib
import functools
import json
import socket
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from tulu_jax.chat import AddTokens, Tokenizer, load_tokenizer
from tulu_jax.data.keys import PrepareOptions
from tulu_jax.data.parts import Part, PartJob, PartMaker, load_part
from tulu_jax.errors import ConfigError, DataError
from tulu_jax.places import Address, Place, as_place, download, remove_tree, upload, write_file


def parts_on_beam(jobs: Iterable[PartJob], folder: Path, options: PrepareOptions) -> Iterator[Part]:
    """The parts of the jobs, in order; those that are not in the folder yet are made on Beam.

    Raises: ConfigError when Beam is not installed or does not know the runner; what the runner
        raises; DataError when a part did not come; OSError.
    """
    pipeline = _pipeline(options)
    work = _work_folder(folder, options)
    remove_tree(work)  # of a run that was killed
    work.mkdir()
    sources, missing = [], {}
    for job in jobs:
        sources.append((job.path, job.source))
        if load_part(job.path, job.source) is None:
            missing[job.path] = work / f"{job.path.stem}.json"
            write_file(missing[job.path], json.dumps(job.conversations))
    if missing:
        _make(pipeline, [str(file) for file in missing.values()], options)
    for path in missing if isinstance(work, Address) else ():
        with contextlib.suppress(FileNotFoundError):
            download(work / path.name, path)
    remove_tree(work)
    for path, source in sources:
        part = load_part(path, source)
        if part is None:
            raise DataError("a part did not come back from Beam", at=path, do="run it again")
        yield replace(part, found=path not in missing)


def _make(pipeline: Any, jobs: list[str], options: PrepareOptions) -> None:
    import apache_beam as beam  # type: ignore[import-not-found]

    added = options.add_tokens if isinstance(options.add_tokens, str) else (*options.add_tokens,)
    tokenizer = (options.tokenizer, options.encoding, options.chat_template, added)
    make = functools.partial(_make_part, tokenizer, options.max_length)
    with pipeline:
        _ = pipeline | beam.Create(jobs) | beam.Reshuffle() | beam.Map(make)


def _work_folder(folder: Path, options: PrepareOptions) -> Place:
    """Where jobs lie, which all workers see; of each host that prepares its own."""
    if options.place is None:
        return folder / "beam"
    return options.place / ".beam" / f"{folder.name.strip('.')}-{socket.gethostname()}"


def _make_part(tokenizer: tuple[Any, ...], max_length: int, file: str) -> None:
    job = as_place(file)
    conversations = json.loads(job.read_text(encoding="utf-8"))
    make = PartMaker(_tokenizer(*tokenizer), max_length)
    if isinstance(job, Path):
        make(PartJob(job.parents[1] / f"{job.stem}.npz", conversations))
        return
    with tempfile.TemporaryDirectory(prefix="tulu-") as local:
        path = Path(local) / f"{job.stem}.npz"
        make(PartJob(path, conversations))
        upload(path, job.with_name(path.name))


@functools.cache
def _tokenizer(path: str, encoding: str, template: str, add_tokens: AddTokens) -> Tokenizer:
    return load_tokenizer(path, encoding, template=template, add_tokens=add_tokens)


def _pipeline(options: PrepareOptions) -> Any:
    """A pipeline of the runner that is asked for.

    Raises: ConfigError.
    """
    try:
        import apache_beam as beam  # type: ignore[import-not-found]
        from apache_beam.options.pipeline_options import (  # type: ignore[import-not-found]
            PipelineOptions,
        )
        from apache_beam.runners import create_runner  # type: ignore[import-not-found]
    except ImportError as error:
        raise ConfigError(
            "Apache Beam is not installed",
            got=f"--beam_runner {options.beam_runner}",
            do="pip install 'tulu-jax[beam]', or leave the option out",
        ) from error
    flags = PipelineOptions(flags=[f"--{option}" for option in options.beam_options])
    try:
        runner = create_runner(options.beam_runner)
    except (ValueError, ImportError) as error:
        raise ConfigError(
            "Apache Beam knows no such runner",
            got=repr(options.beam_runner),
            expected="DirectRunner, DataflowRunner, FlinkRunner, SparkRunner or a class's path",
        ) from error
    return beam.Pipeline(runner=runner, options=flags)
