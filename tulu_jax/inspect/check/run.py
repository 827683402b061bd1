"""The check itself: conversations in, a report out."""

from __future__ import annotations

import collections
import importlib
from collections.abc import Callable, Iterable, Mapping

from tulu_jax.data.specs import Conversation
from tulu_jax.inspect.check.benchmarks import BenchmarkItem
from tulu_jax.inspect.check.collect import Collector
from tulu_jax.inspect.check.examine import CHUNK, Examiner
from tulu_jax.inspect.check.language import missing_extra
from tulu_jax.inspect.check.options import CheckOptions
from tulu_jax.inspect.check.overlap import OverlapIndex
from tulu_jax.inspect.check.result import CheckReport
from tulu_jax.inspect.check.spool import Spool
from tulu_jax.processes import map_chunks

PACKAGES = ("datasketch", "py3langid")
"""The packages of the extra `check`."""


def check_mixture(
    mixture: str,
    datasets: Mapping[str, Iterable[Conversation]],
    *,
    options: CheckOptions | None = None,
    items: Iterable[BenchmarkItem] = (),
    num_processes: int = 1,
    progress: Callable[[str, int], None] | None = None,
) -> CheckReport:
    """The findings in the datasets, which are read one after the other.

    `progress(dataset, conversations)` is called after every chunk. Without `items` no overlap is
    looked for.

    Raises: ConfigError when a package of the extra `check` is not installed.
    """
    for package in PACKAGES:
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise missing_extra(package) from error
    options = options or CheckOptions()
    items = list(items)
    index = None
    if items:
        index = OverlapIndex(items, size=options.ngram, threshold=options.overlap)
    with Spool() as spool:
        collector = Collector(mixture, list(datasets), options, spool=spool, index=index)
        done = collections.Counter[str]()
        for name, examined in map_chunks(
            Examiner,
            (options, index),
            streams=datasets,
            size=CHUNK,
            num_processes=num_processes,
        ):
            collector.add(name, examined)
            done[name] += len(examined.ids)
            if progress is not None:
                progress(name, done[name])
        return collector.report()
