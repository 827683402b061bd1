"""Stores whose DATA_DIR is in a bucket: made here, published there, fetched once a host."""

import json
import os
from concurrent.futures import ThreadPoolExecutor

import pytest
from buckets import BOTH

from tasks import demo
from tulu_jax.data import beam
from tulu_jax.data.keys import PrepareOptions, store_keys
from tulu_jax.data.prepare import find_store, prepare
from tulu_jax.places import fetched

ROWS = [
    {"dataset": "dolly", "id": f"d{n}",
     "messages": [{"role": "user", "content": f"What is {n}?"},
                  {"role": "assistant", "content": f"It is {n}."}]}
    for n in range(40)
]  # fmt: skip


def read(spec, split):
    return iter(ROWS)


@pytest.fixture
def host(tmp_path, monkeypatch):
    """Makes this process another host: with nothing fetched."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def become(name):
        for descriptor in fetched._held.values():
            os.close(descriptor)
        fetched._held.clear()
        monkeypatch.setenv("TULU_FETCHED_DIR", str(tmp_path / name))
        return tmp_path / name

    yield become
    assert os.listdir(tmp_path / "here") == []


def options(place, **more):
    return PrepareOptions(
        tokenizer=str(demo.TOKENIZER_DIR), max_length=256, data_dir=str(place), **more
    )


def key(place):
    (spec,) = options(place).specs("tulu_dolly")
    return store_keys(spec, options(place), tokenizer=options(place).load_tokenizer())["train"]


def stored(place):
    """Contents of the store in the bucket by name."""
    folder = key(place).place(place)
    return {name: (folder / name).read_bytes() for name in folder.files()}


@BOTH
def test_prepared_on_one_host_it_is_fetched_by_another(bucket, host, tmp_path, storage):
    host("a")
    (store,) = prepare("tulu_dolly", options(bucket / "data"), reader=read)
    (near,) = prepare("tulu_dolly", options(tmp_path / "near"), reader=read)
    assert {name: (near.path / name).read_bytes() for name in stored(bucket / "data")} == stored(
        bucket / "data"
    )
    host("b")
    found = find_store(key(bucket / "data"), options(bucket / "data"))
    assert found is not None and found.fingerprint == store.fingerprint and len(found) == 40
    assert "/b/" in str(found.path) and (found[7][0] == store[7][0]).all()
    storage.calm()
    again = find_store(key(bucket / "data"), options(bucket / "data"))
    assert again is not None and storage.fault().get("bytes", 0) < 2000  # nothing is fetched again


def test_without_its_meta_file_there_is_no_store(bucket, host, storage, impatient):
    host("a")
    storage.fault(block="meta.json")
    with pytest.raises(ValueError, match="storage does not answer"):
        prepare("tulu_dolly", options(bucket / "data"), reader=read)
    storage.calm()
    host("b")
    assert find_store(key(bucket / "data"), options(bucket / "data")) is None
    host("a")  # its store was made, and only not published
    prepare("tulu_dolly", options(bucket / "data"), reader=read)
    assert "meta.json" in stored(bucket / "data")


def test_a_damaged_store_is_made_again(bucket, host):
    host("a")
    prepare("tulu_dolly", options(bucket / "data"), reader=read)
    whole, folder = stored(bucket / "data"), key(bucket / "data").place(bucket / "data")
    (folder / "tokens.array_record").write_bytes(b"x" * len(whole["tokens.array_record"]))
    host("b")
    assert find_store(key(bucket / "data"), options(bucket / "data")) is None
    (folder / "meta.json").write_text("{")
    host("c")
    prepare("tulu_dolly", options(bucket / "data"), reader=read)
    assert stored(bucket / "data") == whole


@BOTH
def test_several_at_once_make_one_store(bucket, host, tmp_path, monkeypatch):
    """Each in a folder of its own, as hosts are: threads, as their work is the same."""
    folders = iter([tmp_path / f"host{n}" for n in range(4)])
    host("unused")
    monkeypatch.setattr("tulu_jax.data.keys.fetched_dir", lambda: next_folder())
    import threading

    own = threading.local()

    def next_folder():
        if not hasattr(own, "folder"):
            own.folder = next(folders)
        return own.folder

    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(
            lambda _: prepare("tulu_dolly", options(bucket / "data"), reader=read)[0], range(4)
        ))  # fmt: skip
    assert len({store.fingerprint for store in done}) == 1
    meta = json.loads(stored(bucket / "data")["meta.json"])
    assert meta["files"] == done[0].meta["files"]
    assert len([name for name in (bucket / "data").files() if name.endswith("meta.json")]) == 1


def test_workers_of_beam_read_and_write_in_the_bucket(bucket, host, tmp_path, monkeypatch):
    """What a runner does with the pipeline is tried in test_beam.py, where there is one."""

    def make(pipeline, jobs, options):
        assert all(job.startswith(f"{bucket}/data/.beam/") for job in jobs)
        tokenizer = (options.tokenizer, options.encoding, options.chat_template, options.add_tokens)
        for job in jobs:
            beam._make_part(tokenizer, options.max_length, job)

    monkeypatch.setattr(beam, "_pipeline", lambda options: None)
    monkeypatch.setattr(beam, "_make", make)
    host("a")
    far = options(bucket / "data", beam_runner="DirectRunner")
    (store,) = prepare("tulu_dolly", far, reader=read)
    (near,) = prepare("tulu_dolly", options(tmp_path / "near"), reader=read)
    assert store.fingerprint == near.fingerprint
    assert set(stored(bucket / "data")) == set(near.meta["files"]) | {"meta.json"}
    assert not (bucket / "data" / ".beam").exists()
