"""Conversations to stores: what is kept, cut, dropped and refused."""

import numpy as np
import pytest

from tasks import demo
from tulu_jax.chat import encode, load_tokenizer
from tulu_jax.data import prepare as prepare_module
from tulu_jax.data import specs
from tulu_jax.data.keys import PrepareOptions, mixture_specs, store_keys
from tulu_jax.data.prepare import find_store, loss_share_alarm, prepare
from tulu_jax.data.report import DatasetReport, dataset_report, report_table
from tulu_jax.data.specs import DatasetSpec, Source, get_spec
from tulu_jax.errors import ConfigError, DataError, GuardError

TOKENIZER = str(demo.TOKENIZER_DIR)


def talk(number, question="What is it?", answer="a cup", **more):
    messages = [
        {"role": "user", "content": question},
        {"role": "assistant", "content": answer},
    ]
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
    assert store.meta["counts"] == {"read": 700, "truncated": 0, "dropped": {}}
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
    with pytest.raises(DataError, match=r"small_9"):
        run(tmp_path, [talk(0), talk(9, messages=[])])
    assert not list((tmp_path / "data" / "tulu_small").iterdir())


def test_a_dataset_that_trains_on_every_token_is_refused(tmp_path, small, monkeypatch):
    def all_trained(messages, tokenizer, **kwargs):
        result = encode_many(messages, tokenizer, **kwargs)
        for one in result:
            one.loss_mask[:] = True
        return result

    encode_many = prepare_module.encode_many
    monkeypatch.setattr(prepare_module, "encode_many", all_trained)
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
