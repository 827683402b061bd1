"""Task features to model features, for SeqIO and t5x programs that train a decoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import seqio
import tensorflow as tf

_FEATURE = seqio.FeatureConverter.FeatureSpec(dtype=tf.int32)


class TuluFeatureConverter(seqio.FeatureConverter):
    """`targets` and `loss_mask` of conversations to the features of a decoder-only model.

    Names are those of SeqIO's `LMFeatureConverter`, all int32[length]; segments and positions are
    given with `pack=False` too. Two conversations in a row of 9, `.` for 0:

        tokens                  1 7 8 2  1 5 9 2  .
        loss_mask               . . x x  . . x x  .
        decoder_input_tokens    1 7 8 2  1 5 9 2  .
        decoder_target_tokens   7 8 2 .  5 9 2 .  .
        decoder_loss_weights    . x x .  . x x .  .
        decoder_segment_ids     1 1 1 1  2 2 2 2  .
        decoder_positions       0 1 2 3  0 1 2 3  .

    Inputs are the tokens as they are and targets lie one to the left, where SeqIO's converters
    move the inputs to the right and put a 0 in front: conversations begin with BOS themselves, and
    a model of LLaMA's has never seen a 0 before it. So a program trains on exactly what `tulu
    train` does (`tulu_jax/train/loss.py`).

    SeqIO packs and pads with 0 for "nothing here", but 0 is a token of LLaMA's and most of a mask:
    both go through packing as one number above 0.
    """

    TASK_FEATURES: ClassVar = {"targets": _FEATURE, "loss_mask": _FEATURE}
    MODEL_FEATURES: ClassVar = {
        "decoder_target_tokens": _FEATURE,
        "decoder_input_tokens": _FEATURE,
        "decoder_loss_weights": _FEATURE,
        "decoder_segment_ids": _FEATURE,
        "decoder_positions": _FEATURE,
    }
    PACKING_FEATURE_DTYPES: ClassVar = {
        "decoder_segment_ids": tf.int32,
        "decoder_positions": tf.int32,
    }

    def __call__(
        self, ds: tf.data.Dataset, task_feature_lengths: Mapping[str, int]
    ) -> tf.data.Dataset:
        """The converted dataset; it is enough that `task_feature_lengths` names `targets`."""
        lengths = {**task_feature_lengths, "loss_mask": task_feature_lengths["targets"]}
        return super().__call__(ds, lengths)

    def get_model_feature_lengths(self, task_feature_lengths: Mapping[str, int]) -> dict[str, int]:
        """Every model feature is as long as `targets`."""
        return dict.fromkeys(self.MODEL_FEATURES, task_feature_lengths["targets"])

    def _convert_features(
        self, ds: tf.data.Dataset, task_feature_lengths: Mapping[str, int]
    ) -> tf.data.Dataset:
        joined = ds.map(
            lambda example: {"targets": 1 + 2 * example["targets"] + example["loss_mask"]},
            num_parallel_calls=tf.data.AUTOTUNE,
        )
        rows = self._pack_or_pad(joined, {"targets": task_feature_lengths["targets"]})
        return rows.map(self._convert_row, num_parallel_calls=tf.data.AUTOTUNE)

    def _convert_row(self, row: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        joined = row["targets"]
        real = tf.cast(joined > 0, tf.int32)
        tokens = real * tf.math.floordiv(joined - 1, 2)
        loss_mask = real * tf.math.floormod(joined - 1, 2)
        segments = row.get("targets_segment_ids", real)
        same = real * tf.cast(tf.equal(_left(segments), segments), tf.int32)
        return {
            "decoder_target_tokens": same * _left(tokens),
            "decoder_input_tokens": tokens,
            "decoder_loss_weights": same * _left(loss_mask),
            "decoder_segment_ids": segments,
            "decoder_positions": row.get("targets_positions", real * tf.range(tf.size(real))),
        }


def _left(x: tf.Tensor) -> tf.Tensor:
    return tf.pad(x[1:], [[0, 1]])
