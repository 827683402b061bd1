"""The type check of config fields."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Literal

import pytest

from tulu_jax.errors import ConfigError
from tulu_jax.fields import (
    LARGEST,
    above,
    check_field,
    check_fields,
    divisor,
    least,
    one_of,
    setting,
)

Mode = Literal["a", "b"]


@dataclasses.dataclass(frozen=True)
class Sample:
    count: int = 1
    rate: float | None = 0.5
    name: str = "a"
    on: bool = False
    other: Sequence[int] = ()
    table: Mapping[str, float | None] = dataclasses.field(default_factory=dict)
    mode: Mode | None = "a"
    nested: Inner | None = None
    path: str | None = setting(None, path=True, macro="PATH")
    kind: str = setting("c", one_of("c", "d"))
    parts: int | None = setting(None, above(0))
    shares: Mapping[str, int] = setting(check=least(1), factory=dict)


@dataclasses.dataclass(frozen=True)
class Inner:
    size: int = 1


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"rate": 2},
        {"rate": None},
        {"other": [1, 2]},
        {"other": (1,)},
        {"mode": "b"},
        {"table": {"a": 1, "b": None}},
        {"nested": Inner()},
        {"count": LARGEST},
    ],
)
def test_right_types_pass(changes):
    check_fields(Sample(**changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"count": 1.0},
            r"Sample.count is not a whole number - got 1.0 - expected a whole number$",
        ),
        ({"count": True}, r"Sample.count is not a whole number - got True"),
        ({"count": None}, r"Sample.count is not a whole number - got None"),
        ({"rate": "2"}, r"Sample.rate is not a number - got '2' - expected a number, or None"),
        ({"name": 3}, r"Sample.name is not text - got 3"),
        ({"on": 1}, r"Sample.on is not True or False - got 1"),
        ({"other": "ab"}, r"Sample.other is not a list, each item a whole number - got 'ab'"),
        ({"other": [1, "a"]}, r"Sample.other is not a list, each item a whole number"),
        ({"table": {"a": "x"}}, r"Sample.table is not a mapping \{name: a number, or None\} - got"),
        ({"table": [1]}, r"Sample.table is not a mapping"),
        ({"mode": 3}, r"Sample.mode is unknown - got 3 - expected a or b, or None"),
        ({"mode": "c"}, r"Sample.mode is unknown - got 'c'"),
        ({"kind": "e"}, r"Sample.kind is unknown - got 'e' - expected c or d"),
        ({"parts": 0}, r"Sample.parts is out of range - got 0 - expected a number above 0"),
        ({"shares": {"a": 0}}, r"Sample.shares\['a'\] is out of range - got 0 - expected 1 or"),
        ({"path": "\0"}, r"PATH names no file or folder"),
        (
            {"nested": True},
            r"Sample.nested is not @Inner\(\) - got True - expected @Inner\(\), or ",
        ),
        ({"rate": float("nan")}, r"Sample.rate is out of range - got nan - expected a finite"),
        ({"rate": float("inf")}, r"Sample.rate is out of range - got inf"),
        ({"count": LARGEST + 1}, r"Sample.count is out of range - got 4294967296 - expected a"),
    ],
)
def test_wrong_types_are_named(changes, message):
    with pytest.raises(ConfigError, match=message):
        check_fields(Sample(**changes))


def test_paths_become_what_users_mean(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    sample = Sample(path="~/x/../y")
    check_fields(sample)
    assert sample.path == os.path.realpath("/home/me/y")


def test_a_field_can_be_held_to_another():
    check_field(Sample(count=4), "count", divisor(8, "the size"))
    with pytest.raises(ConfigError, match=r"Sample.count is out .* a divisor of the size 8"):
        check_field(Sample(count=3), "count", divisor(8, "the size"))
