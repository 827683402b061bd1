"""What would be fetched, and how large it is, without fetching it."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tulu_jax.data.specs import Source
from tulu_jax.download.options import FetchOptions, GiveUp, TryAgain
from tulu_jax.download.plan import Download, candidates, is_url
from tulu_jax.download.wire import access_for, request, shown

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
    with concurrent.futures.ThreadPoolExecutor(max_workers=max(1, options.jobs)) as pool:
        return list(pool.map(lambda download: _probe(download, options), downloads))


def _probe(download: Download, options: FetchOptions) -> Expected:
    missing = download.missing()
    names = tuple(source.filename for source in missing)
    if not missing:
        return Expected(download, ())
    problems: list[str] = []
    for pieces in candidates(download, missing, options.mirror_root):
        try:
            sizes = [_size(p.where, p.sources[0], options) for p in pieces]
        except (GiveUp, TryAgain) as error:
            problems.append(str(error))
            continue
        known = [size for size in sizes if size is not None]
        total = sum(known) if len(known) == len(sizes) else None
        return Expected(download, names, shown(pieces[0].where), total)
    problem = problems[0] if problems else "no address serves it any more"
    return Expected(download, names, shown(download.url), None, problem)


def _size(where: str, source: Source, options: FetchOptions) -> int | None:
    if not is_url(where):
        path = Path(where)
        if not path.exists():
            raise GiveUp("there is no such file", at=path)
        return path.stat().st_size if path.is_file() else None
    timeout_s = min(options.timeout_s, _TIMEOUT_S)
    access = access_for(source, where)
    with request(where, access, method="HEAD", timeout_s=timeout_s) as answer:
        length = answer.headers.get("Content-Length", "")
        return int(length) if length.isdigit() else None
