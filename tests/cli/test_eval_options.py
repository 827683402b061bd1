"""`--option BENCHMARK.NAME=VALUE` of `tulu eval`."""

import dataclasses

import pytest

from eval.harness.registry import find_benchmark
from tulu_jax.cli.eval_flags import override_options
from tulu_jax.errors import ConfigError


def changed(benchmark, *texts, **fields):
    options = dataclasses.replace(find_benchmark(benchmark).options(), **fields)
    return override_options(options, benchmark, texts)


def test_values_are_read_as_the_setting_has_them():
    assert changed("gsm", "gsm.n_shot=4", "gsm.no_cot=true").n_shot == 4
    assert changed("gsm", "gsm.no_cot=true").no_cot is True
    assert changed("gsm", "gsm.max_num_examples=7").max_num_examples == 7
    assert changed("gsm", "gsm.max_num_examples=none", max_num_examples=7).max_num_examples is None
    assert changed("mmlu", "mmlu.subjects=astronomy,anatomy").subjects == ("astronomy", "anatomy")


def test_settings_of_other_benchmarks_are_left_to_them():
    assert changed("bbh", "gsm.n_shot=4") == find_benchmark("bbh").options()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "gsm.shots=4",
            r"unknown setting .* got 'gsm.shots=4' at --option .*n_shot=",
        ),
        ("gsm.n_shot", "unknown setting of a benchmark"),
        ("gms.n_shot=4", "unknown benchmark - got 'gms'"),
        ("gsm.n_shot=four", "value cannot be read - got 'four' at --option gsm.n_shot .* a whole"),
        ("gsm.no_cot=maybe", "got 'maybe' .* true or false"),
        ("gsm.n_shot=9", "n_shot is out of range"),
    ],
)
def test_what_cannot_be_followed_is_refused(text, message):
    with pytest.raises(ConfigError, match=message):
        changed("gsm", text)
