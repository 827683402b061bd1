"""AlpacaEval's data and options: of both versions, and what is none."""

import json

import pytest

from eval.alpaca_farm.run_eval import AlpacaEval, Options
from tests.eval.alpaca_farm.conftest import texts
from tests.eval.asking import SPOILED, context, write_jsonl
from tulu_jax.errors import ConfigError, DataError


def test_data_of_the_first_version_have_inputs(tmp_path):
    rows = [{"instruction": " Add. ", "input": " 1 2\n", "output": "3"}]
    (tmp_path / "alpaca_farm_evaluation.json").write_text(json.dumps(rows))
    (loaded,) = AlpacaEval().load(context(AlpacaEval(), tmp_path))
    assert loaded.ask.prompt.text == "Add.\n\n1 2" and loaded.gold == "3"


def test_a_reference_has_every_instruction(folder):
    path = write_jsonl(folder / "ref.jsonl", [{"instruction": texts(0)[0], "output": "r"}])
    setting = context(AlpacaEval(), folder / "alpaca_farm", Options(reference_path=str(path)))
    with pytest.raises(DataError, match="reference lacks instructions - got 23 of 24, first"):
        AlpacaEval().load(setting)
    alone = context(AlpacaEval(), folder / "nothing", Options(reference_path=str(path)))
    assert AlpacaEval().load(alone)[0].gold == "r"


def test_options_go_together():
    with pytest.raises(ConfigError, match="--judge replay and --annotations FILE go together"):
        Options(judge="replay")
    with pytest.raises(ConfigError, match="judge has no checkpoint - at --judge checkpoint"):
        Options(judge="checkpoint")
    with pytest.raises(ConfigError, match=r"Options\.max_cost is out of range"):
        Options(max_cost=-1.0)


@pytest.mark.parametrize(("name", "spoil", "message"), SPOILED, ids=[one[0] for one in SPOILED])
def test_a_damaged_download_is_told(folder, name, spoil, message):
    path = folder / "alpaca_farm" / "text_davinci_003_model_outputs.json"
    data = spoil(path.read_bytes())
    path.unlink()
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(DataError, match=message):
        AlpacaEval().load(context(AlpacaEval(), folder / "alpaca_farm"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[{"instruction": "a"}]', r"entry has no text 'output' - got fields instruction"),
        ('[{"instruction": 1, "output": "b"}]', r"entry has no text 'instruction' - got 1"),
        ('[{"instruction": "a", "output": "b"}, 7]', r"entry is no object - got 7 at .* entry 2"),
        ('[{"instruction": "a", "output": "b"}', "file is no JSON"),
        ("[]", "file holds no entry"),
        ('[{"instruction": "a", "output": "b"}, {"instruction": "a", "output": "c"}]',
         "instruction is there twice - got 'a'"),
    ],
)  # fmt: skip
def test_outputs_that_are_none_are_told(tmp_path, text, message):
    path = tmp_path / "alpaca_eval.json"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        AlpacaEval().load(context(AlpacaEval(), tmp_path))
