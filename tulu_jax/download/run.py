"""Fetching downloads, several at a time: mirrors in turn, checksums, unpacking, the record."""

from __future__ import annotations

import concurrent.futures
import os
import shutil
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tulu_jax.data.specs import DatasetSpec, Source, file_sha256
from tulu_jax.download.content import HEAD_BYTES, check_head, check_tail
from tulu_jax.download.options import (
    BadContent,
    FetchOptions,
    GiveUp,
    Progress,
    disk_errors,
)
from tulu_jax.download.part import Part, Version, clear_group, remove
from tulu_jax.download.place import Place, content_sha256
from tulu_jax.download.plan import Download, Piece, candidates, is_url, plan
from tulu_jax.download.transfer import Ticker, Transfer
from tulu_jax.download.unpack import unpack
from tulu_jax.download.wire import access_for, shown
from tulu_jax.errors import DataError, TuluError

FAILED = "failed"
_COPY_BYTES = 1 << 22


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
    spec: DatasetSpec,
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
    futures = [concurrent.futures.Future() for _ in downloads]
    waiting = iter(zip(downloads, futures, strict=True))
    turn = threading.Lock()

    def work() -> None:
        while not options.stop.is_set():
            with turn:
                download, future = next(waiting, (None, None))
            if download is None or future is None:
                return
            try:
                future.set_result(_fetch_one(download, options, progress))
            except BaseException as error:
                future.set_exception(error)

    # Daemons: a thread that waits for a silent server does not hold up an interrupted program
    for _ in range(min(max(1, options.jobs), len(downloads))):
        threading.Thread(target=work, daemon=True, name="tulu-download").start()
    try:
        return [result for future in futures for result in future.result()]
    except BaseException:
        options.stop.set()
        raise


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


def _fetch_one(download: Download, options: FetchOptions, progress: Progress) -> list[Result]:
    place, missing = Place(download.folder), download.missing()
    error: TuluError | None = None
    try:
        if missing or place.work.exists():
            with disk_errors(download.folder):
                _obtain(download, place, options, progress)
    except TuluError as failure:
        error = failure
    place.tidy(options)
    results = []
    for source in download.sources:
        fetched = source in missing
        try:
            found = _result(download, source, place, progress, fetched=fetched, error=error)
            results.append(found)
        except TuluError as failure:
            manual = source.manual if fetched else None
            result = Result(download.dataset, source.filename, FAILED, 0, failure, manual)
            results.append(result)
    progress.finish(download.label)
    return results


def _result(
    download: Download,
    source: Source,
    place: Place,
    progress: Progress,
    *,
    fetched: bool,
    error: TuluError | None,
) -> Result:
    if fetched and error is not None and not (place.folder / source.filename).exists():
        raise error
    entry = place.record().get(source.filename)
    if fetched and entry is not None:  # it was hashed a moment ago
        return Result(download.dataset, source.filename, "fetched", entry.get("bytes", 0))
    progress.update(download.label, 0, None, "checking")
    with disk_errors(place.folder):
        status, size = place.check_present(source)
    return Result(download.dataset, source.filename, status, size)


def _obtain(download: Download, place: Place, options: FetchOptions, progress: Progress) -> None:
    """Fetches what is missing from the first address that serves it."""
    label = download.label
    told = "waiting: another process is fetching it"
    with place.lock(download.key, options, lambda: progress.note(label, told)):
        failures: list[str] = []
        missing = download.missing()
        ways = candidates(download, missing, options.mirror_root) if missing else []
        for n, pieces in enumerate(ways, 1):
            try:
                for piece in pieces:
                    _deliver(piece, download, place, options, progress)
                break
            except GiveUp as error:
                failures.append(str(error))
                if n < len(ways):
                    progress.note(label, f"{error} - trying the next address")
        if download.missing():
            raise _nothing_served(download, failures)
        clear_group(place.work, download.key)


def _nothing_served(download: Download, failures: list[str]) -> DataError:
    manual = any(source.manual for source in download.sources)
    hint = None if manual else "put the file there by hand, or name a mirror with --from"
    if not failures:
        return DataError("no address serves it any more", at=download.folder, do=hint)
    if len(failures) == 1:
        return DataError(failures[0], do=hint)
    tried = "; ".join(f"({n}) {text}" for n, text in enumerate(failures, 1))
    return DataError("no address served it", got=tried, do=hint)


def _deliver(
    piece: Piece, download: Download, place: Place, options: FetchOptions, progress: Progress
) -> None:
    """Fetches one piece and makes its files; damaged content is fetched anew once."""
    sources = tuple(s for s in piece.sources if s in download.missing())
    if not sources:  # another process was faster, or an earlier way brought it
        return
    part = Part(place.work, download.key, piece.where)
    for last in (False, True):
        whole = _whole(piece, part, download, options, progress)
        try:
            _check_whole(whole, piece, download.label, progress)
            _make_files(part, piece, sources, place, options, progress, download.label)
            return
        except BadContent as error:
            part.clear()
            if last:
                raise GiveUp(str(error)) from error
            progress.note(download.label, f"{error} - fetching it anew")
        except GiveUp:
            part.clear()  # what came is of no use; what a broken connection left would be
            raise


def _whole(
    piece: Piece, part: Part, download: Download, options: FetchOptions, progress: Progress
) -> Path:
    """What lies at the piece's address, on disk."""
    if not is_url(piece.where):
        return _copied(Path(piece.where), part, options, progress, download.label)
    transfer = Transfer(
        part,
        piece.name,
        access=access_for(piece.sources[0], piece.where),
        options=options,
        progress=progress,
        label=download.label,
        sure=piece.sha256 is not None,
    )
    return transfer.run()


def _copied(
    origin: Path, part: Part, options: FetchOptions, progress: Progress, label: str
) -> Path:
    """A local file or folder, copied; a copy that was interrupted is begun anew."""
    if not origin.exists():
        raise GiveUp("there is no such file", at=origin)
    part.clear()
    if origin.is_dir():
        temporary = part.whole.with_suffix(".tree")
        remove(temporary)
        shutil.copytree(origin, temporary)
        os.replace(temporary, part.whole)
        return part.whole
    total = origin.stat().st_size
    tick = Ticker(progress, label, total, "copying")
    part.restart(Version(part.where))
    with open(origin, "rb") as stream, open(part.path, "wb") as out:
        while block := stream.read(_COPY_BYTES):
            options.check_stopped()
            out.write(block)
            tick(out.tell())
    part.complete()
    return part.whole


def _check_whole(whole: Path, piece: Piece, label: str, progress: Progress) -> None:
    """Passes when the content is what the checksum says, or without one, looks like it."""
    if whole.is_dir():
        return
    at = shown(piece.where)
    with open(whole, "rb") as stream:
        check_head(stream.read(HEAD_BYTES), piece.name, at=at)
    if piece.sha256 is None:
        check_tail(whole, piece.name, at=at)
        return
    progress.update(label, 0, None, "checking")
    found = file_sha256(whole)
    if found != piece.sha256:
        raise BadContent(
            "what was fetched is not the right file",
            got=f"sha256 {found}",
            at=at,
            expected=piece.sha256,
        )


def _make_files(
    part: Part,
    piece: Piece,
    sources: tuple[Source, ...],
    place: Place,
    options: FetchOptions,
    progress: Progress,
    label: str,
) -> None:
    """Unpacks if need be, holds the files to the record, and puts them into the folder."""
    at = shown(piece.where)
    if piece.packed is None:
        _install(part.whole, sources[0], piece, place, options)
        return
    made = {source: part.made(source.filename) for source in sources}
    for path in made.values():
        remove(path)
    members = [(source.member, path) for source, path in made.items()]
    tick = Ticker(progress, label, None, "unpacking")
    unpack(part.whole, piece.packed, members, at=at, max_ratio=options.max_ratio, tick=tick)
    for source, path in made.items():
        if path.is_file():
            _check_unpacked(path, source, at=at)
        _install(path, source, piece, place, options)


def _check_unpacked(path: Path, source: Source, *, at: str) -> None:
    """Passes when what came out of an archive looks right; its bytes are as they were packed."""
    with open(path, "rb") as stream:
        check_head(stream.read(HEAD_BYTES), source.filename, at=f"{source.filename} in {at}")


def _install(path: Path, source: Source, piece: Piece, place: Place, options: FetchOptions) -> None:
    """Writes the record, then moves the file: a file that is there has its entry."""
    found, size = content_sha256(path)
    known = place.record().get(source.filename)
    if known is not None and known["sha256"] != found:
        raise GiveUp(
            "the published file has changed since it was first fetched",
            got=f"sha256 {found}",
            at=shown(piece.where),
            expected=known["sha256"],
            do=f"delete its entry in {place.folder / 'checksums.json'} to take the new one",
        )
    if known is None:
        entry = {"sha256": found, "bytes": size, "from": shown(piece.where)}
        place.add_record(source.filename, entry, options)
    target = place.folder / source.filename
    target.parent.mkdir(parents=True, exist_ok=True)
    if path.is_file():
        with open(path, "rb") as stream:
            os.fsync(stream.fileno())
    os.replace(path, target)
