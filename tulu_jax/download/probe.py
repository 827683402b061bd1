"""What would be fetched, and how large it is, without fetching it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.pool import ThreadPool
from pathlib import Path

from tulu_jax.download.http import request, shown
from tulu_jax.download.options import FetchOptions, GiveUp, TryAgain
from tulu_jax.download.sources import Download, Origin, is_url, ways

_TIMEOUT_S = 15.0


@dataclass(frozen=True)
class Expected:
    """A download: the files it would make, from where, and the bytes to fetch if known.

    `where` is None when there is nothing to do; `problem` is what the addresses said.
    """

    download: Download
    missing: tuple[str, ...]
    where: str | None = None
    bytes: int | None = None
    problem: str | None = None


def probe_all(downloads: Sequence[Download], options: FetchOptions | None = None) -> list[Expected]:
    """What a fetch with these options would begin with: the first address that answers."""
    options = options or FetchOptions()
    with ThreadPool(max(1, options.jobs)) as pool:
        return pool.map(lambda download: _probe(download, options), downloads, 1)


def _probe(download: Download, options: FetchOptions) -> Expected:
    missing = download.missing()
    names = tuple(source.filename for source in missing)
    if not missing:
        return Expected(download, ())
    problems: list[str] = []
    for origins in ways(download, options.mirror_root):
        try:
            sizes = [_size(origin, options) for origin in origins]
        except (GiveUp, TryAgain) as error:
            problems.append(str(error))
            continue
        known = [size for size in sizes if size is not None]
        total = sum(known) if len(known) == len(sizes) else None
        return Expected(download, names, shown(origins[0].where), total)
    problem = problems[0] if problems else "no address serves it any more"
    return Expected(download, names, shown(download.sources[0].url), None, problem)


def _size(origin: Origin, options: FetchOptions) -> int | None:
    if not is_url(origin.where):
        path = Path(origin.where)
        if not path.exists():
            raise GiveUp("there is no such file", at=path)
        return path.stat().st_size if path.is_file() else None
    timeout_s = min(options.timeout_s, _TIMEOUT_S)
    with request(origin.where, origin.sources[0], method="HEAD", timeout_s=timeout_s) as answer:
        length = answer.headers.get("Content-Length", "")
        return int(length) if length.isdigit() else None
