"""Tülu 2 leaves out conversations that name a language model or who made one.

Source: allenai/open-instruct `open_instruct/reformat_datasets.py@503407ee8`, which applies this to
every dataset of Tülu 2 but hard_coded, and to nothing of the first Tülu.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from tulu_jax.data.faults import Faults
from tulu_jax.data.specs import Conversation

NAMES = (
    *("OpenAI", "Open AI"),
    *("ChatGPT", "Chat GPT"),
    *("GPT-3", "GPT3", "GPT 3"),
    *("GPT-4", "GPT4", "GPT 4"),
    *("GPT-3.5", "GPT3.5", "GPT 3.5"),
    *("BingChat", "Bing Chat"),
    *("BARD", "Palm"),
    *("Anthropic", "Claude"),
    "LAION",
    *("Open Assistant", "OpenAssistant"),
)
"""Looked for in any message, in any case, also within words: `palm` leaves out palm trees too."""

REASON = "names a language model or its maker"

_NAMES = re.compile("|".join(re.escape(name.lower()) for name in NAMES))


def mentions_name(conversation: Conversation) -> bool:
    """Whether any message has one of `NAMES` in it.

    >>> def says(text):
    ...     return mentions_name({"messages": [{"role": "user", "content": text}]})
    >>> says("Are you chatgpt?"), says("By the bombardment."), says("Bing, chat!")
    (True, True, False)
    """
    return any(_NAMES.search(message["content"].lower()) for message in conversation["messages"])


def without_names(
    conversations: Iterable[Conversation], faults: Faults | None = None, *, wanted: bool = True
) -> Iterator[Conversation]:
    """The conversations that mention no name, in order; all of them unless `wanted`.

    Those left out are counted in `faults.left_out`.
    """
    for conversation in conversations:
        if wanted and mentions_name(conversation):
            if faults is not None:
                faults.leave_out(REASON)
        else:
            yield conversation
