"""Fetching downloads, several at a time: mirrors in turn, checksums, unpacking, the record."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from multiprocessing.pool import ThreadPool
from pathlib import Path

from tulu_jax.download.content import check_head, check_tail
from tulu_jax.download.folder import RawFolder, content_sha256
from tulu_jax.download.http import shown
from tulu_jax.download.options import BadContent, FetchOptions, GiveUp, Progress, disk_errors
from tulu_jax.download.sources import (
    CHECKSUMS,
    Download,
    HasSources,
    Origin,
    Source,
    is_url,
    plan,
    ways,
)
from tulu_jax.download.transfer import Unfinished, remove_all, transfer
from tulu_jax.download.unpack import unpack
from tulu_jax.errors import DataError, TuluError
from tulu_jax.files import HEAD_BYTES, file_sha256

FAILED = "failed"


@dataclass(frozen=True)
class Result:
    """What became of one file: `status` is fetched, failed, or how it was found there."""

    dataset: str
    filename: str
    status: str
    bytes: int = 0
    error: TuluError | None = None
    manual: str | None = None


def fetch(
    spec: HasSources,
    raw_root: str | Path,
    *,
    progress: Progress | None = None,
    options: FetchOptions | None = None,
) -> Path:
    """The folder `<raw_root>/<spec.name>` with all files of the dataset, fetched and checked.

    Files that are there already are kept, held to their checksums if these are known.

    Raises: DataError that lists the files that could not be had, each with what was tried.
    """
    downloads, folder = plan([spec], raw_root), Path(raw_root) / spec.name
    if not downloads and spec.sources and not folder.exists():
        raise DataError(
            f"the files of dataset {spec.name} are put there by hand",
            got="no such folder",
            at=folder,
            do=spec.sources[0].manual,
        )
    raise_failures(fetch_all(downloads, progress=progress, options=options))
    return folder


def fetch_all(
    downloads: Sequence[Download],
    *,
    progress: Progress | None = None,
    options: FetchOptions | None = None,
) -> list[Result]:
    """Every file of the downloads, in order, with what became of it; failures do not stop others.

    Interrupted from the keyboard, it leaves at once; what came so far is kept.
    """
    options, progress = options or FetchOptions(), progress or Progress()
    # Its threads are daemons: one that waits for a silent server does not hold up the program
    with ThreadPool(max(1, min(options.jobs, len(downloads)))) as pool:
        try:
            fetched = pool.map(lambda d: _Fetch(d, options, progress).results(), downloads, 1)
        except BaseException:
            options.stop.set()
            raise
    return [result for results in fetched for result in results]


def raise_failures(results: Iterable[Result]) -> None:
    """Passes when no file failed.

    Raises: DataError with the failures and, for sources that are gone, what to do by hand.
    """
    failed = [result for result in results if result.error is not None]
    if failed:
        lines = [f"\n  {r.dataset}/{r.filename}: {r.error}" for r in failed]
        manual = dict.fromkeys(f"\n  {r.dataset}: {r.manual}" for r in failed if r.manual)
        hint = "by hand:" + "".join(manual) if manual else None
        raise DataError(f"{len(failed)} files could not be fetched:" + "".join(lines), do=hint)


class _Fetch:
    """One download, with all that it needs at hand."""

    def __init__(self, download: Download, options: FetchOptions, progress: Progress) -> None:
        """Nothing is done yet."""
        self._download, self._options, self._progress = download, options, progress
        self._raw, self._label = RawFolder(download.folder), download.label

    def results(self) -> list[Result]:
        """What became of its files, once what was missing is fetched or has failed."""
        missing, error = self._download.missing(), None
        try:
            if missing or self._raw.work.exists():
                with disk_errors(self._download.folder):
                    self._obtain()
        except TuluError as failure:
            error = failure
        self._raw.tidy(self._options)
        results = [self._result(s, s in missing, error) for s in self._download.sources]
        self._progress.finish(self._label)
        return results

    def _result(self, source: Source, fetched: bool, error: TuluError | None) -> Result:
        name, dataset = source.filename, self._download.dataset
        try:
            if fetched and error is not None and not (self._raw.folder / name).exists():
                raise error
            entry = self._raw.record().get(name)
            if fetched and entry is not None:  # it was hashed a moment ago
                return Result(dataset, name, "fetched", entry.get("bytes", 0))
            self._progress.update(self._label, 0, None, "checking")
            with disk_errors(self._raw.folder):
                status, size = self._raw.check_present(source)
            return Result(dataset, name, status, size)
        except TuluError as failure:
            return Result(dataset, name, FAILED, 0, failure, source.manual if fetched else None)

    def _obtain(self) -> None:
        """Fetches what is missing from the first place that has it."""
        with self._raw.lock(self._download.key, self._options, self._tell_waiting):
            failures: list[str] = []
            found = list(ways(self._download, self._options.mirror_root))
            for n, origins in enumerate(found, 1):
                try:
                    for origin in origins:
                        self._deliver(origin)
                    break
                except GiveUp as error:
                    failures.append(str(error))
                    if n < len(found):
                        self._note(f"{error} - trying the next address")
            if self._download.missing():
                raise _nothing_served(self._download, failures)
            remove_all(self._raw.work, f"{self._download.key}-*")

    def _tell_waiting(self) -> None:
        self._note("waiting: another process is fetching it")

    def _note(self, text: str) -> None:
        self._progress.note(self._label, text)

    def _deliver(self, origin: Origin) -> None:
        """Fetches what is at one place and makes its files; damaged it is fetched anew once."""
        sources = [s for s in origin.sources if s in self._download.missing()]
        if not sources:  # another process was faster, or an earlier way brought it
            return
        label, part = self._label, Unfinished(self._raw.work, self._download.key, origin.where)
        for last in (False, True):
            if is_url(origin.where):
                transfer(
                    part,
                    origin,
                    options=self._options,
                    note=self._note,
                    update=lambda done, total: self._progress.update(
                        label, done, total, "fetching"
                    ),
                )
            else:
                self._copy(Path(origin.where), part)
            try:
                self._check_whole(part.path, origin)
                self._make_files(part, origin, sources)
                return
            except BadContent as error:
                part.clear()
                if last:
                    raise GiveUp(str(error)) from error
                self._note(f"{error} - fetching it anew")
            except GiveUp:
                part.clear()  # what came is of no use; what a broken connection left would be
                raise

    def _copy(self, origin: Path, part: Unfinished) -> None:
        """A local file or folder; a copy that was interrupted is begun anew."""
        if not origin.exists():
            raise GiveUp("there is no such file", at=origin)
        part.clear()
        part.path.parent.mkdir(parents=True, exist_ok=True)
        self._progress.update(self._label, 0, None, "copying")
        (shutil.copytree if origin.is_dir() else shutil.copyfile)(origin, part.path)

    def _check_whole(self, whole: Path, origin: Origin) -> None:
        """Passes when the content is what the checksum says, or without one, looks like it."""
        if whole.is_dir():
            return
        at = shown(origin.where)
        with open(whole, "rb") as stream:
            check_head(stream.read(HEAD_BYTES), origin.name, at=at)
        if origin.sha256 is None:
            check_tail(whole, origin.name, at=at)
            return
        self._progress.update(self._label, 0, None, "checking")
        found = file_sha256(whole)
        if found != origin.sha256:
            raise BadContent(
                "what was fetched is not the right file",
                got=f"sha256 {found}",
                at=at,
                expected=origin.sha256,
            )

    def _make_files(self, part: Unfinished, origin: Origin, sources: Sequence[Source]) -> None:
        """Unpacks if need be, holds the files to the record, and puts them into the folder."""
        if origin.packed is None:
            self._install(part.path, sources[0], origin)
            return
        at = shown(origin.where)
        made = {source: part.unpacked(source.filename) for source in sources}
        for path in made.values():
            remove_all(path.parent, path.name)
        unpack(
            part.path,
            origin.packed,
            [(source.member, path) for source, path in made.items()],
            at=at,
            max_ratio=self._options.max_ratio,
            tick=lambda done: self._progress.update(self._label, done, None, "unpacking"),
        )
        for source, path in made.items():
            if path.is_file():  # its bytes are as they were packed, but it may be another file
                with open(path, "rb") as stream:
                    head = stream.read(HEAD_BYTES)
                check_head(head, source.filename, at=f"{source.filename} in {at}")
            self._install(path, source, origin)

    def _install(self, path: Path, source: Source, origin: Origin) -> None:
        """Writes the record, then moves the file: a file that is there has its entry."""
        found, size = content_sha256(path)
        known = self._raw.record().get(source.filename)
        if known is not None and known["sha256"] != found:
            raise GiveUp(
                "the published file has changed since it was first fetched",
                got=f"sha256 {found}",
                at=shown(origin.where),
                expected=known["sha256"],
                do=f"delete its entry in {self._raw.folder / CHECKSUMS} to take the new one",
            )
        if known is None:
            entry = {"sha256": found, "bytes": size, "from": shown(origin.where)}
            self._raw.add_record(source.filename, entry, self._options)
        self._raw.move_in(path, source.filename)


def _nothing_served(download: Download, failures: list[str]) -> DataError:
    manual = any(source.manual for source in download.sources)
    hint = None if manual else "put the file there by hand, or name a mirror with --from"
    if not failures:
        return DataError("no address serves it any more", at=download.folder, do=hint)
    if len(failures) == 1:
        return DataError(failures[0], do=hint)
    tried = "; ".join(f"({n}) {text}" for n, text in enumerate(failures, 1))
    return DataError("no address served it", got=tried, do=hint)
