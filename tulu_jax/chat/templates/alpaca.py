r"""Alpaca's format, over several turns: headings are text, content stripped.

    BOS {system}\n\n### Instruction:\n{user}\n\n### Response:\n{assistant}EOS\n\n### ...

Without a system message Stanford Alpaca's own first sentences stand there, so that one question
with its answer is what Alpaca was trained on, but for the newline behind "### Response:", which
Stanford's code left out and nearly all that followed put in. Trained are the assistant's content
and its EOS.

Source: tatsu-lab/stanford_alpaca `train.py` (`PROMPT_DICT`); FastChat's conversation "alpaca".
"""

from __future__ import annotations

from collections.abc import Iterator

from tulu_jax.chat.messages import Messages
from tulu_jax.chat.segments import (
    ALTERNATE,
    BOS,
    SPLIT_SYSTEM,
    TEXT_OF,
    ChatTemplate,
    Segment,
    content,
    eos,
    marker,
)

SYSTEM = (
    "Below is an instruction that describes a task. "
    "Write a response that appropriately completes the request."
)
RESPONSE = "\n\n### Response:\n"


def turns(messages: Messages) -> Iterator[list[Segment]]:
    """The segments of each message."""
    start = [] if messages[0]["role"] == "system" else [BOS, marker(SYSTEM)]
    for message in messages:
        text = message["content"].strip()
        if message["role"] == "system":
            yield [BOS, content(text, False)]
        elif message["role"] == "user":
            yield [*start, marker("\n\n### Instruction:\n"), content(text, False)]
            start = []
        else:
            yield [marker(RESPONSE), content(text, True), eos(True)]


JINJA = (
    TEXT_OF
    + SPLIT_SYSTEM
    + """\
{{- OPENING -}}
{{- system | trim if system is not none else 'SYSTEM' -}}
{%- for message in turns -%}
"""
    + ALTERNATE
    + """\
{%- if message['role'] == 'user' -%}
{{- '\\n\\n### Instruction:\\n' + text_of(message) | trim -}}
{%- else -%}
{{- '\\n\\n### Response:\\n' -}}
{% generation %}
{{- text_of(message) | trim + eos_token -}}
{% endgeneration %}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '\\n\\n### Response:\\n' -}}
{%- endif -%}
"""
).replace("SYSTEM", SYSTEM)

ALPACA = ChatTemplate(
    name="alpaca",
    version="alpaca-1",
    turns=turns,
    prompt=(marker(RESPONSE),),
    jinja=JINJA,
    marks={"^### Instruction:$": "u", "^### Response:$": "a"},
    alternates=True,
)
