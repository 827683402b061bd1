"""The problems of HumanEval and HumanEval+, read from their files.

Sources: openai/human-eval `data/HumanEval.jsonl.gz`; evalplus/humanevalplus_release
`HumanEvalPlus-OriginFmt.jsonl.gz`. Both have the same five fields and the same task ids.
"""

from __future__ import annotations

import ast
import dataclasses
import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tulu_jax.errors import DataError
from tulu_jax.files import instead, kind_of, parse_json

FIELDS = ("task_id", "prompt", "canonical_solution", "test", "entry_point")
ADDRESS = "https://github.com/openai/human-eval/raw/master/data/HumanEval.jsonl.gz"
PLUS_32 = "humaneval_plus_32_check"
"""HumanEval+'s check of HumanEval/32 raises TypeError whatever the candidate gives (evalplus #125):
it passes the wrong arguments to the polynomial. With the correction it checks what it was to."""
_PLUS_32_LINE = (
    "assert _poly(*candidate(*inp), inp) <= 0.0001",
    "assert abs(_poly(*inp, candidate(*inp))) <= 0.0001",
)


@dataclasses.dataclass(frozen=True)
class Problem:
    """A function's header and documentation, and the test of what completes it.

    Attributes:
      task_id: `HumanEval/0` and so on.
      prompt: what the model completes: imports, helper functions, header and docstring.
      canonical_solution: a completion that passes.
      test: a program that defines `check(candidate)`.
      entry_point: the function's name.
      correction: the name of the rule by which the test was corrected, or none.
    """

    task_id: str
    prompt: str
    canonical_solution: str
    test: str
    entry_point: str
    correction: str | None = None


def read_problems(path: Path, *, corrected: bool = True) -> list[Problem]:
    """The problems of a file of JSON lines, plain or in gzip, in its order.

    Args:
      path: the file.
      corrected: whether the check of HumanEval+ that no candidate can pass is corrected
        (`PLUS_32`, named in `Problem.correction`); otherwise pass@1 is at most 163 / 164.

    Raises:
      DataError: no such file, one that is cut, that is something else, or a line of it is.
    """
    problems: list[Problem] = []
    seen: set[str] = set()
    for number, line in enumerate(_text(path).split("\n"), 1):
        if line.strip():
            problem = _problem(line, f"{path} line {number}")
            if problem.task_id in seen:
                raise DataError("a problem is there twice", got=problem.task_id, at=path)
            seen.add(problem.task_id)
            problems.append(_correct(problem) if corrected else problem)
    if not problems:
        raise DataError("no problems", got="an empty file", at=path, do=f"take it from {ADDRESS}")
    return problems


def _text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(
            "the problems cannot be read",
            got=error.strerror or error,
            at=path,
            do=f"take them from {ADDRESS}",
        ) from error
    kind = kind_of(content)
    if kind == "a gzip file":
        content = _unpacked(content, path)
        kind = kind_of(content)
    if kind is not None:
        raise DataError(
            "the problems are not JSON lines",
            got=kind,
            at=path,
            expected="HumanEval.jsonl.gz, or it unpacked",
            do=instead(kind) or f"take it from {ADDRESS}",
        )
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError("the problems are not UTF-8", got=error, at=path) from error


def _unpacked(content: bytes, path: Path) -> bytes:
    try:
        return gzip.decompress(content)
    except (EOFError, OSError, zlib.error) as error:
        raise DataError(
            "the gzip file is cut or damaged", got=error, at=path, do=f"take it from {ADDRESS}"
        ) from error


def _problem(line: str, at: str) -> Problem:
    try:
        record: Any = parse_json(line)
    except ValueError as error:
        raise DataError("a problem is not JSON", got=error, at=at) from error
    if not isinstance(record, dict):
        raise DataError("a problem is not a JSON object", got=type(record).__name__, at=at)
    for name in FIELDS:
        value = record.get(name)
        if not isinstance(value, str):
            got = "nothing" if name not in record else type(value).__name__
            raise DataError(f"a problem's {name} is missing", got=got, at=at, expected="a text")
    if not record["entry_point"].isidentifier():
        raise DataError(
            "a problem's entry_point is not the name of a function",
            got=repr(record["entry_point"]),
            at=at,
        )
    return Problem(**{name: record[name] for name in FIELDS})


def _correct(problem: Problem) -> Problem:
    wrong, right = _PLUS_32_LINE
    if problem.task_id != "HumanEval/32" or wrong not in problem.test:
        return problem
    test = problem.test.replace(wrong, right)
    return dataclasses.replace(problem, test=test, correction=PLUS_32)


def corrections(problems: list[Problem]) -> dict[str, str]:
    """Task id -> rule of the problems whose tests were corrected, for the results to say."""
    return {p.task_id: p.correction for p in problems if p.correction is not None}


def before_entry_point(problem: Problem) -> str:
    """The prompt's imports and helper functions: all that stands before the function itself."""
    lines = problem.prompt.split("\n")
    for node in reversed(list(_statements(problem.prompt))):
        if isinstance(node, ast.FunctionDef) and node.name == problem.entry_point:
            first = min([node.lineno, *(one.lineno for one in node.decorator_list)])
            return "".join(line + "\n" for line in lines[: first - 1])
    return ""


def _statements(prompt: str) -> Iterator[ast.stmt]:
    for text in (prompt, prompt + "\n    pass\n"):
        try:
            yield from ast.parse(text).body
            return
        except SyntaxError:
            continue
