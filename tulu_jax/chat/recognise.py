"""Which of our chat templates a tokenizer folder's own template is.

It is told by what the template does, not by how it is spelled: both are rendered, in jinja2's
sandbox as transformers does it, for conversations in which the templates differ from each other and
from their relatives (whitespace around content, several turns, with and without system message,
with and without the prompt for an answer). One that differs in any of them is another template.
"""

from __future__ import annotations

from dataclasses import replace
from difflib import SequenceMatcher
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tulu_jax.chat.messages import Messages
from tulu_jax.chat.segments import ChatTemplate, Segment
from tulu_jax.chat.settings import CONFIG_NAME, TEMPLATE_NAME, json_if_there, read_text
from tulu_jax.chat.template import hf_template
from tulu_jax.chat.templates import TEMPLATES
from tulu_jax.errors import DataError, TokenizerError

if TYPE_CHECKING:
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    from tulu_jax.chat.tokenizer import Tokenizer


def own_template(folder: Path) -> str | None:
    """The chat template that a tokenizer folder holds: that of its own file, else of the settings.

    Raises:
        TokenizerError: it is not text, or several without one called "default".
    """
    file = folder / TEMPLATE_NAME
    if file.is_file():
        return read_text(file)
    found = json_if_there(folder / CONFIG_NAME).get("chat_template")
    if isinstance(found, list):
        several = [one for one in found if isinstance(one, dict)]
        named = {str(one.get("name")): one.get("template") for one in several}
        found = named.get("default", named)
    if found is not None and not isinstance(found, str):
        raise TokenizerError(
            "chat template of the tokenizer folder is not understood",
            got=f"dict {list(found)[:5]}" if isinstance(found, dict) else repr(found)[:80],
            at=folder / CONFIG_NAME,
            expected='a text, or a list in which one is called "default"',
            do="name the template with CHAT_TEMPLATE (--chat_template)",
        )
    return found


def kept(text: str, tokenizer: Tokenizer) -> ChatTemplate:
    """A template that is exported as it is, and renders as the one of ours that it is.

    One that is none of ours can be kept, but no conversation can be rendered with it: that raises
    what `recognise` raises.
    """
    try:
        return replace(recognise(text, tokenizer), jinja=text, verbatim=True)
    except TokenizerError as error:
        return unknown(text, error)


def unknown(text: str, error: TokenizerError) -> ChatTemplate:
    """A template that is none of ours; it raises `error` when a conversation is to be rendered."""

    def refuse(messages: Messages) -> list[list[Segment]]:
        raise error

    return ChatTemplate(
        name="unknown", version="unknown", turns=refuse, prompt=(), jinja=text, verbatim=True
    )


def recognise(text: str, tokenizer: Tokenizer) -> ChatTemplate:
    """The one of our templates that renders as `text` does with this tokenizer.

    Raises:
        TokenizerError: none does; the nearest, and where it differs, are named.
    """
    special = {name: tokenizer.piece(i) for name, i in tokenizer.named_ids.items()}
    nearest, likest, difference = "", -1.0, ""
    for template in TEMPLATES.values():
        ours = hf_template(tokenizer.hf_opening_of(template), template)
        differs = _difference(text, ours, template, special)
        if differs is None:
            return template
        got, want = differs
        likeness = SequenceMatcher(None, got, want).ratio()
        if likeness > likest:
            nearest, likest, difference = template.name, likeness, _excerpt(got, want)
    raise TokenizerError(
        "chat template of the tokenizer folder is none of those known here",
        got=difference,
        at=tokenizer.path.parent,
        expected=f"what {nearest!r}, the nearest, writes; or another of {', '.join(TEMPLATES)}",
        do="name the template to use with CHAT_TEMPLATE (--chat_template)",
    )


def _probes() -> list[tuple[Messages, bool]]:
    """Conversations, each with whether the prompt for an answer is asked for."""
    roles = {"s": "system", "u": "user", "a": "assistant"}
    texts = ("Be brief.", " What is\n\n2+2? ", "\n4. \n", "And\t3+3?\n", "  6", "Why?")
    orders = ("ua", "sua", "uaua", "suauau", "u", "uu", "ss", "usua", "aa", "au")
    probes: list[tuple[Messages, bool]] = []
    for order in orders:
        for shift in range(2):
            talk: Messages = [
                {"role": roles[role], "content": texts[(index + shift) % len(texts)]}
                for index, role in enumerate(order)
            ]
            probes.append((talk, order[-1] == "u"))
    return probes


def _difference(
    theirs: str, ours: str, template: ChatTemplate, special: dict[str, str]
) -> tuple[str, str] | None:
    """What each makes of the first probe of which they make different things."""
    for messages, prompt in _probes():
        try:
            template.check(messages, generation_prompt=prompt)
        except DataError:
            continue  # for which ours has no form; what the other does with it is of no account
        got = _rendered(theirs, messages, prompt, special)
        want = _rendered(ours, messages, prompt, special)
        if got != want:
            return got, want
    return None


def _excerpt(got: str, want: str) -> str:
    """Both around the place from which on they differ."""
    pairs = enumerate(zip(got, want, strict=False))
    place = next((i for i, (a, b) in pairs if a != b), min(len(got), len(want)))
    part = slice(max(place - 20, 0), place + 20)
    return f"{got[part]!r} for {want[part]!r}"


def _rendered(text: str, messages: Messages, prompt: bool, special: dict[str, str]) -> str:
    """What a template makes of a conversation; the words of its error where it refuses."""
    try:
        compiled = _environment().from_string(text)
        talk = [dict(message) for message in messages]
        return compiled.render(
            messages=talk, add_generation_prompt=prompt, tools=None, documents=None, **special
        )
    except Exception as error:  # whatever a stranger's template runs into
        return f"[{type(error).__name__}: {str(error)[:80]}]"


@cache
def _environment() -> ImmutableSandboxedEnvironment:
    """A sandbox with what transformers gives to chat templates."""
    import json

    from jinja2 import nodes
    from jinja2.exceptions import TemplateError
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """`{% generation %}` blocks, which mark an answer and write what they hold."""

        tags = {"generation"}  # noqa: RUF012 - how jinja2 declares it

        def parse(self, parser: Any) -> Any:
            """The block's own content."""
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.Scope(body).set_lineno(line)

    def raise_exception(message: str) -> None:
        raise TemplateError(message)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = lambda value, **options: json.dumps(
        value, ensure_ascii=False, indent=options.get("indent")
    )
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = lambda form: ""
    return environment
