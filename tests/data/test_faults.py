"""Bad records are skipped up to a limit, or refused at once."""

import pytest

from tulu_jax.data.faults import KEPT_MESSAGES, Faults
from tulu_jax.errors import DataError


def bad(line):
    return DataError("malformed JSON", at=f"x.jsonl, line {line}")


def test_strict_raises_the_first():
    with pytest.raises(DataError, match=r"malformed JSON - at x\.jsonl, line 3"):
        Faults(strict=True).skip(bad(3))


@pytest.mark.parametrize(("skipped", "passes"), [(0, True), (1, True), (2, False)])
def test_more_than_one_percent_is_refused(skipped, passes):
    faults = Faults()
    for _ in range(100):
        faults.saw()
    for line in range(skipped):
        faults.skip(bad(line))
    if passes:
        faults.check("dolly")
    else:
        with pytest.raises(DataError, match=r"too many bad records - got 2 of 100; first: malf"):
            faults.check("dolly")


def test_a_dataset_of_only_bad_records_is_refused():
    faults = Faults()
    faults.skip(bad(1))
    with pytest.raises(DataError, match="too many bad records"):
        faults.check("dolly")


def test_few_messages_are_kept():
    faults = Faults()
    for line in range(100):
        faults.skip(bad(line))
    assert faults.skipped == 100 and len(faults.messages) == KEPT_MESSAGES


def test_what_is_left_out_by_rule_is_no_fault():
    faults = Faults(strict=True)
    for _ in range(3):
        faults.leave_out("odd last message")
    faults.leave_out("too long", 2)
    assert faults.left_out == {"odd last message": 3, "too long": 2} and faults.skipped == 0
    faults.check("dolly")
