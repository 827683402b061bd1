r"""ChatML: roles behind a special token, content as it is, no BOS.

    <|im_start|>user\n{content}<|im_end|>\n ...

Trained are the assistant's content and its `<|im_end|>`; not the newline behind it, which the
model never has to write.

Source: OpenAI's `chatml.md` of 2023; the template of that name in transformers' documentation.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from tulu_jax.chat.messages import ROLES as ROLE_NAMES
from tulu_jax.chat.messages import Messages
from tulu_jax.chat.segments import ROLES, TEXT_OF, ChatTemplate, Segment, content, marker, token

START, END = "<|im_start|>", "<|im_end|>"


def turns(messages: Messages) -> Iterator[list[Segment]]:
    """The segments of each message."""
    for message in messages:
        role, answer = message["role"], message["role"] == "assistant"
        said = [content(message["content"], answer), token(END, answer)]
        yield [token(START), marker(f"{role}\n"), *said, marker("\n")]


JINJA = (
    TEXT_OF
    + """\
{%- for message in messages -%}
"""
    + ROLES
    + """\
{{- '<|im_start|>' + message['role'] + '\\n' -}}
{%- if message['role'] == 'assistant' -%}
{% generation %}
{{- text_of(message) + '<|im_end|>' -}}
{% endgeneration %}
{%- else -%}
{{- text_of(message) + '<|im_end|>' -}}
{%- endif -%}
{{- '\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant\\n' -}}
{%- endif -%}
"""
)

CHATML = ChatTemplate(
    name="chatml",
    version="chatml-1",
    turns=turns,
    prompt=(token(START), marker("assistant\n")),
    jinja=JINJA,
    tokens=(START, END),
    end=END,
    marks={re.escape(f"{START}{role}\n"): role[0] for role in ROLE_NAMES},
    bos="none",
)
