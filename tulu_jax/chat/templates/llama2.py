r"""LLaMA 2 chat's format: BOS before each of the user's turns, the system message inside the first.

    BOS [INST] <<SYS>>\n{system}\n<</SYS>>\n\n{user} [/INST] {assistant} EOS BOS [INST] ...

Markers are text. Stripped are the assistant's content, and the user's with the system message in
front of it. Trained are the assistant's content, the spaces around it and its EOS: the model has to
write them all.

Source: Meta's `llama/generation.py` (`chat_completion`); the template of Llama-2-7b-chat-hf.
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
    system = ""
    for message in messages:
        text = message["content"]
        if message["role"] == "system":
            system = f"<<SYS>>\n{text}\n<</SYS>>\n\n"
            yield []
        elif message["role"] == "user":
            asked = content((system + text).strip(), False)
            yield [BOS, marker("[INST] "), asked, marker(" [/INST]")]
            system = ""
        else:
            yield [marker(" ", True), content(text.strip(), True), marker(" ", True), eos(True)]


JINJA = (
    TEXT_OF
    + SPLIT_SYSTEM
    + """\
{%- for message in turns -%}
"""
    + ALTERNATE
    + """\
{%- if message['role'] == 'user' -%}
{%- set content = text_of(message) -%}
{%- if loop.first and system is not none -%}
{%- set content = '<<SYS>>\\n' + system + '\\n<</SYS>>\\n\\n' + content -%}
{%- endif -%}
{{- OPENING + '[INST] ' + content | trim + ' [/INST]' -}}
{%- else -%}
{% generation %}
{{- ' ' + text_of(message) | trim + ' ' + eos_token -}}
{% endgeneration %}
{%- endif -%}
{%- endfor -%}
"""
)

LLAMA2 = ChatTemplate(
    name="llama2",
    version="llama2-1",
    turns=turns,
    prompt=(),
    jinja=JINJA,
    bos="turns",
    marks={r"\[INST\] <<SYS>>": "su", r"\[INST\]": "u", r" \[/INST\](?=.)": "a"},
    alternates=True,
)
