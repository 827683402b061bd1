"""Conversations to stores: what is kept, cut, dropped and refused."""

import dataclasses
import shutil
import threading

import numpy as np
import pytest

from tasks import demo
from tulu_jax.chat import encode, load_tokenizer
from tulu_jax.data import parts, specs
from tulu_jax.data import prepare as prepare_module
from tulu_jax.data.faults import Faults
from tulu_jax.data.keys import PrepareOptions, store_keys
from tulu_jax.data.locks import locked
from tulu_jax.data.mixtures import mixture_specs
from tulu_jax.data.prepare import find_store, prepare, prepare_each, store_at
from tulu_jax.data.specs import DatasetSpec, Source, get_spec
from tulu_jax.data.tally import Tally, loss_share_alarm
from tulu_jax.errors import ConfigError, DataError, GuardError
from tulu_jax.inspect.report import DatasetReport, dataset_report, report_table

TOKENIZER = str(demo.TOKENIZER_DIR)


def talk(number, question="What is it?", answer="a cup", **more):
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"dataset": "small", "id": f"small_{number}", "messages": messages, **more}


@pytest.fixture
def small(monkeypatch):
    """A dataset `tulu_small` that exists only during the test."""
    monkeypatch.setattr(specs, "_SPECS", dict(specs.all_specs()))
    text = dict.fromkeys(("description", "citation", "licence", "homepage"), "")
    spec = DatasetSpec(name="small", version="1.0.0", read=lambda raw_dir, **_: iter(()), **text)
    return specs.register(spec)


def options(tmp_path, **changes):
    arguments = {"tokenizer": TOKENIZER, "max_length": 64, "data_dir": str(tmp_path / "data")}
    return PrepareOptions(**{**arguments, **changes})


def run(tmp_path, rows, **changes):
    return prepare("small", options(tmp_path, **changes), reader=lambda spec, split: iter(rows))


def test_a_store_holds_what_encode_gives(tmp_path, small):
    rows = [talk(i, question=f"What is {i} plus 1?", answer=str(i + 1)) for i in range(700)]
    (store,) = run(tmp_path, rows)
    tokenizer = load_tokenizer(TOKENIZER)
    assert store.ids == [row["id"] for row in rows]
    for row, (tokens, mask) in zip(rows, store, strict=True):
        encoded = encode(row["messages"], tokenizer, 64)
        assert np.array_equal(encoded.tokens, tokens)
        assert np.array_equal(encoded.loss_mask, mask)
    none = {name: {} for name in ("dropped", "left_out", "kinds", "unused", "metadata")}
    none |= {"truncated": 0, "skipped": 0, "messages": []}
    answers = {"trained": 700, "empty": 0, "not trained": 0}
    assert store.meta["counts"] == {"read": 700, "answers": answers, **none}
    assert store.meta["tokenizer"] == tokenizer.fingerprint


def test_several_processes_give_the_same_store(tmp_path, small):
    rows = [talk(i, answer=f"{i}") for i in range(1100)]
    (one,) = run(tmp_path / "one", rows)
    (two,) = run(tmp_path / "two", rows, num_processes=2)
    assert one.fingerprint == two.fingerprint and one.ids == two.ids


def test_cut_and_dropped_rows_are_counted_with_the_reason(tmp_path, small):
    rows = [
        talk(0),
        talk(1, answer="a cup " * 40),
        talk(2, question="cup " * 100),
        talk(3, answer="", question="Say nothing."),
        talk(4, question="hat " * 100),
    ]
    (store,) = run(tmp_path, rows)
    counts = store.meta["counts"]
    assert counts["read"] == 5 and counts["truncated"] == 1
    assert counts["dropped"]["prompt fills max_length"] == 2
    kept = {"small_0", "small_1"} | ({"small_3"} if len(store) == 3 else set())
    assert set(store.ids) == kept
    assert store.lengths.max() == 64


def test_a_prepared_store_is_kept_and_a_stale_one_is_not_read(tmp_path, small):
    (first,) = run(tmp_path, [talk(0)])
    (again,) = run(tmp_path, [talk(0), talk(1)])
    assert len(again) == 1 and again.path == first.path
    (longer,) = run(tmp_path, [talk(0), talk(1)], max_length=65)
    assert len(longer) == 2 and longer.path != first.path
    (rebuilt,) = prepare(
        "small",
        options(tmp_path),
        reader=lambda spec, split: iter([talk(7), talk(8)]),
        rebuild=True,
    )
    assert rebuilt.ids == ["small_7", "small_8"]


def test_a_half_written_or_damaged_store_is_made_again(tmp_path, small):
    (store,) = run(tmp_path, [talk(0)])
    (store.path / "meta.json").unlink()
    (again,) = run(tmp_path, [talk(0), talk(1)])
    assert len(again) == 2
    (again.path / "tokens.array_record").write_bytes(b"")
    (third,) = run(tmp_path, [talk(0), talk(1), talk(2)])
    assert len(third) == 3


def test_a_store_under_the_name_of_another_is_not_read(tmp_path, small):
    """A folder that was swapped with another's by hand was trained on as what its name says."""
    (first,) = run(tmp_path, [talk(0)])
    (other,) = run(tmp_path, [talk(0), talk(1)], max_length=65)
    keys = store_keys(small, options(tmp_path), tokenizer=load_tokenizer(TOKENIZER))
    shutil.rmtree(first.path)
    shutil.copytree(other.path, first.path)
    assert find_store(keys["train"], options(tmp_path)) is None
    said = r"store is of other data than its folder says - got tulu_small train, key .* at .*train-"
    with pytest.raises(DataError, match=said):
        store_at(keys["train"], options(tmp_path))
    (again,) = run(tmp_path, [talk(0)])
    assert len(again) == 1 and again.path == first.path


def test_a_store_of_equal_content_under_another_name_is_made_again(tmp_path, small):
    (first,) = run(tmp_path, [talk(0)])
    (other,) = run(tmp_path, [talk(0)], max_length=65)
    shutil.rmtree(first.path)
    shutil.copytree(other.path, first.path)
    made = [one.made for _ in "12" for one in prepare_each(
        "small", options(tmp_path), reader=lambda spec, split: iter([talk(0)]))]  # fmt: skip
    assert made == [True, False]


def test_everything_that_matters_is_in_the_key(tmp_path, small, monkeypatch):
    (tmp_path / "rows.txt").write_text("a")
    text = dict.fromkeys(("description", "citation", "licence", "homepage"), "")
    source = (Source("", "rows.txt"),)
    read = small.read

    def key(version="1.0.0", name="small", raw="a", own=None, **changes):
        (tmp_path / "rows.txt").write_text(raw)
        spec = DatasetSpec(
            name=name, version=version, read=read, sources=source, options=own or {}, **text
        )
        chosen = options(tmp_path, raw_dir=str(tmp_path), **changes)
        (only,) = store_keys(spec, chosen, tokenizer=chosen.load_tokenizer()).values()
        return only.folder("d")

    folders = [
        key(),
        key(version="1.0.1"),
        key(name="other"),
        key(raw="b"),
        key(own={"rule": "june"}),
        key(max_length=65),
        key(encoding="paper"),
    ]
    assert len(set(folders)) == len(folders)
    assert key() == folders[0]


def test_guards_and_bad_rows(tmp_path, small):
    with pytest.raises(DataError, match=r"dataset holds no conversation - at tulu_small"):
        run(tmp_path, [])
    with pytest.raises(GuardError, match=r"no token of the dataset carries loss .* all dropped"):
        run(tmp_path, [talk(i, question="cup " * 100) for i in range(3)])
    with pytest.raises(DataError, match=r"two conversations have one id - got 'small_0'"):
        run(tmp_path, [talk(0), talk(0)])
    bad = talk(1)
    bad["messages"][0]["role"] = "bot"
    with pytest.raises(DataError, match=r"bot.*small_1"):
        run(tmp_path, [talk(0), bad])
    with pytest.raises(DataError, match=r"message is not a mapping.*small_9"):
        run(tmp_path, [talk(0), talk(9, messages=["hello"])])
    assert not list((tmp_path / "data" / "tulu_small").iterdir())


def test_a_dataset_that_trains_on_every_token_is_refused(tmp_path, small, monkeypatch):
    def all_trained(messages, tokenizer, **kwargs):
        result = encode_many(messages, tokenizer, **kwargs)
        for one in result:
            one.loss_mask[:] = True
        return result

    encode_many = parts.encode_many
    monkeypatch.setattr(parts, "encode_many", all_trained)
    with pytest.raises(
        GuardError, match=r"every token of the dataset carries loss .*first row: .*cup"
    ):
        run(tmp_path, [talk(0)])


def test_unwritable_folder(tmp_path, small):
    (tmp_path / "data").write_text("")
    with pytest.raises(DataError, match=r"cannot write the store"):
        run(tmp_path, [talk(0)])


def test_mixtures():
    assert [spec.name for spec in mixture_specs("tulu_demo, dolly")] == ["demo", "dolly"]
    with pytest.raises(
        DataError, match=r"unknown dataset or mixture - got 'tulu_demos' .* did you mean tulu_demo"
    ):
        mixture_specs("tulu_demos")
    for wrong in (" ,", "tulu_demo,demo"):
        with pytest.raises(ConfigError, match=r"not a mixture"):
            mixture_specs(wrong)


def test_report(tmp_path, small):
    (store,) = run(tmp_path, [talk(0), talk(1, answer="a cup " * 40), talk(2, question="a " * 99)])
    (report,) = dataset_report([store], row_length=64)
    assert report.examples == 2 and report.read == 3 and report.truncated == 1
    assert report.tokens == store.lengths.sum() and report.max_length == 64
    assert report.loss_share == store.loss_tokens.sum() / store.lengths.sum()
    table = report_table([report])
    assert table.row_count == 1
    assert "1 dropped, prompt fills max_length" in str(table.caption)


def test_unusual_loss_share_is_an_alarm():
    assert [loss_share_alarm(share) for share in (0.019, 0.02, 0.5, 0.98, 0.99)] == [
        True,
        False,
        False,
        False,
        True,
    ]
    report = DatasetReport(
        task="tulu_small", split="train", read=1, expected=None, examples=1, truncated=0,
        dropped={}, tokens=1000, loss_tokens=3, median_length=1, p95_length=1, max_length=1,
        efficiency=1.0,
    )  # fmt: skip
    assert "ALARM small train: a share of 0.30% is unusual" in str(report_table([report]).caption)


def test_no_store_yet(tmp_path):
    chosen = options(tmp_path)
    keys = store_keys(get_spec("demo"), chosen, tokenizer=chosen.load_tokenizer())
    assert set(keys) == {"train", "validation", "test"}
    assert find_store(keys["train"], chosen) is None


class Killed(BaseException):
    """Ends a prepare as a signal would, but for what Python cleans up."""


def cut_after(rows, count):
    """The rows, and after `count` of them the end."""
    yield from rows[:count]
    raise Killed


def files_of(store):
    return {p.name: p.read_bytes() for p in store.path.iterdir() if p.name != ".verified"}


def encoded_firsts(monkeypatch):
    """The id of the first conversation of each part that is encoded from now on."""
    firsts = []
    real = parts.encode_part

    def spy(conversations, *arguments):
        firsts.append(conversations[0]["id"])
        return real(conversations, *arguments)

    monkeypatch.setattr(parts, "encode_part", spy)
    return firsts


def test_a_killed_prepare_goes_on_after_its_last_whole_part(tmp_path, small, monkeypatch):
    monkeypatch.setattr(parts, "PART_CONVERSATIONS", 10)
    rows = [talk(i, answer=f"{i} cups") for i in range(95)]
    (whole,) = run(tmp_path / "undisturbed", rows)
    with pytest.raises(Killed):
        run(tmp_path / "killed", cut_after(rows, 58))
    folder = tmp_path / "killed" / "data" / "tulu_small"
    (left,) = folder.iterdir()
    assert left.name.startswith(".train-") and len(list(left.glob("*.npz"))) == 5

    (left / "0000001.npz").write_bytes((left / "0000001.npz").read_bytes()[:-100])  # broken
    (left / "0000002.npz").write_bytes((left / "0000003.npz").read_bytes())  # of other rows
    firsts = encoded_firsts(monkeypatch)
    chosen = options(tmp_path / "killed")
    (again,) = prepare_each("small", chosen, reader=lambda spec, split: iter(rows))
    assert firsts == [f"small_{10 * number}" for number in (1, 2, 5, 6, 7, 8, 9)]
    assert (again.made, again.parts, again.parts_found) == (True, 10, 3)
    assert files_of(again.store) == files_of(whole)
    assert [path.name for path in folder.iterdir()] == [again.store.path.name]
    (kept,) = prepare_each("small", chosen, reader=lambda spec, split: iter(rows))
    assert (kept.made, kept.parts) == (False, 0)


def test_a_flipped_byte_in_a_part_is_noticed(tmp_path, small):
    job = next(parts.part_jobs([talk(i) for i in range(20)], tmp_path))
    assert not parts.PartMaker(load_tokenizer(TOKENIZER), 64)(job).found
    path = job.path
    whole = path.read_bytes()
    assert len(parts.load_part(path, job.source).ids) == 20
    for at in range(0, len(whole), 13):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        assert parts.load_part(path, job.source) is None


def test_the_size_of_parts_does_not_show(tmp_path, small, monkeypatch):
    rows = [talk(i, answer=f"{i} cups") for i in range(95)]
    stores = []
    for size in (7, 1000):
        monkeypatch.setattr(parts, "PART_CONVERSATIONS", size)
        stores += run(tmp_path / str(size), rows)
    assert files_of(stores[0]) == files_of(stores[1])


def test_equal_ids_are_found_across_parts(tmp_path, small, monkeypatch):
    monkeypatch.setattr(parts, "PART_CONVERSATIONS", 10)
    rows = [talk(i) for i in range(40)] + [talk(3, question="cup " * 100)]
    with pytest.raises(DataError, match=r"one id - got 'small_3' at tulu_small train"):
        run(tmp_path, rows)


def test_equal_hashes_of_ids_are_not_equal_ids(tmp_path):
    tokenizer = load_tokenizer(TOKENIZER)

    def check(*ids):
        tally = Tally("here", tokenizer)
        for number, (some, hashes) in enumerate(zip(ids, ([5, 7], [7, 9]), strict=True)):
            rows = [talk(0, id=name) for name in some]
            part = parts.encode_part(rows, tokenizer, 64)
            part = dataclasses.replace(part, id_hashes=np.array(hashes, np.uint64))
            parts.save_part(parts.part_path(tmp_path, number), part, "")
            tally.add(part)
        tally.finish(Faults(), own=False, folder=tmp_path)

    check(["a", "b"], ["c", "d"])
    with pytest.raises(DataError, match=r"one id - got 'b' at here"):
        check(["a", "b"], ["b", "d"])


def test_conversations_without_a_message_are_dropped_and_counted(tmp_path, small):
    (store,) = run(tmp_path, [talk(0), talk(1, messages=[])])
    assert store.meta["counts"]["dropped"] == {"no message": 1} and store.ids == ["small_0"]


def test_bad_records_are_counted_or_refused(tmp_path, small, monkeypatch):
    def read(raw_dir, *, split_name, faults, bad):
        for i in range(200):
            faults.saw()
            if i < bad:
                faults.skip(DataError("no answer", at=f"file, line {i + 1}"))
            else:
                yield talk(i)
        faults.leave_out("too long", 2)

    def prepare_with(bad, **changes):
        spec = dataclasses.replace(small, read=read, options={"bad": bad})
        monkeypatch.setitem(specs._SPECS, small.task_name, spec)
        return prepare("small", options(tmp_path, **changes))[0].meta["counts"]

    counts = prepare_with(2)
    assert counts["read"] == 198 and counts["skipped"] == 2 and counts["left_out"]["too long"] == 2
    assert counts["messages"] == ["no answer - at file, line 1", "no answer - at file, line 2"]
    with pytest.raises(DataError, match=r"too many bad records - got 3 of 200; .*tulu_small train"):
        prepare_with(3)
    with pytest.raises(DataError, match=r"^no answer - at file, line 1$"):
        prepare_with(1, strict=True)


def test_a_full_disk_keeps_the_parts(tmp_path, small, monkeypatch):
    monkeypatch.setattr(parts, "PART_CONVERSATIONS", 10)
    rows = [talk(i) for i in range(40)]
    real = parts.save_part

    def no_space(path, *arguments):
        if path.stem.endswith("2"):
            raise OSError(28, "No space left on device")
        real(path, *arguments)

    monkeypatch.setattr(parts, "save_part", no_space)
    with pytest.raises(DataError, match=r"cannot write the store - got No space left on device"):
        run(tmp_path, rows)
    monkeypatch.setattr(parts, "save_part", real)
    (again,) = prepare_each("small", options(tmp_path), reader=lambda spec, split: iter(rows))
    assert again.parts_found == 2


def test_a_second_process_waits_and_finds_the_store(tmp_path, small, capsys):
    store = tmp_path / "data" / "tulu_small"
    done = threading.Event()

    def second():
        with locked([store]):
            done.set()

    with locked([store, store]):
        thread = threading.Thread(target=second)
        thread.start()
        assert not done.wait(0.2)
    thread.join()
    assert done.is_set()
    assert "waiting for another process that prepares tulu_small" in capsys.readouterr().out


def test_parts_that_a_killed_process_left_beside_its_store_go(tmp_path, small, monkeypatch):
    """It died after the store was whole and before its parts were deleted."""
    rows = [talk(i) for i in range(3)]
    (store,) = run(tmp_path, rows)
    left = prepare_module.parts_folder(store.path)
    left.mkdir()
    with locked([store.path.parent]):  # somebody makes it anew
        run(tmp_path, rows)
    with monkeypatch.context() as patch:  # nothing can be written here
        patch.setattr("tulu_jax.data.locks.os.open", _refuse)
        run(tmp_path, rows)
    assert left.exists()
    run(tmp_path, rows)
    assert list(store.path.parent.iterdir()) == [store.path]


def _refuse(*_):
    raise PermissionError(13, "Permission denied")
