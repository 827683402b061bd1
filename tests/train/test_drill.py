"""The fault drill: runs killed again and again end as the run that nothing happened to.

The real loop, data, checkpoints and processes; only the model is a toy whose weights remember
every batch in its order.
"""

import itertools
import os
import random
import signal
import time

import pytest
from thorough import THOROUGH

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
PAIR_MOMENTS = ("save", "restore")
KILLS = 44 if THOROUGH else 20
PAIR_KILLS = 2 if THOROUGH else 1
"""At least so many of either process at each of its moments."""
NOTICED_S = 5.0
"""A process that says nothing for so long is gone; on a busy machine one may rest for seconds."""


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
    more = {*os.listdir(folder / "checkpoints")} - {*os.listdir(whole / "whole" / "checkpoints")}
    # Killed after the last save: the step that went for it may be there, until there is another.
    assert more <= {str(STEPS - TOY["keep_checkpoints"])}


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_one_process_killed_at_random(forks, whole):
    rng, killed, runs = random.Random(0), dict.fromkeys(MOMENTS, 0), 0
    while sum(killed.values()) < KILLS:
        runs += 1
        folder = whole / f"killed{runs}"
        while True:
            newest = (complete_steps(folder) or [0])[-1]
            names = [name for name in MOMENTS if newest or name != "restore"]
            fewest = min(killed[name] for name in names)
            moment = rng.choice([name for name in names if killed[name] == fewest])
            text, within_s = MOMENTS[moment]
            text = text.format(min(newest + rng.randint(1, 4), STEPS))
            child = forks.start(folder, TOY)
            if not child.wait_for(text):
                break
            time.sleep(rng.random() * within_s)
            child.kill()
            assert child.ended(120)
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
    rng, runs = random.Random(1), 0
    killed = dict.fromkeys(itertools.product(PAIR_MOMENTS, range(2)), 0)
    while min(killed.values()) < PAIR_KILLS:
        runs += 1
        folder, going_on = whole / f"pair{runs}", True
        while going_on and min(killed.values()) < PAIR_KILLS:
            newest = (complete_steps(folder) or [0])[-1]
            moments = PAIR_MOMENTS if newest else ("save",)
            kind = min((each for each in killed if each[0] in moments), key=killed.__getitem__)
            step = min(newest + rng.randint(2, 4), STEPS)  # The save before it is then complete.
            pair = start_pair(forks, folder, free_port(), peer_timeout_s=NOTICED_S)
            words = kill_one_of(pair, *kind, rng, step)
            going_on = bool(words)
            killed[kind] += going_on
            # When process 0 dies, JAX may end all at once.
            assert not words or kind[1] == 0 or "Process 1" in words, words[-3000:]
        for each in start_pair(forks, folder, free_port()):
            assert f"RESULT {STEPS} True" in each.result()
        assert_equals_whole(whole, folder)


def start_pair(forks, folder, port: int, **options) -> list:
    """Two processes of one run."""
    return [forks.start(folder, TOY | options, port, each, 2, 1) for each in range(2)]


def kill_one_of(pair, moment: str, victim: int, rng, step: int) -> str:
    """What the other process said before it ended; nothing if the run had come to its end."""
    text, within_s = MOMENTS[moment]
    killed, other = pair[victim], pair[1 - victim]
    if (killed if moment == "restore" else pair[0]).wait_for(text.format(step)):
        time.sleep(rng.random() * within_s)
        killed.kill()
    assert killed.ended(120), killed.output[-3000:]
    assert other.ended(120), other.output[-3000:]
    if killed.status == 0 or f"RESULT {STEPS} True" in other.output:
        return ""
    assert killed.status == -signal.SIGKILL, killed.output[-3000:]
    assert other.status, "ended well without its peer"
    return other.output
