"""The one way to name a user's files, to say what they are, to read, publish and hash them."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import secrets
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from tulu_jax.errors import ConfigError, TuluError

if TYPE_CHECKING:
    from tulu_jax.places import Place

HEAD_BYTES = 512
"""How much of a file `kind_of` needs to see."""

_SCHEME = re.compile(
    r"\s*(?:([a-z][a-z0-9+.-]+):/|(gs|gcs|s3|s3a|hf|az|abfss?|hdfs|file|https?):)", re.IGNORECASE
)
_VARIABLE = re.compile(r"(\$([A-Za-z_]\w*|\{\w+\}))[^/]*")
_PAGE = re.compile(rb"\s*<(!doctype|html|head|body|\?xml|script|!--)", re.IGNORECASE)
TIKTOKEN = "a tiktoken vocabulary"
_TIKTOKEN = re.compile(rb"[A-Za-z0-9+/]+={0,2} 0\r?\n")  # ranks count from 0
_INSTEAD = {
    "file": "write the path alone",
    "http": "download it, and name the file",
    "https": "download it, and name the file",
}
"""What to do about an address with such a scheme."""
_STARTS = (
    (b"version https://git-lfs.github.com/", "a Git LFS pointer (the file itself was not fetched)"),
    (b"\x1f\x8b", "a gzip file"),
    (b"\x28\xb5\x2f\xfd", "a zstd file"),
    (b"\xfd7zXZ\x00", "an xz file"),
    (b"BZh", "a bzip2 file"),
    (b"PK\x03\x04", "a zip archive"),
    (b"PAR1", "a Parquet file"),
    (b"ARROW1", "an Arrow file"),
    (b"\xff\xfe", "UTF-16 text"),
    (b"\xfe\xff", "UTF-16 text"),
    (b"%PDF-", "a PDF file"),
    (b"GGUF", "a GGUF file"),
    (b"\x89HDF\r\n", "an HDF5 file"),
)


def user_path(text: str | os.PathLike[str], *, name: str = "path") -> Path:
    """The absolute path that a user means by `text`; `name` is what messages call it.

    `~` is expanded, `.`, `..` and slashes at the end are resolved; where there is a `..`, links
    are followed first, as the operating system does. Everything else in a name is just a name.

    >>> user_path("/tmp/runs/../my run [1], new/")
    PosixPath('/tmp/my run [1], new')

    Raises:
        ConfigError: an empty text, one with a NUL or a lone surrogate, an address such as
            gs://bucket/folder, `~` of nobody known, or a variable such as $HOME.
    """
    given = os.fspath(text)
    if not given.strip() or "\0" in given or not _encodable(given):
        raise ConfigError(
            f"{name} names no file or folder", got=repr(given), expected="a path", do="name one"
        )
    scheme = scheme_of(given)
    if scheme is not None:
        raise ConfigError(
            f"{name} is an address, not a path of this machine",
            got=repr(given),
            expected=f"a local path: {scheme}:// is not supported here",
            do=_INSTEAD.get(scheme, "mount the storage, or copy it to or from a local folder"),
        )
    variable = _VARIABLE.search(given)
    if variable and not os.path.lexists(given[: variable.end()]):
        raise ConfigError(
            f"{name} holds a variable that no shell has replaced",
            got=repr(given),
            expected=f"what {variable[1]} stands for",
            do="write it out: in gin files and single quotes it is just text",
        )
    expanded = os.path.expanduser(given)
    if given.startswith("~") and expanded == given and not os.path.lexists(given):
        raise ConfigError(
            f"{name} starts with ~ and that home folder is not known",
            got=repr(given),
            expected="a path",
            do="write it out, or put ./ before a name that really starts with ~",
        )
    steps_up = ".." in Path(expanded).parts
    return Path(os.path.realpath(expanded) if steps_up else os.path.abspath(expanded))


def scheme_of(text: str) -> str | None:
    """The scheme of an address, also of a mistyped one, in small letters; None for a path.

    >>> scheme_of("GS://bucket/x"), scheme_of("gs:/x"), scheme_of("s3:x"), scheme_of("run:1")
    ('gs', 'gs', 's3', None)
    """
    found = _SCHEME.match(text)
    return (found[1] or found[2]).lower() if found else None


def user_paths(named: str | Sequence[str], *, name: str = "path") -> list[Path]:
    """The paths that a user means: one, several in a list, or several joined by commas.

    A text with commas that is the name of something there is one path.

    Raises: ConfigError, as `user_path`.
    """
    if isinstance(named, str):
        whole = user_path(named, name=name)
        named = [named] if whole.exists() else [p for p in named.split(",") if p.strip()] or [""]
    return [user_path(one.strip(), name=name) for one in named]


def _encodable(text: str) -> bool:
    """Whether the operating system can have a file of this name."""
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        return False
    return True


def real_path(path: str | os.PathLike[str]) -> Path:
    """The path with every link followed; unlike `Path.resolve`, a loop of links is no error."""
    return Path(os.path.realpath(path))


def hub_advice(path: object) -> str | None:
    """What to do about a path that is not there and looks like a name on a hub: `org/model`."""
    folder = Path(os.path.abspath(str(path))).parent
    if not isinstance(path, Path) or folder.exists() or folder.parent != Path.cwd():
        return None
    return "nothing is downloaded by name: get it first (hf download), and name where it lies"


def lost_link(path: Place) -> str | None:
    """Where a link leads when nothing is there; None for anything else."""
    return os.readlink(str(path)) if path.is_symlink() and not path.exists() else None


def kind_of(head: bytes) -> str | None:
    """What a file is whose first bytes are these, in words; None for what is not recognised.

    >>> kind_of(b"version https://git-lfs.github.com/spec/v1")
    'a Git LFS pointer (the file itself was not fetched)'
    >>> kind_of(b"<!DOCTYPE html><html>")
    'a web page (HTML)'
    >>> kind_of(b'{"messages": []}')
    """
    if not head:
        return "an empty file"
    for start, kind in _STARTS:
        if head.startswith(start):
            return kind
    if _PAGE.match(head.removeprefix(b"\xef\xbb\xbf")):
        return "a web page (HTML)"
    if _TIKTOKEN.match(head):
        return TIKTOKEN
    return None


_KIND_ADVICE = {
    "Git LFS": "fetch it with `git lfs pull`, or download the file itself",
    "HTML": "download the file itself: this is a page about it",
    "gzip": "unpack it",
    "tiktoken": "name the tokenizer.json of the same model instead",
    "UTF-16": "save it as UTF-8",
}


def instead(kind: str) -> str | None:
    """What to do about a file of such a kind where another was meant, if there is advice."""
    return next((do for word, do in _KIND_ADVICE.items() if word in kind), None)


def text_in(head: bytes) -> str | None:
    r"""What a file of bytes is whose beginning is plain text, in words; None where it is not.

    Servers and download tools put messages in place of files.

    >>> text_in(b'{"error": "Not found"}')
    'text that begins with \'{"error": "Not found"}\''
    """
    begin = head[:64]
    plain = len(begin) > 3 and all(32 <= byte < 127 or byte in b"\t\r\n" for byte in begin)
    return f"text that begins with {begin.decode()[:40]!r}" if plain else None


def kind_of_file(path: Path) -> str | None:
    """`kind_of` the file at `path`.

    Raises: OSError.
    """
    with open(path, "rb") as stream:
        return kind_of(stream.read(HEAD_BYTES))


class RepeatedField(ValueError):
    """A JSON object has a field twice; the text is the field's name."""


def each_once(pairs: list[tuple[str, Any]], *, same: bool = False) -> dict[str, Any]:
    """The fields of a JSON object, for `object_pairs_hook`: a parser keeps the last in silence.

    With `same` a field may be there again with the same value.

    >>> each_once([("a", 1), ("b", 2)])
    {'a': 1, 'b': 2}

    Raises:
        RepeatedField: a field is there twice.
    """
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: dict[str, Any] = {}
        for name, value in pairs:
            if name in seen and not (same and seen[name] == value):
                raise RepeatedField(name)
            seen[name] = value
    return found


def parse_json(text: str | bytes, *, same: bool = False, **options: Any) -> Any:
    """The JSON value in a text; a byte order mark before bytes of it is skipped.

    With `same` a field may be there again with the same value; `options` are as of `json.loads`.

    Raises:
        ValueError: saying what is wrong: no UTF-8, no JSON, nested too deeply, a field twice.
    """
    try:
        text = text if isinstance(text, str) else text.decode("utf-8-sig")
        return json.loads(text, object_pairs_hook=partial(each_once, same=same), **options)
    except RepeatedField as error:
        raise ValueError(f"the field {error} twice" + same * " with two values") from error
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def read_json(
    path: Place,
    error: type[TuluError],
    *,
    expected: object = None,
    do: object = None,
    mend: str = "mend the file, or take it anew from where it came",
) -> dict[str, Any]:
    """The JSON object in a file.

    Args:
      path: the file.
      error: what is raised of it.
      expected: what its folder should be, for the message where the file is missing.
      do: what to do then.
      mend: what to do about a file that holds anything else.

    Raises:
      TuluError: no such file, one that cannot be read, or that is no JSON object in UTF-8; or a
        field is there twice with two values.
    """
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as fault:
        raise error(f"{path.name} is missing", at=path.parent, expected=expected, do=do) from fault
    except OSError as fault:
        raise error(f"{path.name} cannot be read", got=fault.strerror or fault, at=path) from fault
    kind = kind_of(data)
    try:
        if kind is not None:
            raise ValueError(kind)
        value = parse_json(data, same=True)
        if not isinstance(value, dict):
            raise ValueError(f"a JSON {type(value).__name__}")
    except ValueError as fault:
        raise error(
            f"{path.name} is not a JSON object",
            got=fault,
            at=path,
            expected="an object in UTF-8",
            do=instead(kind or "") or mend,
        ) from fault
    return value


def json_or_none(path: Place) -> Any:
    """The JSON value in a file of our own making; None where it cannot be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


_ADVICE = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space: a quota is used up",
    errno.EFBIG: "raise the limit on the size of files",
    errno.EACCES: "make it writable",
    errno.EPERM: "make it writable",
    errno.EROFS: "choose a place that is not read-only",
    errno.EEXIST: "move away what lies there",
    errno.ENOTDIR: "move away the file that is in place of a folder",
    errno.EISDIR: "move away the folder that is in place of the file",
    errno.ELOOP: "take away the link that leads in a circle",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ENOENT: "see who takes folders away while they are written to",
}


def advice(error: OSError) -> str | None:
    """What to do about an error of writing, if its number tells.

    >>> advice(OSError(errno.ENOSPC, "No space left on device"))
    'free some space'
    """
    return _ADVICE.get(error.errno or 0)


def disk_error(error: Exception) -> OSError | None:
    """The system's error that a library in C++ tells of in the words of its own; None without one.

    >>> disk_error(RuntimeError("write() failed: No space left on device; at byte 0"))
    OSError(28, 'No space left on device')
    """
    codes = (code for code in _ADVICE if os.strerror(code) in str(error))
    return next((OSError(code, os.strerror(code)) for code in codes), None)


@contextlib.contextmanager
def whole_file(path: Path, mode: str = "w", *, durable: bool = False) -> Iterator[IO[Any]]:
    """A file to write that has its name when it is whole, and is not there after an error.

    Its folder is made, and what lay there is replaced; links are followed, and a pipe is written
    to as it is. Text is UTF-8, a lone surrogate in it an escape. With `durable` the bytes are on
    the disk before the file has its name.

    Raises: OSError.
    """
    as_text = {"encoding": "utf-8", "errors": "backslashreplace", "newline": "\n"}
    options: dict[str, Any] = {} if "b" in mode else as_text
    if path.exists() and not path.is_file():
        with open(path, mode, **options) as stream:
            yield stream
        return
    path = real_path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")
    stream = open(temporary, mode.replace("w", "x"), **options)  # noqa: SIM115
    try:
        with stream:
            yield stream
            if durable:
                stream.flush()
                os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink()
        raise


def write_whole(path: Path, content: str | bytes, *, durable: bool = False) -> None:
    """Writes a file of this content: at any moment it is the old one or the new one.

    Raises: OSError.
    """
    with whole_file(path, "w" if isinstance(content, str) else "wb", durable=durable) as stream:
        stream.write(content)


def write_json(path: Path, value: Any, *, indent: int = 2, durable: bool = False) -> None:
    """The same of a JSON value, as people read it.

    Raises: OSError.
    """
    write_whole(path, json.dumps(value, indent=indent) + "\n", durable=durable)


def sha256(content: str | bytes) -> str:
    """SHA-256 of a text in UTF-8, or of bytes, in hex."""
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()


def json_sha256(value: Any) -> str:
    """The same of a JSON value, in whatever order its fields are; other objects are their text."""
    return sha256(json.dumps(value, sort_keys=True, default=str))


def file_sha256(path: Path) -> str:
    """The same of a file's content, read in pieces."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
