"""Quirks by name."""

import pytest

from eval.harness.quirks import SHARED, Quirks, read_overrides
from eval.harness.registry import all_quirks, benchmarks
from tulu_jax.errors import ConfigError

KNOWN = [quirk.name for quirk in SHARED]


def test_compat_sets_all_and_an_override_one():
    quirks = Quirks(SHARED, "paper", {"chat_stops": "fixed", "of_another": "paper"})
    assert {name: quirks[name] for name in quirks} == dict.fromkeys(KNOWN, "paper") | {
        "chat_stops": "fixed"
    }
    assert not quirks.paper("chat_stops") and quirks.paper("special_text")


def test_the_last_of_a_name_holds():
    found = read_overrides(["chat_stops=paper", "chat_stops=fixed"], KNOWN)
    assert found == {"chat_stops": "fixed"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("chat_stop=paper", "unknown quirk - got 'chat_stop' at --quirk - expected one of"),
        ("chat_stops", "unknown behaviour of a quirk - got '' at --quirk chat_stops"),
        ("chat_stops=right", "got 'right' .* expected chat_stops=paper or chat_stops=fixed"),
    ],
)
def test_what_is_no_quirk_is_refused(text, message):
    with pytest.raises(ConfigError, match=message):
        read_overrides([text], KNOWN)


def test_every_quirk_has_one_name_and_two_behaviours():
    named = {quirk for benchmark in benchmarks().values() for quirk in benchmark.own_quirks}
    assert len({quirk.name for quirk in named}) == len(named)
    for _, quirk in all_quirks().values():
        assert quirk.line and quirk.paper and quirk.fixed and quirk.paper != quirk.fixed
