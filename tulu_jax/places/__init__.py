"""Where files lie: folders of this machine, buckets (gs://, s3://), models on the Hub (hf://).

The one room that knows schemes. A `Place` is a `pathlib.Path` or an `Address`, which is used the
same way; what differs between the two stands in the functions here:

    place = user_place("gs://bucket/models/llama", name="--model", hub=True)
    place = readable(place)              # a model of the Hub is downloaded, others stay
    (place / "config.json").read_bytes() # local or not
    read_ranges(place / "model.safetensors", [(0, 8)])  # bytes of a large file, side by side
    folder = local_folder(place)         # small files (a tokenizer) as a folder of this machine
    with writing(place / "big") as file: # has its name when it is whole, never before
        file.write(...)
    create(place / "meta.json", text)    # True for one of those that come at once

Errors of every storage are a `StorageError` (a `TuluError` and an `OSError`) that says what, where
and what to do; what is not there is a FileNotFoundError.
"""

from tulu_jax.places.address import (
    Address,
    Place,
    as_place,
    children,
    is_address,
    settle,
    user_place,
)
from tulu_jax.places.errors import StorageError, storage_error
from tulu_jax.places.fetched import (
    download,
    fetched_dir,
    hold_copy,
    local_folder,
    make_room,
    readable,
)
from tulu_jax.places.hub import check_free, push
from tulu_jax.places.kvstores import CONTEXT, kvstore
from tulu_jax.places.ranges import read_ranges
from tulu_jax.places.swaps import Marked, read_marked, swap
from tulu_jax.places.writers import (
    check_writable,
    create,
    move_tree,
    remove_tree,
    upload,
    write_file,
    writing,
)

__all__ = [
    "CONTEXT",
    "Address",
    "Marked",
    "Place",
    "StorageError",
    "as_place",
    "check_free",
    "check_writable",
    "children",
    "create",
    "download",
    "fetched_dir",
    "hold_copy",
    "is_address",
    "kvstore",
    "local_folder",
    "make_room",
    "move_tree",
    "push",
    "read_marked",
    "read_ranges",
    "readable",
    "remove_tree",
    "settle",
    "storage_error",
    "swap",
    "upload",
    "user_place",
    "write_file",
    "writing",
]
