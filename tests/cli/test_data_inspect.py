"""`tulu data inspect`: what it prints, pages through and writes."""

import argparse
import io
import json
import os
import pty
import subprocess
import sys
import time

import pytest
from rich.console import Console
from rich.text import Text

from tasks import demo
from tulu_jax.cli import data
from tulu_jax.cli.data.pager import Pager
from tulu_jax.console import visible
from tulu_jax.errors import ConfigError, DataError

TOKENIZER = ["--tokenizer", str(demo.TOKENIZER_DIR)]
HOSTILE = "\x1b[2J\x9b31m \x07 \u202egnp"


@pytest.fixture(autouse=True)
def plain_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    for name in ("FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)


def inspect(*arguments):
    parser = argparse.ArgumentParser("tulu")
    data.add_parser(parser.add_subparsers(required=True))
    args = parser.parse_args(["data", "inspect", *arguments])
    return args.func(args)


@pytest.fixture
def chat(tmp_path):
    """A file of the user's own with four conversations."""
    turns = {
        "short": ["What is C++?", "A language."],
        "two": ["Hi", "Hello", "Bye", "Goodbye"],
        "hostile": [HOSTILE, f"{HOSTILE} answered"],
        "long": ["word " * 300, "never seen"],
    }
    lines = []
    for name, texts in turns.items():
        roles = ["user", "assistant"] * 2
        messages = [{"role": r, "content": t} for r, t in zip(roles, texts, strict=False)]
        lines.append(json.dumps({"id": name, "messages": messages}))
    path = tmp_path / "chat.jsonl"
    path.write_text("\n".join(lines))
    return str(path)


def test_the_mask_is_marked_where_there_is_no_colour(chat, capsys):
    assert inspect(chat, *TOKENIZER, "--n", "1") == 0
    out = capsys.readouterr().out
    assert "<s><|user|>⏎\nWhat is C++?⏎\n<|assistant|>⏎\n[[A language.</s>]]" in out
    assert "[[trained]]  not trained  special" in out and "tokens carry loss" in out


def test_colours(chat, capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    inspect(chat, *TOKENIZER, "--n", "1")
    out = capsys.readouterr().out
    assert "\x1b[1;32mA language.\x1b[0m" in out and "[[" not in out


def test_no_text_drives_the_terminal(chat, capsys):
    inspect(chat, *TOKENIZER, "--search", "answered")
    out = capsys.readouterr().out
    assert "␛[2J⟨U+009B⟩31m ␇ ⟨U+202E⟩gnp" in out
    assert not set(out) & set("\x1b\x9b\x07\u202e")


def test_visible():
    assert visible("a\x1b[31mb\x9bc\u2028") == "a␛[31mb⟨U+009B⟩c⟨U+2028⟩"
    assert visible("नमस्ते 👩\u200d👧 שלום\n\t") == "नमस्ते 👩\u200d👧 שלום\n\t"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--search", "c++"], ["short"]),
        (["--roles", "(user assistant)+", "--max_tokens", "60"], ["short", "two", "hostile"]),
        (["--roles", "uaua"], ["two"]),
        (["--min_tokens", "100", "--max_length", "100"], ["long"]),
        (["--only", "dropped", "--max_length", "100"], ["long"]),
        (["--limit", "2"], ["short", "two"]),
        (["--search", "no such words"], []),
    ],
)
def test_filters(chat, capsys, options, expected):
    inspect(chat, *TOKENIZER, "--n", "9", *options)
    heads = [line for line in capsys.readouterr().out.splitlines() if line.startswith("── ")]
    assert [head.split()[1] for head in heads] == expected


def test_nothing_passes(chat, capsys):
    inspect(chat, *TOKENIZER, "--id", "none")
    assert "no conversation passes these filters" in capsys.readouterr().out


def test_datasets_of_a_mixture(capsys):
    inspect("tulu_demo", *TOKENIZER, "--dataset", "demo", "--n", "1")
    assert "(tulu_demo, ua)" in capsys.readouterr().out
    with pytest.raises(DataError, match="unknown dataset of tulu_demo - got 'dolly'"):
        inspect("tulu_demo", *TOKENIZER, "--dataset", "dolly")


def test_packed_rows(chat, capsys):
    inspect(chat, *TOKENIZER, "--packed", "--max_length", "128", "--n", "1")
    out = capsys.readouterr().out
    assert out.startswith("══ row 0: 3 segments") and "of 128 positions filled" in out
    assert "segment 1, positions 0 to " in out and "never read, never trained" in out
    inspect(chat, *TOKENIZER, "--packed", "--packing", "padded", "--search", "Goodbye")
    out = capsys.readouterr().out
    assert out.count("══ row") == 1 and "Goodbye" in out


@pytest.mark.slow
def test_prepared_stores(chat, tmp_path, capsys):
    where = ["--data_dir", str(tmp_path / "data"), "--max_length", "100"]
    with pytest.raises(DataError, match=r"no tokenized store .* run `tulu data prepare`"):
        inspect(chat, *TOKENIZER, *where)
    parser = argparse.ArgumentParser("tulu")
    data.add_parser(parser.add_subparsers(required=True))
    args = parser.parse_args(["data", "prepare", chat, *TOKENIZER, *where, "--num_processes", "1"])
    args.func(args)
    capsys.readouterr()
    inspect(chat, *TOKENIZER, *where, "--n", "9")
    stored = capsys.readouterr().out
    inspect(chat, *TOKENIZER, "--max_length", "100", "--n", "3")
    assert stored == capsys.readouterr().out


def test_html(chat, tmp_path, capsys):
    path = tmp_path / "report.html"
    inspect(chat, *TOKENIZER, "--html", str(path), "--roles", "ua", "--max_length", "128")
    assert f"{path}: open it with a browser" in capsys.readouterr().out
    text = path.read_text("utf-8")
    assert '["examples chosen by","roles ua"]' in text and "\x1b" not in text


def test_bad_records_are_counted(tmp_path, capsys):
    good = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"}]}
    path = tmp_path / "chat.jsonl"
    path.write_text("\n".join([json.dumps(good), '{"messages": 3}', json.dumps(good)]))
    inspect(str(path), *TOKENIZER, "--n", "9")
    assert "1 bad records skipped, the first: " in capsys.readouterr().out


def test_mistakes(chat, capsys):
    with pytest.raises(SystemExit, match="2"):
        inspect(chat, *TOKENIZER, "--n", "0")
    assert "--n: is out of range - got 0 - expected a whole" in capsys.readouterr().err
    with pytest.raises(DataError, match="has no such split - got 'dev'"):
        inspect(chat, *TOKENIZER, "--split", "dev")
    with pytest.raises(DataError, match=r"is read from its raw files .* --raw_dir .* --data_dir"):
        inspect("tulu_dolly", *TOKENIZER)
    with pytest.raises(ConfigError, match="not a pattern of roles"):
        inspect(chat, *TOKENIZER, "--roles", "robot")


def paged(keys, count=3, height=8):
    """What a pager over `count` texts of ten lines prints when these keys are pressed."""
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=60, height=height, record=True)
    pressed = iter(keys)
    items = iter(range(1, count + 1))

    def show(number):
        return Text("\n".join(f"item {number} line {line}" for line in range(1, 11)))

    pager = Pager(items, show, console=console, keys=lambda: next(pressed))
    pager.run()
    return pager, console.export_text()


def test_pager_goes_back_and_forth():
    pager, text = paged(["n", "n", "n", "p", "q"])
    assert pager.at == 1 and "that is all: 3" in text
    assert "1 of 1+" in text and "3 of 3+" in text and "2 of 3 " in text
    assert "item 1 line 6" in text and "item 1 line 7" not in text


def test_pager_scrolls_then_goes_on():
    pager, text = paged([" ", "q"])
    assert pager.at == 0 and "item 1 line 10" in text
    pager, _ = paged([" ", " ", "down", "up", "b", "q"])
    assert (pager.at, pager.top) == (1, 0)


def test_pager_jumps_and_searches():
    pager, _ = paged(["g", "3", "\r", "q"])
    assert pager.at == 2
    pager, _ = paged(["/", *"ITEM 2", "\r", "q"])
    assert pager.at == 1
    pager, text = paged(["/", *"nowhere", "\r", "g", "x", "\x7f", "\x1b", "?", "q"])
    assert pager.at == 0 and "not found below: nowhere" in text


def test_pager_without_items():
    assert "nothing to show" in paged([], count=0)[1]


@pytest.mark.slow
def test_keys_in_a_real_terminal():
    """In a pseudo-terminal: the first, by `n` the second, by an arrow back, by `q` the end."""
    command = [sys.executable, "-m", "tulu_jax", "data", "inspect", "tulu_demo", *TOKENIZER]
    primary, secondary = pty.openpty()
    names = [item["id"] for item, _ in zip(demo.generate("train"), range(2), strict=False)]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100", "LINES": "30"}
    with subprocess.Popen(command, stdin=secondary, stdout=secondary, env=environment) as child:
        os.close(secondary)
        for expected, key in ((names[0], b"n"), (names[1], b"\x1b[D"), (names[0], b"q")):
            _read_until(primary, expected)
            _read_until(primary, "q quit")
            os.write(primary, key)
        assert child.wait(timeout=120) == 0
    os.close(primary)


def _read_until(file, words, seconds=120):
    seen, end = "", time.monotonic() + seconds
    while words not in seen and time.monotonic() < end:
        seen += os.read(file, 1).decode("latin-1")
    assert words in seen
