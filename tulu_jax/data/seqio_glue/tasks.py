"""A SeqIO task for every dataset, and a SeqIO mixture for every mixture."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import seqio
import tensorflow as tf

from tulu_jax.chat import AddTokens, Tokenizer, encode, load_tokenizer
from tulu_jax.data.mixtures import Component, MixtureSpec, TaskOptions, all_mixtures
from tulu_jax.data.rates import size_rate
from tulu_jax.data.seqio_glue.builders import (
    FEATURES,
    Builder,
    decode_messages,
    prepared_builder,
    record_batches,
)
from tulu_jax.data.specs import DatasetSpec, all_specs, get_spec
from tulu_jax.errors import ConfigError


@dataclass(frozen=True)
class Settings:
    """The settings of `configure`."""

    tokenizer: Tokenizer
    data_dir: str
    raw_dir: str | None
    options: TaskOptions = field(default_factory=dict)
    rates: Mapping[str, float] = field(default_factory=dict)
    size: Mapping[str, Any] = field(default_factory=dict)


_settings: Settings | None = None


def configure(
    *,
    tokenizer: str | Path,
    encoding: str = "hf",
    chat_template: str = "tulu",
    add_tokens: AddTokens = (),
    data_dir: str | Path = "data",
    raw_dir: str | Path | None = None,
    options: TaskOptions | None = None,
    rates: Mapping[str, float] | None = None,
    rate_maximum: int | None = None,
    rate_temperature: float = 1.0,
    rate_scale: float = 1.0,
) -> None:
    """Says which tokenizer the SeqIO tasks use, where TFDS writes and where raw files lie.

    `chat_template` and `add_tokens` are those of `load_tokenizer`.
    `options` are reading options and `rates` mixing rates, both by task name. A task without a
    rate is drawn by its size: (examples x scale, no more than the maximum) to the power of
    1 / temperature.
    """
    global _settings
    _settings = Settings(
        load_tokenizer(tokenizer, encoding, template=chat_template, add_tokens=add_tokens),
        str(data_dir),
        None if raw_dir is None else str(raw_dir),
        options or {},
        rates or {},
        {"maximum": rate_maximum, "temperature": rate_temperature, "scale": rate_scale},
    )


def configured() -> Settings:
    """The settings in force.

    Raises: ConfigError before the first `configure`.
    """
    if _settings is None:
        raise ConfigError(
            "the SeqIO tasks have no tokenizer yet",
            do="call tulu_jax.data.seqio_glue.configure(tokenizer=..., data_dir=...) first",
        )
    return _settings


class _ConfiguredVocabulary(seqio.Vocabulary):
    """The vocabulary of the tokenizer that `configure` named, looked up when it is used."""

    def __init__(self) -> None:
        super().__init__(extra_ids=0)

    @property
    def bos_token_id(self) -> int | None:
        return configured().tokenizer.bos_id

    @property
    def eos_id(self) -> int | None:
        return configured().tokenizer.eos_id

    @property
    def unk_id(self) -> int | None:
        return configured().tokenizer.unk_id

    @property
    def _base_vocab_size(self) -> int:
        return configured().tokenizer.vocab_size

    def _encode(self, s: str) -> Sequence[int]:
        return configured().tokenizer.encode_text(s)

    def _decode(self, ids: Sequence[int]) -> str:
        return configured().tokenizer.decode(list(ids))

    def _encode_tf(self, s: tf.Tensor) -> tf.Tensor:
        return tf.numpy_function(
            lambda t: np.array(self._encode(t.decode()), np.int32), [s], tf.int32
        )

    def _decode_tf(self, ids: tf.Tensor) -> tf.Tensor:
        return tf.numpy_function(lambda i: self._decode(i.tolist()).encode(), [ids], tf.string)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ConfiguredVocabulary)

    __hash__ = object.__hash__


class _Source(seqio.FunctionDataSource):
    """The conversations of a dataset's TFDS builder, which says how many there are."""

    def __init__(self, spec: DatasetSpec) -> None:
        super().__init__(
            dataset_fn=functools.partial(_dataset, spec),  # type: ignore[arg-type]
            splits=spec.splits,
        )
        self._spec = spec

    def num_input_examples(self, split: str) -> int:
        """Conversations of the split: those there are, or, before `configure`, upstream."""
        if _settings is None:
            return self._spec.expected_examples.get(split, 0)
        return _builder(self._spec).info.splits[split].num_examples


def _builder(spec: DatasetSpec) -> Builder:
    settings = configured()
    chosen = spec.resolve_options(settings.options.get(spec.task_name, {}))
    return prepared_builder(
        dataclasses.replace(spec, options=chosen),
        data_dir=settings.data_dir,
        raw_dir=settings.raw_dir,
        tokenizer=settings.tokenizer,
    )


def _dataset(spec: DatasetSpec, split: str, shuffle_files: bool, seed: int | None = None) -> Any:
    """The split as a tf.data.Dataset of conversations."""
    builder = _builder(spec)
    shuffle_seed = (seed or 0) if shuffle_files else None
    records = tf.data.Dataset.from_generator(
        lambda: record_batches(builder, split, shuffle_seed=shuffle_seed),
        output_signature=tf.TensorSpec([None], tf.string),
    )
    return records.map(lambda batch: tf.io.parse_example(batch, FEATURES)).unbatch()


def _tokenize(dataset: Any, sequence_length: Mapping[str, int] | None = None) -> Any:
    """Conversations to `targets` and `loss_mask`; those without a trained token are left out."""
    tokenizer = configured().tokenizer
    longest = (sequence_length or {}).get("targets")

    def encode_one(
        roles: np.ndarray, contents: np.ndarray, flags: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        messages: Any = decode_messages(roles.tolist(), contents.tolist(), flags.tolist())
        encoded = encode(messages, tokenizer, max_length=longest)
        return encoded.tokens.astype(np.int32), encoded.loss_mask.astype(np.int32)

    def convert(example: dict[str, Any]) -> dict[str, Any]:
        texts = [example[f"messages/{name}"] for name in ("role", "content", "train")]
        targets, loss_mask = tf.numpy_function(encode_one, texts, [tf.int32, tf.int32])
        targets.set_shape([None])
        loss_mask.set_shape([None])
        return {"targets": targets, "loss_mask": loss_mask}

    some = dataset.filter(lambda example: tf.size(example["messages/role"]) > 0)
    encoded = some.map(convert, num_parallel_calls=tf.data.AUTOTUNE)
    return encoded.filter(lambda example: tf.reduce_any(example["loss_mask"] > 0))


def register_task(spec: DatasetSpec) -> str:
    """The name of the dataset's SeqIO task, which exists from now on."""
    if spec.task_name not in seqio.TaskRegistry.names():
        seqio.TaskRegistry.add(
            spec.task_name,
            source=_Source(spec),
            preprocessors=[_tokenize],
            output_features={
                "targets": seqio.Feature(_ConfiguredVocabulary(), add_eos=False, dtype=tf.int32),
                "loss_mask": seqio.Feature(
                    seqio.PassThroughVocabulary(2), add_eos=False, dtype=tf.int32
                ),
            },
            metric_fns=[],
        )
    return spec.task_name


def register_mixture(mixture: MixtureSpec) -> str:
    """The name of the SeqIO mixture, which exists from now on.

    With `num_epochs=1` it gives each example once; SeqIO's own default would stop where the
    first task ends.
    """
    if mixture.name not in seqio.MixtureRegistry.names():
        seqio.MixtureRegistry.add(
            mixture.name,
            [(register_task(get_spec(part.task)), _rate(part)) for part in mixture.components],
            sample_fn=functools.partial(
                tf.data.Dataset.sample_from_datasets, stop_on_empty_dataset=False
            ),
        )
    return mixture.name


def _rate(part: Component) -> Any:
    """What SeqIO asks for a task's mixing rate: by the settings, the mixture, or its size."""

    def rate(task: seqio.Task) -> float:
        settings = configured()
        own = settings.rates.get(task.name, part.rate)
        if own is not None:
            return float(own)
        examples = task.num_input_examples("train") or 0
        if part.max_examples is not None:
            examples = min(examples, part.max_examples)
        return size_rate(examples, **settings.size)

    return rate


def register_all() -> None:
    """Registers every dataset and every mixture."""
    for spec in all_specs().values():
        register_task(spec)
    for mixture in all_mixtures().values():
        register_mixture(mixture)
