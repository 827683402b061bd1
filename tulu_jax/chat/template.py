r"""Conversations rendered as segments; each template's own rules lie in `templates/`.

>>> chat = [{"role": "user", "content": " Hi "}, {"role": "assistant", "content": "Yo"}]
>>> for kind, text, trained in join(render(chat)):
...     print(f"{kind:8}{text!r:36}{trained}")
content '<|user|>\nHi\n<|assistant|>\n'     False
content 'Yo'                                True
eos     ''                                  True
"""

from __future__ import annotations

from tulu_jax.chat.messages import Messages
from tulu_jax.chat.segments import ChatTemplate, Kind, Segment, join, segments_text
from tulu_jax.chat.templates.tulu import MARKERS, TULU

__all__ = [
    "CHAT_TEMPLATE",
    "MARKERS",
    "TEMPLATE_VERSION",
    "Kind",
    "Segment",
    "hf_template",
    "join",
    "render",
    "segments_text",
]

TEMPLATE_VERSION = TULU.version
"""Changes whenever the same messages would give other text or another mask in Tülu's format."""


def render(
    messages: Messages, *, generation_prompt: bool = False, template: ChatTemplate = TULU
) -> list[Segment]:
    r"""The conversation as segments in order; in Tülu's format without BOS.

    With `generation_prompt` the text goes on up to where the assistant's next answer starts.

    In Tülu's format trained are the assistant's content, its EOS and the newline after an EOS that
    is not the last. An assistant's marker is trained too when no system or user message stands
    before it. BOS shares the fate of the first marker. Of an answer with `train` false nothing is
    trained, neither its marker, its EOS nor the newline after it; the rest of the mask does not
    change. That holds for every template.

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
    return template.render(messages, generation_prompt=generation_prompt)


def hf_template(opening: str, template: ChatTemplate = TULU) -> str:
    """The same template for Hugging Face's `apply_chat_template`.

    `opening` is the Jinja expression of what stands before a conversation's text.
    """
    return template.jinja if template.verbatim else template.jinja.replace("OPENING", opening)


CHAT_TEMPLATE = hf_template("bos_token + ' '")
"""The template of LLaMA's tokenizer. The space after BOS stands for the word-start mark that
SentencePiece puts before the first word of a text: Hugging Face tokenizers leave it out after a
special token."""
