"""`tulu data prepare`: what it says it made, kept, skipped and left out."""

import argparse

import pytest

from tasks import demo
from tulu_jax.cli import data
from tulu_jax.data import parts, specs
from tulu_jax.data.specs import DatasetSpec
from tulu_jax.errors import DataError


@pytest.fixture
def small(monkeypatch):
    """An embedded dataset of 200 questions, one of them bad, that exists only during the test."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(specs, "_SPECS", dict(specs.all_specs()))
    monkeypatch.setattr(parts, "PART_CONVERSATIONS", 50)
    stop = {"after": 10**9}

    def read(raw_dir, *, faults, **_):
        for i in range(200):
            if i == stop["after"]:
                raise KeyboardInterrupt
            faults.saw()
            if i == 3:
                faults.skip(DataError("no answer", at="file, line 4"))
                continue
            messages = [
                {"role": "user", "content": f"What comes after {i}?"},
                {"role": "assistant", "content": str(i + 1)},
            ]
            yield {"dataset": "small", "id": f"small_{i}", "messages": messages}
        faults.leave_out("[silly] question", 7)

    text = dict.fromkeys(("description", "citation", "licence", "homepage"), "")
    specs.register(DatasetSpec(name="small", version="1.0.0", read=read, **text))
    return stop


def prepare(folder, *arguments):
    parser = argparse.ArgumentParser("tulu")
    data.add_parser(parser.add_subparsers(required=True))
    common = ["--tokenizer", str(demo.TOKENIZER_DIR), "--data_dir", str(folder)]
    common += ["--num_processes", "1", "--max_length", "64"]
    args = parser.parse_args(["data", "prepare", "tulu_small", *common, *arguments])
    return args.func(args)


def test_what_was_made_kept_and_left_out(tmp_path, small, capsys):
    assert prepare(tmp_path) == 0
    out = capsys.readouterr().out
    assert f"tulu_small train: {tmp_path}/tulu_small/train-" in out and " (made)" in out
    assert "199/199" in out
    assert "1 bad records skipped, the first of them:\n    no answer - at file, line 4" in out
    assert "tulu_small train: 7 left out, [silly] question" in out
    assert prepare(tmp_path, "--verify") == 0
    assert " (kept)" in capsys.readouterr().out
    assert prepare(tmp_path, "--rebuild") == 0
    assert " (made)" in capsys.readouterr().out


def test_one_that_was_stopped_goes_on(tmp_path, small, capsys):
    small["after"] = 170
    with pytest.raises(KeyboardInterrupt):
        prepare(tmp_path)
    small["after"] = 10**9
    assert prepare(tmp_path) == 0
    assert "(made, going on after 3 of 4 parts)" in capsys.readouterr().out


def test_a_store_whose_bytes_changed_is_made_again(tmp_path, small, capsys):
    prepare(tmp_path)
    (path,) = tmp_path.glob("tulu_small/train-*/tokens.array_record")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    capsys.readouterr()
    prepare(tmp_path)
    assert " (made)" in capsys.readouterr().out


def test_strict(tmp_path, small):
    with pytest.raises(DataError, match=r"^no answer - at file, line 4$"):
        prepare(tmp_path, "--strict")


def test_no_process(tmp_path, small, capsys):
    with pytest.raises(SystemExit, match="2"):
        prepare(tmp_path, "--num_processes", "0")
    told = "--num_processes: is out of range - got 0 - expected a whole number from 1 to 4,096"
    assert told in capsys.readouterr().err
