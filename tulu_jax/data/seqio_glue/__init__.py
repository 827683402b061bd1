"""TFDS builders, SeqIO tasks and mixtures; the only files that import TensorFlow.

    from tulu_jax.data import seqio_glue

    seqio_glue.configure(tokenizer="path/to/tokenizer", data_dir="data", raw_dir="raw")
    dataset = seqio.get_dataset(
        "tulu_v1_human_gpt",
        task_feature_lengths={"targets": 2048},
        feature_converter=seqio_glue.TuluFeatureConverter(pack=True),
    )

Without the converter each example of `seqio.get_mixture_or_task(...).get_dataset(...)` has
`targets`, the tokens of one conversation, and `loss_mask`, 1 where the target carries loss; both
int32[n] and equal to what the tokenized store holds for it.
"""

from tulu_jax.data.seqio_glue.builders import (
    Builder,
    builder_class,
    builder_faults,
    prepared_builder,
    read_prepared,
)
from tulu_jax.data.seqio_glue.features import TuluFeatureConverter
from tulu_jax.data.seqio_glue.tasks import configure, register_all, register_mixture, register_task

__all__ = [
    "Builder",
    "TuluFeatureConverter",
    "builder_class",
    "builder_faults",
    "configure",
    "prepared_builder",
    "read_prepared",
    "register_mixture",
    "register_task",
]

register_all()
