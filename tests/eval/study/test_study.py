"""What a study may be, and what is said of one that cannot be."""

import dataclasses

import pytest

from eval.study.study import BaseModel, Evaluation, Grid, Study
from tests.eval.study.small_studies import ALPACA, base, evaluation, study
from tulu_jax.errors import ConfigError, TuluError


def test_names_of_datasets_become_whole():
    grid = Grid(models=[base()], datasets=["dolly", "none"], evaluations=[])
    assert grid.datasets == ("tulu_dolly", "none")


def test_quick_asks_few_instances_and_others_all():
    assert Evaluation(name="q", suite="quick").instances == 20
    assert Evaluation(name="q", suite="quick", limit=3).instances == 3
    assert evaluation().instances is None
    assert Evaluation(name="t", suite="tulu1").members[0] == "mmlu_0shot"
    both = Evaluation(name="t", suite="tulu1", tasks=["gsm_cot", "alpaca_eval_length"])
    assert both.members[-1] == "alpaca_eval_length" and both.members.count("gsm_cot") == 1


@pytest.mark.parametrize("name", ["", " ", "..", "a/b", "-x", "a\x1b[31m", "a,b", "x" * 101, "$x"])
def test_a_name_is_one_that_a_folder_can_have(name):
    with pytest.raises(ConfigError, match=r"BaseModel.name is no name - got .* - expected letters"):
        base(name, checkpoint="x")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: base(engine="gpt"), "behind an endpoint has neither weights nor a recipe here"),
        (lambda: BaseModel(name="x"), "a base model has no tokenizer - got checkpoint=None"),
        (lambda: base(size=13), "BaseModel.size is not text"),
        (lambda: Evaluation(name="x"), r"an evaluation asks nothing - got tasks=\[\]"),
        (lambda: Evaluation(name="x", suite="tulu9"), "unknown suite - got 'tulu9' .* tulu1 or"),
        (lambda: evaluation(tasks=["gsm"]), "unknown task - got 'gsm'"),
        (lambda: evaluation(limit=0), "Evaluation.limit is out of range - got 0"),
        (lambda: evaluation(compat="old"), "Evaluation.compat is unknown - got 'old'"),
        (lambda: evaluation(judge_dollars=-1.0), "judge_dollars is out of range - got -1.0"),
        (lambda: Grid(models=[], datasets=["none"], evaluations=[]), "Grid.models is empty"),
        (lambda: Grid(models=[base()], datasets=[], evaluations=[]), "Grid.datasets is empty"),
        (
            lambda: Grid(models=[base()], datasets=["dolyl"], evaluations=[]),
            r"got 'dolyl'.*tulu_dolly",
        ),
        (
            lambda: Grid(models=[base(gin_files=())], datasets=[ALPACA], evaluations=[]),
            r"has no recipe - got gin_files=\(\) at BaseModel 'small'",
        ),
        (
            lambda: Grid(
                models=[base(checkpoint=None, tokenizer="t")], datasets=["none"], evaluations=[]
            ),
            "random weights has nothing to evaluate before it is trained",
        ),
    ],
)
def test_mistakes_are_named(make, message):
    with pytest.raises(TuluError, match=message):
        make()


def test_a_study_has_one_meaning_a_name(tmp_path):
    good = study(tmp_path)
    grid = good.grids[0]
    with pytest.raises(ConfigError, match=r"Study.grids is empty - expected one grid or more"):
        dataclasses.replace(good, grids=())
    other = dataclasses.replace(grid, evaluations=(evaluation(limit=5),))
    with pytest.raises(ConfigError, match="two evaluations have one name - got 'knowledge'"):
        dataclasses.replace(good, grids=(grid, other))
    other = dataclasses.replace(grid, models=(base("small", checkpoint="elsewhere"),))
    with pytest.raises(ConfigError, match="two base models have one name - got 'small'"):
        dataclasses.replace(good, grids=(grid, other))
    for field, name in (("raw_dir", "RAW_DIR"), ("eval_data_dir", "EVAL_DATA_DIR")):
        with pytest.raises(ConfigError, match=f"{name} is an address, not a path"):
            dataclasses.replace(good, **{field: "gs://bucket/x"})
    with pytest.raises(ConfigError, match="STUDY_DIR is an address that is not supported"):
        dataclasses.replace(good, folder="ftp://bucket/x")
    with pytest.raises(ConfigError, match=r"Study.grids is not a list, each item @Grid\(\)"):
        Study(name="x", folder="x", models_dir="x", grids=["x"])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"resources": {"trian": {}}}, "resources is of an unknown kind of step - got 'trian'"),
        ({"resources": {"train": {"a b": 1}}}, "a name that Snakemake cannot take - got 'a b'"),
        (
            {"submit": {"all": "x"}},
            "submit is of an unknown kind of step - got 'all' - expected pr",
        ),
        ({"names": {ALPACA: "a/b"}}, r"Study.names\['tulu_stanford_alpaca'\] is no name"),
        ({"names": {ALPACA: "x", "cot": "x"}}, "two mixtures have one name - got "),
        ({"human_sheets": ["gs://b/x"]}, "Study.human_sheets is an address, not a path"),
    ],
)
def test_mistakes_in_a_study_are_named(tmp_path, fields, message):
    with pytest.raises(ConfigError, match=message):
        study(tmp_path, **fields)
