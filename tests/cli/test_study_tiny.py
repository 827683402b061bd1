"""The study that comes with the project at tiny size, and what judges cost."""

import json

import pytest

from eval.study.study import Evaluation
from tulu_jax.cli.evaluate import evaluate_parser
from tulu_jax.cli.main import main, make_parser
from tulu_jax.cli.study_gin import load_study, load_table
from tulu_jax.cli.study_judges import judge_dollars
from tulu_jax.cli.study_plan import plan_study
from tulu_jax.errors import ConfigError

PAIRS = [{"instruction": f"Say {i}.", "output": "word " * 40, "generator": "x"} for i in range(8)]


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    monkeypatch.setenv("TULU_SHARED", str(tmp_path / "shared"))
    return load_table("study/tiny", [f"--gin.STUDY_DIR={tmp_path / 'study'}"])


def test_it_has_the_shape_of_the_papers(tiny, tmp_path):
    names = [cell.name for cell in tiny.cells]
    assert len(names) == 12
    assert {"stories260k", "stories260k+dolly", "stories260k+human_mix", "opt-200k+human_gpt_mix",
            "neox-200k+human_gpt_mix", "llama-60k+human_gpt_mix"} < set(names)  # fmt: skip
    assert tiny.study.models_dir == str(tmp_path / "shared" / "models")
    kinds = {step.kind for step in tiny.steps}
    assert kinds == {"prepare", "train", "export", "evaluate", "losses", "report", "annotate"}
    assert sum(step.kind == "prepare" for step in tiny.steps) == 5  # one tokenizer
    assert all(len(cell.of("losses")) == 1 for cell in tiny.cells)
    parser = make_parser()
    for step in tiny.steps:
        if step.kind == "evaluate":
            assert evaluate_parser().parse_args(step.argv[1:]).limit == 4
        else:
            parser.parse_known_args(step.argv)


def test_it_is_planned(tiny):
    plan = plan_study(tiny)
    assert plan.judge_dollars == 0 and plan.judge_unknown == []
    assert [cell.note for cell in plan.cells].count("no topology") == 11


def test_without_its_samples_it_says_what_to_do(monkeypatch, tmp_path, capsys):
    monkeypatch.delenv("TULU_SHARED", raising=False)
    with pytest.raises(ConfigError, match="TULU_SHARED is not set - expected a folder that holds"):
        load_study("study/tiny", [])
    assert main(["study", "plan", "study/tiny"]) == 2
    assert "give --gin.MODELS_DIR=, --gin.RAW_DIR= and" in capsys.readouterr().err
    names = ("MODELS_DIR", "RAW_DIR", "EVAL_DATA_DIR")
    given = [f"--gin.{name}={tmp_path / name}" for name in names]
    assert load_study("study/tiny", given).raw_dir == str(tmp_path / "RAW_DIR")


def judged(**fields):
    return Evaluation(name="j", **({"tasks": ["alpaca_eval", "gsm_cot"]} | fields))


def test_a_judge_costs_its_listed_price(tmp_path):
    folder = tmp_path / "alpaca_farm"
    folder.mkdir()
    (folder / "text_davinci_003_model_outputs.json").write_text(json.dumps(PAIRS))

    def cost(**fields):
        return judge_dollars(judged(**fields), str(tmp_path))

    whole = cost()
    assert 0.01 < whole < 1  # 8 pairs of GPT-4, 30 and 60 dollars a million tokens
    assert cost(limit=4) == pytest.approx(whole / 2, rel=0.05)
    assert cost(options=["alpaca_farm.both_orders=true"]) == pytest.approx(2 * whole, rel=0.05)
    assert cost(options=["alpaca_farm.judge_model=gpt-4o-mini"]) < whole / 50
    assert cost(options=["alpaca_farm.judge_model=nobody"]) is None
    assert cost(options=["alpaca_farm.judge=unique_tokens"]) == 0
    assert cost(tasks=["mmlu_0shot"]) == 0
    assert cost(judge_dollars=3.5) == 3.5


def test_without_the_data_a_judge_is_taken_to_see_the_papers_pairs(tmp_path):
    assert 10 < judge_dollars(judged(), str(tmp_path)) < 30
    (tmp_path / "alpaca_farm").mkdir()
    (tmp_path / "alpaca_farm" / "alpaca_eval.json").write_text("{")
    assert judge_dollars(judged(), str(tmp_path)) is None


def test_other_judges_cost_what_nobody_knows(tmp_path):
    asked = judged(tasks=["xstest"], options=["xstest.judge=openai"])
    assert judge_dollars(asked, str(tmp_path)) is None
    assert judge_dollars(judged(tasks=["xstest"]), str(tmp_path)) == 0
