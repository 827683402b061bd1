r"""Llama 3's format: roles between special tokens, content stripped.

    BOS <|start_header_id|>user<|end_header_id|>\n\n{content}<|eot_id|> ...

Trained are the assistant's content and its `<|eot_id|>`.

Source: Meta's model card of Llama 3, "Meta Llama 3 Instruct"; the template of its repository.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from tulu_jax.chat.messages import ROLES as ROLE_NAMES
from tulu_jax.chat.messages import Messages
from tulu_jax.chat.segments import (
    BOS,
    ROLES,
    TEXT_OF,
    ChatTemplate,
    Segment,
    content,
    marker,
    token,
)

START, STOP, END = "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"


def header(role: str) -> list[Segment]:
    """What opens a message."""
    return [token(START), marker(role), token(STOP), marker("\n\n")]


def turns(messages: Messages) -> Iterator[list[Segment]]:
    """The segments of each message."""
    for index, message in enumerate(messages):
        answer = message["role"] == "assistant"
        said = [content(message["content"].strip(), answer), token(END, answer)]
        yield [*([] if index else [BOS]), *header(message["role"]), *said]


JINJA = (
    TEXT_OF
    + """\
{{- OPENING -}}
{%- for message in messages -%}
"""
    + ROLES
    + """\
{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' -}}
{%- if message['role'] == 'assistant' -%}
{% generation %}
{{- text_of(message) | trim + '<|eot_id|>' -}}
{% endgeneration %}
{%- else -%}
{{- text_of(message) | trim + '<|eot_id|>' -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}
{%- endif -%}
"""
)

LLAMA3 = ChatTemplate(
    name="llama3",
    version="llama3-1",
    turns=turns,
    prompt=tuple(header("assistant")),
    jinja=JINJA,
    tokens=(START, STOP, END),
    end=END,
    marks={re.escape(f"{START}{role}{STOP}"): role[0] for role in ROLE_NAMES},
)
