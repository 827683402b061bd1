"""Stores whose DATA_DIR is in a bucket: made and read on this machine, published and fetched there.

A store is read at random, a few kilobytes at a time, which a bucket answers in milliseconds each.
So every host fetches it once. In the bucket `meta.json` comes last: without it there is no store.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from tulu_jax.data.locks import locked
from tulu_jax.data.store import Store, open_store
from tulu_jax.data.store_format import META_FILE
from tulu_jax.errors import DataError
from tulu_jax.places import (
    Address,
    create,
    download,
    hold_copy,
    make_room,
    upload,
    write_file,
)


def fetch_store(place: Address, folder: Path) -> None:
    """Copies the store at `place` to `folder`, where there is one and the folder has none.

    Raises:
      DataError: a file is not the one that its meta.json names.
      StorageError: the bucket cannot be read.
    """
    hold_copy(folder.parents[1])
    if (folder / META_FILE).is_file():
        return
    with locked([folder]):  # another process of this host may be at it
        if (folder / META_FILE).is_file():
            return
        try:
            meta = place_meta(place)
        except FileNotFoundError:
            return
        sizes = {name: int(facts["bytes"]) for name, facts in meta["files"].items()}
        make_room(folder.parents[1], sum(sizes.values()))
        work = Path(tempfile.mkdtemp(prefix=f".{folder.name}.fetched-", dir=folder.parent))
        try:
            for name in sizes:
                download(place / name, work / name)
            (work / META_FILE).write_text(json.dumps(meta, indent=1), encoding="utf-8")
            open_store(work, verify=True)
            shutil.rmtree(folder, ignore_errors=True)
            work.replace(folder)
        finally:
            shutil.rmtree(work, ignore_errors=True)


def place_meta(place: Address) -> dict[str, Any]:
    """The meta data of a store in a bucket.

    Raises:
      DataError: it is none.
      FileNotFoundError: there is no store.
    """
    try:
        meta = json.loads((place / META_FILE).read_text())
        if not all(Path(name).name == name for name in meta["files"]):
            raise ValueError("a file outside its folder")
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            "store in the bucket is damaged",
            got=f"meta.json: {error}",
            at=place,
            do="delete it there and run `tulu data prepare` again",
        ) from error
    return meta


def publish_store(store: Store, place: Address) -> bool:
    """Copies a store to a bucket, unless it is there; whether this call made it one.

    Raises:
      StorageError: the bucket cannot be written.
    """
    text = (store.path / META_FILE).read_text(encoding="utf-8")
    try:
        if place_meta(place)["files"] == store.meta["files"]:
            return False
        damaged = True
    except (FileNotFoundError, DataError) as error:
        damaged = isinstance(error, DataError)
    for name in store.meta["files"]:
        upload(store.path / name, place / name)
    if damaged:
        write_file(place / META_FILE, text)
        return True
    return create(place / META_FILE, text)
