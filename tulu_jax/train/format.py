"""How a run writes conversations: what is said of its chat template, rows for added tokens."""

from __future__ import annotations

import dataclasses

from rich.console import Console

from tulu_jax.chat import (
    CHECKPOINT,
    AddTokens,
    Tokenizer,
    has_template,
    load_model_tokenizer,
    prompt_differs,
)
from tulu_jax.checkpoint.manager import is_run
from tulu_jax.console import print_line
from tulu_jax.data.config import DataConfig
from tulu_jax.errors import ConfigError
from tulu_jax.models import ModelConfig


def with_added_tokens(
    model: ModelConfig, tokenizer: Tokenizer, *, added: AddTokens, checkpoint: str | None
) -> ModelConfig:
    """The model with rows for the tokens that ADD_TOKENS adds; the model itself without any.

    Args:
      model: as its config names it.
      tokenizer: of the run, with the tokens added.
      added: ADD_TOKENS.
      checkpoint: INITIAL_CHECKPOINT_PATH.

    Raises:
      ConfigError: the weights to start from lie in a run folder, which gets no new rows.
    """
    if not added or tokenizer.vocab_size <= model.vocab_size:
        return model
    if checkpoint is not None and is_run(checkpoint):
        raise ConfigError(
            "rows for added tokens cannot be added to the weights of a run folder",
            got=f"ADD_TOKENS={added!r} with INITIAL_CHECKPOINT_PATH={checkpoint!r}",
            expected="a Hugging Face folder",
            do="export the run with `tulu export`, and start from that folder",
        )
    return dataclasses.replace(model, vocab_size=tokenizer.vocab_size)


def _own_template(tokenizer: str) -> str | None:
    """The template of the tokenizer's folder, by name, where it is not Tülu's."""
    if not has_template(tokenizer):
        return None
    name = load_model_tokenizer(tokenizer).template.name
    return {"tulu": None, "unknown": "none of those known here"}.get(name, name)


def say_format(
    data: DataConfig, model: ModelConfig, tokenizer: Tokenizer, console: Console
) -> None:
    """Says which chat template is trained, and which tokens it added, where that is not plain."""
    name = tokenizer.template.name
    if data.chat_template == CHECKPOINT:
        console.print(f"Chat template: {name}, the tokenizer's own")
    elif name != "tulu":
        console.print(f"Chat template: {name}")
    elif (own := _own_template(data.tokenizer)) is not None:
        print_line(
            console,
            f"Chat template: tulu, though the tokenizer's folder has its own ({own}): "
            "CHAT_TEMPLATE='checkpoint' trains that",
            style="yellow",
        )
    if data.add_tokens:
        rows = f"{model.vocab_size:,} rows for the tokenizer's {tokenizer.vocab_size:,} tokens"
        console.print(f"Vocabulary with ADD_TOKENS: {rows}")
    if name != "tulu" and prompt_differs(tokenizer):
        print_line(
            console,
            f"The tokenizer cuts the end of the chat template {name!r} otherwise where an answer "
            "follows: prompts end in tokens that are not trained there. So it is in transformers.",
            style="yellow",
        )
