"""Where time goes, kept over restarts; and steps in flight."""

import json

import jax.numpy as jnp
import pytest

from tulu_jax.train import goodput
from tulu_jax.train.flight import AHEAD, Flight
from tulu_jax.train.goodput import (
    PHASES,
    Clock,
    Goodput,
    goodput_sentence,
    share_in_steps,
    step_time_summary,
)


class Time:
    """A clock that the test sets."""

    def __init__(self):
        self.now = 100.0

    def perf_counter(self):
        return self.now


@pytest.fixture
def now(monkeypatch):
    fake = Time()
    monkeypatch.setattr(goodput, "time", fake)
    return fake


def only(**seconds):
    return dict.fromkeys(PHASES, 0.0) | {n.replace("_", "-"): s for n, s in seconds.items()}


def test_every_moment_belongs_to_one_phase(now):
    """The example in `Clock`'s docstring, after 2 s of start-up, 1.5 of them before the clock."""
    clock = Clock(1.5)
    now.now += 0.5
    clock.switch("steps")
    now.now += 1
    with clock.phase("checkpoint"):
        now.now += 1
    now.now += 1
    assert clock.seconds() == only(start_up=2.0, steps=2.0, checkpoint=1.0)
    clock.move(0.25, "data wait")
    assert clock.seconds()["data wait"] == 0.25 and clock.seconds()["steps"] == 1.75


def test_a_phase_ends_with_an_error_too(now):
    clock = Clock()
    clock.switch("steps")
    with pytest.raises(KeyError), clock.phase("held-out"):
        now.now += 3
        raise KeyError
    now.now += 1
    assert clock.seconds() == only(held_out=3.0, steps=1.0)


def test_a_restart_counts_against_goodput(now, tmp_path):
    clock = Clock()
    now.now += 2
    clock.switch("steps")
    first = Goodput(tmp_path, clock, first_step=0)
    now.now += 10
    assert first.keep(10) == only(start_up=2.0, steps=10.0)
    clock = Clock()  # killed after step 10; the newest checkpoint is of step 6
    second = Goodput(tmp_path, clock, first_step=6)
    now.now += 3
    clock.switch("steps")
    now.now += 4
    assert second.restarts == 1
    assert second.keep(10) == only(start_up=2.0, steps=6.0 + 4.0, restart=4.0 + 3.0)
    kept = json.loads((tmp_path / "goodput.json").read_text())
    assert kept["step"] == 10 and kept["steps"] == 10 and kept["restarts"] == 1


def test_a_new_run_in_an_old_folder_begins_anew(now, tmp_path):
    (tmp_path / "goodput.json").write_text('{"step": 9, "seconds": {"steps": 5.0}, "steps": 9}')
    assert Goodput(tmp_path, Clock(), first_step=0).seconds() == only()
    (tmp_path / "goodput.json").write_text("[")
    assert Goodput(tmp_path, Clock(), first_step=3).seconds() == only()


def test_the_sentence_tells_what_the_rest_was():
    seconds = only(steps=585.0, compile=10.0, checkpoint=5.0)
    assert goodput_sentence(seconds) == (
        "Goodput 97.5%: 585.0 of 600.0 s in steps; the rest: compile 10.0 s, checkpoint 5.0 s"
    )
    assert share_in_steps(only()) == 0
    assert goodput_sentence(only(steps=1.0)).endswith("the rest: nothing")


def test_step_times():
    found = step_time_summary([0.1] * 98 + [0.2, 0.5], bins=4)
    assert (found["steps"], found["median"], found["max"]) == (100, 0.1, 0.5)
    assert found["p90"] == pytest.approx(0.1) and 0.1 < found["p99"] < 0.5
    assert found["counts"] == [98, 1, 0, 1] and len(found["edges"]) == 5
    assert step_time_summary([]) == {}


def metrics(number):
    return {"loss": jnp.float32(number), "grad_norm": jnp.float32(1)}


def test_steps_in_flight_are_fetched_in_order_and_once():
    flight = Flight()
    assert flight.idle
    flight.restart()
    for step in range(1, 8):
        flight.add(step, metrics(step))
        unfinished = [row for row in flight._rows if row.done_at is None]
        assert len(unfinished) <= AHEAD
    rows = flight.fetch(5)
    assert [row.step for row in rows] == [1, 2, 3, 4, 5]
    assert [row.metrics["loss"] for row in rows] == [1, 2, 3, 4, 5]
    assert all(row.seconds is not None and row.seconds >= 0 for row in rows)
    assert [row.step for row in flight.fetch(7)] == [6, 7] and flight.fetch(7) == []


def test_the_first_step_of_a_process_is_not_timed():
    flight = Flight()
    flight.add(1, metrics(1))
    flight.add(2, metrics(2))
    first, second = flight.fetch(2)
    assert first.seconds is None and second.seconds is not None
