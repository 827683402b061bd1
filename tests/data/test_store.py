"""The store gives back what was put in, and notices when its files are not what was written."""

import json
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from data.fixtures import META, make_examples, small_store
from tulu_jax.data import store as store_module
from tulu_jax.data.store import Example, open_store, write_store
from tulu_jax.errors import DataError

LENGTHS = [1, 15, 16, 17, 31, 32, 33, 200, 5]


@pytest.mark.parametrize("vocab_size", [1000, 65_536, 70_000])
def test_examples_come_back(tmp_path, vocab_size):
    examples = make_examples(LENGTHS, vocab_size=vocab_size)
    store = write_store(tmp_path / "s", examples, meta=META | {"vocab_size": vocab_size})
    assert len(store) == len(LENGTHS) and store.lengths.tolist() == LENGTHS
    assert store.ids == [example.id for example in examples]
    assert store.loss_tokens.tolist() == [int(e.loss_mask.sum()) for e in examples]
    for (tokens, mask), example in zip(store, examples, strict=True):
        assert tokens.dtype == np.int32 and mask.dtype == bool
        assert np.array_equal(tokens, example.tokens)
        assert np.array_equal(mask, example.loss_mask)
    assert store.meta["token_dtype"] == ("<u2" if vocab_size <= 65_536 else "<u4")


def test_gather_joins_examples_in_the_order_asked(tmp_path):
    store, examples = small_store(tmp_path / "s", LENGTHS)
    got = store.gather(np.array([7, 0, 7, 3]))
    expected = [examples[i] for i in (7, 0, 7, 3)]
    assert np.array_equal(got.tokens, np.concatenate([e.tokens for e in expected]))
    assert np.array_equal(got.loss_mask, np.concatenate([e.loss_mask for e in expected]))
    assert got.lengths.tolist() == [200, 1, 200, 17]
    assert store.gather(np.array([], dtype=int)).tokens.shape == (0,)
    with pytest.raises(IndexError, match=r"example index outside 0\.\.8"):
        store.gather(np.array([9]))


def test_reading_from_threads_and_processes(tmp_path):
    store, examples = small_store(tmp_path / "s", [20] * 200)
    with ThreadPoolExecutor(4) as pool:
        rows = list(pool.map(lambda i: store[i][0], range(200)))
    assert all(np.array_equal(a, e.tokens) for a, e in zip(rows, examples, strict=True))
    copy = pickle.loads(pickle.dumps(store))
    assert np.array_equal(copy[3][0], examples[3].tokens)


def test_meta_and_fingerprint(tmp_path):
    store, _ = small_store(tmp_path / "a", LENGTHS)
    same, _ = small_store(tmp_path / "b", LENGTHS)
    other, _ = small_store(tmp_path / "c", LENGTHS, seed=1)
    assert store.fingerprint == same.fingerprint != other.fingerprint
    assert store.meta["tokens"] == sum(LENGTHS) and store.meta["examples"] == len(LENGTHS)
    assert store.name == "tulu_small"


def test_writing_again_replaces_and_leaves_nothing_behind(tmp_path):
    small_store(tmp_path / "s", [3])
    store, _ = small_store(tmp_path / "s", [4, 5])
    assert store.lengths.tolist() == [4, 5]
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


def test_a_failing_source_leaves_no_store(tmp_path):
    def examples():
        yield from make_examples([3, 4])
        raise DataError("bad row")

    with pytest.raises(DataError, match=r"bad row"):
        write_store(tmp_path / "s", examples(), meta=META)
    assert list(tmp_path.iterdir()) == []


def test_a_killed_writer_leaves_no_store(tmp_path):
    script = textwrap.dedent(
        """
        import sys, time
        import numpy as np
        from tulu_jax.data.store import Example, write_store
        def examples():
            for i in range(10**9):
                yield Example(str(i), np.arange(1, 50), np.arange(49) > 3)
                if i == 5000:
                    print("half", flush=True)
                    time.sleep(60)
        write_store(sys.argv[1], examples(), meta={"vocab_size": 100})
        """
    )
    path = tmp_path / "s"
    child = subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE)
    with child:
        assert child.stdout.readline() == b"half\n"
        os.kill(child.pid, signal.SIGKILL)
    with pytest.raises(DataError, match=r"no tokenized store .* run `tulu data prepare`"):
        open_store(path)
    assert len(list(tmp_path.iterdir())) == 1  # what the killed writer left is not a store
    with pytest.raises(DataError, match=r"half-written store - got no meta.json"):
        open_store(next(tmp_path.iterdir()))
    store, _ = small_store(path, [5])
    assert len(store) == 1
    assert [left.name for left in tmp_path.iterdir()] == ["s"]


def test_of_two_writers_of_one_store_the_first_stays(tmp_path):
    first, _ = small_store(tmp_path / "s", [3, 4])
    before = (first.path / "meta.json").stat().st_ino
    small_store(tmp_path / "s", [3, 4])
    assert (first.path / "meta.json").stat().st_ino == before


def damage(path, change):
    content = bytearray(path.read_bytes())
    path.write_bytes(change(content))


@pytest.mark.parametrize("name", ["tokens.array_record", "index.npz"])
def test_damaged_files_are_noticed(tmp_path, name):
    path = tmp_path / "s"
    small_store(path, LENGTHS)
    whole = (path / name).read_bytes()
    damage(path / name, lambda content: content[:-10])
    with pytest.raises(DataError, match=rf"store is truncated or corrupt - got .* bytes .*{name}"):
        open_store(path)
    (path / name).write_bytes(whole)
    damage(path / name, lambda content: content[:99] + bytes([content[99] ^ 1]) + content[100:])
    with pytest.raises(DataError, match=r"truncated or corrupt - got another checksum"):
        open_store(path)
    (path / name).unlink()
    with pytest.raises(DataError, match=r"truncated or corrupt - got no file"):
        open_store(path)


def test_checksums_are_compared_once(tmp_path, monkeypatch):
    path = tmp_path / "s"
    small_store(path, LENGTHS)
    compared = []
    real = store_module.file_sha256
    monkeypatch.setattr(store_module, "file_sha256", lambda p: compared.append(p.name) or real(p))
    open_store(path)
    assert compared == []  # written just now
    open_store(path, verify=True)
    assert sorted(compared) == ["index.npz", "tokens.array_record"]
    (path / ".verified").unlink()
    for _ in range(2):
        open_store(path)
    assert len(compared) == 4
    os.utime(path / "index.npz")  # copied, or written again
    open_store(path)
    assert len(compared) == 6
    (path / ".verified").write_text("{")
    open_store(path)
    assert len(compared) == 8


def test_a_byte_that_flips_after_the_checksums_were_compared_is_noticed_when_read(tmp_path):
    path = tmp_path / "s"
    store, examples = small_store(path, [30] * 200)
    whole = (path / "tokens.array_record").read_bytes()
    tokens = np.concatenate([example.tokens for example in examples])
    noticed = 0
    for position in range(64, 20_000, 331):
        damage(
            path / "tokens.array_record",
            lambda b, at=position: b[:at] + bytes([b[at] ^ 4]) + b[at + 1 :],
        )
        store_module._write_stamp(path, store.meta)
        try:
            got = open_store(path).gather(np.arange(200)).tokens
            assert np.array_equal(got, tokens)  # nothing that is read
        except DataError as error:
            assert "store is truncated or corrupt - got" in str(error)
            noticed += 1
        (path / "tokens.array_record").write_bytes(whole)
    assert noticed > 20


def test_a_store_where_nothing_can_be_written_is_opened(tmp_path, monkeypatch):
    small_store(tmp_path / "s", [3])
    (tmp_path / "s" / ".verified").unlink()

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(store_module.os, "replace", refuse)
    assert len(open_store(tmp_path / "s")) == 1


def test_damaged_meta_is_noticed(tmp_path):
    path = tmp_path / "s"
    small_store(path, LENGTHS)
    meta = json.loads((path / "meta.json").read_text())
    (path / "meta.json").write_text(json.dumps(meta | {"format": 0}))
    with pytest.raises(DataError, match=r"store of another format - got 0 .* expected 1"):
        open_store(path)
    (path / "meta.json").write_text('{"format": 1, ')
    with pytest.raises(DataError, match=r"truncated or corrupt - got unreadable JSON"):
        open_store(path)


def test_unwritable_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"cannot write the store - got .* --data_dir"):
        write_store(tmp_path / "file" / "s", make_examples([3]), meta=META)


class FullDisk:
    """An ArrayRecord writer on a disk without room; errors look as the real one's do."""

    def __init__(self, *_):
        pass

    def write(self, _):
        raise RuntimeError("RESOURCE_EXHAUSTED: No space left on device")

    def close(self):
        pass


def test_full_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(store_module, "ArrayRecordWriter", FullDisk)
    with pytest.raises(
        DataError, match=r"cannot write the store - got .*No space left .* free some"
    ):
        write_store(tmp_path / "s", make_examples([3]), meta=META)
    assert list(tmp_path.iterdir()) == []


def test_full_disk_at_the_end(tmp_path, monkeypatch):
    def no_space(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store_module.np, "savez", no_space)
    with pytest.raises(DataError, match=r"cannot write the store - got No space left on device"):
        write_store(tmp_path / "s", make_examples([3]), meta=META)
    assert list(tmp_path.iterdir()) == []


def test_examples_that_cannot_be_stored(tmp_path):
    wrong = Example("a", np.array([1, 1000]), np.array([False, True]))
    with pytest.raises(DataError, match=r"token id outside the vocabulary - got 1000 at example a"):
        write_store(tmp_path / "s", [wrong], meta=META)
    uneven = Example("b", np.array([1, 2]), np.array([True]))
    with pytest.raises(DataError, match=r"tokens and mask do not fit .* example b"):
        write_store(tmp_path / "s", [uneven], meta=META)


def test_reading_is_fast(tmp_path):
    lengths = np.random.default_rng(0).lognormal(4.5, 0.6, 4000).clip(10, 512).astype(int)
    store, _ = small_store(tmp_path / "s", lengths)
    order = np.random.default_rng(1).permutation(4000)
    start = time.process_time()
    for _ in range(5):
        for part in np.split(order, 4):
            store.gather(part)
    rate = 5 * lengths.sum() / (time.process_time() - start)
    assert rate > 2e6, f"{rate / 1e6:.1f} M tokens/s"  # about 15 M/s on one idle core
