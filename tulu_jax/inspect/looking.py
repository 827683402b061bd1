"""Conversations to look at: read from raw files or stores, filtered, sampled, packed into rows."""

from __future__ import annotations

import hashlib
import heapq
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, Literal

import numpy as np

from tulu_jax.axes import Mask, TokenIds
from tulu_jax.chat import TEMPLATES, ChatTemplate, Encoded, Messages, Tokenizer, encode_many
from tulu_jax.data.parts import count_answers, why_dropped
from tulu_jax.data.rows import choose_examples
from tulu_jax.data.specs import Conversation
from tulu_jax.data.store import Store
from tulu_jax.errors import ConfigError

CHUNK = 64
"""Conversations encoded at a time: few, so that the first is seen at once."""

ROLE_LETTERS = {"system": "s", "user": "u", "assistant": "a"}
_ROLE_WORD = re.compile("|".join(ROLE_LETTERS))


@dataclass(frozen=True, eq=False)
class ExampleView:
    """One conversation as it is looked at.

    `roles` has a letter a message (s, u, a). `truncated` says that it was cut at max_length,
    `dropped` why it is not trained on at all, if it is not. `answers` counts them
    (`parts.count_answers`), where that is known.
    """

    task: str
    id: str
    tokens: TokenIds
    loss_mask: Mask
    roles: str
    truncated: bool = False
    dropped: str | None = None
    answers: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class TaskView:
    """One task, whole: lengths and loss tokens of the examples that are trained on, and those.

    `example(i)` is the i-th; `dropped` holds what is left out. `counts` has `read`, `truncated`,
    `dropped`, `left_out` and `excluded` by reason, `answers`, and `skipped` bad records. `expected`
    is the upstream count, if known.
    """

    name: str
    ids: Sequence[str]
    lengths: np.ndarray
    loss_tokens: np.ndarray
    example: Callable[[int], ExampleView]
    counts: dict[str, Any]
    dropped: Sequence[ExampleView] = ()
    expected: int | None = None

    def __len__(self) -> int:
        """How many examples are trained on."""
        return len(self.lengths)

    def capped(self, count: int, *, seed: int) -> TaskView:
        """The same task with at most `count` examples, those that training chooses."""
        chosen = choose_examples(self.ids, np.arange(len(self)), count, seed=seed)
        return self._only(chosen)

    def without(self, reasons: Mapping[str, str]) -> TaskView:
        """The same task without the examples of these ids; `counts` has `excluded` by reason."""
        found = [reasons.get(name) for name in self.ids]
        counts = Counter(reason for reason in found if reason is not None)
        kept = np.flatnonzero(np.array([reason is None for reason in found], dtype=bool))
        return replace(self._only(kept), counts={**self.counts, "excluded": dict(counts)})

    def _only(self, chosen: np.ndarray) -> TaskView:
        numbers = chosen.tolist()
        return replace(
            self,
            ids=[self.ids[i] for i in numbers],
            lengths=self.lengths[chosen],
            loss_tokens=self.loss_tokens[chosen],
            example=lambda i: self.example(numbers[i]),
        )


@dataclass(frozen=True, kw_only=True)
class Filters:
    """Which conversations are shown; what is not given lets all pass.

    `min_tokens` and `max_tokens` are inclusive. `roles` is a pattern such as "user assistant" or
    "s?(ua)+" that all of a conversation's roles must match. `search` is text, small and capital
    letters alike, or a regular expression between slashes.
    """

    tasks: tuple[str, ...] = ()
    ids: tuple[str, ...] = ()
    min_tokens: int | None = None
    max_tokens: int | None = None
    roles: str | None = None
    search: str | None = None
    only: Literal["truncated", "dropped"] | None = None
    _roles: re.Pattern | None = field(init=False, repr=False)
    _search: re.Pattern | None = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Raises: ConfigError for a pattern that is none."""
        object.__setattr__(self, "_roles", role_pattern(self.roles))
        object.__setattr__(self, "_search", search_pattern(self.search))

    @property
    def given(self) -> bool:
        """Whether anything is filtered."""
        return self != Filters()

    def match(self, shown: ExampleView, tokenizer: Tokenizer) -> bool:
        """Whether this conversation is shown."""
        n = len(shown.tokens)
        if (self.tasks and shown.task not in self.tasks) or (self.ids and shown.id not in self.ids):
            return False
        if not (self.min_tokens or 0) <= n <= (n if self.max_tokens is None else self.max_tokens):
            return False
        if self.only == "truncated" and not shown.truncated:
            return False
        if self.only == "dropped" and not shown.dropped:
            return False
        if self._roles is not None and not self._roles.fullmatch(shown.roles):
            return False
        if self._search is None:
            return True
        return bool(self._search.search(tokenizer.decode(shown.tokens, skip_special=False)))

    def match_text(self, task: str, conversation: Conversation) -> bool:
        """`match` of a conversation that is not encoded, by all that is not about tokens."""
        if (self.tasks and task not in self.tasks) or (
            self.ids and conversation["id"] not in self.ids
        ):
            return False
        messages = conversation["messages"]
        if self._roles is not None and not self._roles.fullmatch(_letters(messages)):
            return False
        texts = [message["content"] for message in messages]
        return self._search is None or any(map(self._search.search, texts))


def role_pattern(roles: str | None) -> re.Pattern | None:
    """The pattern over role letters that these words or letters mean.

    >>> bool(role_pattern("system? (user assistant)+").fullmatch("uaua"))
    True

    Raises: ConfigError for what is no pattern of roles.
    """
    if roles is None:
        return None
    letters = _ROLE_WORD.sub(lambda word: ROLE_LETTERS[word.group()], roles)
    letters = re.sub(r"[\s,]", "", letters)
    try:
        if not re.fullmatch(r"[sua.()|*+?{}0-9,\[\]^]+", letters):
            raise re.error("only roles or their letters s, u, a and ()|*+?.{} are known")
        return re.compile(letters)
    except (re.error, OverflowError, RecursionError) as error:
        raise ConfigError(
            "not a pattern of roles",
            got=f"{roles!r} ({error})",
            expected='for instance "user assistant" or "s?(ua)+"',
        ) from error


def search_pattern(search: str | None) -> re.Pattern | None:
    """The pattern that finds this text, or this regular expression between slashes.

    >>> bool(search_pattern("c++").search("in C++"))
    True
    >>> bool(search_pattern("/^in c/").search("in C++"))
    True

    Raises: ConfigError for a regular expression that is none.
    """
    if not search:
        return None
    expression = re.escape(search)
    if len(search) > 2 and search[0] == search[-1] == "/":
        expression = search[1:-1]
    try:
        return re.compile(expression, re.IGNORECASE | re.MULTILINE)
    except (re.error, OverflowError, RecursionError) as error:
        raise ConfigError(
            "not a regular expression",
            got=f"{search!r} ({error})",
            do="leave the slashes out to search for the text itself",
        ) from error


def encode_views(
    task: str,
    conversations: Iterable[Conversation],
    tokenizer: Tokenizer,
    *,
    max_length: int | None,
) -> Iterator[ExampleView]:
    """Conversations as they are encoded, few at a time, also those that will not be trained on."""
    remaining = iter(conversations)
    while chunk := list(islice(remaining, CHUNK)):
        messages = [c["messages"] for c in chunk if c["messages"]]
        encoded = iter(encode_many(messages, tokenizer, max_length, threads=1))
        for conversation in chunk:
            yield _shown(task, conversation, next(encoded) if conversation["messages"] else None)


def _shown(task: str, conversation: Conversation, encoded: Encoded | None) -> ExampleView:
    """A conversation with its encoding; None where it has no message."""
    if encoded is None:
        nothing = np.zeros(0, np.int32)
        return ExampleView(task, conversation["id"], nothing, nothing > 0, "", dropped="no message")
    messages = conversation["messages"]
    return ExampleView(
        task,
        conversation["id"],
        encoded.tokens,
        encoded.loss_mask,
        _letters(messages),
        encoded.truncated,
        why_dropped(messages, encoded) if encoded.dropped else None,
        count_answers([messages]),
    )


def _letters(messages: Messages) -> str:
    return "".join(ROLE_LETTERS[message["role"]] for message in messages)


def view_of_examples(
    task: str,
    shown: Iterable[ExampleView],
    *,
    expected: int | None = None,
    skipped: int = 0,
    left_out: Mapping[str, int] | None = None,
    not_used: Mapping[str, Any] | None = None,
) -> TaskView:
    """The task whose conversations these are, held in memory.

    `skipped`, `left_out` and `not_used` (`unused` and `metadata`) are what `Faults` counted.
    """
    kept: list[ExampleView] = []
    dropped: list[ExampleView] = []
    reasons: dict[str, int] = {}
    answers: Counter[str] = Counter()
    for one in shown:
        answers.update(one.answers)
        (dropped if one.dropped else kept).append(one)
        if one.dropped:
            reasons[one.dropped] = reasons.get(one.dropped, 0) + 1
    counts = {
        "read": len(kept) + len(dropped),
        "truncated": sum(one.truncated for one in kept),
        "dropped": reasons,
        "answers": dict(answers),
        "skipped": skipped,
        "left_out": dict(left_out or {}),
        **(not_used or {}),
    }
    return TaskView(
        task,
        [one.id for one in kept],
        np.array([len(one.tokens) for one in kept], np.int32),
        np.array([int(one.loss_mask.sum()) for one in kept], np.int32),
        kept.__getitem__,
        counts,
        dropped,
        expected,
    )


def view_of_store(store: Store, tokenizer: Tokenizer) -> TaskView:
    """The task of a prepared store; one that is exactly as long as allowed counts as cut."""
    ids = store.ids
    limit = store.meta.get("max_length")

    def example(index: int) -> ExampleView:
        tokens, loss_mask = store[index]
        text = tokenizer.decode(tokens, skip_special=not tokenizer.template.tokens)
        roles = roles_of(text, tokenizer.template)
        return ExampleView(store.name, ids[index], tokens, loss_mask, roles, len(tokens) == limit)

    return TaskView(
        store.name,
        ids,
        store.lengths,
        store.loss_tokens,
        example,
        store.meta["counts"],
        expected=store.meta.get("expected_examples"),
    )


def roles_of(text: str, template: ChatTemplate = TEMPLATES["tulu"]) -> str:
    r"""The roles that the chat template's markers in a text name, a letter each.

    Text that looks like a marker counts: a store keeps tokens, and those do not tell.

    >>> roles_of("<|user|>\nHi\n<|assistant|>\nHello")
    'ua'
    """
    letters = [*template.marks.values()]
    found = re.finditer("|".join(f"({mark})" for mark in template.marks), text, re.M)
    return "".join(letters[(match.lastindex or 0) - 1] for match in found)


def sample(
    tasks: Sequence[TaskView],
    count: int,
    *,
    filters: Filters,
    tokenizer: Tokenizer,
    seed: int = 0,
) -> list[ExampleView]:
    """About `count` conversations, as equal shares of all tasks; the same ones every time.

    Up to a tenth of a task's share goes to conversations that are dropped or cut, so that they can
    be looked at too. Chosen are those whose seeded hash of task and id is smallest.
    """
    chosen: list[ExampleView] = []
    waiting = sorted(tasks, key=lambda task: len(task) + len(task.dropped))
    for place, task in enumerate(waiting):
        share = -(-(count - len(chosen)) // (len(waiting) - place))
        chosen += _sample_one(task, share, filters=filters, tokenizer=tokenizer, seed=seed)
    order = {task.name: number for number, task in enumerate(tasks)}
    return sorted(chosen, key=lambda one: order[one.task])


def _sample_one(
    task: TaskView, count: int, *, filters: Filters, tokenizer: Tokenizer, seed: int
) -> list[ExampleView]:
    def rank(name: str) -> bytes:
        return hashlib.sha256(f"{seed} {task.name} {name}".encode()).digest()

    def passing(examples: Iterable[ExampleView]) -> Iterator[ExampleView]:
        return (one for one in examples if not filters.given or filters.match(one, tokenizer))

    longest = int(task.lengths.max()) if len(task) else 0
    cut = np.flatnonzero(task.lengths == longest)[: task.counts["truncated"]]
    some = max(1, count // 10) if count else 0
    if filters.only == "dropped":
        some = count
    odd = heapq.nsmallest(some, passing(task.dropped), key=lambda one: rank(one.id))
    odd += list(islice(passing(map(task.example, cut.tolist())), some))[: max(0, some - len(odd))]
    seen = {one.id for one in odd}
    ranked = sorted(range(len(task)), key=lambda i: rank(task.ids[i]))
    usual = (task.example(i) for i in ranked if task.ids[i] not in seen)
    found = odd + list(islice(passing(usual), max(0, count - len(odd))))
    numbers = {name: number for number, name in enumerate(task.ids)}
    return sorted(found, key=lambda one: numbers.get(one.id, len(numbers)))
