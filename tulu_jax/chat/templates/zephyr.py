r"""Zephyr's format: markers are text, every message ends with EOS, content as it is, no BOS.

    <|user|>\n{content}EOS\n<|assistant|>\n{content}EOS\n

Trained are the assistant's content and its EOS.

Source: the template of HuggingFaceH4/zephyr-7b-beta.
"""

from __future__ import annotations

from collections.abc import Iterator

from tulu_jax.chat.messages import ROLES as ROLE_NAMES
from tulu_jax.chat.messages import Messages
from tulu_jax.chat.segments import ROLES, TEXT_OF, ChatTemplate, Segment, content, eos, marker


def turns(messages: Messages) -> Iterator[list[Segment]]:
    """The segments of each message."""
    for message in messages:
        role, answer = message["role"], message["role"] == "assistant"
        yield [
            marker(f"<|{role}|>\n"),
            content(message["content"], answer),
            eos(answer),
            marker("\n"),
        ]


JINJA = (
    TEXT_OF
    + """\
{%- for message in messages -%}
"""
    + ROLES
    + """\
{{- '<|' + message['role'] + '|>\\n' -}}
{%- if message['role'] == 'assistant' -%}
{% generation %}
{{- text_of(message) + eos_token -}}
{% endgeneration %}
{%- else -%}
{{- text_of(message) + eos_token -}}
{%- endif -%}
{{- '\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|assistant|>\\n' -}}
{%- endif -%}
"""
)

ZEPHYR = ChatTemplate(
    name="zephyr",
    version="zephyr-1",
    turns=turns,
    prompt=(marker("<|assistant|>\n"),),
    jinja=JINJA,
    bos="none",
    marks={rf"^<\|{role}\|>$": role[0] for role in ROLE_NAMES},
)
