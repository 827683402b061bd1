r"""Tülu's format, the default.

    <|system|>          <|user|>            <|assistant|>
    {content}           {content}           {content}EOS

Each message is its marker, a newline, its content stripped of surrounding whitespace, EOS if it is
the assistant's, and a newline; the conversation's last newline is left out. Markers are ordinary
text, not special tokens. Loss begins after an EOS or after a newline which stands alone; there the
text can be cut for every supported tokenizer, and the parts' tokens still add up to the whole's.

Source: allenai/open-instruct `open_instruct/finetune.py`@e44fcf588, `encode_with_messages_format`.
"""

from __future__ import annotations

from collections.abc import Iterator

from tulu_jax.chat.messages import Messages
from tulu_jax.chat.segments import TEXT_OF, ChatTemplate, Segment

MARKERS = {role: f"<|{role}|>\n" for role in ("system", "user", "assistant")}
"""What opens a message of each role."""


def turns(messages: Messages) -> Iterator[list[Segment]]:
    """The segments of each message.

    An assistant's marker is trained when no system or user message stands before it: the reference
    masks a marker as part of the message *before* the answer.
    """
    after_answer = True
    for message in messages:
        answer = message["role"] == "assistant"
        segments = [
            Segment("marker", MARKERS[message["role"]], answer and after_answer),
            Segment("content", message["content"].strip(), answer),
        ]
        if answer:
            segments.append(Segment("eos", "", True))
        yield [*segments, Segment("newline", "\n", answer)]
        after_answer = answer


def strip_end(segments: list[Segment]) -> list[Segment]:
    """The segments without the newlines at the end of the whole text."""
    segments.pop()
    if segments and segments[-1].kind == "content" and not segments[-1].text:
        segments.pop()
        marker = segments.pop()
        segments.append(marker._replace(text=marker.text.rstrip("\n")))
    return segments


# `generation` blocks hold what `turns` calls trained; their tags are spelled plainly, because some
# servers remove exactly that spelling.
JINJA = (
    TEXT_OF
    + """\
{%- set ns = namespace(after_answer=true) -%}
{%- if messages and messages[0]['role'] != 'assistant' -%}
{{- OPENING -}}
{%- endif -%}
{%- for message in messages -%}
{%- set content = text_of(message) | trim -%}
{%- set tail = '' if loop.last and not add_generation_prompt else '\\n' -%}
{%- if message['role'] == 'assistant' -%}
{%- set start = OPENING if loop.first else '' -%}
{%- if ns.after_answer -%}
{% generation %}
{{- start + '<|assistant|>\\n' + content + eos_token + tail -}}
{% endgeneration %}
{%- else -%}
{{- '<|assistant|>\\n' -}}
{% generation %}
{{- content + eos_token + tail -}}
{% endgeneration %}
{%- endif -%}
{%- set ns.after_answer = true -%}
{%- elif message['role'] in ['system', 'user'] -%}
{{- '<|' + message['role'] + '|>' -}}
{{- '\\n' + content + tail if content or tail else '' -}}
{%- set ns.after_answer = false -%}
{%- else -%}
{{- raise_exception('unknown role ' + message['role'] + ': expected system, user or assistant') -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|assistant|>\\n' -}}
{%- endif -%}
"""
)

TULU = ChatTemplate(
    name="tulu",
    version="tulu-1",
    turns=turns,
    prompt=(Segment("marker", MARKERS["assistant"], False),),
    jinja=JINJA,
    marks={rf"^<\|{role}\|>$": role[0] for role in MARKERS},
    finish=strip_end,
)
