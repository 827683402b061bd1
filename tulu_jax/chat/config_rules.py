"""What the settings beside a tokenizer may say: one rule for every field of those files.

A field that is known is honoured, one that changes no token of a conversation is let through, and
one that changes tokens in a way that is not implemented is refused by name. So is a field that is
not known, unless it says nothing (null, false, empty).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tulu_jax.errors import TokenizerError

if TYPE_CHECKING:
    from tulu_jax.chat.tokenizer import Tokenizer

Json = dict[str, Any]

NAMED = ("bos_token", "eos_token", "unk_token", "pad_token")

SENTENCEPIECE_CLASSES = (
    "LlamaTokenizer", "CodeLlamaTokenizer", "MistralTokenizer", "PreTrainedTokenizer",
    "TokenizersBackend", "SentencePieceBackend",
)  # fmt: skip
"""Classes of transformers, without `Fast`, that tokenize as `tokenizer.model` says."""

GPT2_CLASSES = (
    "GPT2Tokenizer", "GPTNeoXTokenizer", "OPTTokenizer", "PreTrainedTokenizer", "TokenizersBackend",
)  # fmt: skip
"""Those that take `vocab.json` and `merges.txt` as GPT-2 does."""

HARMLESS = frozenset((
    "added_tokens_decoder", "additional_special_tokens", "extra_special_tokens", "chat_template",
    "add_bos_token", "legacy", "split_special_tokens", "spaces_between_special_tokens", "errors",
    "clean_up_tokenization_spaces", "model_specific_special_tokens", "use_default_system_prompt",
    "model_max_length", "max_len", "max_length", "max_seq_length", "max_target_length", "stride",
    "padding", "padding_side", "pad_to_multiple_of", "pad_token_type_id", "tokenizer_padding",
    "truncation", "truncation_side", "truncation_strategy", "tokenizer_truncation", "backend",
    "model_input_names", "return_tensors", "return_token_type_ids", "processor_class", "token",
    "name_or_path", "special_tokens_map_file", "tokenizer_file", "vocab_file", "merges_file",
    "files_loaded", "from_slow", "use_fast", "is_local", "local_files_only", "trust_remote_code",
    "revision", "cache_dir", "subfolder", "device_map", "torch_dtype", "dtype", "verbose",
    "low_cpu_mem_usage", "load_in_4bit", "load_in_8bit", "attn_implementation", "tokenizer_type",
    "quantization_config", "transformers_version", "response_schema", "response_template",
    "init_inputs", "proxies", "force_download", "use_auth_token",
))  # fmt: skip
"""Fields that are read elsewhere, or change no token of a conversation."""

MUST_BE_OFF = {
    "add_eos_token": "the chat template writes EOS where it belongs",
    "do_lower_case": "text is tokenized as it is",
    "do_lowercase": "text is tokenized as it is",
    "lowercase": "text is tokenized as it is",
    "strip_accents": "text is tokenized as it is",
    "sp_model_kwargs": "SentencePiece runs without sampling or other options",
    "fix_mistral_regex": "text is cut as tokenizer.json says",
    "auto_map": "no code comes with a tokenizer",
}
"""Fields that would change tokens, and what is done instead."""


def check_config(config: Json, main: Path) -> None:
    """Passes when the settings beside the main file `main` say nothing that is not honoured.

    Raises:
        TokenizerError: naming the first field that does, or that is malformed.
    """
    for name, value in config.items():
        _check_shape(name, value, main.parent)
        if name in MUST_BE_OFF and value:
            raise _refused(name, value, main, f"{name} false or left out: {MUST_BE_OFF[name]}")
    if config.get("add_bos_token") and "bos_token" in config and config["bos_token"] is None:
        raise _refused(
            "add_bos_token", True, main, "false, as bos_token is null", "say which of them is meant"
        )
    _check_prefix_space(config.get("add_prefix_space"), main)
    _check_class(config.get("tokenizer_class"), main)
    known = {*HARMLESS, *MUST_BE_OFF, "add_prefix_space", "tokenizer_class"}
    for name, value in config.items():
        if name in known or name.startswith("_") or name.endswith(("_token", "_token_id")):
            continue
        if value not in (None, False, "", [], {}):
            expected = "only fields whose meaning is known"
            raise _refused(name, value, main, expected, "remove it if it changes no token")


def check_ids(config: Json, tokenizer: Tokenizer) -> None:
    """Passes when the tokenizer's tokens have the ids that the settings give them.

    Raises:
        TokenizerError: naming the field.
    """
    for name in NAMED:
        found = config.get(f"{name}_id")
        if found is None:
            continue
        own = tokenizer.named_ids.get(name)
        if name == "bos_token" and own is None:
            continue
        if isinstance(found, bool) or not isinstance(found, int) or found != own:
            outside = isinstance(found, int) and not 0 <= found < tokenizer.vocab_size
            raise TokenizerError(
                f"{name}_id is " + ("outside the vocabulary" if outside else f"not {name}'s"),
                got=repr(found),
                at=tokenizer.path.parent / "tokenizer_config.json",
                expected=f"{own}, the id of the {name[:3]} token, or no such field",
                do="remove the field, or name the token that is meant",
            )
    for given, token in config["added_tokens_decoder"].items():
        text = token.get("content") if isinstance(token, dict) else token
        own = None if text is None else tokenizer.token_id(text)
        if text is not None and str(own) != given:
            raise TokenizerError(
                "settings give a token another id than the tokenizer has for it",
                got=f"{text!r} as {given}",
                at=tokenizer.path.parent / "tokenizer_config.json",
                expected="text that stays text" if own is None else f"the id {own}",
                do="take tokenizer_config.json and the tokenizer's files from one model",
            )


def _check_shape(name: str, value: object, at: Path) -> None:
    """Refuses values of another type than the field has."""
    expected = None
    if name in NAMED and not _is_token(value):
        expected = "one token: a text, or an object with its content"
    elif name == "added_tokens_decoder" and not (
        isinstance(value, dict) and all(map(_is_token, value.values()))
    ):
        expected = "an object from ids to tokens"
    elif name in ("additional_special_tokens", "extra_special_tokens") and value is not None:
        tokens = value.values() if isinstance(value, dict) else value
        if isinstance(value, str) or not (
            isinstance(value, dict | list) and all(map(_is_token, tokens))  # type: ignore[arg-type]
        ):
            expected = "a list of tokens"
    elif name in ("add_bos_token", "add_eos_token", "add_prefix_space") and value not in (
        None, True, False,
    ):  # fmt: skip
        expected = "true or false"
    if expected is not None:
        raise TokenizerError(
            f"{name} is malformed", got=repr(value)[:200], at=at, expected=expected
        )


def _is_token(value: object) -> bool:
    text = value.get("content") if isinstance(value, dict) else value
    return value is None or isinstance(text, str)


def _check_prefix_space(value: object, main: Path) -> None:
    """SentencePiece puts a space before text, byte-level BPE none, and nothing else is done."""
    if value is None:
        return
    wanted = main.suffix != ".json"
    if bool(value) != wanted:
        what = "puts a space before text" if value else "puts no space before text"
        raise TokenizerError(
            f"tokenizer {what}",
            got=f'"add_prefix_space": {str(bool(value)).lower()}',
            at=main.parent,
            expected="a space before text" if wanted else "text to be tokenized as it is",
            do="choose another tokenizer, or remove the field if the model was trained without it",
        )


def _check_class(value: object, main: Path) -> None:
    """Refuses tokenizers of which it is not known that their files say all."""
    if value is None or main.name == "tokenizer.json":
        return
    known = GPT2_CLASSES if main.suffix == ".json" else SENTENCEPIECE_CLASSES
    if not isinstance(value, str) or value.removesuffix("Fast") not in known:
        raise _refused(
            "tokenizer_class", value, main, "one of " + ", ".join(known),
            "remove the field if the tokenizer works as one of these",
        )  # fmt: skip


def _refused(
    name: str, value: object, main: Path, expected: str, do: str = "change the field"
) -> TokenizerError:
    return TokenizerError(
        f"{name} of the tokenizer's settings is not supported",
        got=f"{name}={value!r}"[:200],
        at=main.parent,
        expected=expected,
        do=do,
    )
