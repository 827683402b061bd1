"""The type check of config fields."""

from __future__ import annotations

import dataclasses

import pytest

from tulu_jax.errors import ConfigError
from tulu_jax.fields import check_field_types


@dataclasses.dataclass(frozen=True)
class Sample:
    count: int = 1
    rate: float | None = 0.5
    name: str = "a"
    on: bool = False
    other: list[int] = dataclasses.field(default_factory=list)


@pytest.mark.parametrize("changes", [{}, {"rate": 2}, {"rate": None}, {"other": "anything"}])
def test_right_types_pass(changes):
    check_field_types(Sample(**changes))


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
    ],
)
def test_wrong_types_are_named(changes, message):
    with pytest.raises(ConfigError, match=message):
        check_field_types(Sample(**changes))
