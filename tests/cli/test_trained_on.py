"""What a model was trained on: from the run to its export, to results, to the table of datasets."""

import json
import shutil

import pytest

from tests.cli.small_model import write_model
from tests.eval.asking import result
from tulu_jax.checkpoint.arrays import CheckpointReader, save_params
from tulu_jax.cli.main import main
from tulu_jax.cli.trained_on import dataset_of_folder, dataset_of_run

SETTINGS = "TrainConfig.seed = 1\n\nDataConfig.mixture = 'tulu_dolly'\nDataConfig.seed = 2\n"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run folder whose settings name a dataset."""
    root = tmp_path_factory.mktemp("run")
    hf = write_model(root / "hf")
    assert main(["import", "--hf", str(hf), "--model_dir", str(root / "imported")]) == 0
    reader = CheckpointReader(root / "imported")
    params: dict = {}
    for *parents, name in reader.paths():
        part = params
        for parent in parents:
            part = part.setdefault(parent, {})
        part[name] = reader.read((*parents, name))
    save_params(root / "tuned", params, {**reader.meta, "settings": SETTINGS})
    shutil.copytree(root / "imported" / "tokenizer", root / "tuned" / "tokenizer")
    return root


@pytest.mark.parametrize(
    ("settings", "dataset"),
    [
        (SETTINGS, "tulu_dolly"),
        (
            "DataConfig.mixture = \\\n    'data/my own.jsonl'\nDataConfig.seed = 2",
            "data/my own.jsonl",
        ),
        ("DataConfig.mixture = ('tulu_dolly,'\n    'tulu_cot')\n", "tulu_dolly,tulu_cot"),
        ("DataConfig.mixture = None\n", None),
        ("DataConfig.mixture = %MIXTURE\n", None),
        ("DataConfig.seed = 2\n", None),
        ("", None),
        (7, None),
    ],
)
def test_the_dataset_of_settings(settings, dataset):
    assert dataset_of_run({"settings": settings}) == dataset
    assert dataset_of_run({}) is None


def test_a_folder_that_does_not_say(tmp_path):
    assert dataset_of_folder(tmp_path) is None
    for text in ("[1]", "{", '{"dataset": 3}', "{}"):
        (tmp_path / "training.json").write_text(text)
        assert dataset_of_folder(tmp_path) is None


def test_an_export_says_it_and_an_imported_model_does_not(run):
    export = ["export", "--model_dir", str(run / "tuned"), "--output", str(run / "exported")]
    assert main(export) == 0
    training = json.loads((run / "exported" / "training.json").read_text())
    assert training == {"dataset": "tulu_dolly", "step": 0}
    assert "training.json" in (run / "exported" / "checksums.json").read_text()
    assert dataset_of_folder(run / "exported") == "tulu_dolly"
    export = ["export", "--model_dir", str(run / "imported"), "--output", str(run / "plain")]
    assert main(export) == 0
    assert not (run / "plain" / "training.json").exists()


def test_results_and_the_table_of_datasets(run, tmp_path, capsys):
    where = ["--data_dir", str(tmp_path), "--limit", "2"]
    for folder, dataset in (("tuned", "tulu_dolly"), ("hf", None)):
        out = tmp_path / folder
        assert main(["eval", "tulu_demo", "--model", str(run / folder), "--save_dir", str(out),
                     *where]) == 0  # fmt: skip
        said = result(out / "tulu_demo")[1]
        assert said["model"]["dataset"] == dataset and said["macro"] is False
    capsys.readouterr()
    assert main(["report", str(tmp_path / "tuned"), "--datasets", "--format", "markdown"]) == 0
    table = capsys.readouterr().out
    assert "| Dolly" in table and "paper: Dolly" in table
    assert main(["report", str(tmp_path / "hf"), "--datasets"]) == 2
    assert "a model does not say what it was trained on - got 'hf'" in capsys.readouterr().err
