"""The TFDS builder of each dataset: raw files to conversations on disk, with what was skipped."""

from __future__ import annotations

import contextlib
import functools
import io
import itertools
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordReader
from tensorflow_datasets.core.registered import skip_registration

from tulu_jax.chat import Tokenizer
from tulu_jax.data.faults import Faults
from tulu_jax.data.specs import (
    Conversation,
    DatasetSpec,
    get_spec,
    locate_raw_dir,
    obtain_raw_dir,
    raw_fingerprint,
)
from tulu_jax.data.store_format import OTHER_FOLDER
from tulu_jax.errors import ConfigError, DataError
from tulu_jax.files import advice, disk_error, json_sha256

FORMAT_VERSION = 2
_READ_BATCH = 512

NOT_TRAINED = b"no"
"""What `messages/train` of a message says that carries no loss."""

FEATURES = {
    "dataset": tf.io.FixedLenFeature([], tf.string),
    "id": tf.io.FixedLenFeature([], tf.string),
    "messages/role": tf.io.RaggedFeature(tf.string),
    "messages/content": tf.io.RaggedFeature(tf.string),
    "messages/train": tf.io.RaggedFeature(tf.string),
}
"""How a conversation lies in the builder's files: one tf.train.Example each. `messages/train`,
is there only where the files are a user's own."""


def read_prepared(
    spec: DatasetSpec,
    split: str,
    *,
    data_dir: str | Path,
    raw_dir: str | Path | None,
    tokenizer: Tokenizer | None = None,
    strict: bool = False,
) -> Iterator[Conversation]:
    """The split's conversations, in file order, by way of the dataset's TFDS builder.

    The builder's files are written before this returns; conversations are read as they are asked
    for.
    """
    builder = prepared_builder(
        spec, data_dir=data_dir, raw_dir=raw_dir, tokenizer=tokenizer, strict=strict
    )
    return _conversations(record_batches(builder, split))


def prepared_builder(
    spec: DatasetSpec,
    *,
    data_dir: str | Path,
    raw_dir: str | Path | None,
    tokenizer: Tokenizer | None = None,
    strict: bool = False,
) -> Builder:
    """The dataset's TFDS builder with its files written, made again when what they are of changes.

    Without `raw_dir` raw files are fetched to `<data_dir>/raw`.

    Raises:
      DataError: a fault in the files: the first one when `strict`, else too many.
      ConfigError: a dataset that is cut by tokens when there is no tokenizer.
    """
    if spec.needs_tokenizer and tokenizer is None:
        raise ConfigError(
            f"dataset {spec.name} is cut by tokens and there is no tokenizer",
            do="give one: tokenizer=...",
        )
    folder = locate_raw_dir(spec, raw_dir)
    builder = builder_class(spec)(
        data_dir=str(Path(data_dir) / "tfds" / _key(spec, folder, tokenizer)),
        raw_dir=None if folder is None else str(folder),
        file_format="array_record",
        spec=spec,
        tokenizer=tokenizer,
        strict=strict,
    )
    tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # TFDS prints its own progress
            builder.download_and_prepare(download_dir=str(Path(data_dir) / "raw"))
    except (OSError, RuntimeError, tf.errors.OpError) as error:
        told = error if isinstance(error, OSError) else disk_error(error)
        if told is None:
            raise
        raise DataError(
            "cannot prepare dataset " + spec.name,
            got=told.strerror or told,
            at=told.filename or data_dir,
            do=" or ".join(filter(None, [advice(told), OTHER_FOLDER])),
        ) from error
    for split, faults in builder_faults(builder).items():
        if strict and faults["skipped"]:
            raise DataError(f"bad record in dataset {spec.name} {split}", got=faults["messages"][0])
    return builder


def builder_faults(builder: Builder) -> dict[str, dict[str, Any]]:
    """What was wrong with the raw records, by split: what `Faults.as_json` gives."""
    return {
        split: json.loads(builder.faults_path(split).read_text(encoding="utf-8"))
        for split in builder.spec.splits
    }


def _key(spec: DatasetSpec, folder: Path | None, tokenizer: Tokenizer | None) -> str:
    """Twelve digits that differ when the builder's files would."""
    content = {
        "format": FORMAT_VERSION,
        "raw": raw_fingerprint(spec, folder),
        "version": spec.version,
        "options": dict(spec.options),
        "tokenizer": tokenizer.fingerprint if spec.needs_tokenizer and tokenizer else None,
    }
    return json_sha256(content)[:12]


def record_batches(
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
        batch = tf.io.parse_example(tf.constant(records), FEATURES)
        names, ids = batch["dataset"].numpy(), batch["id"].numpy()
        roles = batch["messages/role"].flat_values.numpy()
        contents = batch["messages/content"].flat_values.numpy()
        flags = batch["messages/train"].flat_values.numpy()
        ends = batch["messages/role"].row_splits.numpy().tolist()
        for row, (start, end) in enumerate(itertools.pairwise(ends)):
            yield {
                "dataset": names[row].decode(),
                "id": ids[row].decode(),
                "messages": decode_messages(
                    roles[start:end], contents[start:end], flags[start:end]
                ),
            }


def encode_flags(conversation: Conversation) -> Conversation:
    """The conversation as a builder writes it: `train` as text, `NOT_TRAINED` or nothing."""
    written = [
        {**message, "train": "" if message.get("train", True) else NOT_TRAINED.decode()}
        for message in conversation["messages"]
    ]
    return {**conversation, "messages": written}


def decode_messages(
    roles: Sequence[bytes], contents: Sequence[bytes], flags: Sequence[bytes]
) -> list[dict[str, Any]]:
    """Messages from what a builder wrote; without any `flags` no message has `train`.

    >>> decode_messages([b"assistant"] * 2, [b"Yo", b"No"], [b"", b"no"])[1]
    {'role': 'assistant', 'content': 'No', 'train': False}
    """
    messages: list[dict[str, Any]] = [
        {"role": role.decode(), "content": content.decode()}
        for role, content in zip(roles, contents, strict=True)
    ]
    for message, flag in zip(messages, flags, strict=False):
        if flag == NOT_TRAINED:
            message["train"] = False
    return messages


def builder_class(dataset: DatasetSpec | str) -> type[Builder]:
    """The TFDS builder class of a dataset, named as its task: `tulu_<dataset>`."""
    spec = get_spec(dataset) if isinstance(dataset, str) else dataset
    made = _class(spec.task_name, spec.version)
    if not hasattr(made, "spec"):
        made.spec = spec
        made.__doc__ = spec.description
        made.MANUAL_DOWNLOAD_INSTRUCTIONS = _manual_instructions(spec)
    return made


@functools.cache
def _class(task_name: str, version: str) -> type[Builder]:
    with skip_registration():
        return type(
            "".join(part.title() for part in task_name.split("_")),
            (Builder,),
            {
                "name": task_name,
                "VERSION": tfds.core.Version(version),
                "RELEASE_NOTES": {version: "As described in the dataset's file in `tasks/`."},
                "__module__": __name__,
            },
        )


class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Conversations of one dataset, in file order, as ArrayRecord files."""

    spec: DatasetSpec
    MANUAL_DOWNLOAD_INSTRUCTIONS: str | None = None
    VERSION = tfds.core.Version("0.0.0")
    code_path = None  # there is no checksums file beside the code; sources carry their own

    def __init__(
        self,
        *,
        raw_dir: str | None = None,
        spec: DatasetSpec | None = None,
        tokenizer: Tokenizer | None = None,
        strict: bool = False,
        **kwargs: Any,
    ) -> None:
        """`raw_dir` holds the raw files; without it TFDS's manual folder or a download is used.

        `spec` may be the class's own with other reading options.
        """
        self._raw_dir = raw_dir
        self.spec = spec or self.spec
        self._tokenizer, self._strict = tokenizer, strict
        super().__init__(**kwargs)

    def faults_path(self, split: str) -> Path:
        """The file, beside the builder's folder, that says what was skipped of a split."""
        return Path(self.data_dir).parent / f"{split}.faults.json"

    def _info(self) -> tfds.core.DatasetInfo:
        text = tfds.features.Text()
        message = {"role": text, "content": text}
        if self.spec.own:
            message["train"] = text
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.spec.description,
            features=tfds.features.FeaturesDict(
                {
                    "dataset": text,
                    "id": text,
                    "messages": tfds.features.Sequence(message),
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
        faults = Faults(strict=self._strict)
        conversations = self.spec.conversations(
            folder, split, tokenizer=self._tokenizer, faults=faults
        )
        for number, conversation in enumerate(conversations):
            yield number, encode_flags(conversation) if self.spec.own else conversation
        faults.check(f"{self.spec.task_name} {split}", own=self.spec.own)
        path = self.faults_path(split)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(faults.as_json(), indent=1), encoding="utf-8")

    def _find_files(self, dl_manager: tfds.download.DownloadManager) -> Path | None:
        if self.spec.embedded:
            return None
        if self._raw_dir is not None:
            return Path(self._raw_dir)
        download_dir = Path(dl_manager.download_dir)
        try:
            by_hand = Path(dl_manager.manual_dir)
        except AssertionError:  # there is no such folder
            by_hand = download_dir
        return obtain_raw_dir(self.spec, download_dir, by_hand)


def _manual_instructions(spec: DatasetSpec) -> str | None:
    if spec.embedded:
        return None
    names = ", ".join(source.filename for source in spec.sources)
    return f"Put {names} from {spec.homepage} into the folder."
