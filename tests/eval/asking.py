"""What the tests of benchmarks share: a setting, a run of the command line, spoiled downloads."""

import gzip
import json
from pathlib import Path

from eval.harness.context import Context
from eval.harness.quirks import Quirks
from eval.templates import create_prompt_with_tulu_chat_format as tulu_format

__all__ = ["SPOILED", "context", "read_jsonl", "replay", "result", "tulu_format", "write_jsonl"]


def context(benchmark, folder, options=None, *, compat="fixed", **fields):
    """A setting of a benchmark, asked in plain text where `fields` say nothing else."""
    chosen = benchmark.options() if options is None else options
    return Context(Path(folder), chosen, Quirks(benchmark.quirks, compat), **fields)


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read_jsonl(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def replay(path, benchmark, setting, answer):
    """A file of answers: what `answer` gives for each instance; None leaves it out."""
    outputs = [(one, answer(one)) for one in benchmark.load(setting)]
    lines = [{"prompt": i.ask.prompt.text, "output": o} for i, o in outputs if o is not None]
    return write_jsonl(path, lines)


def result(folder):
    """metrics.json, run.json and the rows of predictions.jsonl."""
    metrics, run = (
        json.loads((folder / name).read_text()) for name in ("metrics.json", "run.json")
    )
    return metrics, run, read_jsonl(folder / "predictions.jsonl")


SPOILED = [
    ("missing", lambda data: None, "benchmark file is missing"),
    ("empty", lambda data: b"", "benchmark file is empty"),
    ("page", lambda data: b"<!DOCTYPE html><html>404", "benchmark file is a web page"),
    ("pointer", lambda data: b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
    ("cut gzip", lambda data: gzip.compress(data)[:-9], "truncated or damaged"),
    ("utf-16", lambda data: data.decode().encode("utf-16"), "not text - got UTF-16"),
    ("latin-1", lambda data: b"caf\xe9 " + data, "not UTF-8 - got byte 0xe9 at 3"),
]
"""(name, bytes -> what a download made of them, or None for no file, the message)."""
