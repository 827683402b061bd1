"""Names become lists of tasks; a wrong one is met with near ones."""

import pytest

from tulu_jax.data import mixtures, specs
from tulu_jax.data.mixtures import Component, MixtureSpec, all_mixtures, get_mixture
from tulu_jax.data.specs import DatasetSpec
from tulu_jax.errors import ConfigError, DataError

TEXT = dict.fromkeys(("description", "citation", "licence", "homepage"), "")


def read(raw_dir, **_):
    return iter(())


@pytest.fixture(autouse=True)
def some(monkeypatch):
    """Tasks `tulu_a` to `tulu_c` and a mixture of two, which exist only during a test."""
    monkeypatch.setattr(specs, "_SPECS", dict(specs.all_specs()))
    monkeypatch.setattr(specs, "_RESOLVERS", list(specs._RESOLVERS))
    monkeypatch.setattr(mixtures, "_MIXTURES", dict(mixtures._MIXTURES))
    for name in "abc":
        specs.register(DatasetSpec(name=name, version="1.0.0", read=read, **TEXT))
    components = (Component(task="tulu_a"), Component(task="tulu_b", max_examples=3))
    return mixtures.register_mixture(MixtureSpec(name="tulu_two", components=components))


def test_names_of_tasks_and_mixtures(some):
    assert get_mixture("tulu_two") is get_mixture("two") is some
    assert get_mixture("a").components == (Component(task="tulu_a"),)
    assert get_mixture("a").name == "tulu_a"
    joined = get_mixture("two, tulu_c")
    assert joined.tasks == ("tulu_a", "tulu_b", "tulu_c")
    assert joined.components[1].max_examples == 3
    assert [spec.name for spec in joined.specs()] == ["a", "b", "c"]


@pytest.mark.parametrize("name", ["", " , ", "a,tulu_a", "two,b"])
def test_no_task_or_one_twice(name):
    with pytest.raises(ConfigError, match=r"not a mixture - got .* different tasks, joined"):
        get_mixture(name)


def test_unknown_names():
    with pytest.raises(DataError, match=r"unknown dataset or mixture - got 'tulu_tow'.*tulu_two"):
        get_mixture("a,tulu_tow")


def test_a_mixture_is_registered_once():
    other = MixtureSpec(name="tulu_two", components=())
    with pytest.raises(DataError, match=r"a mixture of this name exists already - got 'tulu_two'"):
        mixtures.register_mixture(other)


def test_a_resolver_is_asked_for_names_that_are_not_registered(tmp_path):
    (tmp_path / "own.txt").write_text("x")
    path = str(tmp_path / "own.txt")
    source = (specs.Source("", path),)
    own = DatasetSpec(name="own", version="1.0.0", read=read, sources=source, **TEXT)
    specs.add_resolver(lambda name: own if name == "file:own" else None)
    assert specs.get_spec("file:own") is own
    assert get_mixture("file:own,a").tasks == ("file:own", "tulu_a")
    for raw_dir in (None, "elsewhere"):
        folder = specs.locate_raw_dir(own, raw_dir)
        assert folder == tmp_path
        assert len(specs.raw_fingerprint(own, folder)) == 64


def test_files_of_ones_own(tmp_path, monkeypatch):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "own.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    monkeypatch.chdir(tmp_path)
    names = [spec.task_name for spec in mixtures.mixture_specs("one/own.jsonl,tulu_a")]
    assert names == ["tulu_a", "tulu_jsonl_own"]
    for key in ("one/own.jsonl", str(tmp_path / "one" / "own.jsonl"), "tulu_jsonl_own"):
        (part, _) = mixtures.resolve("one/own.jsonl,b", max_examples={key: 3})[::-1]
        assert (part.task, part.max_examples) == ("tulu_jsonl_own", 3)
    twice = {"one/own.jsonl": 3, "tulu_jsonl_own": 4}
    with pytest.raises(ConfigError, match=r"max_examples names a task twice - got 'tulu_jsonl_own"):
        mixtures.resolve("one/own.jsonl,b", max_examples=twice)
    with pytest.raises(ConfigError, match=r"two datasets have one task name - got one/own.jsonl "):
        mixtures.mixture_specs("one/own.jsonl,two/own.jsonl")


def test_the_papers_mixtures_are_registered():
    found = all_mixtures()
    assert {"tulu_v1_human", "tulu_v1_human_gpt", "tulu_v2", "tulu_v2_human"} <= set(found)
    human, whole = found["tulu_v1_human"].tasks, found["tulu_v1_human_gpt"].tasks
    assert human == ("tulu_flan_v2", "tulu_cot", "tulu_dolly", "tulu_oasst1")
    assert whole == (*human, "tulu_gpt4_alpaca", "tulu_code_alpaca", "tulu_sharegpt")
    assert set(found["tulu_v2_human"].tasks) < set(found["tulu_v2"].tasks)


@pytest.mark.parametrize("name", ["tulu_v1_human", "tulu_v1_human_gpt", "tulu_v2", "tulu_v2_human"])
def test_every_task_of_the_papers_mixtures_exists(name):
    for task, spec in zip(get_mixture(name).tasks, get_mixture(name).specs(), strict=True):
        assert spec.task_name == task and spec.expected_examples["train"] > 0
