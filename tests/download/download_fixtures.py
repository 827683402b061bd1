"""Shared by the tests of downloads: servers, specs, quick options."""

import hashlib
import json
import random

from tulu_jax.data.specs import DatasetSpec
from tulu_jax.download.options import FetchOptions, Progress
from tulu_jax.download.sources import Source

NAME = "rows.jsonl"
QUICK = {"timeout_s": 5.0, "retries": 3, "backoff_s": 0.01, "backoff_cap_s": 0.02}


def rows(count=2000, seed=0):
    """JSON lines that do not compress to nothing."""
    draw = random.Random(seed)
    lines = [json.dumps({"id": i, "text": f"{draw.getrandbits(256):x}"}) for i in range(count)]
    return ("\n".join(lines) + "\n").encode()


BODY = rows()


def sha256(body):
    return hashlib.sha256(body).hexdigest()


def spec(*sources, name="small"):
    text = dict.fromkeys(("description", "citation", "licence", "homepage"), "")
    return DatasetSpec(
        name=name, version="1.0.0", read=lambda *_, **__: iter(()), sources=sources, **text
    )


def source(url, filename=NAME, **more):
    return Source(url, filename, **more)


def quick(**changes):
    return FetchOptions(**{**QUICK, **changes})


class Heard(Progress):
    """Keeps what a fetch told."""

    def __init__(self):
        self.notes, self.updates, self.finished = [], [], []

    def update(self, name, done_bytes, total_bytes, stage):
        self.updates.append((name, done_bytes, total_bytes, stage))

    def note(self, name, text):
        self.notes.append(text)

    def finish(self, name):
        self.finished.append(name)


def tree(folder):
    """Every file below, with its content."""
    files = (p for p in sorted(folder.rglob("*")) if p.is_file())
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}
