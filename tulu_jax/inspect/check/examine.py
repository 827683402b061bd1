"""The work of one process: to look at a chunk of conversations."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt32, UInt64

from tulu_jax.chat import encode_many, load_tokenizer
from tulu_jax.chat.messages import has_chat_markers
from tulu_jax.data.specs import Conversation
from tulu_jax.inspect.check.answers import answer_faults
from tulu_jax.inspect.check.duplicates import PERMUTATIONS, Signer, normalised
from tulu_jax.inspect.check.language import LanguageFinder
from tulu_jax.inspect.check.options import CheckOptions
from tulu_jax.inspect.check.overlap import OverlapIndex, Seen
from tulu_jax.inspect.check.secrets import find_secrets
from tulu_jax.inspect.check.text import hash64, word_hashes, words

CHUNK = 128
"""Conversations that go to a process at a time."""


class Finding(NamedTuple):
    """Something about one conversation of the chunk; `detail` may be shown to anyone."""

    place: int
    kind: str
    detail: str


@dataclass
class Examined:
    """The facts of a chunk, one entry a conversation, and what was found in it."""

    ids: list[str]
    conversation_keys: UInt64[np.ndarray, "rows"]
    prompt_keys: UInt64[np.ndarray, "rows"]
    prompt_words: UInt32[np.ndarray, "rows"]
    answer_words: UInt32[np.ndarray, "rows"]
    signatures: UInt32[np.ndarray, "rows 128"]
    signed: np.ndarray
    languages: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    seen: list[tuple[int, Seen]] = field(default_factory=list)


class Examiner:
    """Looks at chunks of conversations; made once in each process."""

    def __init__(self, options: CheckOptions, index: OverlapIndex | None) -> None:
        """Loads what is needed: models, the tokenizer if there is one.

        Raises: ConfigError when a package of the extra `check` is not installed.
        """
        self._index = index
        self._sign = Signer()
        self._language = LanguageFinder()
        self._max_length = options.max_length
        self._tokenizer = None
        if options.tokenizer:
            self._tokenizer = load_tokenizer(
                options.tokenizer,
                options.encoding,
                template=options.chat_template,
                add_tokens=options.add_tokens,
            )

    def __call__(self, chunk: list[Conversation]) -> Examined:
        """The chunk's facts and findings."""
        size = len(chunk)
        result = Examined(
            [conversation["id"] for conversation in chunk],
            np.zeros(size, np.uint64),
            np.zeros(size, np.uint64),
            np.zeros(size, np.uint32),
            np.zeros(size, np.uint32),
            np.zeros((size, PERMUTATIONS), np.uint32),
            np.zeros(size, bool),
        )
        for place, conversation in enumerate(chunk):
            self._examine(place, conversation, result)
        self._measure(chunk, result)
        return result

    def _examine(self, place: int, conversation: Conversation, result: Examined) -> None:
        messages = [(m["role"], m["content"]) for m in conversation["messages"]]
        said = [(role, words(content)) for role, content in messages]
        answers = [found for role, found in said if role == "assistant"]
        plain = [(role, normalised(content)) for role, content in messages]
        result.conversation_keys[place] = hash64("\x1f".join(f"{r}\x1e{t}" for r, t in plain))
        prompts = [text for role, text in plain if role != "assistant"]
        result.prompt_keys[place] = hash64("\x1f".join(prompts))
        result.answer_words[place] = sum(map(len, answers))
        result.prompt_words[place] = sum(len(w) for _, w in said) - result.answer_words[place]
        signature = self._sign(word_hashes([word for _, found in said for word in found]))
        if signature is not None:
            result.signatures[place] = signature
            result.signed[place] = True
        result.languages.append(self._language([content for _, content in messages]))
        if self._index is not None:
            found = self._index.find([w for _, w in said], answers)
            result.seen += [(place, seen) for seen in found]
        result.findings += _text_findings(place, messages)

    def _measure(self, chunk: list[Conversation], result: Examined) -> None:
        """Finds what `max_length` will cut or leave without an answer."""
        if self._tokenizer is None:
            return
        places = [place for place, one in enumerate(chunk) if one["messages"]]
        messages = [chunk[place]["messages"] for place in places]
        encoded = encode_many(messages, self._tokenizer, max_length=self._max_length, threads=1)
        for place, one in zip(places, encoded, strict=True):
            if one.truncated:
                detail = "dropped: its prompt fills max_length" if one.dropped else "cut"
                result.findings.append(Finding(place, "over_max_length", detail))


def _text_findings(place: int, messages: list[tuple[str, str]]) -> list[Finding]:
    """Faulty answers, chat markers and secrets, each kind once; of secrets with their number."""
    found: dict[str, str] = {}
    secrets: dict[str, list[str]] = {}
    for number, (role, content) in enumerate(messages, 1):
        if role == "assistant":
            for kind in answer_faults(content):
                found.setdefault(kind, f"message {number} of {len(messages)}")
        if has_chat_markers(content):
            found.setdefault("chat_markers", f"message {number} of {len(messages)}")
        for secret in find_secrets(content):
            secrets.setdefault(secret.kind, []).append(secret.masked)
    findings = [Finding(place, kind, detail) for kind, detail in found.items()]
    for kind, masked in secrets.items():
        more = f" and {len(masked) - 1} more" if len(masked) > 1 else ""
        findings.append(Finding(place, "secrets", f"{kind}: {masked[0]}{more}"))
    return findings
