"""`tulu data download`: the raw files of datasets, fetched and checked."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tulu_jax.cli.data.common import add_flag
from tulu_jax.cli.flags import PROCESSES_MOST, new_command, number, whole
from tulu_jax.fields import between

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from tulu_jax.data.specs import DatasetSpec
    from tulu_jax.download.probe import Expected
    from tulu_jax.download.run import Result
    from tulu_jax.download.sources import HasSources

RAW, EVAL = "raw", "data/eval"
"""Where raw files of datasets go, and those of benchmarks, unless another folder is named."""

BENCHMARK_NAMES = (
    "mmlu, gsm, bbh, tydiqa, codex_humaneval, humanevalplus, toxigen, truthfulqa, alpaca_farm, "
    "ifeval, xstest"
)
DESCRIPTION = """\
Fetches the raw files of datasets into RAW_DIR/<dataset>/. Run it again to go on where it stopped:
files that are there are kept and held to their checksums (of the source, or in checksums.json,
which records what was fetched first). A gated source wants an access token in the environment
(HF_TOKEN); proxies are taken from http_proxy, https_proxy and no_proxy. With --eval it fetches the
official files of benchmarks, as tulu eval reads them, into data/eval/<benchmark>/."""

EPILOG = """\
examples:
  tulu data download tulu_v1_human                   a mixture, into raw/
  tulu data download --only dolly,oasst1 --dry_run   what would be fetched, how large it is
  tulu data download --from /mnt/mirror              or https://...: <root>/<dataset>/<file>
  tulu data download --eval                          the files of all benchmarks, into data/eval/
  tulu data download --eval gsm mmlu                 of these benchmarks"""


def add_parser(commands: Any) -> None:
    """Adds `tulu data download`."""
    parser = new_command(
        commands,
        "download",
        run,
        help="fetch the raw files of datasets, resumable and checked",
        description=DESCRIPTION,
        epilog=EPILOG,
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME",
        help="mixtures or datasets, with --eval benchmarks (default: every one)",
    )  # fmt: skip
    parser.add_argument(
        "--eval", action="store_true", help="fetch the files of benchmarks: " + BENCHMARK_NAMES
    )
    parser.add_argument("--only", metavar="A,B", help="of these, only the named datasets")
    add_flag(parser, "--raw_dir", help=f"where files go (default {RAW}, with --eval {EVAL})")
    parser.add_argument(
        "--from",
        dest="mirror_root",
        metavar="DIR_OR_URL",
        help="a mirror to try first; it holds <dataset>/<file>",
    )
    parser.add_argument(
        "--jobs", type=whole(1, PROCESSES_MOST), default=4, help="files at a time (default 4)"
    )
    parser.add_argument(
        "--retries", type=whole(0), default=5, help="attempts after a failed one (default 5)"
    )
    parser.add_argument(
        "--timeout",
        type=number(between(0.001, 1_000_000)),
        default=60,
        help="seconds a server may be silent (default 60)",
    )
    parser.add_argument(
        "--dry_run", action="store_true", help="say what would be fetched, and its size if known"
    )


def run(args: argparse.Namespace) -> int:
    """Fetches and prints a table of all files; returns the exit status.

    Raises: DataError with the files that could not be fetched; the others are kept.
    """
    from tulu_jax.cli.data.download_bars import show_progress
    from tulu_jax.console import plain_console
    from tulu_jax.download.options import FetchOptions
    from tulu_jax.download.probe import probe_all
    from tulu_jax.download.run import fetch_all, raise_failures
    from tulu_jax.download.sources import plan

    options = FetchOptions(
        jobs=args.jobs,
        retries=args.retries,
        timeout_s=args.timeout,
        mirror_root=_mirror(args.mirror_root),
    )
    raw_dir = args.raw_dir or (EVAL if args.eval else RAW)
    downloads = plan(_chosen(args), raw_dir)
    console = plain_console()
    if not downloads:
        console.print("nothing to fetch: the data comes with the code, or is your own")
        return 0
    if args.dry_run:
        _print_expected(console, probe_all(downloads, options))
        return 0
    with show_progress(console) as progress:
        results = fetch_all(downloads, progress=progress, options=options)
    _print_results(console, results, raw_dir)
    raise_failures(results)
    return 0


def _chosen(args: argparse.Namespace) -> Sequence[HasSources]:
    """The datasets or benchmarks that are named.

    Raises: ConfigError, DataError when a name does not exist or `--only` is of no use.
    """
    if not args.eval:
        return chosen_specs(args.names, args.only)
    from tulu_jax.data.specs import unknown_name
    from tulu_jax.download.benchmarks import BENCHMARKS
    from tulu_jax.errors import ConfigError

    if args.only is not None:
        raise ConfigError(
            "--only is of datasets", got=repr(args.only),
            do="name the benchmarks: tulu data download --eval NAME...",
        )  # fmt: skip
    known = {benchmark.name: benchmark for benchmark in BENCHMARKS}
    for name in args.names:
        if name not in known:
            raise unknown_name("benchmark", name, known)
    return [known[name] for name in dict.fromkeys(args.names or known)]


def _mirror(named: str | None) -> str | None:
    """An address of the web as it is, a folder as its path."""
    from tulu_jax.download.sources import is_url
    from tulu_jax.files import user_path

    return named if named is None or is_url(named) else str(user_path(named, name="--from"))


def chosen_specs(names: Sequence[str], only: str | None) -> list[DatasetSpec]:
    """The datasets of the named mixtures (all if none is named), or those of them in `only`.

    Raises: DataError for a name that does not exist, or is not among them.
    """
    from tulu_jax.data.mixtures import get_mixture
    from tulu_jax.data.specs import all_specs, unknown_name

    specs = [spec for name in names for spec in get_mixture(name).specs()]
    if not names:
        specs = list(all_specs().values())
    if only is None:
        return specs
    wanted = [part.strip() for part in only.split(",") if part.strip()]
    chosen = []
    for name in wanted:
        found = [s for s in specs if name in (s.name, s.task_name, s.task_name[5:])]
        if not found:
            raise unknown_name("dataset in --only", name, {spec.name for spec in specs})
        chosen += found
    return chosen


def _print_expected(console: Console, expected: Sequence[Expected]) -> None:
    table = _table("dataset", "file", "size", "from")
    total, unknown = 0, 0
    for one in expected:
        size = "there" if not one.missing else _bytes(one.bytes)
        total += one.bytes or 0
        unknown += bool(one.missing) and one.bytes is None
        files = ", ".join(one.missing or (source.filename for source in one.download.sources))
        table.add_row(one.download.dataset, files, size, one.problem or one.where or "")
    console.print(table)
    more = f", and {unknown} of unknown size" if unknown else ""
    console.print(f"to fetch: {_bytes(total)}{more}")


def _print_results(console: Console, results: Sequence[Result], raw_dir: str) -> None:
    table = _table("dataset", "file", "size", "status")
    for result in results:
        failed = result.error is not None
        size = "" if failed else _bytes(result.bytes)
        style = "red" if failed else ""
        table.add_row(result.dataset, result.filename, size, result.status, style=style)
    console.print(table)
    failed = sum(result.error is not None for result in results)
    total = _bytes(sum(result.bytes for result in results))
    console.print(
        f"{len(results) - failed} of {len(results)} files, {total}, in {raw_dir}", soft_wrap=True
    )


def _table(*names: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in names:
        justify = "right" if name == "size" else "left"
        table.add_column(name, justify=justify, overflow="fold")
    return table


def _bytes(count: int | None) -> str:
    from rich.filesize import decimal

    return "?" if count is None else decimal(count)
