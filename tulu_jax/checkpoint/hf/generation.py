"""`generation_config.json`: the tokens at which a model stops, and what else it asks for.

Chat models name their stop tokens here and not in `config.json` (Llama 3 Instruct: three of them,
`config.json` one). They are joined to the model's own when it generates, go with it through
training, and are written again by the export, like every other field.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tulu_jax.checkpoint.hf.fields import Fields, check_vocabulary
from tulu_jax.errors import CheckpointError
from tulu_jax.files import read_json
from tulu_jax.models import ModelConfig
from tulu_jax.places import Place

GENERATION_CONFIG = "generation_config.json"
LEFT_OUT = ("_from_model_config",)
"""Not kept: with it transformers takes the stop tokens of config.json alone."""

OTHER_TOKENS = ("bos_token_id", "pad_token_id")
"""Named here too; nothing that is generated here depends on them."""
NONE = (None, -1)
"""What files write for no token."""

SAMPLING: dict[str, Any] = {"temperature": 1.0, "top_p": 1.0, "top_k": 0}
CHANGES_TEXT: dict[str, Any] = {
    "repetition_penalty": 1.0, "no_repeat_ngram_size": 0, "min_new_tokens": 0, "min_length": 0,
    "stop_strings": None, "bad_words_ids": None, "suppress_tokens": None,
    "begin_suppress_tokens": None, "forced_bos_token_id": None, "num_beams": 1, "min_p": 0,
}  # fmt: skip
"""Fields that change what transformers generates -> values at which they do not."""


def read_generation(folder: Place, config: ModelConfig) -> dict[str, Any]:
    """The fields of a folder's `generation_config.json` as they are; empty where there is none.

    Raises:
      CheckpointError: it is unreadable, or names a token that there is not or the model lacks.
    """
    path = folder / GENERATION_CONFIG
    if not path.is_file():
        return {}
    fields = read_json(path, CheckpointError)
    check_vocabulary("eos_token_id", generation_stops(fields, path), config.vocab_size, path)
    reader = Fields(fields, path, file=GENERATION_CONFIG)
    for name in OTHER_TOKENS:
        token = reader.pad_id() if name == "pad_token_id" else reader.token(name, default=0)
        check_vocabulary(name, [token] if name in fields else [], config.vocab_size, path)
    return {name: value for name, value in fields.items() if name not in LEFT_OUT}


def generation_stops(fields: Mapping[str, Any], at: Place | None = None) -> tuple[int, ...]:
    """The stop tokens that the fields name: one, a list, or none.

    Raises:
      CheckpointError: they are no token ids.
    """
    if fields.get("eos_token_id") in (None, []):
        return ()
    reader = Fields(fields, at or GENERATION_CONFIG, file=GENERATION_CONFIG)
    return reader.tokens("eos_token_id", default=0)


def all_stops(config: ModelConfig, kept: Mapping[str, Any] | None) -> tuple[int, ...]:
    """The tokens that end a text: the model's own, then those that only `kept` names."""
    return tuple(dict.fromkeys([*config.stop_ids, *generation_stops(kept or {})]))


def other_tokens(config: ModelConfig, kept: Mapping[str, Any]) -> list[str]:
    """What people should know of tokens that `kept` names otherwise than the model's config."""
    said = []
    own, stops = config.stop_ids, generation_stops(kept)
    if stops and set(stops) != set(own):
        said.append(
            f"eos_token_id is {_listed(stops)} in {GENERATION_CONFIG} and {_listed(own)} in "
            "config.json: each of them ends a text"
        )
    for name, token in zip(OTHER_TOKENS, (config.bos_id, config.pad_id), strict=True):
        other = kept.get(name)
        if other not in (*NONE, token) and token is not None:
            said.append(
                f"{name} is {other} in {GENERATION_CONFIG} and {token} in config.json: each is "
                "kept where it is"
            )
    return said


def _listed(tokens: Iterable[int]) -> str:
    return ", ".join(map(str, tokens))


def asked_for(kept: Mapping[str, Any], *, sampled: bool) -> dict[str, Any]:
    """The fields that would change what is generated, besides stop tokens.

    Args:
      kept: the fields of `generation_config.json`.
      sampled: whether the user says how to sample; else what the file says of that counts too.
    """
    neutral = {**CHANGES_TEXT, **(SAMPLING if kept.get("do_sample") and not sampled else {})}
    return {
        name: kept[name]
        for name, value in neutral.items()
        if kept.get(name) not in (None, value, [], 0, False)
    }


def generation_config(
    config: ModelConfig, kept: Mapping[str, Any] | None = None, stops: Iterable[int] = ()
) -> dict[str, Any]:
    """The fields of `generation_config.json`: where generation starts and stops.

    Args:
      config: the model.
      kept: the fields of the model it was made from, which stay as they are.
      stops: tokens that end a text besides the model's own, as those of a chat template.
    """
    kept = dict(kept or {})
    stops = list(dict.fromkeys((*all_stops(config, kept), *stops)))
    own = {
        "bos_token_id": config.bos_id,
        "eos_token_id": stops if len(stops) > 1 else stops[0],
        "pad_token_id": config.pad_id,
    }
    stay = {name: kept[name] for name in OTHER_TOKENS if kept.get(name) not in NONE}
    return {**kept, **own, **stay}
