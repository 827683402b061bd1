"""Parts encoded on Apache Beam, the way TFDS runs a builder there, with one record a part.

The workers read the conversations' files themselves: these must lie where all of them see them.
"""

from __future__ import annotations

import contextlib
import functools
import io
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf
import tensorflow_datasets as tfds

from tulu_jax.chat import AddTokens, Tokenizer, load_tokenizer
from tulu_jax.data.keys import PrepareOptions
from tulu_jax.data.parts import Job, encode_part, pack_part, write_part
from tulu_jax.data.records import bytes_features
from tulu_jax.errors import ConfigError


def make_parts_on_beam(jobs: Iterable[Job], folder: Path, options: PrepareOptions) -> int:
    """Makes the parts that are not in the folder yet; how many these were.

    Raises: ConfigError when Beam is not installed or does not know the runner; what the runner
        raises; OSError.
    """
    missing = [job for job in jobs if not job.path(folder).exists()]
    if not missing:
        return 0
    config = _download_config(options)
    work = folder / "beam"
    shutil.rmtree(work, ignore_errors=True)  # of a run that was killed
    builder = EncodedParts(missing, options, data_dir=str(work), file_format="array_record")
    tfds.disable_progress_bar()
    with contextlib.redirect_stdout(io.StringIO()):  # TFDS prints its own progress
        builder.download_and_prepare(download_config=config, download_dir=str(work / "raw"))
    for path in builder.info.splits["parts"].filepaths:
        for features in bytes_features(str(path)):
            number = int(features["number"][0])
            write_part(Job(number, "", ()).path(folder), features["part"][0])
    shutil.rmtree(work)
    return len(missing)


class EncodedParts(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Each job's part, as bytes, in the order of their numbers."""

    VERSION = tfds.core.Version("1.0.0")
    name = "encoded_parts"
    code_path = None

    def __init__(self, jobs: Sequence[Job], options: PrepareOptions, **kwargs: Any) -> None:
        """A builder of the parts of these jobs."""
        self._jobs, self._options = jobs, options
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        scalar = tfds.features.Tensor(shape=(), dtype=tf.string)
        features = tfds.features.FeaturesDict({"number": scalar, "part": scalar})
        return tfds.core.DatasetInfo(builder=self, features=features, disable_shuffling=True)

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        return {"parts": self._generate_examples()}

    def _generate_examples(self) -> Any:
        import apache_beam as beam  # type: ignore[import-not-found]

        options = self._options
        added = (
            options.add_tokens if isinstance(options.add_tokens, str) else (*options.add_tokens,)
        )
        tokenizer = (options.tokenizer, options.encoding, options.chat_template, added)
        encode = functools.partial(_encode, tokenizer, options.max_length)
        return beam.Create(self._jobs) | beam.Reshuffle() | beam.Map(encode)


def _encode(tokenizer: tuple[Any, ...], max_length: int, job: Job) -> tuple[int, dict[str, bytes]]:
    part = encode_part(
        job.source, job.read(), tokenizer=_tokenizer(*tokenizer), max_length=max_length
    )
    return job.number, {"number": str(job.number).encode(), "part": pack_part(part)}


@functools.cache
def _tokenizer(path: str, encoding: str, template: str, add_tokens: AddTokens) -> Tokenizer:
    return load_tokenizer(path, encoding, template=template, add_tokens=add_tokens)


def _download_config(options: PrepareOptions) -> tfds.download.DownloadConfig:
    try:
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
    return tfds.download.DownloadConfig(beam_runner=runner, beam_options=flags)
