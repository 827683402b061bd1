"""From settings to rows: caps, seeds and rates, and what a checkpoint keeps of them."""

import dataclasses

import numpy as np
import pytest

from data.fixtures import META, make_examples
from tulu_jax.data import specs
from tulu_jax.data.config import DataConfig
from tulu_jax.data.ensure import assemble
from tulu_jax.data.mixtures import mixture_specs, resolve
from tulu_jax.data.rates import RatedRows
from tulu_jax.data.specs import DatasetSpec
from tulu_jax.data.store import write_store
from tulu_jax.errors import ConfigError, DataError

SIZES = {"tulu_a": 40, "tulu_b": 20, "tulu_c": 10}
TEXT = dict.fromkeys(("description", "citation", "licence", "homepage"), "")


def read(raw_dir, **_):
    return iter(())


@pytest.fixture(autouse=True)
def tasks(monkeypatch):
    monkeypatch.setattr(specs, "_SPECS", dict(specs.all_specs()))
    for name in "abc":
        options = {"rule": "leaf"} if name == "a" else {}
        spec = DatasetSpec(name=name, version="1.0.0", read=read, options=options, **TEXT)
        specs.register(spec)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stores")
    stores = {}
    for task, size in SIZES.items():
        examples = make_examples([4] * size, seed=size, name=task)
        stores[task] = {"train": write_store(folder / task, examples, meta={**META, "task": task})}
    return stores


def data(prepared, mixture="c,a,b", **changes):
    config = DataConfig(
        mixture=mixture, tokenizer="t", length=8, batch_size=4, packing="padded", **changes
    )
    parts = resolve(
        mixture,
        max_examples=config.max_examples,
        rates=config.rates,
        seeds=config.seeds,
        seed=config.seed,
    )
    return assemble(config, parts, prepared, None)


def shown(found, rows=None):
    return {share.task: share.examples for share in found.train.composition(rows)}


def test_each_example_once_an_epoch_by_default(prepared):
    found = data(prepared, epochs=1)
    assert shown(found) == SIZES and found.mixing == {} and found.heldout == {}
    assert [store.name for store in found.stores] == ["tulu_a", "tulu_b", "tulu_c"]


def test_the_order_of_the_names_decides_nothing(prepared):
    one, two = data(prepared, "a,b,c"), data(prepared, "c,b,a")
    assert np.array_equal(one.train.batch(7, 4)["tokens"], two.train.batch(7, 4)["tokens"])


def test_caps_choose_by_seed(prepared):
    found = data(prepared, max_examples={"a": 5, "tulu_b": 100})
    assert shown(found) == {"tulu_a": 5, "tulu_b": 20, "tulu_c": 10}
    assert found.mixing["max_examples"] == {"tulu_a": 5, "tulu_b": 100}
    assert found.mixing["seeds"] == dict.fromkeys(SIZES, 42)
    again, other = (
        data(prepared, max_examples={"tulu_a": 5}, seeds=seeds) for seeds in ({}, {"a": 7})
    )
    assert np.array_equal(again.train.examples[:5], found.train.examples[:5])
    assert not np.array_equal(other.train.examples[:5], found.train.examples[:5])
    assert other.mixing["seeds"]["tulu_a"] == 7


def test_caps_leave_heldout_examples_out(prepared):
    found = data(prepared, max_examples={"tulu_a": 30}, heldout_examples=4)
    held = set(found.heldout["tulu_a"].examples.tolist())
    assert len(held) == 4 and not held & set(found.train.examples[:30].tolist())
    assert shown(found) == {"tulu_a": 30, "tulu_b": 16, "tulu_c": 6}


def test_rates_by_size(prepared):
    found = data(prepared, schedule="rates")
    assert isinstance(found.train, RatedRows) and shown(found) == SIZES
    assert found.mixing["rates"] == {"tulu_a": 40.0, "tulu_b": 20.0, "tulu_c": 10.0}
    capped = data(prepared, schedule="rates", rate_maximum=10)
    assert sorted(shown(capped).values()) == [23, 23, 24] and capped.train.num_rows == 70
    even = data(prepared, schedule="rates", rate_temperature=1e6)
    assert sorted(shown(even).values()) == [23, 23, 24]
    chosen = data(prepared, schedule="rates", max_examples={"tulu_a": 10}, epochs=3)
    assert shown(chosen) == {"tulu_a": 10, "tulu_b": 20, "tulu_c": 10}
    assert chosen.train.num_steps(4) == 30


def test_rates_of_ones_own(prepared):
    found = data(prepared, schedule="rates", rates={"c": 60, "tulu_a": 7.5, "tulu_b": 7.5})
    assert shown(found, 700) == {"tulu_a": 70, "tulu_b": 70, "tulu_c": 560}
    assert found.train.composition(700)[2].epochs == 56.0
    assert found.mixing["rates"]["tulu_c"] == 60.0 and found.mixing["schedule"] == "rates"


def test_reading_options_reach_the_specs():
    (spec, other) = mixture_specs("b,a", {"a": {"rule": "every"}})
    assert spec.options == {"rule": "every"} and other.options == {}
    assert specs.get_spec("a").options == {"rule": "leaf"}
    with pytest.raises(DataError, match=r"unknown option of dataset a - got 'rul' .*did you mean"):
        mixture_specs("a", {"tulu_a": {"rul": "every"}})


@pytest.mark.parametrize("setting", ["max_examples", "rates", "seeds"])
def test_settings_of_a_task_that_is_not_there(setting):
    with pytest.raises(
        ConfigError,
        match=rf"{setting} names a task that the mixture does not have - got 'tulu_d' - expected "
        "tulu_a or tulu_b",
    ):
        resolve("a,b", **{setting: {"tulu_d": 3}})
    with pytest.raises(ConfigError, match=r"options names a task that the mixture does not have"):
        mixture_specs("a", {"b": {}})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"schedule": "rate"},
            r"DataConfig.schedule is unknown - got 'rate' - expected concat or rates",
        ),
        ({"max_examples": {"a": 0}}, r"max_examples\['a'\] is out of range - got 0"),
        ({"max_examples": 5}, r"max_examples is not a mapping \{name: a whole number\}"),
        ({"seeds": {"a": -1}}, r"seeds\['a'\] is out of range - got -1"),
        ({"rates": {"a": 0.0}}, r"rates\['a'\] is out of range - got 0.0 - expected a number abov"),
        ({"options": {"a": "every"}}, r"options is not a mapping \{name: a mapping \{name: va"),
        ({"rate_maximum": 0}, r"rate_maximum is out of range"),
        ({"rate_temperature": 0}, r"rate_temperature is out of range - got 0"),
        ({"rate_scale": "1"}, r"rate_scale is not a number - got '1'"),
        ({"rates": {"a": 1.0}}, r"rates are given but not used - got schedule 'concat'"),
        ({"rate_maximum": 10}, r"rates are given but not used"),
    ],
)
def test_impossible_settings(changes, message):
    if "schedule" not in changes and "not used" not in message:
        changes = {**changes, "schedule": "rates"}
    with pytest.raises(ConfigError, match=message):
        DataConfig(mixture="a", tokenizer="t", **changes)


def test_settings_can_be_compared_and_replaced():
    one = DataConfig(mixture="a", tokenizer="t", max_examples={"a": 1})
    assert dataclasses.replace(one) == one != dataclasses.replace(one, max_examples={})
