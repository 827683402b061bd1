"""Judges of `tulu eval`: a model folder, a file of answers, or a model of an endpoint."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from tulu_jax.cli.eval_flags import SLOTS
from tulu_jax.cli.eval_models import Answerer, FolderModel, open_answerer

if TYPE_CHECKING:
    from eval.harness.asks import Answer, Ask


class Judges:
    """What asks judges by their names. One is opened when it is first asked, and stays."""

    def __init__(
        self, args: argparse.Namespace, cache: Any, say: Callable[[str], None] = lambda _: None
    ) -> None:
        """Opens none yet.

        Args:
          args: the flags of the run.
          cache: where judges' answers are kept.
          say: shows a line to the user.
        """
        self._args, self._cache, self.say = args, cache, say
        self._answerers: dict[tuple[Any, ...], Answerer] = {}
        self._yes: dict[str, Any] = {}

    def __call__(self, name: str, prompts: list[str]) -> list[float | None]:
        """How likely " yes" is after each prompt; None where the judge said something else.

        The name is a folder's, a file's of answers, or else that of a model of the run's endpoint.
        """
        if name not in self._yes:
            self._yes[name] = self._open_yes(name)
        return self._yes[name](prompts)

    def _open_yes(self, name: str) -> Any:
        from eval.harness.context import Context
        from eval.harness.quirks import SHARED, Quirks
        from eval.judge.likely import YesJudge
        from tulu_jax.files import user_path

        path = user_path(name)
        kind = "model" if path.is_dir() else "replay" if path.is_file() else "engine"
        answerer = self._answerer(kind, name, base_url=self._args.base_url)
        context = Context(path, None, Quirks(SHARED, "fixed"), tokenizer=answerer.tokenizer)
        yes = context.prompts(["True: yes"])[0].ids
        backend = answerer.backend(answerer.max_length or 1, self._args.batch_size or SLOTS)
        return YesJudge(backend, self._cache, context.prompts, yes[-1] if yes else None)

    def answers(
        self,
        kind: str,
        name: str,
        messages: Sequence[tuple[str, str]],
        *,
        max_new_tokens: int,
        words: Sequence[str] = (),
        base_url: str | None = None,
        concurrency: int | None = None,
        requests_per_minute: int | None = None,
        meter: Callable[[Any], Any] = lambda backend: backend,
    ) -> list[Answer]:
        """A judge's answers to messages of system and user, in order; refusals are kept too.

        Args:
          kind: `model`, a folder, or `engine`, a model that an endpoint chats with.
          name: the judge's.
          messages: each a text of the system and one of the user.
          max_new_tokens: of an answer.
          words: where given, how likely each is as the answer is asked.
          base_url: its endpoint; None is what the environment says, or OpenAI's own.
          concurrency: requests at once, where not as many as the run's.
          requests_per_minute: likewise a minute.
          meter: what looks at all that is asked and answered.
        """
        from eval.harness.asks import Answer
        from eval.harness.cache import ask_kept
        from eval.judge.pairs import TOO_LONG

        answerer = self._answerer(
            kind, name, base_url=base_url, api="chat",
            concurrency=concurrency or self._args.concurrency,
            requests_per_minute=requests_per_minute or self._args.requests_per_minute,
        )  # fmt: skip
        asks = [_ask(answerer, one, max_new_tokens, words) for one in messages]
        room = answerer.max_length
        sizes = [len(ask.prompt.ids or ()) for ask in asks]
        fitting = [
            ask for ask, size in zip(asks, sizes, strict=True) if room is None or size < room
        ]
        longest = max((len(ask.prompt.ids or ()) for ask in fitting), default=1)
        found = []
        if fitting:
            backend = meter(answerer.backend(longest + max_new_tokens + 1, len(fitting)))
            found = ask_kept(fitting, backend, self._cache, keep_refusals=True)
        left = iter(found)
        return [
            next(left) if room is None or size < room else Answer(error=TOO_LONG) for size in sizes
        ]

    def _answerer(self, kind: str, name: str, **others: Any) -> Answerer:
        from tulu_jax.files import user_path

        key = kind, name, *others.values()
        if key not in self._answerers:
            given: dict[str, Any] = dict.fromkeys(("model", "engine", "replay", "tokenizer"))
            given |= {kind: name if kind == "engine" else user_path(name), **others}
            own = {**vars(self._args), **given, "step": None, "base": None}
            self._answerers[key] = open_answerer(argparse.Namespace(**own))
        return self._answerers[key]


def _ask(
    answerer: Answerer, messages: tuple[str, str], max_new_tokens: int, words: Sequence[str]
) -> Ask:
    """What a judge is asked, with tokens where it is a model of ours: in its own chat template."""
    from eval.harness.asks import Choose, Generate, Prompt

    system, user = messages
    prompt, choices = Prompt(user, system=system), ()
    if isinstance(answerer, FolderModel):
        from tulu_jax.chat import Message, encode_prompt

        turns: list[Message] = [
            {"role": "system", "content": system},
            {"role": "user", "content": user},
        ]
        ids = encode_prompt(turns, answerer.own_tokenizer)
        prompt = Prompt(user, tuple(ids.tolist()), system)
        choices = tuple(answerer.own_tokenizer.encode_text(word)[-1] for word in words)
    if words:
        return Choose(prompt, choices, tuple(words))
    return Generate(prompt, max_new_tokens)
