"""Where the files of datasets come from, and the downloads that bring what is missing of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal, Protocol
from urllib.parse import quote, unquote, urlsplit

from tulu_jax.errors import DataError

CHECKSUMS = "checksums.json"
WORK = ".download"


@dataclass(frozen=True)
class Source:
    """One upstream file: where it comes from, what it is called on disk, what is known of it.

    `filename` is a path within the dataset's raw folder; it may name a folder. When what lies at
    `url` is packed, `packed` says how and `member` names the file or folder inside it (none for
    gz). `sha256` is that of the download. `token_env` names the environment variable with the
    access token of a gated source; `manual` says what to do when no address serves it any more.
    """

    url: str
    filename: str
    sha256: str | None = None
    mirrors: tuple[str, ...] = ()
    packed: Literal["gz", "zip", "tar"] | None = None
    member: str | None = None
    token_env: str | None = None
    manual: str | None = None


class HasSources(Protocol):
    """A dataset, as far as fetching it goes."""

    @property
    def name(self) -> str:
        """What its folder is called."""
        ...

    @property
    def sources(self) -> tuple[Source, ...]:
        """Its files."""
        ...


@dataclass(frozen=True)
class Download:
    """One address and the files made from it: several when it serves an archive."""

    dataset: str
    folder: Path
    sources: tuple[Source, ...]

    @property
    def key(self) -> str:
        """What its unfinished files are called by."""
        return short_hash(self.sources[0].url or self.label)

    @property
    def label(self) -> str:
        """What it is called on the screen."""
        first, *others = self.sources
        return f"{self.dataset}/{first.filename}" + (f" + {len(others)}" if others else "")

    def missing(self) -> tuple[Source, ...]:
        """The sources whose files are not there."""
        return tuple(s for s in self.sources if not (self.folder / s.filename).exists())


@dataclass(frozen=True)
class Origin:
    """A place that may have files of `sources`: `where` is an address or a local path.

    `as_published` says that it has the form, and so the checksum, that the sources speak of.
    """

    where: str
    packed: Literal["gz", "zip", "tar"] | None
    sources: tuple[Source, ...]
    as_published: bool = True

    @property
    def name(self) -> str:
        """A file name whose ending says what is expected there."""
        if self.packed is None:
            return self.sources[0].filename
        return f"{_last(self.where)}.{self.packed}"

    @property
    def sha256(self) -> str | None:
        """The checksum of what is fetched, when it is known."""
        return next((s.sha256 for s in self.sources if s.sha256 and self.as_published), None)


def plan(specs: Iterable[HasSources], raw_root: str | Path) -> list[Download]:
    """The downloads of some datasets, in order; files that two specs share come once.

    Embedded datasets and the user's own files need none: these have absolute names, or `.` for
    whatever lies in the folder.

    Raises: DataError for a file name that leaves the dataset's folder.
    """
    grouped: dict[tuple[str, str], list[Source]] = {}
    seen: set[tuple[str, str]] = set()
    for spec in specs:
        for source in spec.sources:
            own = Path(source.filename).is_absolute() or source.filename == "."
            if own or (spec.name, source.filename) in seen:
                continue
            _check_filename(spec.name, source.filename)
            seen.add((spec.name, source.filename))
            group = source.url or f"none:{source.filename}"
            grouped.setdefault((spec.name, group), []).append(source)
    root = Path(raw_root)
    return [Download(name, root / name, tuple(group)) for (name, _), group in grouped.items()]


def ways(download: Download, mirror_root: str | None) -> Iterator[tuple[Origin, ...]]:
    """The ways to get the sources that are missing, in the order in which they are tried."""
    first, missing = download.sources[0], download.missing()
    if not missing:
        return
    if mirror_root is not None:
        root = f"{mirror_root.rstrip('/')}/{download.dataset}/"
        if first.packed is not None and first.url:
            yield (Origin(_join(root, _last(first.url)), first.packed, missing),)
        plain = first.packed is None
        yield tuple(Origin(_join(root, s.filename), None, (s,), plain) for s in missing)
    mirrors = dict.fromkeys(m for source in download.sources for m in source.mirrors)
    yield from ((Origin(url, first.packed, missing),) for url in (first.url, *mirrors) if url)


def short_hash(text: str) -> str:
    """A name for a text that has no letters which file systems mind."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def is_url(where: str) -> bool:
    """Whether it is fetched over the network rather than copied."""
    return where.lower().startswith(("http://", "https://"))


def _last(url: str) -> str:
    return PurePosixPath(unquote(urlsplit(url).path)).name


def _join(root: str, name: str) -> str:
    return root + (quote(name) if is_url(root) else name)


def _check_filename(dataset: str, filename: str) -> None:
    path = PurePosixPath(filename)
    reserved = {WORK, CHECKSUMS}
    if not path.parts or ".." in path.parts or "\\" in filename or path.parts[0] in reserved:
        raise DataError(
            f"dataset {dataset} has a source that leaves its folder",
            got=repr(filename),
            expected=f"a path within the folder, not {' or '.join(sorted(reserved))}",
        )
