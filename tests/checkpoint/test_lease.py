"""Who a run folder in a bucket belongs to."""

import json
import os
import threading

import pytest
from buckets import BOTH

from tulu_jax.checkpoint import lease as leases
from tulu_jax.checkpoint.lease import leased
from tulu_jax.checkpoint.owner import OWNER_FILE, new_record
from tulu_jax.errors import ConfigError, TuluError
from tulu_jax.places import read_marked, remove_tree, swap

pytestmark = BOTH


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(leases, "BEAT_S", 0.05)
    monkeypatch.setattr(leases, "WATCH_S", 0.6)


def left(folder, **changes):
    """What an owner that was killed left."""
    record = {**new_record(), **changes}
    (folder / OWNER_FILE).write_text(json.dumps(record))
    return record


def test_one_run_has_a_folder_and_leaves_it(bucket):
    with leased(bucket / "run") as lease:
        record = json.loads((bucket / "run" / OWNER_FILE).read_text())
        assert record["process"] == os.getpid()
        words = rf"run folder belongs to another run that is going on - got process {os.getpid()}"
        with pytest.raises(ConfigError, match=words), leased(bucket / "run"):
            pass
        lease.check()
    assert read_marked(bucket / "run" / OWNER_FILE).content is None
    with leased(bucket / "run"):
        pass


def test_of_two_that_come_at_once_one_has_it(bucket):
    won, refused, here = [], [], threading.Barrier(4)

    def come(number):
        here.wait()
        try:
            with leased(bucket / "run"):
                won.append(number)
                done.wait(10)
        except ConfigError:
            refused.append(number)

    done = threading.Event()
    threads = [threading.Thread(target=come, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    while len(won) + len(refused) < 4:
        done.wait(0.05)
    done.set()
    for thread in threads:
        thread.join()
    assert len(won) == 1


@pytest.mark.parametrize("machine", ["another machine", None])
def test_an_owner_that_is_gone_is_taken_over_from(bucket, machine):
    changes = {"machine": machine} if machine else {"process": 2**22 + 1}
    left(bucket / "run", **changes)
    said = []
    with leased(bucket / "run", say=said.append) as lease:
        lease.check()
    assert len(said) == 1 and "is gone and had not ended its run" in said[0]


def test_an_owner_that_comes_back_ends(bucket):
    with leased(bucket / "run") as lease:
        found = read_marked(bucket / "run" / OWNER_FILE)
        while swap(bucket / "run" / OWNER_FILE, found, json.dumps(new_record()).encode()) is None:
            found = read_marked(bucket / "run" / OWNER_FILE)
        lease._thread.join(10)
        with pytest.raises(
            ConfigError, match="run folder was taken over by another run while this"
        ):
            lease.check()
    assert (bucket / "run" / OWNER_FILE).is_file()  # it is the other's


@pytest.mark.parametrize(
    ("left", "words"),
    [
        ("checkpoints/1/x", r"lost its owner's name while the run went on - got no \.owner at .*"
         "the same command goes on from the newest checkpoint"),
        (None, "was removed while the run went on - got nothing at .*see whether the bucket"),
    ],
)  # fmt: skip
def test_an_owner_whose_folder_is_emptied_ends(bucket, left, words):
    with leased(bucket / "run") as lease:
        while not lease._taken:  # once a beat may come between the two
            remove_tree(bucket / "run")
            lease._thread.join(0.5)
        if left:
            (bucket / "run" / left).write_bytes(b"")
        with pytest.raises(TuluError, match=f"run folder {words}"):
            lease.check()


def test_lost_answers_do_not_lose_the_folder(bucket, storage):
    storage.fault(pdrop=0.3, p503=0.1, seed=1, match="owner")
    with leased(bucket / "run") as lease:
        done = threading.Event()
        done.wait(1.5)
        lease.check()
    assert storage.fault()["pdrop"]
