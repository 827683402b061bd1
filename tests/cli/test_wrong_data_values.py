"""Wrong values for every flag of `tulu data`: status 2 and words, never a traceback."""

import argparse
import json
from pathlib import Path

import pytest

from tasks import demo
from tulu_jax.cli.main import main, make_parser
from tulu_jax.data import specs
from tulu_jax.data.specs import DatasetSpec, Source
from tulu_jax.inspect.check import examine
from tulu_jax.inspect.check.language import LanguageFinder

NUMBERS = ["-1", "0", "3.5", "nan", "inf", "9" * 30]
TEXTS = ["", " ", "nothing/here", "junk", "folder", "empty", "az://bucket/x", "/dev/null", "[1]",
         "\x00", "\ud800", "a.b=", "--", "/dev/null/(/", "é 😀,b [1]",
         "~nobody_of_that_name/x"]  # fmt: skip
COMMANDS = ("download", "prepare", "stats", "inspect", "check")


def flags(command):
    """The command's positional argument and flags, by what they take."""
    parser = next(a for a in make_parser()._actions if isinstance(a, argparse._SubParsersAction))
    data = parser.choices["data"]
    commands = next(a for a in data._actions if isinstance(a, argparse._SubParsersAction))
    return [a for a in commands.choices[command]._actions if a.dest != "help"]


@pytest.fixture(scope="module")
def finder():
    """The language identifier, which takes most of a small check to load."""
    return LanguageFinder()


@pytest.fixture
def here(tmp_path, monkeypatch, finder, one_parser):
    """A folder with a few conversations and things that are none; a dataset nobody serves."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(examine, "LanguageFinder", lambda: finder)
    rows = [("What is one?", "It is 1."), ("What is two?", "It is 2.")]
    names = ("user", "assistant")
    with open("chat.jsonl", "w") as stream:
        for row in rows:
            messages = [{"role": r, "content": c} for r, c in zip(names, row, strict=True)]
            stream.write(json.dumps({"messages": messages}) + "\n")
    Path("junk").write_bytes(bytes(range(256)) * 8)
    Path("empty").touch()
    Path("folder").mkdir()
    monkeypatch.setattr(specs, "_SPECS", dict(specs.all_specs()))
    text = dict.fromkeys(("description", "citation", "licence", "homepage"), "")
    source = Source("http://127.0.0.1:9/rows.jsonl", "rows.jsonl")
    gone = DatasetSpec(name="gone", version="1.0.0", read=iter, sources=(source,), **text)
    specs.register(gone)


def base(command):
    tokenizer = ["--tokenizer", str(demo.TOKENIZER_DIR), "--max_length", "64"]
    return {
        "download": ["gone", "--retries", "0", "--timeout", "2"],
        "prepare": ["chat.jsonl", *tokenizer, "--num_processes", "1"],
        "stats": ["chat.jsonl", *tokenizer, "--num_processes", "1"],
        "inspect": ["chat.jsonl", *tokenizer, "--n", "1"],
        "check": ["chat.jsonl", "--num_processes", "1"],
    }[command]


def status(command, *arguments):
    try:
        return main(["data", command, *arguments])
    except SystemExit as end:
        return end.code


def with_value(command, action, value):
    """The command's arguments with this value for one flag; it may be a file it would write to."""
    arguments = base(command)
    if not action.option_strings:
        return [value, *arguments[1:]]
    return [*arguments, f"{action.option_strings[0]}={value}"]


@pytest.mark.parametrize("command", COMMANDS)
def test_no_value_gives_a_traceback(here, capsys, command):
    """Whatever is wrong ends with 2; what happens to be right, with 0 or what it found."""
    seen = set()
    for action in flags(command):
        if action.nargs == 0:
            continue
        numeric = getattr(action.type, "__name__", "") in ("int", "float")
        for value in NUMBERS + TEXTS[:4] if numeric else TEXTS + NUMBERS[:1]:
            arguments = with_value(command, action, value)
            code = status(command, *arguments)
            error = capsys.readouterr().err
            assert code in (0, 2), arguments
            assert "Traceback" not in error and (code == 0 or "tulu" in error), arguments
            seen.add((action.dest, code))
            Path("empty").write_bytes(b"")
    assert Path("chat.jsonl").read_text().count("It is") == 2, "data are never written to"
    missed = {a.dest for a in flags(command) if a.nargs != 0} - {dest for dest, c in seen if c == 2}
    assert missed <= {"id", "dataset", "only"} and len(seen) > 7


@pytest.mark.parametrize(
    ("command", "arguments", "message"),
    [
        ("stats", ["--max_length", "0"], "--max_length: is out of range - got 0 - expected a who"),
        ("stats", ["--batch_size", "-1"], "--batch_size: is out of range - got -1"),
        ("inspect", ["--min_tokens", "-1"], "--min_tokens: is out of range"),
        ("check", ["--jaccard", "nan"], "--jaccard: is out of range - got nan - expected a number"),
        ("check", ["--ngram", "3"], "--ngram: is out of range - got 3"),
        ("check", ["--worst", "-1"], "--worst: is out of range"),
        ("stats", ["--json=--"], "argument --json: has no value - got '--'"),
        ("stats", ["--data_dir="], "path names no file or folder - got ''"),
        ("inspect", ["--html", "a\x00"], "path names no file or folder"),
        ("inspect", ["--html", "\ud800"], "path names no file or folder"),
        ("prepare", ["--data_dir", "az://b/x"], "path is an address that is not supported"),
        ("inspect", ["--html", "./chat.jsonl"], "--html would replace a file that is read - at"),
        ("stats", ["--json", "chat.jsonl"], "--json would replace a file that is read"),
        ("check", ["--split", "test"], "dataset jsonl_"),
        ("inspect", ["--search", "/a{99999999999999999999}/"], "not a regular expression"),
        ("check", ["--ngram", "9"], "--ngram without --eval_data changes nothing - got 9 - add"),
        ("check", ["--max_length", "9"], "--max_length without --tokenizer changes nothing"),
        ("check", ["--fail_above", "overlap=0.1"], "--fail_above names what is not looked for - g"),
        ("check", ["--fail_above", "over_max_length=0.1"], "got over_max_length - add --tokenizer"),
    ],
)
def test_what_is_wrong_is_said(here, capsys, command, arguments, message):
    given = base(command)
    for flag in arguments[::2]:
        if flag in given:
            del given[given.index(flag) : given.index(flag) + 2]
    before = Path("chat.jsonl").read_bytes()
    assert status(command, *given, *arguments) == 2
    assert message in capsys.readouterr().err
    assert Path("chat.jsonl").read_bytes() == before


def test_paths_as_users_write_them(here, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "folder"))
    arguments = base("prepare")
    assert status("prepare", *arguments, "--data_dir", "~/da ta [1], é/../stores") == 0
    assert list((tmp_path / "folder").rglob("meta.json"))
    assert "/folder/stores/tulu_jsonl" in capsys.readouterr().out
    monkeypatch.delenv("HOME")
    assert status("prepare", *arguments, "--data_dir", "folder/stores") == 0
    assert "(kept)" in capsys.readouterr().out
