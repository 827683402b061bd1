"""`tulu data prepare`: conversations to tokenized stores, with everything counted.

A split's conversations are encoded in parts, by several processes, into a hidden folder beside
the store; then the parts are joined. A prepare that was killed goes on after its last whole part,
and the store it makes is, byte for byte, that of one that was not.
"""

from __future__ import annotations

import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import asdict, dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from tulu_jax import __version__
from tulu_jax.chat import Tokenizer, preview
from tulu_jax.data.board import Board
from tulu_jax.data.faults import Faults, kinds_text
from tulu_jax.data.keys import PrepareOptions, StoreKey, store_keys
from tulu_jax.data.locks import locked, locked_if_free
from tulu_jax.data.parts import (
    NOT_TO_BE_TRAINED,
    TOO_LONG,
    Job,
    Part,
    check_ids,
    jobs_of_conversations,
    jobs_of_files,
    load_part,
    make_part,
)
from tulu_jax.data.specs import Conversation, DatasetSpec
from tulu_jax.data.staging import Staged, quiet_tensorflow, stage
from tulu_jax.data.store import Store, open_store, write_blocks
from tulu_jax.data.store_format import Block, decode_records, record_ends, token_dtype, unwritable
from tulu_jax.data.workers import Context, Workers, result_of
from tulu_jax.errors import DataError, GuardError, TuluError

LOSS_SHARE_ALARM = (0.02, 0.98)
"""Outside this range of loss tokens per token something is probably wrong."""

Reader = Callable[[DatasetSpec, str], Iterable[Conversation]]


@dataclass(frozen=True, eq=False)
class Prepared:
    """A store; whether it was made now, and of how many parts, some of them found made before."""

    store: Store
    made: bool
    parts: int = 0
    parts_found: int = 0


def prepare(
    mixture: str,
    options: PrepareOptions,
    *,
    reader: Reader | None = None,
    rebuild: bool = False,
    verify: bool = False,
) -> list[Store]:
    """The stores of every split of every task of the mixture; those that exist are kept.

    `reader(spec, split)` yields the split's conversations; without it they come from the dataset
    itself, by way of its TFDS builder unless it is embedded. `rebuild` makes stores that exist
    again; `verify` compares the checksums of those that are kept, whole files.

    Raises: DataError for bad input or an output folder that cannot be written; GuardError when a
        dataset would train on nothing or on everything.
    """
    every = prepare_each(mixture, options, reader=reader, rebuild=rebuild, verify=verify)
    return [prepared.store for prepared in every]


def prepare_each(
    mixture: str,
    options: PrepareOptions,
    *,
    reader: Reader | None = None,
    rebuild: bool = False,
    verify: bool = False,
) -> list[Prepared]:
    """As `prepare`, saying which stores were made."""
    tokenizer = options.load_tokenizer()
    splits = [
        (spec, key)
        for spec in options.specs(mixture)
        for key in store_keys(spec, options, tokenizer=tokenizer).values()
    ]

    def found(key: StoreKey) -> Prepared | None:
        store = None if rebuild else find_store(key, options, verify=verify)
        if store is not None:
            _remove_parts_left(store)
        return None if store is None else Prepared(store, made=False)

    done = {key.digest: found(key) for _, key in splits}
    missing = [spec for spec, key in splits if done[key.digest] is None]
    if missing:
        missing = list({spec.task_name: spec for spec in missing}.values())
        folders = [Path(options.data_dir) / spec.task_name for spec in missing]
        with locked(folders), Workers(options, tokenizer, len(missing)) as workers:
            maker = _Maker(options, tokenizer, workers, missing, reader)
            with maker.board:
                for spec, key in splits:  # another process may have made some meanwhile
                    if done[key.digest] is None:
                        done[key.digest] = found(key) or maker.make(spec, key)
    return [prepared for _, key in splits if (prepared := done[key.digest])]


def find_store(key: StoreKey, options: PrepareOptions, *, verify: bool = False) -> Store | None:
    """The store of this key, or None when there is none that is whole."""
    try:
        return open_store(key.folder(options.data_dir), verify=verify or None)
    except DataError:
        return None


def parts_folder(store: Path) -> Path:
    """Where the parts of a store lie while it is made."""
    return store.with_name(f".{store.name}.parts")


def _remove_parts_left(store: Store) -> None:
    """Deletes the parts of a whole store: who made it was killed before it could."""
    folder = parts_folder(store.path)
    if folder.exists():
        with locked_if_free(store.path.parent) as held:
            if held:  # nobody is making it anew
                shutil.rmtree(folder, ignore_errors=True)


@dataclass(eq=False)
class _Maker:
    """Makes stores with one pool of processes and one progress display."""

    options: PrepareOptions
    tokenizer: Tokenizer
    workers: Workers
    datasets: list[DatasetSpec]
    reader: Reader | None
    staged: dict[str, Future[Staged]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.board = Board(self.workers.context.progress)

    def make(self, spec: DatasetSpec, key: StoreKey) -> Prepared:
        """The store of one split."""
        path = key.folder(self.options.data_dir)
        folder = parts_folder(path)
        faults = Faults(strict=self.options.strict)
        meta = _meta(spec, key, self.options, self.tokenizer)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            jobs, on_beam = self._on_beam(self._jobs(spec, key, faults), folder)
            parts = _Parts(self.workers, folder, jobs)
            bar = self.board.add_split(spec, key.split)
            blocks = self._blocks(parts, key, meta=meta, faults=faults, bar=bar, own=spec.own)
            store = write_blocks(path, blocks, meta=meta)
        except TuluError as error:
            if not isinstance(error.__cause__, OSError):  # the parts would be as wrong next time
                shutil.rmtree(folder, ignore_errors=True)
            raise
        except OSError as error:
            raise unwritable(path, error) from error
        shutil.rmtree(folder, ignore_errors=True)
        return Prepared(store, True, parts.count, parts.found - on_beam)

    def _jobs(self, spec: DatasetSpec, key: StoreKey, faults: Faults) -> Iterator[Job]:
        """The split's jobs; `faults` is filled by the time the last one is given."""
        if self.reader is not None:
            return jobs_of_conversations(self.reader(spec, key.split))
        if spec.embedded:
            options = {"split_name": key.split, "faults": faults, **spec.options}
            if spec.needs_tokenizer:
                options["tokenizer"] = self.tokenizer
            return jobs_of_conversations(spec.read(None, **options))
        staged = self._stage(spec)
        for name, value in staged.faults.get(key.split, {}).items():
            setattr(faults, name, value)
        return jobs_of_files(staged.files[key.split])

    def _on_beam(self, jobs: Iterator[Job], folder: Path) -> tuple[Iterator[Job], int]:
        """The jobs, their parts made on Beam if that is wished, and how many were made there."""
        if self.options.beam_runner is None:
            return jobs, 0
        with quiet_tensorflow():
            from tulu_jax.data.seqio_glue.beam import make_parts_on_beam

            every = list(jobs)
            return iter(every), make_parts_on_beam(every, folder, self.options)

    def _stage(self, spec: DatasetSpec) -> Staged:
        """The dataset's files; the first call has all datasets' files written."""
        for number, one in enumerate(self.datasets):
            if one.task_name not in self.staged and not one.embedded:
                self.board.add_reading(one, number)
                self.staged[one.task_name] = self.workers.submit(stage, number, one)
        return result_of(self.staged[spec.task_name])

    def _blocks(
        self,
        parts: _Parts,
        key: StoreKey,
        *,
        meta: dict[str, Any],
        faults: Faults,
        bar: Any,
        own: bool,
    ) -> Iterator[Block]:
        """The parts' blocks, in order, and after the last the checks of the whole split."""
        guard = LossGuard(key, self.tokenizer)
        counts = meta["counts"]
        hashes: list[np.ndarray] = []
        for part in parts:
            _add_counts(counts, part.counts)
            hashes.append(part.id_hashes)
            guard.see(part.block)
            self.board.show(bar, counts["read"])
            yield part.block
        self.board.finish(bar, counts["read"])
        counts.update(faults.as_json())
        del counts["records"]
        faults.check(guard.place, own=own)
        check_ids(hashes, parts.ids, guard.place)
        guard.check(counts)


class _Parts:
    """A split's parts, in order, made as they are asked for and a little ahead.

    `count` is how many there were so far, `found` how many of them lay in the folder already.
    """

    def __init__(self, workers: Workers, folder: Path, jobs: Iterator[Job]) -> None:
        self._workers = workers
        self._folder = folder
        self._jobs = jobs
        self._sources: list[str] = []
        self.found = 0

    @property
    def count(self) -> int:
        return len(self._sources)

    def __iter__(self) -> Iterator[Part]:
        first = list(islice(self._jobs, 2))
        start = self._workers.submit if len(first) > 1 else self._workers.run
        waiting: deque[tuple[Job, Future[Any] | None]] = deque()
        for job in chain(first, self._jobs):
            there = job.path(self._folder).exists()
            waiting.append((job, None if there else start(self._make, *self._arguments(job))))
            if len(waiting) > 2 * self._workers.num_processes:
                yield self._finish(*waiting.popleft())
        while waiting:
            yield self._finish(*waiting.popleft())

    def ids(self, number: int) -> list[str]:
        """The ids of all conversations of part `number`."""
        path = Job(number, "", ()).path(self._folder)
        part = load_part(path, self._sources[number])
        return part.ids if part else []

    def _finish(self, job: Job, made: Future[Any] | None) -> Part:
        path = job.path(self._folder)
        part = load_part(path, job.source) if made is None else None
        if part is not None:
            self.found += 1
        else:  # not made yet, or what lay there is broken or of other conversations
            result_of(made or self._workers.submit(self._make, *self._arguments(job)))
            part = load_part(path, job.source)
        if part is None:
            raise DataError("a part vanished while the store was made", at=path)
        self._sources.append(job.source)
        return part

    def _arguments(self, job: Job) -> tuple[Job, Path]:
        return job, self._folder

    @staticmethod
    def _make(context: Context, job: Job, folder: Path) -> None:
        length = context.options.max_length
        make_part(job, folder, tokenizer=context.tokenizer, max_length=length)


class LossGuard:
    """Refuses a dataset of which no token, or every token, would be trained."""

    def __init__(self, key: StoreKey, tokenizer: Tokenizer) -> None:
        """A guard that has seen nothing yet."""
        self.place = f"{key.task} {key.split}"
        self.tokenizer = tokenizer
        self.tokens = 0
        self.loss_tokens = 0
        self.first: tuple[np.ndarray, np.ndarray] | None = None

    def see(self, block: Block) -> None:
        """Counts the examples of a block."""
        if self.first is None and len(block.lengths):
            dtype = token_dtype(self.tokenizer.vocab_size)
            one = block.lengths[:1]
            words = block.records[: record_ends(one, dtype)[0]].tobytes()
            got = decode_records(np.frombuffer(words, dtype), one)
            self.first = got.tokens, got.loss_mask
        self.tokens += int(block.lengths.sum())
        self.loss_tokens += int(block.loss_tokens.sum())

    def check(self, counts: dict[str, Any]) -> None:
        """Raises: DataError for a dataset without rows; GuardError for a share of 0 or 100 %."""
        if not counts["read"]:
            raise DataError("dataset holds no conversation", at=self.place)
        if self.first is None:
            raise GuardError(
                "no token of the dataset carries loss",
                got=f"{counts['read']} conversations, all dropped: {kinds_text(counts['dropped'])}",
                at=self.place,
                expected="answers of the assistant within max_length",
                do=_mend_dropped(counts["dropped"]),
            )
        answers = counts["answers"]
        if answers.get("empty") and answers["empty"] == answers["trained"]:
            raise GuardError(
                "every answer of the dataset is empty",
                got=f"{answers['empty']:,} empty or blank answers",
                at=self.place,
                expected="text to train on",
                do="look at it with `tulu data inspect`: the answers may be in another field",
            )
        if self.loss_tokens == self.tokens:
            raise GuardError(
                "every token of the dataset carries loss",
                got=f"loss share 100 %, first row: {preview(*self.first, self.tokenizer)}",
                at=self.place,
                expected="prompts without loss",
                do="check the roles of its messages",
            )


def _mend_dropped(reasons: Mapping[str, int]) -> str:
    """What to do about conversations that were all dropped, for these reasons."""
    todo = ["look at it with `tulu data inspect`"]
    if TOO_LONG in reasons:
        todo.append("raise max_length")
    if NOT_TO_BE_TRAINED in reasons:
        todo.append("take the flags (weight, train) from some answers")
    return ", or ".join(todo)


def loss_share_alarm(share: float) -> bool:
    """Whether a dataset's share of loss tokens is outside what real data has (2 % to 98 %)."""
    return not LOSS_SHARE_ALARM[0] <= share <= LOSS_SHARE_ALARM[1]


def _add_counts(total: dict[str, Any], more: dict[str, Any]) -> None:
    for name in ("read", "truncated"):
        total[name] += more[name]
    for name in ("dropped", "answers"):
        for reason, count in more.get(name, {}).items():
            total[name][reason] = total[name].get(reason, 0) + count


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
        "counts": {"read": 0, "truncated": 0, "dropped": {}, "answers": {}},
    }
