"""A run that an earlier version began (November 2026) goes on as that version went on."""

import zipfile
from pathlib import Path

import numpy as np

from tulu_jax.checkpoint.merged import open_weights

from .small import MODEL, metric_lines, run, run_config

OLD = Path(__file__).with_name("old_run.zip")
LOSSES = {
    7: 4.04930305480957,
    8: 4.039991855621338,
    9: 4.0164642333984375,
    10: 4.029908180236816,
}
"""What the earlier version, never stopped, had at each step after its checkpoint of step 6."""


def test_it_goes_on_with_the_same_losses(tmp_path, monkeypatch):
    with zipfile.ZipFile(OLD) as file:
        file.extractall(tmp_path / "run")
    config = run_config(tmp_path / "run")
    result, output = run(monkeypatch, config)
    assert "Resuming from step 6 of" in output and result.step == 10
    found = {line["step"]: line["loss"] for line in metric_lines(config) if "loss" in line}
    assert found.keys() == LOSSES.keys()
    np.testing.assert_allclose([found[step] for step in LOSSES], [*LOSSES.values()], rtol=2e-6)


def test_its_weights_are_read(tmp_path):
    with zipfile.ZipFile(OLD) as file:
        file.extractall(tmp_path / "run")
    reader = open_weights(tmp_path / "run", 6)
    assert reader.config == MODEL
    assert all(np.isfinite(reader.read(path)).all() for path in reader.paths())
