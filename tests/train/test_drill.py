"""The fault drill: runs killed over fifty times end as the run that nothing happened to.

The real loop, data, checkpoints and processes; only the model is a toy whose weights remember
every batch in its order.
"""

import random
import signal
import time

import pytest

from train.small import assert_same_state, final_state, metric_lines, run_config, small_store
from tulu_jax.checkpoint.arrays import complete_steps

STEPS = 12
TOY = {"epochs": None, "train_steps": STEPS, "checkpoint_period": 1, "heldout_examples": 0,
       "keep_checkpoints": 3, "toy": True}  # fmt: skip
MOMENTS = {
    "start": ("", 0.5),
    "restore": ("RESTORING", 0.02),
    "process": ("First step done", 0.1),
    "save": ("step {}  checkpoint", 0.05),
}
"""What a child says before it is killed, and up to how many seconds later."""
KILLS, PAIR_KILLS = 44, 8


@pytest.fixture(scope="module")
def whole(forks, tmp_path_factory):
    """The run that nothing happened to, and the folder whose store all runs share."""
    folder = tmp_path_factory.mktemp("drill")
    small_store(folder / "store")
    assert f"RESULT {STEPS} True" in forks.start(folder / "whole", TOY).result()
    return folder


def assert_equals_whole(whole, folder) -> None:
    options = {name: value for name, value in TOY.items() if name != "toy"}
    left, right = run_config(folder, **options), run_config(whole / "whole", **options)
    assert_same_state(final_state(left, STEPS), final_state(right, STEPS), least=3)
    assert metric_lines(left) == metric_lines(right)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_one_process_killed_at_random(forks, whole):
    rng, killed, runs = random.Random(0), dict.fromkeys(MOMENTS, 0), 0
    while sum(killed.values()) < KILLS:
        runs += 1
        folder = whole / f"killed{runs}"
        while True:
            newest = (complete_steps(folder) or [0])[-1]
            moment = rng.choice([name for name in MOMENTS if newest or name != "restore"])
            text, within_s = MOMENTS[moment]
            text = text.format(min(newest + rng.randint(1, 4), STEPS))
            child = forks.start(folder, TOY)
            if not child.wait_for(text):
                break
            time.sleep(rng.random() * within_s)
            child.kill()
            assert child.ended(30)
            if child.status == 0:
                break
            assert child.status == -signal.SIGKILL, child.output[-3000:]
            killed[moment] += 1
            if sum(killed.values()) == KILLS:
                child = forks.start(folder, TOY)
                break
        assert f"RESULT {STEPS} True" in child.result()
        assert_equals_whole(whole, folder)
    assert min(killed.values()) > 3, killed


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_one_of_two_processes_killed(forks, whole, free_port):
    """The other one ends too, soon, and says who is gone; both together go on where they were."""
    rng, killed, named, folder = random.Random(1), 0, set(), whole / "pair"
    options = TOY | {"peer_timeout_s": 2.0}
    while True:
        port = free_port()
        pair = [forks.start(folder, options, port, each, 2, 1) for each in range(2)]
        if killed == PAIR_KILLS:
            break
        victim, restoring = rng.randrange(2), killed % 2 == 1
        pair[victim if restoring else 0].wait_for("RESTORING" if restoring else "  checkpoint")
        time.sleep(rng.random() * (0.02 if restoring else 0.1))
        pair[victim].kill()
        assert pair[victim].ended(30)
        began = time.monotonic()
        other = pair[1 - victim]
        assert other.ended(30), other.output[-3000:]
        assert time.monotonic() - began < 20
        assert other.status, "ended well without its peer"
        if f"Process {victim}" in other.output:
            named.add((victim, restoring))
        else:  # JAX ends all at once when process 0 dies
            assert victim == 0, other.output[-3000:]
        killed += 1
    assert named >= {(1, False), (1, True)}
    for each in pair:
        assert f"RESULT {STEPS} True" in each.result()
    assert_equals_whole(whole, folder)
