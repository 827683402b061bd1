"""Judges of `tulu eval` that are local checkpoints."""

import json
import math

import numpy as np
import pytest
from whole import forward

from eval.judge.annotators import ANNOTATORS
from eval.judge.pairs import swapped
from tests.cli.small_model import write_model
from tests.eval.asking import result
from tulu_jax.chat import encode_prompt, load_tokenizer
from tulu_jax.checkpoint import hf
from tulu_jax.cli.evaluate import run_benchmark

COUNT = 2


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model"))


def texts(number):
    return f"Say {number}.", f"No. {number}", f"{number}, of course, and {number} again"


@pytest.fixture
def judged(model, tmp_path):
    """Rows of outputs that the small model judged."""
    names = ("instruction", "output_1", "output_2")
    rows = [dict(zip(names, texts(n), strict=True)) for n in range(COUNT)]
    (tmp_path / "mine.json").write_text(json.dumps(rows))
    reference = [{"instruction": row["instruction"], "output": row["output_1"]} for row in rows]
    (tmp_path / "ref.json").write_text(json.dumps(reference))

    def run(*flags):
        places = {"--replay": "mine.json", "--reference_path": "ref.json", "--save_dir": "out"}
        words = [word for flag, name in places.items() for word in (flag, str(tmp_path / name))]
        words += ["--data_dir", str(tmp_path / "none")]
        assert run_benchmark(
            "alpaca_farm", [*words, "--judge", "checkpoint", "--judge_model", str(model), *flags]
        ) == 0  # fmt: skip
        return result(tmp_path / "out")

    return run


def test_a_checkpoint_weighs_words_in_its_own_chat_template(model, judged, monkeypatch):
    name = "weighted_alpaca_eval_gpt4_turbo"
    short = "Judge.", "{instruction} {output_1} {output_2} m?"
    monkeypatch.setitem(vars(ANNOTATORS[name]), "messages", short)
    metrics, _, rows = judged("--annotator", name)
    config, params = hf.load(model)
    tokenizer = load_tokenizer(model)
    for number, row in enumerate(rows):
        instruction, reference, output = texts(number)
        first = swapped(instruction)
        shown = (output, reference) if first else (reference, output)
        system, user = ANNOTATORS[name].ask([(instruction, *shown)])
        turns = [{"role": "system", "content": system}, {"role": "user", "content": user}]
        ids = encode_prompt(turns, tokenizer).tolist()
        words = [tokenizer.encode_text(word)[-1] for word in ("m", "M")]
        logits = forward(config, params, np.array([ids]))[0, -1]
        small, large = (math.exp(float(logits[word] - logits.max())) for word in words)
        choice = 1 + large / (small + large)
        assert row["preference"] == pytest.approx(3 - choice if first else choice, abs=1e-5)
    assert metrics["n_total"] == COUNT and metrics["judge"].startswith(f"{name} by ")


def test_a_prompt_that_the_judge_has_no_room_for_is_counted_not_cut(judged):
    metrics, told, rows = judged()
    assert {row["verdict"] for row in rows} == {"too_long"} and metrics["n_too_long"] == COUNT
    assert metrics["win_rate"] is None and told["value"] is None
    assert any(f"{COUNT} too long for the judge" in line for line in told["warnings"])
