"""What log lines say of speed."""

import io

import pytest
from rich.console import Console

from train.small import run_config
from tulu_jax.train import reporter
from tulu_jax.train.flight import Row
from tulu_jax.train.goodput import Clock
from tulu_jax.train.metrics import Peak
from tulu_jax.train.reporter import Reporter
from tulu_jax.train.run import Run
from tulu_jax.train.terms import TERMS

METRICS = {"loss": 1.0, "grad_norm": 1.0, "tokens": 100.0, "loss_tokens": 40.0}


@pytest.fixture
def lines(tmp_path, monkeypatch):
    """Makes the lines of steps that took so many seconds, each logged alone."""

    def make(seconds, peak, metrics=METRICS, **changes):
        monkeypatch.setattr(reporter, "plot_losses", lambda *args: None)
        config = run_config(tmp_path / "run", train_steps=100, epochs=None, log_period=1, **changes)
        console = Console(file=io.StringIO(), width=200)
        run = Run(config, config.model, None, None, 100, data=None, settings="", generation={})
        run.folder.mkdir()
        told = Reporter(run, console, Clock(0.0), first_step=0, peak=peak)
        for step, took in enumerate(seconds, 1):
            row = Row(step, dict(metrics), seconds=took, update=step)
            told.log([row], step=step)
        return told._metrics.rows, console.file.getvalue()

    return make


def test_a_step_that_seemed_short_shows_no_speed_that_is_not_there(lines):
    """The host was held up for the third step: it seems long, and the fourth, fifth in no time."""
    rows, text = lines([None, 0.5, 0.5, 1.4, 0.05, 0.05, 0.5], Peak(1e9, "x"))
    assert "step_s" not in rows[0]
    assert [round(row["step_s"], 2) for row in rows[1:]] == [0.5, 0.5, 0.8, 0.61, 0.5, 0.5]
    assert all(row["tokens_per_s"] == pytest.approx(100 / row["step_s"]) for row in rows[1:])
    assert "MFU" in text and "measured" not in text


def test_no_share_is_printed_that_is_more_than_can_be(lines):
    rows, text = lines([None, 0.5], Peak(1.0, "a product", lambda: 2.0))
    assert "mfu" not in rows[1] and "MFU" not in text and "s/step" in text


def test_a_share_of_a_product_says_so(lines):
    rows, text = lines([None, 0.5], Peak(1.0, "a product", lambda: 1e12))
    assert 0 < rows[1]["mfu"] < 1
    assert "% of a measured product  pad" in text


def test_a_loss_with_terms_says_what_it_is_made_of(lines, monkeypatch):
    monkeypatch.setitem(TERMS, "size", None)
    metrics = METRICS | {"nll": 0.5, "terms/size": 2.0}
    rows, text = lines([0.5], Peak(1e9, "x"), metrics, loss_terms={"size": 0.25})
    assert "loss 1.0000  (nll 0.5000, size 2.0000)  grad" in text
    assert rows[0]["loss"] == 1.0 and rows[0]["nll"] == 0.5 and rows[0]["terms"] == {"size": 2.0}
