"""Several processes with rows, weights, heads and positions split over them train as one does.

Tolerance: float32 rounding, since sums over devices are added in another order: 1e-6 relative for
losses, 1e-6 absolute for moments, 1e-5 for weights, as in test_step.py: AdamW divides every
gradient by its own size, and one near 0 has few digits to divide.
"""

import numpy as np
import pytest

from train.small import final_state, metric_lines, run_config, small_store

STEPS = 3
OPTIONS = {"epochs": None, "train_steps": STEPS, "heldout_examples": 0}
BARE = OPTIONS | {"bare": True}
SHAPES = {
    "two processes, rows and heads": (2, 2, [2, 1, 2]),
    "two processes, both with all rows": (2, 2, [1, 1, 4]),
    "two processes, positions": (2, 1, [1, 1, 1, 2]),
    "four processes, rows and weights": (4, 1, [2, 2, 1, 1]),
}
"""Processes, devices of each, and the mesh as data, fsdp, tensor, sequence."""


@pytest.fixture(scope="module")
def one_process(forks, tmp_path_factory):
    """The folder of a run in one process on one device."""
    folder = tmp_path_factory.mktemp("processes")
    small_store(folder / "store")
    assert f"RESULT {STEPS} True" in forks.start(folder / "one", BARE).result()
    return folder


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", SHAPES)
def test_processes_equal_one(forks, one_process, free_port, name):
    processes, devices, mesh = SHAPES[name]
    port, folder = free_port(), one_process / name.replace(" ", "_")
    children = [
        forks.start(folder, BARE | {"mesh": mesh}, port, each, processes, devices)
        for each in range(processes)
    ]
    for child in children:
        assert f"RESULT {STEPS} True" in child.result(240)
    left, right = run_config(folder, **OPTIONS), run_config(one_process / "one", **OPTIONS)
    for ours, theirs in zip(metric_lines(left), metric_lines(right), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-6)
    ours, theirs = final_state(left, STEPS), final_state(right, STEPS)
    assert ours.keys() == theirs.keys()
    for path in ours:
        limit = 1e-5 if path.startswith("['params']") else 1e-6
        np.testing.assert_allclose(ours[path], theirs[path], rtol=0, atol=limit, err_msg=path)
