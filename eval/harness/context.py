"""What a benchmark knows of the run that asks it: options, quirks, chat format and tokenizer."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from eval.harness.asks import Prompt
from eval.harness.quirks import Quirks
from eval.templates import Formatter
from tulu_jax.errors import ConfigError
from tulu_jax.files import json_or_none

if TYPE_CHECKING:
    from tulu_jax.chat import Tokenizer

AddBos = Literal["auto", "true", "false"]


@dataclasses.dataclass(frozen=True)
class Context:
    """One setting of a benchmark on one model."""

    data_dir: Path
    """The benchmark's own data folder, or file."""
    options: Any
    """The benchmark's settings."""
    quirks: Quirks
    formatter: Formatter | None = None
    """Writes conversations as text; None asks in plain text."""
    tokenizer: Tokenizer | None = None
    """The model's; None where the other side tokenizes."""
    endpoint: bool = False
    """Whether a chat endpoint answers, which wraps questions itself."""
    add_bos: AddBos = "auto"
    max_length: int | None = None
    """Tokens of the model's longest sequence; None where that is unknown."""
    seed: int = 0
    allow_code: bool = False
    """Whether programs that a model wrote may be run, in a sandbox."""
    allow_unsafe: bool = False
    """Whether they may be run where the kernel gives no sandbox."""
    extras: dict[str, Any] = dataclasses.field(default_factory=dict)
    """What a benchmark needs besides, such as a judge; by name."""

    @property
    def chat(self) -> bool:
        """Whether questions are asked in chat format."""
        return self.formatter is not None

    def paper(self, quirk: str) -> bool:
        """Whether the reference's behaviour is in force."""
        return self.quirks.paper(quirk)

    def text(self, question: str, cue: str = "", *, plain: str = "") -> str:
        r"""What is asked: the question as a user's message, with the beginning of the answer.

        Args:
          question: the user's message.
          cue: how the assistant begins; a space comes before it unless the format ends in
            whitespace.
          plain: what follows the question where there is no chat format.

        >>> from eval.templates import create_prompt_with_tulu_chat_format as tulu
        >>> chat = Context(Path("."), None, Quirks((), "fixed"), formatter=tulu)
        >>> chat.text("Question: 2+2?", "Answer:", plain="\nAnswer:")
        '<|user|>\nQuestion: 2+2?\n<|assistant|>\nAnswer:'
        >>> dataclasses.replace(chat, formatter=None).text("Q: 2+2?", "A:", plain="\nA:")
        'Q: 2+2?\nA:'
        """
        if self.formatter is None:
            return question + plain
        wrapped = self.conversation([{"role": "user", "content": question}])
        if not cue or wrapped[-1:] in ("\n", " "):
            return wrapped + cue
        return f"{wrapped} {cue}"

    def conversation(self, messages: Sequence[Mapping[str, Any]]) -> str:
        """Messages up to where the assistant answers next; in plain text, a line each."""
        if self.formatter is None:
            return "\n".join([*(message["content"] for message in messages), ""])
        return self.formatter(messages, add_bos=False)

    def prompts(self, texts: Sequence[str]) -> list[Prompt]:
        """The texts with their tokens, BOS in front."""
        if self.tokenizer is None:
            return [Prompt(text) for text in texts]
        start = tuple(self.start_ids())
        return [
            Prompt(text, (*start, *ids))
            for text, ids in zip(texts, self.encode(texts), strict=True)
        ]

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """The tokens of texts, without BOS."""
        assert self.tokenizer is not None
        if not self.paper("special_text"):
            return self.tokenizer.encode_texts(texts)
        special = tuple(self.tokenizer.special_strings)
        plain = [text for text in texts if not any(string in text for string in special)]
        found = dict(zip(plain, self.tokenizer.encode_texts(plain), strict=True))
        return [found[text] if text in found else self._with_special(text) for text in texts]

    def _with_special(self, text: str) -> list[int]:
        """The tokens of a text that holds special ones, as transformers' slow tokenizers read it.

        What follows a special token is a new text to them where `legacy` is set, and else goes on.
        """
        assert self.tokenizer is not None
        special = self.tokenizer.special_strings
        first, *rest = re.split(f"({'|'.join(map(re.escape, special))})", text)
        after = self.tokenizer.encode_texts if self.legacy else self.tokenizer.encode_after_newline
        tokens = self.tokenizer.encode_text(first) if first else []
        for name, part in zip(rest[::2], rest[1::2], strict=True):
            tokens += [special[name], *(after([part])[0] if part else [])]
        return list(map(int, tokens))

    @property
    def legacy(self) -> bool:
        """Whether transformers' slow tokenizer begins anew after a special token.

        That is what its setting of this name says, and where it is missing.
        """
        assert self.tokenizer is not None
        config = json_or_none(self.tokenizer.path.with_name("tokenizer_config.json"))
        return (config or {}).get("legacy", True) is not False

    def cut(self, text: str, most: int, *, bos: bool) -> tuple[str, int]:
        """The text's first tokens as text, and how many tokens went; all of it where it is short.

        With `bos` BOS counts, and is written in front as transformers writes it.
        """
        assert self.tokenizer is not None
        start = self.start_ids() if bos else []
        ids = [*start, *self.encode([text])[0]]
        if len(ids) <= most:
            return text, 0
        kept = self.tokenizer.decode(ids[len(start) : most], after=bos and not self.legacy)
        return "".join(map(self.tokenizer.piece, start)) + kept, len(ids) - most

    def start_ids(self) -> list[int]:
        """The tokens before every prompt: BOS, or nothing.

        Raises:
          ConfigError: BOS is asked for, and the tokenizer has none.
        """
        assert self.tokenizer is not None
        if self.add_bos == "auto":
            return self.tokenizer.start_ids
        if self.add_bos == "false":
            return []
        if self.tokenizer.bos_id is None:
            raise ConfigError(
                "tokenizer has no BOS", at=self.tokenizer.path, do="leave out --add_bos true"
            )
        return [self.tokenizer.bos_id]

    def stops(self, *strings: str, in_chat: bool = False) -> dict[str, Any]:
        """Stop strings of the base model as fields of `Generate`, as the quirks have them.

        A chat endpoint gets none, of the reference neither: its answers are a chat model's.

        Args:
          strings: the stops.
          in_chat: whether they end an answer in chat format too, whatever the quirk.
        """
        left_out = self.chat and not in_chat and not self.paper("chat_stops")
        if self.endpoint or left_out or not strings:
            return {}
        if self.tokenizer is None or not self.paper("stop_by_tokens"):
            return {"stops": strings}
        return {"stop_tokens": tuple(tuple(self.stop_ids(string)) for string in strings)}

    def stop_ids(self, string: str) -> list[int]:
        """The tokens that the reference takes for a stop string.

        Of a new line that is the last token of its encoding (a tokenizer may put one for a space
        before it); of the stops of Codex-Eval all but the first, encoded after a space.
        Source: allenai/open-instruct:eval/{gsm,codex_humaneval}/run_eval.py@662c2ad49.
        """
        assert self.tokenizer is not None
        if string == "\n":
            return self.tokenizer.encode_text(string)[-1:]
        return self.tokenizer.encode_text(" " + string)[1:]
