"""`tulu data prepare`: raw files to tokenized stores, with everything counted.

    raw files -> conversations    by the dataset's reader (`DatasetSpec.read`), in this process
    conversations -> parts        512 at a time, encoded by several processes or on Beam
    parts -> store                joined in order, by this process

A dataset's TFDS builder and its SeqIO task are made from the same reader and write files of their
own, for programs that ask for them; preparing asks for none and needs no TensorFlow. Parts are the
only files in between: they lie in a hidden folder beside the store until that is whole. A prepare
that was killed reads the raw files again (which takes a fifth of the time that one core takes to
encode them) and goes on after its last whole part, and the store it makes is, byte for byte, that
of one that was not. Parts are not the store's own files: a store is of one piece, in which any
example is found by its number, and ArrayRecord files cannot be joined as they are.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn

from tulu_jax import __version__
from tulu_jax.chat import Tokenizer
from tulu_jax.console import plain_console, task_name
from tulu_jax.data.beam import parts_on_beam
from tulu_jax.data.far import fetch_store, publish_store
from tulu_jax.data.faults import Faults, kinds_text, unused_lines
from tulu_jax.data.keys import PrepareOptions, StoreKey, store_keys
from tulu_jax.data.locks import locked, locked_if_free
from tulu_jax.data.parts import Part, PartMaker, part_jobs
from tulu_jax.data.specs import Conversation, DatasetSpec, locate_raw_dir, obtain_raw_dir
from tulu_jax.data.store import Store, open_store, write_blocks
from tulu_jax.data.store_format import Block, unwritable
from tulu_jax.data.tally import Tally
from tulu_jax.errors import DataError, TuluError
from tulu_jax.places import check_writable
from tulu_jax.processes import Pool

Reader = Callable[[DatasetSpec, str], Iterable[Conversation]]


@dataclass(frozen=True, eq=False)
class Prepared:
    """A store; whether it was made now, and of how many parts, some of them found made before."""

    store: Store
    made: bool
    parts: int = 0
    parts_found: int = 0

    def lines(self) -> Iterator[str]:
        """What became of it, and what was skipped, left out or not used of its raw files."""
        what = "made" if self.made else "kept"
        if self.parts_found:
            what += f", going on after {self.parts_found} of {self.parts} parts"
        name = f"{self.store.name} {self.store.meta['split']}"
        yield f"{name}: {self.store.path} ({what})"
        counts = self.store.meta["counts"]
        if counts.get("skipped"):
            kinds = counts.get("kinds", {})
            which = f" ({kinds_text(kinds)})" if len(kinds) > 1 else ""
            yield f"{name}: {counts['skipped']:,} bad records skipped{which}, the first of them:"
            yield from (f"    {message}" for message in counts["messages"][:3])
        for reason, count in counts.get("left_out", {}).items():
            yield f"{name}: {count:,} left out, {reason}"
        for line in unused_lines(counts):
            yield f"{name}: {line}"


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
    itself. `rebuild` makes stores that exist again; `verify` compares the checksums of those that
    are kept, whole files.

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
    # ---- what is wanted, and what is there already: mostly everything --------------------------
    # A store's key holds all that its content depends on, so one that is found is the right one.
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

    done = [found(key) for _, key in splits]
    missing = {key.task for (_, key), one in zip(splits, done, strict=True) if one is None}

    # ---- what is missing, by one pool for all: its processes take seconds to load a tokenizer --
    if missing:
        if options.place is not None:  # not after hours of work
            check_writable(options.place)
        # All locks are taken at once, in one order: two programs then never wait for each other.
        folders = [Path(options.local_dir) / task for task in missing]
        making = (PartMaker, (tokenizer, options.max_length))
        pool = Pool(*making, num_processes=options.num_processes)
        with locked(folders), pool, _bars() as bars:
            maker = _StoreMaker(options, tokenizer, pool, bars, reader)
            # While this process waited for the locks, the one that held them made some stores
            done = [
                one or found(key) or maker.make(spec, key)
                for (spec, key), one in zip(splits, done, strict=True)
            ]
    found_or_made = [prepared for prepared in done if prepared]
    if options.place is not None:  # also what was made here before, by a process that was killed
        for (_, key), prepared in zip(splits, found_or_made, strict=True):
            publish_store(prepared.store, key.place(options.place))
    return found_or_made


def find_store(key: StoreKey, options: PrepareOptions, *, verify: bool = False) -> Store | None:
    """The store of this key, or None when there is none that is whole."""
    try:
        return store_at(key, options, verify=verify)
    except DataError:
        return None


def store_at(key: StoreKey, options: PrepareOptions, *, verify: bool = False) -> Store:
    """The store of this key, fetched first where it lies in a bucket.

    Raises: DataError when there is none that is whole; StorageError.
    """
    folder = key.folder(options.local_dir)
    if options.place is not None:
        fetch_store(key.place(options.place), folder)
    store = open_store(folder, verify=verify or None)
    if store.meta.get("key", key.digest) != key.digest:
        raise DataError(
            "store is of other data than its folder says",
            got=f"{store.name} {store.meta.get('split')}, key {store.meta['key'][:12]}",
            at=folder,
            expected=f"{key.task} {key.split}, key {key.digest[:12]}",
            do="it was copied or renamed by hand: move it away, and run `tulu data prepare` again",
        )
    return store


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


@dataclass(frozen=True, eq=False)
class _StoreMaker:
    """Makes stores with one pool of processes under one display of bars."""

    options: PrepareOptions
    tokenizer: Tokenizer
    pool: Pool
    bars: Progress
    reader: Reader | None

    def make(self, spec: DatasetSpec, key: StoreKey) -> Prepared:
        """The store of one split."""
        path = key.folder(self.options.local_dir)
        folder = parts_folder(path)
        tally = Tally(f"{key.task} {key.split}", self.tokenizer)
        meta = _meta(spec, key, self.options, self.tokenizer, tally.counts)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            store = write_blocks(path, self._blocks(spec, key, folder, tally), meta=meta)
        except TuluError as error:
            # Parts are kept for the next time where the disk failed. Otherwise they would be as
            # wrong then as they are now.
            if not isinstance(error.__cause__, OSError):
                shutil.rmtree(folder, ignore_errors=True)
            raise
        except OSError as error:
            raise unwritable(path, error) from error
        shutil.rmtree(folder, ignore_errors=True)
        return Prepared(store, True, tally.parts, tally.parts_found)

    def _blocks(
        self, spec: DatasetSpec, key: StoreKey, folder: Path, tally: Tally
    ) -> Iterator[Block]:
        """The split's examples, part by part; after the last one the whole split is checked."""
        faults = Faults(strict=self.options.strict)
        expected = spec.expected_examples.get(key.split)
        bar = self.bars.add_task(tally.place, total=expected)
        for part in self._parts(spec, key.split, folder, faults):
            tally.add(part)
            self.bars.update(bar, completed=tally.counts["read"])
            yield part.block
        self.bars.update(bar, completed=tally.counts["read"], total=tally.counts["read"])
        # What a reader skipped is known only now, and so is whether two ids are equal: a store
        # is not there before its last block, so a dataset that is refused leaves none
        tally.finish(faults, own=spec.own, folder=folder)

    def _parts(self, spec: DatasetSpec, split: str, folder: Path, faults: Faults) -> Iterator[Part]:
        """The split's parts, in order: read here and encoded elsewhere, a few ahead."""
        if self.reader is not None:
            conversations = self.reader(spec, split)
        else:
            raw_dir = locate_raw_dir(spec, self.options.raw_dir)
            if raw_dir is None and not spec.embedded:
                downloads = Path(self.options.local_dir) / "raw"
                raw_dir = obtain_raw_dir(spec, downloads, downloads / "manual")
            conversations = spec.conversations(
                raw_dir, split, tokenizer=self.tokenizer, faults=faults
            )
        jobs = part_jobs(conversations, folder)
        if self.options.beam_runner is not None:
            return parts_on_beam(jobs, folder, self.options)
        return self.pool.map(jobs)


def _bars() -> Progress:
    """The display of how many conversations of each split are encoded."""
    columns = (task_name(), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=plain_console())


def _meta(
    spec: DatasetSpec,
    key: StoreKey,
    options: PrepareOptions,
    tokenizer: Tokenizer,
    counts: dict[str, Any],
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
        "counts": counts,
    }
