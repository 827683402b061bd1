"""The mixture that `tulu data inspect` looks into: read, encoded, filtered, packed."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from itertools import chain, islice
from typing import TYPE_CHECKING

from tulu_jax.cli.data.common import chosen_options, text_paths
from tulu_jax.cli.data.encoding import chosen_tokenizer, tokenizer_options
from tulu_jax.cli.data.reading import raw_conversations
from tulu_jax.errors import ConfigError, DataError

if TYPE_CHECKING:
    from tulu_jax.chat import Tokenizer
    from tulu_jax.data.faults import Faults
    from tulu_jax.data.specs import Conversation, DatasetSpec
    from tulu_jax.data.store import Store
    from tulu_jax.inspect.html import PackedRow
    from tulu_jax.inspect.looking import ExampleView, Filters, TaskView


class InspectedMixture:
    """The mixture that the command line names, and how it is read."""

    def __init__(self, args: argparse.Namespace) -> None:
        from tulu_jax.data.exclude import read_exclusion
        from tulu_jax.data.keys import PrepareOptions

        self.args = args
        self.exclusion = read_exclusion(text_paths(args.exclude))
        self.options = PrepareOptions(
            tokenizer=args.tokenizer or "",
            **tokenizer_options(args),
            max_length=args.max_length,
            data_dir=args.data_dir or "",
            raw_dir=args.raw_dir,
            options=chosen_options(args),
        )
        self._tokenizer = None
        if args.tokenizer or args.chat_template != "tulu" or args.add_tokens:
            self._tokenizer = chosen_tokenizer(args)
        self.specs = self.options.specs(args.mixture)
        self.exclusion.check_tasks(spec.task_name for spec in self.specs)
        self.filters = self._filters()
        self.faults: dict[str, Faults] = {}

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the command line.

        Raises: ConfigError when there is none.
        """
        if self._tokenizer is None:
            raise ConfigError("no tokenizer is named", do="name its folder with --tokenizer")
        return self._tokenizer

    def shown(self) -> Iterator[ExampleView]:
        """The conversations that pass the filters, read as they are asked for."""
        wanted = self._wanted()
        read = self._stored if self.options.data_dir else self._raw
        every = chain.from_iterable(map(read, wanted))
        out = {spec.task_name: self._excluded(spec) for spec in wanted}
        kept = (one for one in every if one.id not in out[one.task])
        return (one for one in kept if self.filters.match(one, self.tokenizer))

    def conversations(self) -> Iterator[tuple[str, Conversation]]:
        """Tasks and conversations that pass the filters, as they are read."""
        match = self.filters.match_text
        for spec in self._wanted():
            out, task = self._excluded(spec), spec.task_name
            every = self._read(spec)
            yield from ((task, one) for one in every if one["id"] not in out and match(task, one))

    def _wanted(self) -> list[DatasetSpec]:
        tasks = self.filters.tasks
        return [spec for spec in self.specs if not tasks or spec.task_name in tasks]

    def look(self) -> list[TaskView]:
        """Every task, whole, with no more examples than the mixture takes of it."""
        from tulu_jax.data.mixtures import resolve

        parts = {part.task: part for part in resolve(self.args.mixture, seed=self.args.seed)}
        looked = []
        for spec in self.specs:
            part = parts[spec.task_name]
            task = self._look(spec).without(self._excluded(spec))
            if part.max_examples is not None:
                task = task.capped(part.max_examples, seed=part.seed or 0)
            looked.append(task)
        return looked

    def rows(self) -> Iterator[PackedRow]:
        """The packed rows in the order of training, those with a conversation that passes."""
        from tulu_jax.inspect.html import packed_rows

        args = self.args
        rows = packed_rows(
            self.look(), row_length=args.max_length, packing=args.packing, seed=args.seed
        )
        match = self.filters.match
        return (row for row in rows if any(match(s, self.tokenizer) for s in row.segments))

    def faults_found(self) -> Iterator[str]:
        """Lines for what was skipped, left out or not used of each task."""
        from tulu_jax.data.faults import kinds_text, unused_lines

        for task, faults in self.faults.items():
            if faults.skipped:
                kinds = f" ({kinds_text(faults.kinds)})" if len(faults.kinds) > 1 else ""
                first = f"bad records skipped{kinds}, the first: {faults.messages[0]}"
                yield f"{task}: {faults.skipped:,} {first}"
            for line in unused_lines(faults.as_json()):
                yield f"{task}: {line}"

    def check_any(self) -> None:
        """Passes unless there is nothing to show because every record is bad, or there is none.

        Raises: DataError otherwise.
        """
        for spec in self._wanted():
            faults = self.faults.get(spec.task_name)
            if faults is not None and faults.skipped and faults.skipped == faults.records:
                faults.check(spec.task_name, own=spec.own)
        if not self.filters.given and not self.args.exclude:
            raise DataError(
                "there is no conversation to show", at=self.args.mixture, expected="at least one"
            )

    def _look(self, spec: DatasetSpec) -> TaskView:
        from tulu_jax.inspect.looking import view_of_examples, view_of_store

        if self.options.data_dir:
            return view_of_store(self._store(spec), self.tokenizer)
        shown = list(self._raw(spec))
        faults = self.faults[spec.task_name]
        if not shown and faults.skipped:
            faults.check(spec.task_name, own=spec.own)
        expected = spec.expected_examples.get(self.args.split)
        return view_of_examples(
            spec.task_name,
            shown,
            expected=expected,
            skipped=faults.skipped,
            left_out=faults.left_out,
            not_used={"unused": faults.unused, "metadata": faults.metadata},
        )

    def _raw(self, spec: DatasetSpec) -> Iterator[ExampleView]:
        """A task's conversations from its raw files."""
        from tulu_jax.inspect.looking import encode_views

        return encode_views(
            spec.task_name, self._read(spec), self.tokenizer, max_length=self.args.max_length
        )

    def _read(self, spec: DatasetSpec) -> Iterator[Conversation]:
        """A task's conversations as they are read from its raw files."""
        from tulu_jax.data.faults import Faults

        faults = self.faults[spec.task_name] = Faults()
        conversations = raw_conversations(
            spec,
            self.args.raw_dir,
            tokenizer=self.tokenizer if spec.needs_tokenizer else self._tokenizer,
            faults=faults,
            split=self.args.split,
            instead=", or that of prepared stores with --data_dir",
            checked=False,
        )
        return islice(conversations, self.args.limit)

    def _stored(self, spec: DatasetSpec) -> Iterator[ExampleView]:
        """A task's conversations from its prepared store."""
        from tulu_jax.inspect.looking import view_of_store

        looked = view_of_store(self._store(spec), self.tokenizer)
        return map(looked.example, range(len(looked))[: self.args.limit])

    def _store(self, spec: DatasetSpec) -> Store:
        from tulu_jax.data.keys import store_keys
        from tulu_jax.data.prepare import store_at

        keys = store_keys(spec, self.options, tokenizer=self.tokenizer)
        return store_at(keys[spec.check_split(self.args.split)], self.options)

    def _excluded(self, spec: DatasetSpec) -> dict[str, str]:
        """Why ids of the task's split are left out."""
        return self.exclusion.reasons(spec.task_name, self.args.split)

    def _filters(self) -> Filters:
        """The filters of the command line, its datasets found among the mixture's."""
        from tulu_jax.data.specs import unknown_name
        from tulu_jax.inspect.looking import Filters

        args = self.args
        known = {spec.task_name for spec in self.specs}
        tasks = []
        for name in (part.strip() for part in (args.dataset or "").split(",") if part.strip()):
            found = next((task for task in (name, f"tulu_{name}") if task in known), None)
            if found is None:
                raise unknown_name(f"dataset of {args.mixture}", name, known)
            tasks.append(found)
        return Filters(
            tasks=tuple(tasks),
            ids=tuple(args.id),
            min_tokens=args.min_tokens,
            max_tokens=args.max_tokens,
            roles=args.roles,
            search=args.search,
            only=args.only,
        )
