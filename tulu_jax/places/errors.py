"""What a user is told when a storage cannot be read or written: what, where, what to do."""

from __future__ import annotations

import errno
import re

from tulu_jax.errors import TuluError

NEEDED = {
    "gs": {
        "read": "storage.objects.get",
        "list": "storage.objects.list",
        "write": "storage.objects.create",
        "remove": "storage.objects.delete",
    },
    "s3": {
        "read": "s3:GetObject",
        "list": "s3:ListBucket",
        "write": "s3:PutObject",
        "remove": "s3:DeleteObject",
    },
}
"""The permission that a deed needs in each storage."""
GRANT = {
    "gs": "grant the role roles/storage.objectUser on the bucket, or log in as somebody who has it "
    "(gcloud auth application-default login)",
    "s3": "grant it to this identity in the bucket's policy, or take the keys of one that has it",
}
LOGIN = {
    "gs": "gcloud auth application-default login, or name a key file in "
    "GOOGLE_APPLICATION_CREDENTIALS",
    "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY: "
    'eval "$(aws configure export-credentials --format env)"',
}
_PERMISSION = re.compile(r"\b(storage\.[a-z]+\.[A-Za-z]+|s3:[A-Z][A-Za-z]+)\b")
_NO_LOGIN = re.compile(
    r"anonymous|credentials|unauthenticated|invalid.token|could not refresh", re.IGNORECASE
)
_401, _403 = (re.compile(rf"(?<![\w/.-]){status}(?![\w/.-])") for status in (401, 403))
"""A status, and not the name of a step."""
_WRONG_KEYS = re.compile(r"InvalidAccessKeyId|SignatureDoesNotMatch|ExpiredToken")
_OTHER_REGION = re.compile(r"configured region|PermanentRedirect|\b301\b", re.IGNORECASE)
_NO_BUCKET = re.compile(r"NoSuchBucket|specified bucket does not exist", re.IGNORECASE)
_DENIED = re.compile(r"forbidden|permission.?denied|access.?denied", re.IGNORECASE)
_TEXT_MOST = 150
"""Characters of a long error that are shown of its beginning, and of its end."""


class StorageError(TuluError, OSError):
    """A bucket or the Hub cannot be read or written; `errno` says whether rights are lacking."""

    def __init__(self, what: str, *, code: int, **parts: object) -> None:
        """As `TuluError`; `code` is the number of the system's error that is the likest."""
        super().__init__(what, **parts)
        self.errno = code
        self.strerror = str(self)

    def __str__(self) -> str:
        """The message, which OSError would put its number before."""
        return str(self.args[0])


def storage_error(
    error: Exception, *, deed: str, at: object, seconds: float | None = None
) -> StorageError:
    """Our error of one that a storage's library raised.

    Args:
      error: what was raised.
      deed: read, list, write or remove.
      at: the address.
      seconds: for how long it was tried, if that is known.
    """
    text = " ".join(f"{type(error).__name__}: {error}".split())
    said = text if len(text) <= 2 * _TEXT_MOST else f"{text[:_TEXT_MOST]}...{text[-_TEXT_MOST:]}"
    code = getattr(error, "code", None) or getattr(error, "status", None)
    scheme = "s3" if str(at).startswith("s3:") else "gs"
    if code is None:
        code = next((each for each, said in ((401, _401), (403, _403)) if said.search(text)), None)
    denied = code == 403 or (code is None and _DENIED.search(text))
    stranger = code == 401 or (code is None and not denied and _NO_LOGIN.search(text))
    if stranger or _WRONG_KEYS.search(text):
        return StorageError(
            f"nobody is logged in to {deed}",
            code=errno.EACCES,
            got=said,
            at=at,
            expected="credentials",
            do=LOGIN[scheme],
        )
    if denied:
        named = _PERMISSION.search(str(error))
        permission = named[1] if named else NEEDED[scheme][deed]
        return StorageError(
            f"no permission to {deed}",
            code=errno.EACCES,
            got=said,
            at=at,
            expected=f"the permission {permission}",
            do=GRANT[scheme],
        )
    if _NO_BUCKET.search(text):
        return no_bucket(at)
    if scheme == "s3" and _OTHER_REGION.search(text):
        return StorageError(
            "bucket lies in another region",
            code=errno.EINVAL,
            got=said,
            at=at,
            expected="its region in AWS_REGION",
            do="set it",
        )
    return StorageError(
        f"storage does not answer: could not {deed}"
        + ("" if seconds is None else f", gave up after {seconds:.0f} s"),
        code=errno.ETIMEDOUT,
        got=said,
        at=at,
        do="see whether the storage is up and this machine reaches it, then give the same command "
        "again",
    )


def no_bucket(at: object) -> StorageError:
    """The error of writing to a bucket that is not there."""
    return StorageError(
        "no such bucket",
        code=errno.ENOENT,
        got=str(at).split("/")[2],
        at=at,
        do="make it, or mend its name",
    )
