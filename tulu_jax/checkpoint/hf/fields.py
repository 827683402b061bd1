"""The fields of a JSON file of settings, each read once and checked; what nobody reads is refused.

`config.json` and `adapter_config.json` are read through it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

from tulu_jax.errors import CheckpointError

HARMLESS = frozenset(
    """
    architectures model_type transformers_version _name_or_path _commit_hash name_or_path
    torch_dtype dtype use_bfloat16 use_cache torchscript gradient_checkpointing
    _attn_implementation _attn_implementation_autoset attn_implementation _flash_attn_2_enabled
    initializer_range initializer_factor init_std pretraining_tp
    attention_dropout activation_dropout dropout hidden_dropout classifier_dropout layerdrop
    embd_pdrop attn_pdrop resid_pdrop embed_dropout
    max_length min_length do_sample early_stopping num_beams num_beam_groups diversity_penalty
    temperature top_k top_p typical_p repetition_penalty length_penalty no_repeat_ngram_size
    encoder_no_repeat_ngram_size bad_words_ids num_return_sequences output_scores
    return_dict_in_generate forced_bos_token_id forced_eos_token_id remove_invalid_values
    exponential_decay_length_penalty suppress_tokens begin_suppress_tokens
    return_dict output_hidden_states output_attentions chunk_size_feed_forward
    is_decoder cross_attention_hidden_size decoder_start_token_id tie_encoder_decoder
    tokenizer_class prefix sep_token_id unk_token_id mask_token_id
    finetuning_task id2label label2id num_labels problem_type task_specific_params tf_legacy_loss
    unsloth_version unsloth_fixed
    """.split()  # noqa: SIM905
)
"""Fields that do not change what a model computes when it is not training: bookkeeping, fresh
weights, dropout (which training here does not have), and settings of generation."""


MAX_NUMBER = 1e30
"""No setting of a model comes near."""


class Fields:
    """A parsed file of settings that notes which of its fields have been read."""

    def __init__(
        self,
        fields: Mapping[str, Any],
        at: object,
        *,
        file: str = "config.json",
        harmless: frozenset[str] = HARMLESS,
    ) -> None:
        """Takes the fields, where they came from, its name, and the fields that change nothing."""
        self._fields = fields
        self._at = at
        self._file = file
        self._harmless = harmless
        self._read: set[str] = set()

    def __contains__(self, name: str) -> bool:
        """Whether the file names the field."""
        return name in self._fields

    @property
    def model_type(self) -> Any:
        """transformers' name of the family, or None."""
        return self._fields.get("model_type")

    def take(self, name: str, default: Any) -> Any:
        """The field's value, of any type; the default where the file does not name it."""
        self._read.add(name)
        return self._fields.get(name, default)

    def agreed(self, values: Mapping[str, Any]) -> Any:
        """The one value of a setting that may stand in several fields; None where none has it.

        Programs differ in which of the fields they read.

        Args:
          values: the value by the field's name, None where it is absent.

        Raises:
          CheckpointError: two fields differ.
        """
        given = {name: value for name, value in values.items() if value is not None}
        first = next(iter(given.values()), None)
        if any(value != first for value in given.values()):
            raise CheckpointError(
                f"{' and '.join(given)} contradict each other",
                got=" and ".join(repr(value)[:100] for value in given.values()),
                at=self._at,
                expected="one value",
                do="keep the one that the model was trained with",
            )
        return first

    def only(self, name: str, wanted: Any) -> None:
        """Refuses any value but `wanted`, which is also the meaning of an absent field.

        Raises:
          CheckpointError: another value.
        """
        value = self.take(name, default=wanted)
        if value != wanted:
            raise self.refusal(name, repr(value), expected=json.dumps(wanted))

    def integer(self, name: str, default: int | None = None) -> int:
        """A whole number; `null` is as good as absent.

        Raises:
          CheckpointError: another type, or absent without a default.
        """
        value = self._present(name, default)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self._wrong_type(name, value, "an integer")
        return value

    def number(self, name: str) -> float:
        """A number, as float; there is no default.

        Raises:
          CheckpointError: another type, or absent.
        """
        return self.as_number(name, self._present(name, None))

    def as_number(self, name: str, value: Any) -> float:
        """`value` as float; `name` is for the message.

        Raises:
          CheckpointError: it is no number.
        """
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._wrong_type(name, value, "a number")
        if isinstance(value, float) and not math.isfinite(value):
            raise self._wrong_type(name, value, "a finite number")
        if abs(value) > MAX_NUMBER:
            raise self._wrong_type(name, value, f"a number up to {MAX_NUMBER:g}")
        return float(value)

    def flag(self, name: str, *, default: bool) -> bool:
        """True or false.

        Raises:
          CheckpointError: another type.
        """
        value = self.take(name, default)
        if not isinstance(value, bool):
            raise self._wrong_type(name, value, "true or false")
        return value

    def tokens(self, name: str, *, default: int) -> tuple[int, ...]:
        """One token id or a list of them, as a tuple of at least one.

        Raises:
          CheckpointError: anything else.
        """
        value = self.take(name, default)
        values = value if isinstance(value, list) else [value]
        if not values or any(type(token) is not int or token < 0 for token in values):
            raise self._wrong_type(name, value, "one token id, or several")
        return tuple(values)

    def token(self, name: str, *, default: int, required: bool = False) -> Any:
        """One token id; None where the file says `null`, unless it is required.

        Raises:
          CheckpointError: anything else.
        """
        if not required and self.take(name, default) is None:
            return None
        first, *more = self.tokens(name, default=default)
        if more:
            raise self._wrong_type(name, [first, *more], "one token id")
        return first

    def pad_id(self, default: int = -1) -> int | None:
        """The pad token; early LLaMA conversions wrote -1 for none."""
        name = "pad_token_id"
        return None if self.take(name, default) in (None, -1) else self.token(name, default=default)

    def finish(self) -> None:
        """Refuses fields that nobody has read and that may change what the model computes.

        A field that is null, false, 0 or empty says that something is not used, and passes.

        Raises:
          CheckpointError: naming the fields.
        """
        unread = set(self._fields) - self._read - self._harmless
        unknown = {name: self._fields[name] for name in sorted(unread) if self._fields[name]}
        if unknown:
            raise CheckpointError(
                f"{', '.join(unknown)} is not known",
                got=json.dumps(unknown)[:300],
                at=self._at,
                expected="only fields whose meaning is implemented",
                do=f"remove it from {self._file} if the model is right without it",
            )

    def refusal(
        self, name: str, value: Any, *, expected: str, do: str | None = None
    ) -> CheckpointError:
        """The error of a value that is understood and not implemented."""
        return CheckpointError(
            f"{name} is not supported", got=value, at=self._at, expected=expected, do=do
        )

    def _present(self, name: str, default: Any) -> Any:
        value = self.take(name, default)
        value = default if value is None else value
        if value is None:
            raise CheckpointError(
                f"{name} is missing",
                at=self._at,
                expected=f"{self._file} to name {name}: it is not guessed",
                do=f"copy it from the original {self._file}",
            )
        return value

    def _wrong_type(self, name: str, value: Any, expected: str) -> CheckpointError:
        return CheckpointError(
            f"{name} is malformed", got=repr(value), at=self._at, expected=expected
        )


def check_vocabulary(name: str, ids: Iterable[int | None], vocab_size: int, at: object) -> None:
    """Refuses ids of tokens that the model does not have; None is no id.

    Raises:
      CheckpointError: naming them.
    """
    outside = [token for token in ids if token is not None and token >= vocab_size]
    if outside:
        raise CheckpointError(
            f"{name} names a token that the model does not have",
            got=", ".join(map(str, outside)),
            at=at,
            expected=f"ids below vocab_size={vocab_size}",
            do="write the id that is meant there, or null for no pad or BOS token",
        )
