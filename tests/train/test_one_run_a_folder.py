"""Several runs started in one folder at once: one goes on, the others say so and change nothing."""

import random
import time

import pytest
from thorough import THOROUGH

from train.small import assert_same_state, final_state, metric_lines, run_config, small_store

STEPS = 8
TOY = {"epochs": None, "train_steps": STEPS, "checkpoint_period": 2, "heldout_examples": 0,
       "keep_checkpoints": 3, "toy": True}  # fmt: skip
REFUSED = "refused: run folder belongs to another run that is going on - got process {} on "
SAID_WITHIN_S = 60
"""10 are asked for on a quiet machine; this leaves room on a busy one."""
ROUNDS = 20 if THOROUGH else 8


@pytest.fixture(scope="module")
def whole(forks, tmp_path_factory):
    """The run that nobody disturbed, and the folder whose store all runs share."""
    folder = tmp_path_factory.mktemp("owners")
    small_store(folder / "store")
    assert f"RESULT {STEPS} True" in forks.start(folder / "whole", TOY).result()
    return folder


def start_at_once(forks, folder, count: int, seed: int):
    """The child that owns the folder, once the others have said that they do not."""
    # Other settings: had a second one trained, its checkpoints and metrics would not be the run's.
    others = TOY | {"seed": seed + 1, "train_steps": STEPS + 4}
    began = time.monotonic()
    children = [forks.start(folder, TOY if i == 0 else others) for i in range(count)]
    refused = []
    while len(refused) < count - 1:
        refused = [child for child in children if "refused:" in child.output]
        assert time.monotonic() - began < SAID_WITHIN_S, [child.output[-500:] for child in children]
        time.sleep(0.005)
    (owner,) = (child for child in children if child not in refused)
    for child in refused:
        assert child.ended(120)
        assert REFUSED.format(owner.pid) in child.output, child.output[-2000:]
        assert "Traceback" not in child.output
    return owner, TOY if owner is children[0] else others


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("count", [2, 5])
def test_of_runs_started_at_once_one_goes_on(forks, whole, count):
    rng, killed = random.Random(count), 0
    for number in range(ROUNDS // 2):
        folder = whole / f"of{count}_{number}"
        owner, options = start_at_once(forks, folder, count, number)
        if number % 3 < 2:
            owner.wait_for(rng.choice(["First step done", "step 4  checkpoint"]))
            owner.kill()
            assert owner.ended(120)
            if owner.status != 0:
                killed += 1
                owner = forks.start(folder, options)
                assert owner.wait_for(f"Taking over {folder}: process ")
        total = options["train_steps"]
        assert f"RESULT {total} True" in owner.result()
        if options is TOY:
            left, right = (
                run_config(where, **{k: v for k, v in TOY.items() if k != "toy"})
                for where in (folder, whole / "whole")
            )
            assert_same_state(final_state(left, STEPS), final_state(right, STEPS), least=3)
            assert metric_lines(left) == metric_lines(right)
    assert killed
