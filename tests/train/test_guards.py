"""Every refusal of the guards, with its message."""

import dataclasses

import numpy as np
import pytest

from train.small import MODEL, two_a_row
from tulu_jax.errors import ConfigError, GuardError
from tulu_jax.train.guards import check_batch, check_finite, check_model_fits_data

FITS = {"vocab_size": 64, "bos_id": 1, "eos_id": 2, "length": 32}


def changed(name, row, column, value):
    batch = two_a_row()
    batch[name] = batch[name].copy()
    batch[name][row, column] = value
    return batch


def test_good_batches_pass():
    check_batch(two_a_row(), step=0, bos_id=1)
    padding = {name: np.zeros_like(array) for name, array in two_a_row().items()}
    check_batch(padding, step=0, bos_id=1)
    check_batch({k: np.concatenate([two_a_row()[k], v]) for k, v in padding.items()},
                step=0, bos_id=1)  # fmt: skip


def test_empty_mask_is_refused_with_the_row():
    with pytest.raises(
        GuardError,
        match=r"row trains nothing: its loss mask is empty - got tokens .* at step 7, row 3 - "
        r"expected at least one loss token - look at the data with `tulu data inspect`",
    ):
        check_batch(changed("loss_mask", 3, slice(None), 0), step=7, bos_id=1)


def test_total_mask_is_refused_with_the_row():
    with pytest.raises(
        GuardError, match=r"row trains everything: its loss mask is total - got .* 1\* \d+\*"
    ):
        check_batch(changed("loss_mask", 3, slice(None), 1), step=7, bos_id=1)


def test_mask_that_spares_only_bos_is_total():
    batch = two_a_row()
    batch["loss_mask"] = ((batch["segment_ids"] > 0) & (batch["positions"] > 0)).astype(np.int32)
    with pytest.raises(GuardError, match=r"row trains everything.* step 1, row 0"):
        check_batch(batch, step=1, bos_id=1)


def test_missing_bos_is_refused():
    with pytest.raises(
        GuardError, match=r"conversation does not start with BOS .* at step 2, row 5 .* exactly one"
    ):
        check_batch(changed("tokens", 5, 0, 9), step=2, bos_id=1)


def test_missing_bos_of_a_later_conversation_is_refused():
    batch = two_a_row()
    second = int(np.argmax(batch["segment_ids"][4] == 2))
    with pytest.raises(GuardError, match=r"does not start with BOS .* row 4"):
        check_batch(changed("tokens", 4, second, 9), step=2, bos_id=1)


def test_second_bos_is_refused():
    with pytest.raises(GuardError, match=r"more than one BOS .* at step 2, row 6"):
        check_batch(changed("tokens", 6, 1, 1), step=2, bos_id=1)


def test_tokenizers_without_bos_or_with_one_for_both():
    check_batch(changed("tokens", 6, 0, 9), step=2, bos_id=None)
    twice = changed("tokens", 6, 1, 1)
    check_batch(twice, step=2, bos_id=1, bos_once=False)
    with pytest.raises(GuardError, match="does not start with BOS"):
        check_batch(changed("tokens", 6, 0, 9), step=2, bos_id=1, bos_once=False)


@pytest.mark.parametrize("name", ["loss", "grad_norm"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_not_finite_names_step_and_checkpoint(name, value):
    metrics = {"loss": 1.0, "grad_norm": 1.0, name: value}
    with pytest.raises(
        GuardError, match=rf"{name} is not finite - got {value} at step 12 .* checkpoint: 10; lower"
    ):
        check_finite(12, metrics, last_checkpoint=10)
    with pytest.raises(GuardError, match=r"last good checkpoint: none yet"):
        check_finite(12, metrics, last_checkpoint=None)
    with pytest.raises(
        GuardError, match=rf"{name} is not finite .* at step 1 .* the weights that the run starts"
    ):
        check_finite(1, metrics, last_checkpoint=None)


def test_finite_passes():
    check_finite(1, {"loss": 0.0, "grad_norm": 0.0}, last_checkpoint=None)


def test_model_that_fits_passes():
    check_model_fits_data(MODEL, **FITS)
    check_model_fits_data(dataclasses.replace(MODEL, vocab_size=65), **FITS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vocab_size": 65}, r"tokenizer has more tokens than the model - got 65 tokens, "
         r"vocab_size=64 - expected .* - use the model's own tokenizer"),
        ({"bos_id": 0}, r"tokenizer and model disagree on special tokens - got tokenizer bos=0, "
         r"eos=2; model bos=1, eos=2"),
        ({"eos_id": 0}, r"disagree on special tokens - got tokenizer bos=1, eos=0"),
        ({"length": 65}, r"rows are longer than the model's sequences - got length 65, max_length "
         r"64 - expected at most 64 - lower TASK_FEATURE_LENGTHS"),
    ],
)  # fmt: skip
def test_model_that_does_not_fit_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        check_model_fits_data(MODEL, **(FITS | changes))
