"""`tulu study losses`: held-out conversations, and a model's loss on each."""

import json

import jax
import numpy as np
import pytest

from tasks import demo
from tests.cli.small_model import write_model
from tulu_jax.checkpoint import hf
from tulu_jax.cli.main import main
from tulu_jax.data.config import DataConfig
from tulu_jax.data.ensure import open_training_data
from tulu_jax.models import forward


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("losses") / "model")


@pytest.fixture
def losses(tmp_path, model, capsys):
    def run(*tasks, status=0, heldout=4, length=64):
        output = tmp_path / "out" / "losses.json"
        code = main([
            "study", "losses", *map(str, tasks), "--model", str(model), "--tokenizer",
            str(demo.TOKENIZER_DIR), "--heldout", str(heldout), "--seed", "3", "--max_length",
            str(length), "--data_dir", str(tmp_path / "data"), "--output", str(output),
        ])  # fmt: skip
        assert code == status
        return json.loads(output.read_text()) if status == 0 else capsys.readouterr().err

    return run


def conversations(path, answer, count=9):
    with open(path, "w") as stream:
        for i in range(count):
            messages = [
                {"role": "user", "content": f"What is {i}?"},
                {"role": "assistant", "content": f"{answer} {i}."},
                {"role": "user", "content": "And then?"},
                {"role": "assistant", "content": "More."},
            ]
            stream.write(json.dumps({"id": f"c{i}", "messages": messages}) + "\n")
    return path


def test_losses_are_those_of_the_model_on_what_training_does_not_see(losses, tmp_path, model):
    files = [
        conversations(tmp_path / "a.jsonl", "It is"),
        conversations(tmp_path / "b.jsonl", "No"),
    ]
    found = losses(*files)
    assert list(found["tasks"]) == [str(file) for file in files]
    config = DataConfig(
        mixture=",".join(map(str, files)), tokenizer=str(demo.TOKENIZER_DIR), length=64,
        data_dir=str(tmp_path / "data"), heldout_examples=4, seed=3,
    )  # fmt: skip
    data = open_training_data(config)
    shape, params = hf.load(model, dtype="float32")
    for source, said in zip(data.heldout.values(), found["tasks"].values(), strict=True):
        (store,) = source.stores
        held = {store.ids[i] for i in source.examples.tolist()}
        assert {name for name, *_ in said["examples"]} == held and len(held) == 4
        for name, nll, count in said["examples"]:
            tokens, mask = store[store.ids.index(name)]
            logits = forward(shape, params, tokens[None])[0].astype(np.float32)
            each = -jax.nn.log_softmax(logits[:-1])[np.arange(len(tokens) - 1), tokens[1:]]
            assert count == mask[1:].sum() > 4
            np.testing.assert_allclose(nll, float(each[mask[1:]].sum()), rtol=1e-4)
        total = sum(nll for _, nll, _ in said["examples"])
        assert said["loss"] == pytest.approx(total / sum(count for *_, count in said["examples"]))


def test_a_dataset_that_is_too_small_or_too_long_is_named(losses, tmp_path):
    file = conversations(tmp_path / "a.jsonl", "It is")
    assert "heldout_examples takes all there is - got 9" in losses(file, heldout=9, status=2)
    shown = losses(file, length=4, status=2)
    assert "expected answers of the assistant within max_length" in shown


def test_a_model_that_is_not_there_is_named(losses, tmp_path, model):
    file = conversations(tmp_path / "a.jsonl", "It is")
    (model / "config.json").rename(model / "config.away")
    try:
        assert "expected a Hugging Face folder" in losses(file, status=2)
    finally:
        (model / "config.away").rename(model / "config.json")
