"""Problems are read whole, and files that are none are called what they are."""

import gzip
import json

import pytest

from eval.codex_humaneval.problems import (
    PLUS_32,
    Problem,
    before_entry_point,
    corrections,
    read_problems,
)
from tulu_jax.errors import DataError

RECORD = {
    "task_id": "HumanEval/7",
    "prompt": "import math\n\ndef half(x):\n    return x / 2\n\ndef double(x):\n    '''Twice.'''\n",
    "canonical_solution": "    return 2 * x\n",
    "test": "def check(candidate):\n    assert candidate(2) == 4\n",
    "entry_point": "double",
}


def write(path, *records):
    content = "".join(json.dumps(record) + "\n" for record in records).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


@pytest.mark.parametrize("name", ["p.jsonl", "p.jsonl.gz"])
def test_problems_are_read_in_order(tmp_path, name):
    path = write(tmp_path / name, {**RECORD, "more": 1}, {**RECORD, "task_id": "b"})
    first, second = read_problems(path)
    assert first == Problem(**RECORD) and second.task_id == "b" and first.correction is None


def test_the_real_files(shared):
    folder = shared / "eval_data"
    base = read_problems(folder / "codex_humaneval" / "HumanEval.jsonl.gz")
    plus = read_problems(folder / "humanevalplus" / "HumanEvalPlus-OriginFmt.jsonl.gz")
    assert [p.task_id for p in base] == [p.task_id for p in plus]
    assert [p.task_id for p in base] == [f"HumanEval/{n}" for n in range(164)]
    assert corrections(base) == {} and corrections(plus) == {"HumanEval/32": PLUS_32}
    path = folder / "humanevalplus" / "HumanEvalPlus-OriginFmt.jsonl.gz"
    left = read_problems(path, corrected=False)
    assert corrections(left) == {}
    assert [a.task_id for a, b in zip(left, plus, strict=True) if a != b] == ["HumanEval/32"]
    assert plus[32].test.rstrip().endswith("assert abs(_poly(*inp, candidate(*inp))) <= 0.0001")


def test_what_stands_before_the_function(shared):
    assert (
        before_entry_point(Problem(**RECORD)) == RECORD["prompt"][: RECORD["prompt"].index("def d")]
    )
    base = read_problems(shared / "eval_data" / "codex_humaneval" / "HumanEval.jsonl.gz")
    helpers = {p.task_id: before_entry_point(p) for p in base}
    assert sum("def " in text for text in helpers.values()) == 4
    assert all(compile(text, "", "exec") for text in helpers.values())
    open_end = Problem(**{**RECORD, "prompt": "import re\n@re.X\ndef double(x):"})
    assert before_entry_point(open_end) == "import re\n"
    assert before_entry_point(Problem(**{**RECORD, "prompt": "def ("})) == ""


def test_a_line_of_the_file_ends_where_json_lines_do(tmp_path):
    """U+2028 and a form feed are characters like others in JSON, and in Python's lines."""
    odd = "a = 'x\u2028\x85'  # \x0c\ndef double(x):\n    'Twice.'\n"
    record = {**RECORD, "prompt": odd, "entry_point": "double"}
    path = tmp_path / "p.jsonl"
    path.write_text(json.dumps(record, ensure_ascii=False) + "\n", encoding="utf-8")
    (problem,) = read_problems(path)
    assert problem.prompt == odd
    assert before_entry_point(problem) == odd[: odd.index("def")]


PAGE = b"<!DOCTYPE html><html>Not found</html>"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 2\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"not JSON lines - got an empty file at .*p.jsonl.gz - expected HumanEval.jsonl.gz"),
        (PAGE, r"got a web page \(HTML\) at .* - download the file itself"),
        (POINTER, r"got a Git LFS pointer .*git lfs pull"),
        (b"PK\x03\x04aaa", "got a zip archive at"),
        (gzip.compress(PAGE), r"got a web page \(HTML\)"),
        (gzip.compress(b""), "got an empty file"),
        (gzip.compress(b"\n\n"), "no problems - got an empty file at .*take it from https"),
        (gzip.compress(json.dumps(RECORD).encode())[:-9], "the gzip file is cut or damaged - got"),
        (gzip.compress(b"a" * 99)[:12] + b"\xff" * 30, "the gzip file is cut or damaged"),
        (b"\xff\xfe{\x00}\x00", "got UTF-16 text"),
        ("{'é'}".encode("latin1"), "the problems are not UTF-8"),
        (b"{'a': 1}", "a problem is not JSON - got .* at .*p.jsonl.gz line 1"),
        (b"[1]", "a problem is not a JSON object - got list at .* line 1"),
        (json.dumps({**RECORD, "test": 1}).encode(),
         "problem's test is missing - got int at .* a text"),
        (json.dumps({**RECORD, "entry_point": "a b"}).encode(),
         "not the name of a function - got 'a b'"),
        (json.dumps({k: RECORD[k] for k in RECORD if k != "prompt"}).encode(),
         "a problem's prompt is missing - got nothing at .* line 1 - expected a text"),
        ((json.dumps(RECORD) + "\n").encode() * 2, "a problem is there twice - got HumanEval/7"),
    ],
)  # fmt: skip
def test_files_that_are_no_problems(tmp_path, content, message):
    path = tmp_path / "p.jsonl.gz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_problems(path)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(
        DataError, match=r"cannot be read - got No such file .* take them from https"
    ):
        read_problems(tmp_path / "none.jsonl.gz")
    with pytest.raises(DataError, match="cannot be read - got Is a directory"):
        read_problems(tmp_path)
