"""What has to be fetched for some datasets: one download for each address."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import quote, unquote, urlsplit

from tulu_jax.data.specs import DatasetSpec, Source
from tulu_jax.errors import DataError

CHECKSUMS = "checksums.json"
WORK = ".download"


@dataclass(frozen=True)
class Download:
    """One address and the files made from it: several when it serves an archive."""

    dataset: str
    folder: Path
    sources: tuple[Source, ...]

    @property
    def url(self) -> str:
        """The published address."""
        return self.sources[0].url

    @property
    def key(self) -> str:
        """What its unfinished files are called by."""
        return short_hash(self.url or self.label)

    @property
    def label(self) -> str:
        """What it is called on the screen."""
        first, *others = self.sources
        return f"{self.dataset}/{first.filename}" + (f" + {len(others)}" if others else "")

    def missing(self) -> tuple[Source, ...]:
        """The sources whose files are not there."""
        return tuple(s for s in self.sources if not (self.folder / s.filename).exists())


@dataclass(frozen=True)
class Piece:
    """Something to fetch: `where` is an address or a local path, made into files of `sources`.

    `as_published` says that it has the form, and so the checksum, that the sources speak of.
    """

    where: str
    packed: str | None
    sources: tuple[Source, ...]
    as_published: bool = True

    @property
    def name(self) -> str:
        """A file name whose ending says what is expected there."""
        if self.packed is None:
            return self.sources[0].filename
        return f"{PurePosixPath(unquote(urlsplit(self.where).path)).name}.{self.packed}"

    @property
    def sha256(self) -> str | None:
        """The checksum of what is fetched, when it is known."""
        known = (s.sha256 for s in self.sources if s.sha256 and self.as_published)
        return next(iter(known), None)


def plan(specs: Iterable[DatasetSpec], raw_root: str | Path) -> list[Download]:
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


def candidates(
    download: Download, missing: tuple[Source, ...], mirror_root: str | None
) -> list[tuple[Piece, ...]]:
    """The ways to get the sources that are missing, in the order in which they are tried."""
    first = download.sources[0]
    ways: list[tuple[Piece, ...]] = []
    if mirror_root is not None:
        root = f"{mirror_root.rstrip('/')}/{download.dataset}/"
        if first.packed is not None and first.url:
            archive = PurePosixPath(unquote(urlsplit(first.url).path)).name
            ways.append((Piece(_join(root, archive), first.packed, missing),))
        plain = first.packed is None
        ways.append(tuple(Piece(_join(root, s.filename), None, (s,), plain) for s in missing))
    mirrors = dict.fromkeys(m for source in download.sources for m in source.mirrors)
    for url in [first.url, *mirrors]:
        if url:
            ways.append((Piece(url, first.packed, missing),))
    return ways


def short_hash(text: str) -> str:
    """A name for a text that has no letters which file systems mind."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def is_url(where: str) -> bool:
    """Whether it is fetched over the network rather than copied."""
    return where.lower().startswith(("http://", "https://"))


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
