"""What lies in a bucket, looked at on this machine."""

import shutil

from train.small import final_state, run_config
from tulu_jax.places import as_place, download


def fetched(source, target):
    """Copies all that lies below an address to a folder that is made anew."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for name in source.files():
        download(source / name, target / name)
    return target


def fetched_state(place, step, folder):
    """As `final_state`, of a checkpoint in a bucket, copied to a folder."""
    copy = folder / "copy"
    fetched(as_place(str(place)) / "checkpoints" / str(step), copy / "checkpoints" / str(step))
    return final_state(run_config(copy), step)
