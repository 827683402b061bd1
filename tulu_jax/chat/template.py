"""The chat template: the only place that knows how a conversation becomes text.

    <|system|>          <|user|>            <|assistant|>
    {content}           {content}           {content}EOS

Each message is its marker, a newline, its content stripped of surrounding whitespace, EOS if it is
the assistant's, and a newline; the conversation's last newline is left out. Markers are ordinary
text, not special tokens. Loss begins after an EOS or after a newline which stands alone; there the
text can be cut for every supported tokenizer, and the parts' tokens still add up to the whole's.

Source: allenai/open-instruct `open_instruct/finetune.py`@e44fcf588, `encode_with_messages_format`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from tulu_jax.chat.messages import Messages

TEMPLATE_VERSION = "tulu-1"
"""Changes whenever the same messages would give other text or another mask."""

MARKERS = {role: f"<|{role}|>\n" for role in ("system", "user", "assistant")}
"""What opens a message of each role."""

Kind = Literal["marker", "content", "eos", "newline"]


class Segment(NamedTuple):
    """A stretch of a conversation's text whose tokens are all trained, or all not.

    `text` is empty for `eos`, which is a token and never text.
    """

    kind: Kind
    text: str
    trained: bool


def render(messages: Messages, *, generation_prompt: bool = False) -> list[Segment]:
    r"""The conversation as segments in order, without BOS.

    With `generation_prompt` the text goes on up to where the assistant's next answer starts.

    Trained are the assistant's content, its EOS and the newline after an EOS that is not the last.
    An assistant's marker is trained too when no system or user message stands before it: the
    reference masks a marker as part of the message *before* the answer. BOS shares the fate of
    the first marker. Of an answer with `train` false nothing is trained, neither its marker, its
    EOS nor the newline after it; the rest of the mask does not change.

    >>> chat = [{"role": "user", "content": " Hi "}, {"role": "assistant", "content": "Yo"}]
    >>> for kind, text, trained in render(chat):
    ...     print(f"{kind:8}{text!r:18}{trained}")
    marker  '<|user|>\n'      False
    content 'Hi'              False
    newline '\n'              False
    marker  '<|assistant|>\n' False
    content 'Yo'              True
    eos     ''                True
    """
    segments: list[Segment] = []
    after_answer = True
    for message in messages:
        role = message["role"]
        answer = role == "assistant"
        trained = answer and message.get("train", True)
        segments.append(Segment("marker", MARKERS[role], trained and after_answer))
        segments.append(Segment("content", message["content"].strip(), trained))
        if answer:
            segments.append(Segment("eos", "", trained))
        segments.append(Segment("newline", "\n", trained))
        after_answer = answer
    if generation_prompt:
        segments.append(Segment("marker", MARKERS["assistant"], False))
        return segments
    return _strip_end(segments)


def _strip_end(segments: list[Segment]) -> list[Segment]:
    """The segments without the newlines at the end of the whole text."""
    segments.pop()
    if segments and segments[-1].kind == "content" and not segments[-1].text:
        segments.pop()
        marker = segments.pop()
        segments.append(marker._replace(text=marker.text.rstrip("\n")))
    return segments


def join(segments: Sequence[Segment]) -> list[Segment]:
    r"""The segments with neighbours that share their fate made one, kind `content`; EOS stays.

    >>> chat = [{"role": "user", "content": " Hi "}, {"role": "assistant", "content": "Yo"}]
    >>> for kind, text, trained in join(render(chat)):
    ...     print(f"{kind:8}{text!r:36}{trained}")
    content '<|user|>\nHi\n<|assistant|>\n'     False
    content 'Yo'                                True
    eos     ''                                  True
    """
    joined: list[Segment] = []
    text, trained = "", False
    for segment in segments:
        if text and (segment.kind == "eos" or segment.trained != trained):
            joined.append(Segment("content", text, trained))
            text = ""
        if segment.kind == "eos":
            joined.append(segment)
        else:
            text, trained = text + segment.text, segment.trained
    if text:
        joined.append(Segment("content", text, trained))
    return joined


def segments_text(segments: Sequence[Segment], eos: str) -> str:
    """The text of the segments, with the string `eos` where the token EOS stands."""
    return "".join(eos if segment.kind == "eos" else segment.text for segment in segments)


# `generation` blocks hold what `render` calls trained; their tags are spelled plainly, because some
# servers remove exactly that spelling.
_HF_TEMPLATE = """\
{%- set ns = namespace(after_answer=true) -%}
{%- if messages and messages[0]['role'] != 'assistant' -%}
{{- OPENING -}}
{%- endif -%}
{%- for message in messages -%}
{%- set content = message['content'] | trim -%}
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


def hf_template(opening: str) -> str:
    """The same template for Hugging Face's `apply_chat_template`.

    `opening` is the Jinja expression of what stands before a conversation's text.
    """
    return _HF_TEMPLATE.replace("OPENING", opening)


CHAT_TEMPLATE = hf_template("bos_token + ' '")
"""The template of LLaMA's tokenizer. The space after BOS stands for the word-start mark that
SentencePiece puts before the first word of a text: Hugging Face tokenizers leave it out after a
special token."""
