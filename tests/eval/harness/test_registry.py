"""Benchmarks, tasks and suites by name."""

import pytest

from eval.harness.registry import (
    QUICK,
    SUITES,
    benchmarks,
    find_benchmark,
    find_task,
    suites,
    tasks,
)
from eval.report.tasks import task_of
from tulu_jax.cli.eval_flags import SLOTS
from tulu_jax.errors import ConfigError


def test_every_task_of_a_suite_is_there_and_known_to_the_report():
    for name, members in SUITES.items():
        assert suites()[name] == list(members), name
        for task in members:
            assert task_of(task).title != task, task
    assert set(suites()[QUICK]) == {task for members in SUITES.values() for task in members}


def test_the_papers_first_table_is_five_benchmarks_in_two_settings_each():
    found = [tasks()[task].benchmark.name for task in suites()["tulu1"]]
    assert sorted(found) == sorted(2 * ["mmlu", "gsm", "bbh", "tydiqa", "codex_humaneval"])


def test_options_that_a_task_has_name_it():
    for name, (benchmark, options) in tasks().items():
        assert benchmark.task_of(options) == name
    gsm = find_benchmark("gsm")
    assert gsm.task_of(gsm.options(n_shot=3)) == "gsm"


def test_unknown_names_are_refused():
    with pytest.raises(ConfigError, match="unknown task - got 'gsm8k'"):
        find_task("gsm8k")
    with pytest.raises(ConfigError, match="unknown benchmark - got 'gsm_cot'"):
        find_benchmark("gsm_cot")


def test_what_benchmarks_say_of_themselves():
    assert SLOTS >= 1
    for name, benchmark in benchmarks().items():
        assert benchmark.name == name and benchmark.title and benchmark.tasks and benchmark.metric
