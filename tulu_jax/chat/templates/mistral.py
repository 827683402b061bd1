r"""Mistral-instruct's format in its plain form, where [INST] is text (v0.1 and v0.2).

    BOS [INST] {system}\n\n{user} [/INST] {assistant}EOS [INST] {user} [/INST] {assistant}EOS

Content is as it is; a system message stands in front of the first question. There is a space
before each [INST] and before each answer, as Mistral's own tokenizer has it and as the templates of
v0.1 and v0.2 have been since September 2024; older copies leave those spaces out and are another
template. Trained are the assistant's content with the space before it, and its EOS.

Source: the template of mistralai/Mistral-7B-Instruct-v0.2; mistral-common's first version.
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


def turns(messages: Messages) -> Iterator[list[Segment]]:
    """The segments of each message; the system message's are part of the user's."""
    start, system = [BOS], ""
    for message in messages:
        text = message["content"]
        if message["role"] == "system":
            system = f"{text}\n\n"
            yield []
        elif message["role"] == "user":
            yield [*start, marker(" [INST] "), content(system + text, False), marker(" [/INST]")]
            start, system = [], ""
        else:
            yield [marker(" ", True), content(text, True), eos(True)]


JINJA = (
    TEXT_OF
    + SPLIT_SYSTEM
    + """\
{{- OPENING -}}
{%- for message in turns -%}
"""
    + ALTERNATE
    + """\
{%- if message['role'] == 'user' -%}
{%- set front = system + '\\n\\n' if loop.first and system is not none else '' -%}
{{- ' [INST] ' + front + text_of(message) + ' [/INST]' -}}
{%- else -%}
{% generation %}
{{- ' ' + text_of(message) + eos_token -}}
{% endgeneration %}
{%- endif -%}
{%- endfor -%}
"""
)

MISTRAL = ChatTemplate(
    name="mistral",
    version="mistral-1",
    turns=turns,
    prompt=(),
    jinja=JINJA,
    marks={r"\[INST\]": "u", r" \[/INST\](?=.)": "a"},
    alternates=True,
)
