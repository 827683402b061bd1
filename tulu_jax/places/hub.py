"""Models of the Hugging Face Hub: downloaded to its own cache, and pushed to it."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tulu_jax.places.address import Address
from tulu_jax.places.errors import StorageError, storage_error

PATTERNS = ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja")
TORCH = ("pytorch_model*.bin",)
"""Taken where a model has no safetensors."""


def hub_folder(model: Address) -> Path:
    """The folder in the cache of huggingface_hub that holds a model; what is missing is fetched.

    The token is the environment's (`HF_TOKEN`, or of `hf auth login`); `HF_ENDPOINT`, `HF_HOME`
    and `HF_HUB_OFFLINE` are as everywhere.

    Raises:
      StorageError: there is no such model or revision, it may not be read, or the Hub does not
        answer and the cache does not hold it.
    """
    name, _, revision = model.bucket.partition("@")
    with _told("read", model):
        return _download(name, revision or None, os.environ.get("HF_ENDPOINT"))


@functools.cache
def _download(name: str, revision: str | None, endpoint: str | None) -> Path:
    from huggingface_hub import snapshot_download

    for patterns in (PATTERNS, (*PATTERNS, *TORCH)):
        folder = snapshot_download(
            name, revision=revision, endpoint=endpoint, allow_patterns=list(patterns)
        )
        if any(Path(folder).glob("*.safetensors")):
            break
    return Path(folder)


def push(folder: Path, model: Address, *, private: bool) -> str:
    """Uploads a folder as a new model of the Hub; the page of it.

    Raises:
      StorageError: it is there already, may not be written, or the Hub does not answer.
    """
    check_free(model)
    with _told("write", model):
        api = _api()
        page = api.create_repo(model.bucket, private=private, exist_ok=True)
        api.upload_folder(repo_id=model.bucket, folder_path=str(folder), commit_message="Export")
    return str(page)


def check_free(model: Address) -> None:
    """Refuses to write over a model that has files.

    Raises:
      StorageError: it has, or the Hub does not answer.
    """
    with _told("read", model):
        try:
            files = set(_api().list_repo_files(model.bucket)) - {".gitattributes"}
        except _no_repository():
            return
    if files:
        raise StorageError(
            "the model is there already",
            code=errno.EEXIST,
            got=f"{len(files)} files, such as {min(files)}",
            at=model,
            expected="a name that is free",
            do="choose another name: nothing is overwritten",
        )


def _no_repository() -> type[Exception]:
    from huggingface_hub.errors import RepositoryNotFoundError

    return RepositoryNotFoundError


def _api() -> Any:
    from huggingface_hub import HfApi

    return HfApi(endpoint=os.environ.get("HF_ENDPOINT"))


@contextlib.contextmanager
def _told(deed: str, model: Address) -> Iterator[None]:
    """Turns what huggingface_hub raises into our error."""
    begun = time.monotonic()
    try:
        yield
    except StorageError:
        raise
    except Exception as error:
        raise _error(error, deed, model, time.monotonic() - begun) from error


def _error(error: Exception, deed: str, model: Address, seconds: float) -> StorageError:
    """Our error of one of huggingface_hub's."""
    from huggingface_hub import errors

    said = str(error).strip().splitlines()[:1]
    if isinstance(error, errors.GatedRepoError):
        return StorageError(
            "the model is given to those only who asked for it",
            code=errno.EACCES,
            got="".join(said),
            at=model,
            do="agree to its terms on its page, and log in: hf auth login, or set HF_TOKEN",
        )
    if isinstance(error, errors.RepositoryNotFoundError | errors.RevisionNotFoundError):
        what = "revision" if isinstance(error, errors.RevisionNotFoundError) else "model"
        return StorageError(
            f"no such {what} on the Hub, or none that may be seen",
            code=errno.ENOENT,
            got="".join(said),
            at=model,
            expected="hf://org/name or hf://org/name@revision",
            do="mend the name; for a private one log in: hf auth login, or set HF_TOKEN",
        )
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        return StorageError(
            f"no permission to {deed}",
            code=errno.EACCES,
            got="".join(said),
            at=model,
            expected="a token that may " + ("write" if deed == "write" else "read"),
            do="log in: hf auth login, or set HF_TOKEN",
        )
    return storage_error(error, deed=deed, at=model, seconds=seconds)
