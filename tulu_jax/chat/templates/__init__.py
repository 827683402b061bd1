"""The chat templates by name, each in a file of its own."""

from __future__ import annotations

from tulu_jax.chat.templates.alpaca import ALPACA
from tulu_jax.chat.templates.chatml import CHATML
from tulu_jax.chat.templates.llama2 import LLAMA2
from tulu_jax.chat.templates.llama3 import LLAMA3
from tulu_jax.chat.templates.mistral import MISTRAL
from tulu_jax.chat.templates.tulu import TULU
from tulu_jax.chat.templates.zephyr import ZEPHYR
from tulu_jax.errors import ConfigError

TEMPLATES = {
    template.name: template for template in (TULU, LLAMA2, LLAMA3, MISTRAL, CHATML, ZEPHYR, ALPACA)
}
CHECKPOINT = "checkpoint"
"""The name that stands for the tokenizer folder's own template."""

TEMPLATE_NAMES = (*TEMPLATES, CHECKPOINT)
"""All that CHAT_TEMPLATE and --chat_template take."""


def check_template_name(name: object) -> None:
    """Passes when `name` is one of `TEMPLATE_NAMES`.

    Raises: ConfigError.
    """
    if name not in TEMPLATE_NAMES:
        raise ConfigError(
            "unknown chat template",
            got=repr(name),
            at="CHAT_TEMPLATE",
            expected="one of " + ", ".join(TEMPLATE_NAMES),
        )
