"""What a chat template is, and the segments that it cuts a conversation into.

    segments  BOS  "[INST] Hi [/INST]"  " Yo "  EOS
    trained    0            0              1     1

Text and special tokens are kept apart from the start: a special token is an id, and no text of a
message ever becomes one, whatever it looks like.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from tulu_jax.chat.messages import Messages
from tulu_jax.errors import DataError

Kind = Literal["marker", "content", "newline", "eos", "bos", "token"]
ID_KINDS = ("eos", "bos", "token")
"""Kinds of segments that are one special token each, and never text."""


class Segment(NamedTuple):
    """A stretch of a conversation's text whose tokens are all trained, or all not.

    A segment of kind `token` is the special token whose piece is `text`; those of kind `eos` and
    `bos` are the tokenizer's own, and have no text.
    """

    kind: Kind
    text: str
    trained: bool


BOS = Segment("bos", "", False)


def marker(text: str, trained: bool = False) -> Segment:
    """Text that the template writes."""
    return Segment("marker", text, trained)


def content(text: str, trained: bool) -> Segment:
    """Text of a message."""
    return Segment("content", text, trained)


def token(piece: str, trained: bool = False) -> Segment:
    """A special token of the template."""
    return Segment("token", piece, trained)


def eos(trained: bool) -> Segment:
    """The tokenizer's end of sequence."""
    return Segment("eos", "", trained)


@dataclass(frozen=True, kw_only=True)
class ChatTemplate:
    """How a conversation becomes tokens, and which of them are trained.

    Attributes:
        name: what CHAT_TEMPLATE and --chat_template call it.
        version: changes whenever the same messages would give other tokens or another mask.
        turns: the segments of each message in order; what an answer trains is marked as trained.
        prompt: what stands behind a conversation where the assistant's next answer starts.
        jinja: the same template for `apply_chat_template`; OPENING stands for BOS in it.
        tokens: pieces of the special tokens that it writes, besides BOS and EOS.
        end: the piece of the token that ends an answer; None is EOS.
        bos: where BOS stands: at the `start`, before each of the user's `turns`, or at `none`.
        marks: regular expressions of what stands where a message begins, in text without special
            tokens where the template writes none of its own; and the letters of the roles.
        alternates: whether user and assistant must take turns, after a system message or none.
        verbatim: whether `jinja` is a model's own text, to be exported as it is.
        finish: what becomes of the segments at the end of a conversation that is no prompt.
    """

    name: str
    version: str
    turns: Callable[[Messages], Iterable[list[Segment]]]
    prompt: tuple[Segment, ...]
    jinja: str
    tokens: tuple[str, ...] = ()
    end: str | None = None
    bos: Literal["start", "turns", "none"] = "start"
    marks: Mapping[str, str] = field(default_factory=dict)
    alternates: bool = False
    finish: Callable[[list[Segment]], list[Segment]] | None = None
    verbatim: bool = False

    def render(self, messages: Messages, *, generation_prompt: bool = False) -> list[Segment]:
        """The conversation as segments in order, as `turns` gives them.

        Of a message whose `train` is false nothing is trained. With `generation_prompt` the
        segments go on up to where the assistant's next answer starts.
        """
        segments: list[Segment] = []
        for message, own in zip(messages, self.turns(messages), strict=True):
            trained = message.get("train", True)
            segments += own if trained else [part._replace(trained=False) for part in own]
        if generation_prompt:
            return [*segments, *self.prompt]
        return self.finish(segments) if self.finish else segments

    def check(
        self, messages: Messages, at: object = "messages", *, generation_prompt: bool = False
    ) -> None:
        """Passes when the template can hold the conversation, which is known to be one.

        Raises:
            DataError: roles in an order for which the template has no form.
        """
        if not self.alternates:
            return
        first = int(messages[0]["role"] == "system")
        roles = [message["role"] for message in messages[first:]]
        if generation_prompt:
            roles.append("assistant")  # the answer that the prompt asks for
        for index, role in enumerate(roles or [""]):
            expected = ("user", "assistant")[index % 2]
            if role != expected:
                raise DataError(
                    f"conversation does not fit the chat template {self.name!r}",
                    got=_found(role, index + first, len(messages)),
                    at=f"{at}, message {index + first}",
                    expected=f"{expected}: a system message or none, then user and assistant "
                    "taking turns",
                    do="change these messages, leave them out, or choose another CHAT_TEMPLATE",
                )


def _found(role: str, index: int, count: int) -> str:
    if index < count:
        return f"the role {role!r}"
    return "an answer to come" if role else "no message of the user"


def join(segments: Sequence[Segment]) -> list[Segment]:
    r"""The segments with neighbours that share their fate made one, kind `content`; EOS stays.

    >>> for kind, text, trained in join([marker("<|user|>\n"), content("Hi", False), eos(True)]):
    ...     print(f"{kind:8}{text!r:16}{trained}")
    content '<|user|>\nHi'  False
    eos     ''              True
    """
    joined: list[Segment] = []
    text, trained = "", False
    for segment in segments:
        is_id = segment.kind in ID_KINDS
        if text and (is_id or segment.trained != trained):
            joined.append(Segment("content", text, trained))
            text = ""
        if is_id:
            joined.append(segment)
        else:
            text, trained = text + segment.text, segment.trained
    if text:
        joined.append(Segment("content", text, trained))
    return joined


def segments_text(segments: Sequence[Segment], eos: str, bos: str = "") -> str:
    """The text of the segments, with the strings `eos` and `bos` where those tokens stand."""
    special = {"eos": eos, "bos": bos}
    return "".join(special.get(segment.kind, segment.text) for segment in segments)


TEXT_OF = """\
{%- macro text_of(message) -%}
{%- if message['content'] is string -%}
{{- message['content'] -}}
{%- else -%}
{%- for part in message['content'] -%}
{%- if part['type'] == 'text' -%}
{{- part['text'] -}}
{%- else -%}
{{- raise_exception('unknown content part ' + part['type'] + ': expected text') -}}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{%- endmacro -%}
"""
"""A Jinja macro: a message's content, which may be given as a list of parts, as one text."""

SPLIT_SYSTEM = """\
{%- set system = text_of(messages[0]) if messages[0]['role'] == 'system' else none -%}
{%- set turns = messages[1:] if messages[0]['role'] == 'system' else messages -%}
"""
"""Jinja that sets `system` to the system message in front, or none, and `turns` to the rest."""

ALTERNATE = """\
{%- if message['role'] != ['user', 'assistant'][loop.index0 % 2] -%}
{{- raise_exception('roles must be user and assistant by turns, after a system message or none') -}}
{%- endif -%}
"""
"""Jinja that refuses roles out of turn."""

ROLES = """\
{%- if message['role'] not in ['system', 'user', 'assistant'] -%}
{{- raise_exception('unknown role ' + message['role'] + ': expected system, user or assistant') -}}
{%- endif -%}
"""
"""Jinja that refuses roles that are not known."""
