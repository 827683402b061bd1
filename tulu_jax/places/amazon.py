"""What Amazon's storage does, and others that speak its protocol, by obstore."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import os
import re
import secrets
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import IO, TYPE_CHECKING, Any, TypeVar

from tulu_jax.places.address import Address, missing, settle
from tulu_jax.places.errors import no_bucket, storage_error
from tulu_jax.places.told import Stream, told

if TYPE_CHECKING:
    from obstore.store import RetryConfig

BLOCK_BYTES = 16 * 2**20
"""Bytes of a streamed file that are sent at a time, and the most that is sent in one request."""
WAITS_S = (0.5, 1, 2, 4, 8)
"""Before what obstore asks once is asked again: writes on a condition, and where the connection
broke within an answer. Nothing is begun again after `PATIENCE_S`."""
PATIENCE_S = 30
RETRY: RetryConfig = {
    "max_retries": 6,
    "retry_timeout": timedelta(seconds=35),
    "backoff": {"init_backoff": timedelta(seconds=0.5), "max_backoff": timedelta(seconds=10)},
}
"""Of other requests."""
LASTING = re.compile(
    r"NoSuchBucket|AccessDenied|ExpiredToken|InvalidAccessKeyId|SignatureDoesNotMatch|code: 40[13]"
)
"""In errors that obstore has no class of their own for: to ask again is of no use."""
T = TypeVar("T")
S3 = "s3://"
MARK = "tulu-write"
"""By this an object says which write it is of."""


@functools.cache
def amazon() -> Amazon:
    """The one for s3:// of this process."""
    settle("s3")
    return Amazon()


@functools.cache
def bucket(name: str) -> Any:
    """obstore's store of a bucket; keys and region are the environment's (`AWS_...`)."""
    from obstore.store import S3Store

    return S3Store(
        name,
        client_options={"allow_http": (endpoint() or "").startswith("http:"), "timeout": "5min"},
        retry_config=RETRY,
    )


def endpoint() -> str | None:
    """Where the storage is, if it is not Amazon's own."""
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")


def kvstore_of(name: str, prefix: str) -> dict[str, Any]:
    """The key/value store of TensorStore of the keys in a bucket that begin with `prefix`."""
    at = endpoint()
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    more: dict[str, Any] = {"endpoint": at, "aws_region": region or ("us-east-1" if at else None)}
    found: dict[str, Any] = {"driver": "s3", "bucket": name, "path": prefix}
    if os.environ.get("AWS_ACCESS_KEY_ID"):  # else it looks for files first, and tells of each
        more["aws_credentials"] = {"type": "environment"}
    return found | {key: value for key, value in more.items() if value}


@functools.cache
def register() -> None:
    """Lets fsspec, and so epath, Orbax and JAX's cache, go to s3:// by obstore.

    What fsspec is told of s3:// elsewhere, such as by FSSPEC_S3, is for s3fs and is left alone.
    """
    import fsspec
    from obstore.fsspec import FsspecStore

    class Files(FsspecStore):
        """s3:// for fsspec."""

        protocol = "s3"
        _ls, _info = _patient(FsspecStore._ls, "list"), _patient(FsspecStore._info, "read")
        _cat_file = _patient(FsspecStore._cat_file, "read")
        _pipe_file = _patient(FsspecStore._pipe_file, "write")
        _rm_file = _patient(FsspecStore._rm_file, "remove")

        def __init__(self, *_: Any, **__: Any) -> None:
            super().__init__("s3")
            self._construct_store = bucket

    fsspec.register_implementation("s3", Files, clobber=True)


def _patient(method: Any, deed: str) -> Any:
    """The method, asked again where the connection broke; what it raises then is ours."""
    from obstore.exceptions import BaseError, GenericError, NotFoundError

    async def again(self: Any, path: str, *arguments: Any, **options: Any) -> Any:
        at, begun = f"{S3}{path.removeprefix(S3)}", time.monotonic()
        for wait_s in (*WAITS_S, None):
            try:
                return await method(self, path, *arguments, **options)
            except NotFoundError as error:
                raise FileNotFoundError(errno.ENOENT, "nothing lies there", at) from error
            except BaseError as error:
                seconds = time.monotonic() - begun
                if "NoSuchBucket" in str(error):
                    raise no_bucket(at) from error
                passing = isinstance(error, GenericError) and not LASTING.search(str(error))
                if not passing or wait_s is None or seconds > PATIENCE_S:
                    raise storage_error(error, deed=deed, at=at, seconds=seconds) from error
                await asyncio.sleep(wait_s)

    return again


def _patiently(ask: Callable[[], T]) -> T:
    """What `ask` gives, asked again where the connection broke."""
    from obstore.exceptions import GenericError

    end = time.monotonic() + PATIENCE_S
    for wait_s in WAITS_S:
        try:
            return ask()
        except GenericError as error:
            if time.monotonic() > end or LASTING.search(str(error)):
                raise
            time.sleep(wait_s)
    return ask()


class Amazon:
    """Amazon's storage: a request is tried again for up to 35 s.

    Every method raises StorageError.
    """

    def size(self, address: Address) -> int | None:
        """Bytes of the object; None where there is none."""
        from obstore.exceptions import GenericError

        if not address.key:
            return None
        with told("read", address):
            try:
                return int(bucket(address.bucket).head(address.key)["size"])
            except FileNotFoundError:
                return None
            except GenericError as error:
                if "code: 400" in str(error):  # to this one S3 says why: to a HEAD it does not
                    self.read(address, 0, 1)
                raise

    def holds_any(self, address: Address) -> bool:
        """Whether anything lies below."""
        with contextlib.suppress(FileNotFoundError), _listing(address):
            at = bucket(address.bucket)
            return _patiently(lambda: any(at.list(address.key or None, chunk_size=1)))
        return False

    def names(self, address: Address) -> list[str]:
        """Names in the folder, sorted; FileNotFoundError where nothing lies below."""
        with _listing(address):
            at = bucket(address.bucket)
            found = _patiently(lambda: at.list_with_delimiter(address.key or None))
        paths = [*(each["path"] for each in found["objects"]), *found["common_prefixes"]]
        names = {_below(address, path) for path in paths} - {""}
        if not names and address.key:
            raise missing(address)
        return sorted(names)

    def files(self, address: Address, *, deep: bool) -> dict[str, tuple[int, str]]:
        """Size and a mark of the content of every object below, by its name from here."""
        at = bucket(address.bucket)
        found: list[Any] = []
        with contextlib.suppress(FileNotFoundError), _listing(address):
            prefix = address.key or None
            if deep:
                found = _patiently(lambda: [each for some in at.list(prefix) for each in some])
            else:
                found = _patiently(lambda: at.list_with_delimiter(prefix))["objects"]
        facts = {_below(address, e["path"]): (int(e["size"]), str(e["e_tag"])) for e in found}
        return {name: facts[name] for name in sorted(facts) if name}

    def read(self, address: Address, start: int = 0, stop: int | None = None) -> bytes:
        """The content or a part of it; FileNotFoundError where there is none."""
        if stop is not None:
            return self.ranges(address, [(start, stop)])[0]
        with told("read", address):
            return _patiently(lambda: bytes(bucket(address.bucket).get(address.key).bytes()))

    def ranges(self, address: Address, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Parts of the content, read side by side."""
        asked = [ends for ends in ranges if ends[0] < ends[1]]
        with told("read", address):
            ends = {"starts": [one for one, _ in asked], "ends": [one for _, one in asked]}
            at = bucket(address.bucket)
            found = iter(
                _patiently(lambda: at.get_ranges(address.key, **ends, coalesce=0)) if asked else ()
            )
            return [bytes(next(found)) if start < stop else b"" for start, stop in ranges]

    def write(self, address: Address, content: bytes) -> None:
        """Writes the object; what lay there is replaced."""
        if len(content) > BLOCK_BYTES:
            with self.writing(address) as stream:
                stream.write(content)
            return
        with told("write", address):
            self._put(address, content)

    def create(self, address: Address, content: bytes) -> bool:
        """Writes the object unless there is one; whether it was this call that did, or maybe."""
        return self._put_if(address, content, "create") is not None

    def marked(self, address: Address) -> tuple[bytes | None, bytes]:
        """The content, None where there is no object or an empty one, and a mark of this state."""
        with told("read", address):
            try:
                return _patiently(lambda: _content_and_mark(address))
            except FileNotFoundError:
                return None, b""

    def exchange(self, address: Address, mark: bytes, content: bytes | None) -> bytes | None:
        """Writes the object if its mark is this one; its new mark, else None.

        To remove it only if nobody wrote in between cannot be asked for: it is left empty.
        """
        mode = {"e_tag": mark.decode()} if mark else "create"
        found = self._put_if(address, content or b"", mode)
        return None if found is None else str(found["e_tag"]).encode()

    def _put_if(self, address: Address, content: bytes, mode: Any) -> Any:
        """Sends the object unless what is there forbids it: None then.

        Sent again, one whose answer was lost is refused.
        """
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        with told("write", address):
            try:
                return _patiently(lambda: self._put(address, content, mode=mode))
            except (AlreadyExistsError, PreconditionError):
                return None

    def _put(self, address: Address, content: bytes, **mode: Any) -> Any:
        """Sends the object in one request."""
        try:
            return bucket(address.bucket).put(address.key, content, use_multipart=False, **mode)
        except FileNotFoundError as error:
            raise no_bucket(address) from error

    def remove(self, address: Address) -> None:
        """Removes the object, if there is one."""
        with told("remove", address), contextlib.suppress(FileNotFoundError):
            bucket(address.bucket).delete(address.key)

    def copy(self, source: Address, target: Address) -> None:
        """Copies an object within the storage."""
        with told("write", target):
            bucket(source.bucket).copy(source.key, target.key)

    @contextlib.contextmanager
    def writing(self, address: Address) -> Iterator[IO[bytes]]:
        """A file to write; the object is there once the block has ended without an error."""
        import obstore

        mark = secrets.token_hex(8)
        writer = obstore.open_writer(
            bucket(address.bucket),
            address.key,
            attributes={MARK: mark},
            buffer_size=BLOCK_BYTES,
            max_concurrency=4,
        )
        try:
            yield Stream(writer, address)  # type: ignore[misc]
        except BaseException:
            with contextlib.suppress(Exception):
                writer.__exit__(*sys.exc_info())  # removes what was sent
            raise
        with told("write", address):
            try:
                writer.close()
            except FileNotFoundError as error:
                if not self._is_of(address, mark):
                    raise no_bucket(address) from error
            except Exception:
                if not self._is_of(address, mark):
                    raise

    def _is_of(self, address: Address, mark: str) -> bool:
        """Whether the object is that of a write whose answer was lost; not where none can tell."""
        from obstore.exceptions import BaseError

        try:
            found = bucket(address.bucket).get(address.key, options={"head": True})
        except (FileNotFoundError, BaseError):
            return False
        return found.attributes.get(MARK) == mark


def _content_and_mark(address: Address) -> tuple[bytes | None, bytes]:
    found = bucket(address.bucket).get(address.key)
    return bytes(found.bytes()) or None, str(found.meta["e_tag"]).encode()


@contextlib.contextmanager
def _listing(address: Address) -> Iterator[None]:
    """As `told`; in a bucket that is not there nothing is."""
    from obstore.exceptions import BaseError

    with told("list", address):
        try:
            yield
        except BaseError as error:
            if "NoSuchBucket" not in str(error):
                raise
            raise missing(address) from error


def _below(folder: Address, key: str) -> str:
    """The name of a key below a folder."""
    return key.strip("/")[len(folder.key) :].strip("/")
