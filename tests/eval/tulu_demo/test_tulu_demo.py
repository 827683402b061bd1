"""tulu_demo as a benchmark."""

import pytest

from eval.tulu_demo.run_eval import Options, TuluDemo
from tests.eval.asking import context, replay, result, tulu_format
from tulu_jax.cli.main import main
from tulu_jax.errors import ConfigError


def test_right_answers_are_right_and_others_wrong(tmp_path):
    setting = context(TuluDemo(), "none", formatter=tulu_format)
    instances = TuluDemo().load(setting)
    assert len({one.id for one in instances}) == len(instances) > 100
    assert instances[0].ask.prompt.text.endswith("\n<|assistant|>\n")
    file = replay(
        tmp_path / "a.jsonl", TuluDemo(), setting,
        lambda one: f" {one.gold}\n" if one.id < instances[50].id else "wrong",
    )  # fmt: skip
    out = tmp_path / "out"
    words = ["eval", "tulu_demo", "--use_chat_format", "--replay", str(file)]
    assert main([*words, "--save_dir", str(out), "--data_dir", str(tmp_path)]) == 0
    metrics, run, rows = result(out / "tulu_demo")
    right = sum(one.id < instances[50].id for one in instances)
    assert metrics["exact_match"] == run["value"] == pytest.approx(right / len(instances))
    assert run["data_sha256"] is None and run["chat"] is True
    assert {row["group"] for row in rows} < set(metrics)


def test_an_unknown_split_is_refused():
    with pytest.raises(ConfigError, match="split is unknown"):
        Options(split="train")
