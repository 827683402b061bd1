"""`tulu data prepare`: conversations to tokenized stores, with everything counted."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from itertools import chain, islice
from typing import Any, TypeVar

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tulu_jax import __version__
from tulu_jax.chat import Encoded, Tokenizer, check_bos, encode_many, load_tokenizer, preview
from tulu_jax.data.keys import PrepareOptions, StoreKey, mixture_specs, store_keys
from tulu_jax.data.specs import Conversation, DatasetSpec
from tulu_jax.data.store import Example, Store, open_store, write_store
from tulu_jax.errors import DataError, GuardError

CHUNK = 512
"""Conversations that go to an encoding process at a time."""

LOSS_SHARE_ALARM = (0.02, 0.98)
"""Outside this range of loss tokens per token something is probably wrong."""

Item = TypeVar("Item")
Reader = Callable[[DatasetSpec, str], Iterable[Conversation]]


def prepare(
    mixture: str, options: PrepareOptions, *, reader: Reader, rebuild: bool = False
) -> list[Store]:
    """The stores of every split of every task of the mixture; those that exist are kept.

    `reader(spec, split)` yields the split's conversations.

    Raises: DataError for bad input or an output folder that cannot be written; GuardError when a
        dataset would train on nothing or on everything.
    """
    tokenizer = options.load_tokenizer()
    stores = []
    for spec in mixture_specs(mixture):
        for key in store_keys(spec, options, tokenizer=tokenizer).values():
            store = None if rebuild else find_store(key, options)
            if store is None:
                store = prepare_split(
                    spec,
                    key,
                    options=options,
                    tokenizer=tokenizer,
                    conversations=reader(spec, key.split),
                )
            stores.append(store)
    return stores


def find_store(key: StoreKey, options: PrepareOptions) -> Store | None:
    """The store of this key, or None when there is none that is whole."""
    try:
        return open_store(key.folder(options.data_dir))
    except DataError:
        return None


def prepare_split(
    spec: DatasetSpec,
    key: StoreKey,
    *,
    options: PrepareOptions,
    tokenizer: Tokenizer,
    conversations: Iterable[Conversation],
) -> Store:
    """The store of one split, made from its conversations under a progress bar."""
    meta = _meta(spec, key, options, tokenizer)
    guard = LossGuard(key, tokenizer)
    with _progress() as progress:
        expected = spec.expected_examples.get(key.split)
        bar = progress.add_task(f"{key.task} {key.split}", total=expected)

        def examples() -> Iterator[Example]:
            encoded = _encode_all(conversations, options, tokenizer)
            for number, (conversation, result) in enumerate(encoded):
                progress.update(bar, completed=number + 1)
                meta["counts"]["read"] += 1
                example = _keep(conversation, result, meta["counts"], tokenizer)
                if example is not None:
                    guard.see(result)
                    yield example
            progress.update(bar, total=meta["counts"]["read"])
            guard.check(meta["counts"])

        return write_store(key.folder(options.data_dir), examples(), meta=meta)


class LossGuard:
    """Refuses a dataset of which no token, or every token, would be trained."""

    def __init__(self, key: StoreKey, tokenizer: Tokenizer) -> None:
        """A guard that has seen nothing yet."""
        self.place = f"{key.task} {key.split}"
        self.tokenizer = tokenizer
        self.tokens = 0
        self.loss_tokens = 0
        self.first: Encoded | None = None

    def see(self, encoded: Encoded) -> None:
        """Counts one example."""
        self.first = self.first or encoded
        self.tokens += len(encoded.tokens)
        self.loss_tokens += encoded.loss_tokens

    def check(self, counts: dict[str, Any]) -> None:
        """Raises: DataError for a dataset without rows; GuardError for a share of 0 or 100 %."""
        if not counts["read"]:
            raise DataError("dataset holds no conversation", at=self.place)
        if self.first is None:
            raise GuardError(
                "no token of the dataset carries loss",
                got=f"{counts['read']} conversations, all dropped: {counts['dropped']}",
                at=self.place,
                expected="answers of the assistant within max_length",
                do="look at it with `tulu data inspect`, or raise max_length",
            )
        if self.loss_tokens == self.tokens:
            shown = preview(self.first.tokens, self.first.loss_mask, self.tokenizer)
            raise GuardError(
                "every token of the dataset carries loss",
                got=f"loss share 100 %, first row: {shown}",
                at=self.place,
                expected="prompts without loss",
                do="check the roles of its messages",
            )


def loss_share_alarm(share: float) -> bool:
    """Whether a dataset's share of loss tokens is outside what real data has (2 % to 98 %)."""
    return not LOSS_SHARE_ALARM[0] <= share <= LOSS_SHARE_ALARM[1]


def _keep(
    conversation: Conversation, result: Encoded, counts: dict[str, Any], tokenizer: Tokenizer
) -> Example | None:
    """The example to store, or None, counted with the reason, when nothing of it is trained."""
    if result.dropped:
        reason = "prompt fills max_length" if result.truncated else "empty answer"
        counts["dropped"][reason] = counts["dropped"].get(reason, 0) + 1
        return None
    check_bos(result.tokens, tokenizer, at=conversation["id"])
    counts["truncated"] += result.truncated
    return Example(conversation["id"], result.tokens, result.loss_mask)


def _encode_all(
    conversations: Iterable[Conversation], options: PrepareOptions, tokenizer: Tokenizer
) -> Iterator[tuple[Conversation, Encoded]]:
    """Every conversation with its encoding, in order."""
    chunks = _batched(_checked(conversations), CHUNK)
    if options.num_processes == 1:
        pairs = (
            zip(chunk, _encode_chunk(chunk, tokenizer, options.max_length), strict=True)
            for chunk in chunks
        )
        yield from chain.from_iterable(pairs)
        return
    arguments = (options.tokenizer, options.encoding, options.max_length)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.num_processes, context, _start_worker, arguments) as pool:
        for wave in _batched(chunks, 4 * options.num_processes):
            for chunk, results in zip(wave, pool.map(_work, wave), strict=True):
                yield from zip(chunk, results, strict=True)


def _batched(items: Iterable[Item], size: int) -> Iterator[tuple[Item, ...]]:
    iterator = iter(items)
    while batch := tuple(islice(iterator, size)):
        yield batch


def _checked(conversations: Iterable[Conversation]) -> Iterator[Conversation]:
    seen: set[str] = set()
    for conversation in conversations:
        if conversation["id"] in seen:
            raise DataError("two conversations have one id", got=repr(conversation["id"]))
        seen.add(conversation["id"])
        yield conversation


def _encode_chunk(
    chunk: Iterable[Conversation], tokenizer: Tokenizer, max_length: int
) -> list[Encoded]:
    chunk = list(chunk)
    messages = [conversation["messages"] for conversation in chunk]
    try:
        return encode_many(messages, tokenizer, max_length=max_length, threads=1)
    except DataError:
        for conversation, one in zip(chunk, messages, strict=True):  # say which one it was
            encode_many([one], tokenizer, threads=1, at=conversation["id"])
        raise


_WORKER: dict[str, Any] = {}


def _start_worker(path: str, encoding: str, max_length: int) -> None:
    _WORKER["tokenizer"] = load_tokenizer(path, encoding)
    _WORKER["max_length"] = max_length


def _work(chunk: tuple[Conversation, ...]) -> list[Encoded]:
    return _encode_chunk(chunk, _WORKER["tokenizer"], _WORKER["max_length"])


def _meta(
    spec: DatasetSpec, key: StoreKey, options: PrepareOptions, tokenizer: Tokenizer
) -> dict[str, Any]:
    return {
        **asdict(key),
        "key": key.digest,
        "dataset": spec.name,
        "licence": spec.licence,
        "tokenizer_path": str(options.tokenizer),
        "vocab_size": tokenizer.vocab_size,
        "code_version": __version__,
        "expected_examples": spec.expected_examples.get(key.split),
        "counts": {"read": 0, "truncated": 0, "dropped": {}},
    }


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
