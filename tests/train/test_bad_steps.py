"""What becomes of steps that would spoil the weights."""

import pytest

from tulu_jax.errors import GuardError
from tulu_jax.train.flight import Row
from tulu_jax.train.guards import BadSteps

GOOD = {"loss": 1.0, "grad_norm": 2.0, "skipped": 0.0}
SKIPPED = {"loss": float("nan"), "grad_norm": 5.0, "skipped": 1.0}


def check(bad, rows):
    bad.check(rows, last_checkpoint=lambda: 7)


def test_updates_are_counted_without_skipped_steps():
    bad = BadSteps(limit=3, norm_limit=None, skipped=1)
    rows = [Row(step, dict(m)) for step, m in ((8, GOOD), (9, SKIPPED), (10, GOOD))]
    check(bad, rows)
    assert [row.update for row in rows] == [7, 7, 8]
    assert rows[0].skipped is None and bad.meta() == {"skipped_steps": 2}
    assert rows[1].skipped == (
        "step 9 skipped, the weights are as before it: loss nan, gradient norm 5 (2 of at most 3)"
    )


def test_too_many():
    bad = BadSteps(limit=1, norm_limit=None, skipped=1)
    with pytest.raises(
        GuardError, match=r"too many bad steps were skipped - got 2, the last with loss nan, "
        r"gradient norm 5 at step 9 - expected at most BAD_STEPS_LIMIT=1 - last checkpoint: 7; "
        r"lower LEARNING_RATE"
    ):  # fmt: skip
        check(bad, [Row(9, SKIPPED)])


@pytest.mark.parametrize("name", ["loss", "grad_norm"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_not_finite_stops(name, value):
    bad = BadSteps(limit=None, norm_limit=None)
    with pytest.raises(GuardError, match=rf"{name} is not finite - got {value} at step 4 .* 7; "):
        check(bad, [Row(4, GOOD | {name: value})])


def test_above_the_limit_stops():
    bad = BadSteps(limit=None, norm_limit=1.5)
    with pytest.raises(
        GuardError, match=r"gradient norm is above BAD_GRAD_NORM - got 2 at step 4 - expected at "
        r"most 1.5 - last good checkpoint: 7; .*ON_BAD_STEP='skip'"
    ):  # fmt: skip
        check(bad, [Row(4, GOOD)])
    bad = BadSteps(limit=None, norm_limit=2.0)
    check(bad, [Row(4, GOOD)])
