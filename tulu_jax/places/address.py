"""Names of files and folders in buckets, used as `pathlib.Path`s are."""

from __future__ import annotations

import dataclasses
import importlib.util
import io
import os
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

from tulu_jax.errors import ConfigError
from tulu_jax.files import scheme_of, user_path

PACKAGES = {"gs": ("gcsfs", "gcs"), "s3": ("obstore", "s3"), "hf": ("huggingface_hub", "")}
"""Scheme -> the package that reads it, and the extra of ours that brings it."""
BUFFER_BYTES = 2**20
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,221}")
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w./-]+)?")
_VARIABLE = re.compile(r"\$(\w+|\{\w+\})")


@dataclasses.dataclass(frozen=True, order=True)
class Address:
    """A file or folder in a bucket, such as gs://bucket/runs/a, used as a `pathlib.Path` is.

    Nothing that was looked at is remembered, so what others write is seen at once. A folder is
    there when something lies in it. An address is no `os.PathLike`: what wants a path of this
    machine raises TypeError, where a text would make a folder named `gs:`.

    >>> folder = Address("gs", "bucket", "runs/a")
    >>> str(folder / "checkpoints" / "3"), (folder / "x.json").name, str(folder.parent)
    ('gs://bucket/runs/a/checkpoints/3', 'x.json', 'gs://bucket/runs')
    """

    scheme: str
    bucket: str
    """Of hf:// the model: org/name, or org/name@revision."""
    key: str = ""
    """The name in the bucket, without a slash at its ends; empty for the bucket itself."""

    def __str__(self) -> str:
        """The address as it is written."""
        return f"{self.scheme}://{self.bucket}" + (f"/{self.key}" if self.key else "")

    # ---- names -----------------------------------------------------------------------------------

    def __truediv__(self, name: str | os.PathLike[str]) -> Address:
        """What lies below by that name."""
        more = str(name).strip("/")
        return dataclasses.replace(self, key=f"{self.key}/{more}".strip("/"))

    @property
    def name(self) -> str:
        """The last part; of a bucket its name."""
        return (self.key or self.bucket).rpartition("/")[2]

    @property
    def stem(self) -> str:
        """The name without what follows its last dot."""
        return Path(self.name).stem

    @property
    def suffix(self) -> str:
        """What follows the name's last dot, and the dot."""
        return Path(self.name).suffix

    @property
    def parent(self) -> Address:
        """The folder it lies in; of a bucket itself."""
        return dataclasses.replace(self, key=self.key.rpartition("/")[0])

    def with_name(self, name: str) -> Address:
        """Its neighbour of that name."""
        return self.parent / name

    def is_relative_to(self, other: object) -> bool:
        """Whether it is `other` or lies below it."""
        return f"{self}/".startswith(f"{other}/")

    def relative_to(self, other: Address) -> str:
        """Its name below `other`."""
        if not self.is_relative_to(other):
            raise ValueError(f"{self} does not lie below {other}")
        return str(self)[len(str(other)) + 1 :]

    def absolute(self) -> Address:
        """Itself: there is no folder that it could be relative to."""
        return self

    # ---- what is there ---------------------------------------------------------------------------

    @property
    def _storage(self) -> Any:
        from tulu_jax.places.backend import storage

        return storage(self)

    def is_file(self) -> bool:
        """Whether there is such an object.

        Raises: StorageError.
        """
        return self._storage.size(self) is not None

    def is_dir(self) -> bool:
        """Whether anything lies below it.

        Raises: StorageError.
        """
        return self._storage.holds_any(self)

    def exists(self) -> bool:
        """Whether it is one or the other.

        Raises: StorageError.
        """
        return self.is_file() or self.is_dir()

    def is_symlink(self) -> bool:
        """Never."""
        return False

    def iterdir(self) -> Iterator[Address]:
        """What lies in the folder, in order of name.

        Raises: FileNotFoundError, StorageError.
        """
        return iter([self / name for name in self._storage.names(self)])

    def glob(self, pattern: str) -> Iterator[Address]:
        """What lies below by a pattern such as `*.json` or `*/x`.

        Raises: StorageError.
        """
        first, _, rest = pattern.partition("/")
        try:
            found = [child for child in self.iterdir() if fnmatchcase(child.name, first)]
        except FileNotFoundError:
            return
        for child in found:
            yield from child.glob(rest) if rest else [child]

    def files(self, *, deep: bool = True) -> dict[str, tuple[int, str]]:
        """Size in bytes and a mark of the content of every object below, by its name from here.

        Without `deep` of those that lie in the folder itself.

        Raises: StorageError.
        """
        return self._storage.files(self, deep=deep)

    def stat(self) -> SimpleNamespace:
        """`st_size`, in bytes.

        Raises: FileNotFoundError, StorageError.
        """
        size = self._storage.size(self)
        if size is None:
            raise missing(self)
        return SimpleNamespace(st_size=size)

    # ---- reading and writing ---------------------------------------------------------------------

    def read_bytes(self) -> bytes:
        """The whole content.

        Raises: FileNotFoundError, StorageError.
        """
        return self._storage.read(self)

    def read_text(self, encoding: str = "utf-8") -> str:
        """The whole content as text.

        Raises: as `read_bytes`; UnicodeDecodeError.
        """
        return self.read_bytes().decode(encoding)

    def open(self, mode: str = "rb", **_: object) -> IO[bytes]:
        """A file to read; `writing` gives one to write.

        Raises: FileNotFoundError, StorageError.
        """
        if mode != "rb":
            raise ValueError(f"{self} cannot be opened as {mode!r}: use tulu_jax.places.writing")
        return io.BufferedReader(_Ranges(self), BUFFER_BYTES)  # type: ignore[return-value]

    def write_bytes(self, content: bytes) -> None:
        """Writes the whole content; what lay there is replaced.

        Raises: StorageError.
        """
        self._storage.write(self, content)

    def write_text(self, content: str) -> None:
        """The same of a text in UTF-8."""
        self.write_bytes(content.encode())

    def unlink(self, missing_ok: bool = False) -> None:
        """Removes the object.

        Raises: FileNotFoundError, StorageError.
        """
        if not missing_ok and not self.is_file():
            raise missing(self)
        self._storage.remove(self)

    def mkdir(self, **_: object) -> None:
        """Nothing: a folder is there when something lies in it."""


Place = Path | Address
"""Where files lie."""


class _Ranges(io.RawIOBase):
    """An object as a file to read, a range at a time."""

    def __init__(self, address: Address) -> None:
        self._address, self._at = address, 0
        self._size: int = address.stat().st_size

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + (0, self._at, self._size)[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        stop = min(self._at + len(buffer), self._size)
        if stop <= self._at:
            return 0
        data = self._address._storage.read(self._address, self._at, stop)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def children(place: Place) -> list[Any]:
    """What lies in a folder, in order of name; nothing where there is none.

    In a bucket there is one as long as anything lies in it: to ask first is too early.
    """
    try:
        return sorted(place.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def missing(address: Address) -> FileNotFoundError:
    """The error of an object that is not there."""
    return FileNotFoundError(2, "No such object", str(address))


def is_address(place: object) -> bool:
    """Whether it lies elsewhere than on this machine: an `Address`, or the text of one.

    >>> is_address("gs://bucket/x"), is_address("runs/x")
    (True, False)
    """
    return isinstance(place, Address) or (isinstance(place, str) and "://" in place)


def user_place(text: str | Path | Address, *, name: str = "path", hub: bool = False) -> Place:
    """The place that a user means by `text`; `name` is what messages call it.

    Args:
      text: a path (see `user_path`), gs://bucket/folder, s3://bucket/folder, and with `hub`
        hf://org/name or hf://org/name@revision.
      name: of the flag or setting.
      hub: whether it is for reading a model.

    >>> user_place("gs://bucket/runs//a/")
    Address(scheme='gs', bucket='bucket', key='runs/a')

    Raises:
      ConfigError: another scheme, one whose package is missing, an address without a bucket or with
        `..` or a variable in it; or as `user_path`.
    """
    if isinstance(text, Address):
        return text
    given = os.fspath(text)
    scheme = scheme_of(given)
    if scheme is None:
        return user_path(text, name=name)
    if scheme not in PACKAGES or (scheme == "hf" and not hub):
        known = [f"{each}://" for each in PACKAGES if hub or each != "hf"]
        raise ConfigError(
            f"{name} is an address that is not supported",
            got=repr(given),
            expected=" or ".join(["a local path", *known]),
            do=_INSTEAD.get(scheme, "mount the storage, or copy it to one of these"),
        )
    address = _parsed(given, scheme, name)
    _check_package(scheme, given, name)
    settle(scheme)
    return address


_INSTEAD = {"s3a": "write s3://", "gcs": "write gs://"}
"""What to do about an address with a scheme that is not supported."""


def as_place(place: str | Path | Address) -> Place:
    """The place of a name that `user_place` has seen, as settings keep it.

    >>> as_place("gs://bucket/a"), as_place("/runs/a")
    (Address(scheme='gs', bucket='bucket', key='a'), PosixPath('/runs/a'))
    """
    if isinstance(place, Address):
        return place
    return user_place(place, hub=True) if is_address(place) else Path(place)


def _parsed(given: str, scheme: str, name: str) -> Address:
    """The address, checked."""
    form = "hf://org/name" if scheme == "hf" else f"{scheme}://bucket/folder"
    _, slashes, rest = given.strip().partition("://")
    parts = [part for part in rest.split("/") if part not in ("", ".")]
    if scheme == "hf":
        bucket, key = "/".join(parts), ""
        right = _HUB_NAME.fullmatch(bucket)
    else:
        bucket, key = (parts or [""])[0], "/".join(parts[1:])
        right = _BUCKET.fullmatch(bucket)
    if variable := _VARIABLE.search(rest):
        raise ConfigError(
            f"{name} holds a variable that no shell has replaced",
            got=repr(given),
            expected=f"what {variable[0]} stands for",
            do="write it out: in gin files and single quotes it is just text",
        )
    if not (slashes and right) or ".." in parts or any(ord(c) < 32 for c in rest):
        raise ConfigError(
            f"{name} is not an address of a bucket or model",
            got=repr(given),
            expected=f"{form}, without `..` in it",
            do="write it out",
        )
    return Address(scheme, bucket, key)


def _check_package(scheme: str, given: str, name: str) -> None:
    package, extra = PACKAGES[scheme]
    if importlib.util.find_spec(package) is None:
        wanted = f"'tulu-jax[{extra}]'" if extra else package
        raise ConfigError(
            f"{name} is an address whose package is not installed",
            got=repr(given),
            expected=f"the package {package}",
            do=f"pip install {wanted}, or give a local path",
        )


def settle(scheme: str) -> None:
    """Settings of libraries that must stand before their first use.

    Without the first etils takes TensorFlow for gs:// wherever it is installed: 6 s to import, and
    errors that are no OSError. fsspec would keep listings for ever: what other hosts write would
    not be seen. And where an emulator stands for Google's storage, every library goes to it, and
    none asks who is logged in: a machine outside Google's waits seconds for that answer.
    """
    os.environ.setdefault("EPATH_USE_TF", "false")
    if scheme == "s3":
        from tulu_jax.places.amazon import register

        register()
        return
    from fsspec.config import conf

    emulator = os.environ.get("STORAGE_EMULATOR_HOST", "default")
    for each in ("gs", "gcs"):
        conf.setdefault(each, {})["use_listings_cache"] = False
        if emulator != "default":
            conf[each].setdefault("token", "anon")
    if emulator != "default":
        at = emulator if "//" in emulator else f"http://{emulator}"
        for name, value in {"TENSORSTORE_GCS_HTTP_URL": at, **_NOBODY}.items():
            os.environ.setdefault(name, value)


_NOBODY = {
    "GOOGLE_AUTH_TOKEN_FOR_TESTING": "none",
    "NO_GCE_CHECK": "true",
    "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
}
"""By these TensorStore and Google's libraries ask neither the machine's metadata nor its zone."""
