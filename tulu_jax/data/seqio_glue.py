"""TFDS builders and SeqIO tasks for every dataset; the only file that imports TensorFlow.

    from tulu_jax.data import seqio_glue

    seqio_glue.configure(tokenizer="path/to/tokenizer", data_dir="data", raw_dir="raw")
    task = seqio.get_mixture_or_task("tulu_demo")
    task.get_dataset(sequence_length={"targets": 512, "loss_mask": 512}, split="train")

Each example has `targets`, the tokens of one conversation, and `loss_mask`, 1 where the target
carries loss; both int32[n] and equal to what the tokenized store holds for it.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import seqio
import tensorflow as tf
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordReader

from tulu_jax.chat import Tokenizer, encode, load_tokenizer
from tulu_jax.data.specs import (
    Conversation,
    DatasetSpec,
    all_specs,
    file_sha256,
    get_spec,
    locate_raw_dir,
    raw_fingerprint,
)
from tulu_jax.errors import ConfigError, DataError

_READ_BATCH = 512


@dataclass(frozen=True)
class _Settings:
    tokenizer: Tokenizer
    data_dir: str
    raw_dir: str | None


_settings: _Settings | None = None


def configure(
    *,
    tokenizer: str | Path,
    encoding: str = "hf",
    data_dir: str | Path = "data",
    raw_dir: str | Path | None = None,
) -> None:
    """Says which tokenizer the SeqIO tasks use, where TFDS writes and where raw files lie."""
    global _settings
    loaded = load_tokenizer(tokenizer, encoding)
    _settings = _Settings(loaded, str(data_dir), None if raw_dir is None else str(raw_dir))


def read_prepared(
    spec: DatasetSpec, split: str, *, data_dir: str | Path, raw_dir: str | Path | None
) -> Iterator[Conversation]:
    """The split's conversations, in file order, by way of the dataset's TFDS builder.

    The builder's files are written before this returns; conversations are read as they are asked
    for.
    """
    builder = prepared_builder(spec, data_dir=data_dir, raw_dir=raw_dir)
    return _conversations(_record_batches(builder, split))


_FEATURES = {
    "dataset": tf.io.FixedLenFeature([], tf.string),
    "id": tf.io.FixedLenFeature([], tf.string),
    "messages/role": tf.io.RaggedFeature(tf.string),
    "messages/content": tf.io.RaggedFeature(tf.string),
}


def _record_batches(
    builder: tfds.core.GeneratorBasedBuilder, split: str, *, shuffle_seed: int | None = None
) -> Iterator[list[bytes]]:
    """The split's serialised records, in order (with a seed: files in another order).

    TFDS cannot give ArrayRecord files as a tf.data.Dataset, and its data source decodes one
    example at a time, twenty times as slowly as one parse of a batch.
    """
    paths = [str(path) for path in builder.info.splits[split].filepaths]
    if shuffle_seed is not None:
        np.random.default_rng(shuffle_seed).shuffle(paths)
    for path in paths:
        reader = ArrayRecordReader(path, "readahead_buffer_size:0")
        count = reader.num_records()
        for start in range(0, count, _READ_BATCH):
            yield reader.read(range(start, min(start + _READ_BATCH, count)))
        reader.close()


def _conversations(batches: Iterator[list[bytes]]) -> Iterator[Conversation]:
    for records in batches:
        batch = tf.io.parse_example(tf.constant(records), _FEATURES)
        names, ids = batch["dataset"].numpy(), batch["id"].numpy()
        roles = batch["messages/role"].flat_values.numpy()
        contents = batch["messages/content"].flat_values.numpy()
        ends = batch["messages/role"].row_splits.numpy().tolist()
        for row, (start, end) in enumerate(itertools.pairwise(ends)):
            yield {
                "dataset": names[row].decode(),
                "id": ids[row].decode(),
                "messages": [
                    {"role": roles[i].decode(), "content": contents[i].decode()}
                    for i in range(start, end)
                ],
            }


def prepared_builder(
    spec: DatasetSpec, *, data_dir: str | Path, raw_dir: str | Path | None
) -> tfds.core.GeneratorBasedBuilder:
    """The dataset's TFDS builder with its files written, made again when raw files change."""
    folder = locate_raw_dir(spec, raw_dir)
    content = f"{raw_fingerprint(spec, folder)} {spec.version} {spec.code_fingerprint()}"
    key = hashlib.sha256(content.encode()).hexdigest()[:12]
    builder = builder_class(spec.task_name)(
        data_dir=str(Path(data_dir) / "tfds" / key),
        raw_dir=None if folder is None else str(folder),
        file_format="array_record",
    )
    tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # TFDS prints its own progress
            builder.download_and_prepare()
    except OSError as error:
        raise DataError(
            "cannot prepare dataset " + spec.name,
            got=error.strerror or error,
            at=error.filename or data_dir,
            do="free some space or choose another folder with --data_dir",
        ) from error
    return builder


@functools.cache
def builder_class(task_name: str) -> type[tfds.core.GeneratorBasedBuilder]:
    """The TFDS builder class of a dataset, named as its task: `tulu_<dataset>`."""
    spec = get_spec(task_name)
    return type(
        "".join(part.title() for part in spec.task_name.split("_")),
        (_Builder,),
        {
            "spec": spec,
            "name": spec.task_name,
            "VERSION": tfds.core.Version(spec.version),
            "RELEASE_NOTES": {spec.version: "As described in the dataset's file in `tasks/`."},
            "MANUAL_DOWNLOAD_INSTRUCTIONS": _manual_instructions(spec),
            "__doc__": spec.description,
            "__module__": __name__,
        },
    )


class _Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Conversations of one dataset, in file order, as ArrayRecord files."""

    spec: DatasetSpec
    VERSION = tfds.core.Version("0.0.0")
    code_path = None  # there is no checksums file beside the code; sources carry their own

    def __init__(self, *, raw_dir: str | None = None, **kwargs: Any) -> None:
        """`raw_dir` holds the raw files; without it TFDS's manual folder or a download is used."""
        self._raw_dir = raw_dir
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        text = tfds.features.Text()
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.spec.description,
            features=tfds.features.FeaturesDict(
                {
                    "dataset": text,
                    "id": text,
                    "messages": tfds.features.Sequence({"role": text, "content": text}),
                }
            ),
            citation=self.spec.citation,
            homepage=self.spec.homepage,
            license=self.spec.licence,
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        folder = self._find_files(dl_manager)
        return {split: self._generate_examples(folder, split) for split in self.spec.splits}

    def _generate_examples(
        self, folder: Path | None, split: str
    ) -> Iterator[tuple[int, Conversation]]:
        yield from enumerate(self.spec.read(folder, split_name=split, **self.spec.options))

    def _find_files(self, dl_manager: tfds.download.DownloadManager) -> Path | None:
        if self.spec.embedded:
            return None
        if self._raw_dir is not None:
            return Path(self._raw_dir)
        try:
            return locate_raw_dir(self.spec, str(dl_manager.manual_dir))
        except (AssertionError, DataError):  # nothing was put there by hand
            return _download(self.spec, dl_manager)


def _download(spec: DatasetSpec, dl_manager: tfds.download.DownloadManager) -> Path:
    """A folder with the dataset's files under their own names, fetched and checked."""
    fetched = dl_manager.download({source.filename: source.url for source in spec.sources})
    folder = Path(dl_manager.download_dir) / spec.name
    folder.mkdir(parents=True, exist_ok=True)
    for source in spec.sources:
        target = folder / source.filename
        target.unlink(missing_ok=True)
        target.symlink_to(Path(fetched[source.filename]).resolve())
        if source.sha256 is not None and (found := file_sha256(target)) != source.sha256:
            raise DataError(
                "downloaded file is not the one expected",
                got=f"sha256 {found}",
                at=source.url,
                expected=source.sha256,
                do="fetch it by hand and name its folder with --raw_dir",
            )
    return folder


def _manual_instructions(spec: DatasetSpec) -> str | None:
    if spec.embedded:
        return None
    names = ", ".join(source.filename for source in spec.sources)
    return f"Put {names} from {spec.homepage} into the folder."


class _ConfiguredVocabulary(seqio.Vocabulary):
    """The vocabulary of the tokenizer that `configure` named, looked up when it is used."""

    def __init__(self) -> None:
        super().__init__(extra_ids=0)

    @property
    def bos_token_id(self) -> int | None:
        return _configured().tokenizer.bos_id

    @property
    def eos_id(self) -> int | None:
        return _configured().tokenizer.eos_id

    @property
    def unk_id(self) -> int | None:
        return _configured().tokenizer.unk_id

    @property
    def _base_vocab_size(self) -> int:
        return _configured().tokenizer.vocab_size

    def _encode(self, s: str) -> Sequence[int]:
        return _configured().tokenizer.encode_text(s)

    def _decode(self, ids: Sequence[int]) -> str:
        return _configured().tokenizer.decode(list(ids))

    def _encode_tf(self, s: tf.Tensor) -> tf.Tensor:
        return tf.numpy_function(
            lambda t: np.array(self._encode(t.decode()), np.int32), [s], tf.int32
        )

    def _decode_tf(self, ids: tf.Tensor) -> tf.Tensor:
        return tf.numpy_function(lambda i: self._decode(i.tolist()).encode(), [ids], tf.string)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ConfiguredVocabulary)

    __hash__ = object.__hash__


def _configured() -> _Settings:
    if _settings is None:
        raise ConfigError(
            "the SeqIO tasks have no tokenizer yet",
            do="call tulu_jax.data.seqio_glue.configure(tokenizer=..., data_dir=...) first",
        )
    return _settings


def _dataset(task_name: str, split: str, shuffle_files: bool, seed: int | None = None) -> Any:
    """The split as a tf.data.Dataset of conversations."""
    settings = _configured()
    spec = get_spec(task_name)
    builder = prepared_builder(spec, data_dir=settings.data_dir, raw_dir=settings.raw_dir)
    shuffle_seed = (seed or 0) if shuffle_files else None
    records = tf.data.Dataset.from_generator(
        lambda: _record_batches(builder, split, shuffle_seed=shuffle_seed),
        output_signature=tf.TensorSpec([None], tf.string),
    )
    return records.map(lambda batch: tf.io.parse_example(batch, _FEATURES)).unbatch()


def _tokenize(dataset: Any, sequence_length: Mapping[str, int] | None = None) -> Any:
    """Conversations to `targets` and `loss_mask`; those without a trained token are left out."""
    tokenizer = _configured().tokenizer
    longest = (sequence_length or {}).get("targets")

    def encode_one(roles: np.ndarray, contents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        messages: Any = [
            {"role": role.decode(), "content": content.decode()}
            for role, content in zip(roles, contents, strict=True)
        ]
        encoded = encode(messages, tokenizer, max_length=longest)
        return encoded.tokens.astype(np.int32), encoded.loss_mask.astype(np.int32)

    def convert(example: dict[str, Any]) -> dict[str, Any]:
        texts = [example["messages/role"], example["messages/content"]]
        targets, loss_mask = tf.numpy_function(encode_one, texts, [tf.int32, tf.int32])
        targets.set_shape([None])
        loss_mask.set_shape([None])
        return {"targets": targets, "loss_mask": loss_mask}

    encoded = dataset.map(convert, num_parallel_calls=tf.data.AUTOTUNE)
    return encoded.filter(lambda example: tf.reduce_any(example["loss_mask"] > 0))


def _register(spec: DatasetSpec) -> None:
    if spec.task_name in seqio.TaskRegistry.names():
        return
    seqio.TaskRegistry.add(
        spec.task_name,
        source=seqio.FunctionDataSource(  # type: ignore[arg-type]
            dataset_fn=functools.partial(_dataset, spec.task_name),
            splits=spec.splits,
            num_input_examples=dict(spec.expected_examples) or None,
        ),
        preprocessors=[_tokenize],
        output_features={
            "targets": seqio.Feature(_ConfiguredVocabulary(), add_eos=False, dtype=tf.int32),
            "loss_mask": seqio.Feature(
                seqio.PassThroughVocabulary(2), add_eos=False, dtype=tf.int32
            ),
        },
        metric_fns=[],
    )


for _spec in all_specs().values():
    _register(_spec)
