"""FLOPs by hand, the metrics file across restarts, and the plot."""

import json

import jax
import matplotlib.image
import pytest

from train.small import MODEL
from tulu_jax.models import LlamaConfig
from tulu_jax.train import metrics
from tulu_jax.train.metrics import MetricLog, Peak, find_peak, train_flops
from tulu_jax.train.plot import plot_losses


def test_flops_by_hand():
    # One layer: q 32x32, k and v 32x16 each, out 32x32, three 32x48: 7,680 weights, of 2 layers.
    layers = 6 * 2 * 7_680 * 100
    head = 6 * 32 * 64 * 40
    attention = 6 * 2 * 4 * 8 * 32 * 100
    assert train_flops(MODEL, tokens=100, loss_tokens=40, length=32) == layers + head + attention


def test_flops_of_7b_are_six_per_weight_and_token():
    llama = LlamaConfig(32000, 4096, 11008, 32, 32, 32, 128, 2048, 1e-6)
    flops = train_flops(llama, tokens=1e6, loss_tokens=1e6, length=2048)
    weights = llama.num_matmul_params
    assert 6e6 * weights < flops < 1.1 * 6e6 * weights


def test_peak_is_measured_on_cpu(monkeypatch):
    monkeypatch.setattr(metrics, "_measured_flops", lambda dtype: 5e10)
    peak = find_peak("float32")
    assert (peak.flops, peak.source) == (5e10, "a measured 1024^3 product")
    assert peak.words == " of a measured product"


def test_the_best_of_several_measurements_counts():
    found = iter([3e10, 9e10, 1e10])
    peak = Peak(5e10, "a product", lambda: next(found), measurements_left=3)
    peak.look_again()
    assert peak.flops == 5e10
    assert peak.share(2.5e10) == 0.5  # possible: nothing is measured
    assert peak.share(6e10) == 6e10 / 9e10  # more than can be: it was busy when it was measured
    assert peak.share(10e10) is None and peak.measurements_left == 0
    assert peak.share(10e10) is None and peak.flops == 9e10


def test_a_data_sheet_is_not_measured():
    peak = Peak(5e10, "bf16 peak of X")
    peak.look_again()
    assert peak.share(6e10) is None and peak.flops == 5e10 and peak.words == ""


def test_measured_flops_are_plausible():
    assert 1e8 < metrics._measured_flops("float32", size=128, tries=2) < 1e14


@pytest.mark.parametrize(
    ("kind", "peak"), [("TPU v5 lite", 197e12), ("TPU v5p", 459e12), ("NVIDIA H200 80GB", 989e12)]
)
def test_peak_of_known_devices_is_of_the_longest_name_that_fits(monkeypatch, kind, peak):
    class Device:
        device_kind = kind
        platform = "tpu"

    monkeypatch.setattr(jax, "devices", lambda: [Device()])
    monkeypatch.setattr(jax, "device_count", lambda: 4)
    assert find_peak("bfloat16").flops == 4 * peak


def log_of(folder, steps):
    log = MetricLog(folder, resume_step=0)
    for step in steps:
        log.add({"step": step, "loss": 1 / (step + 1)})
    return log


def steps_in(folder):
    return [
        json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()
    ]


def test_log_is_cut_back_to_the_resumed_step(tmp_path):
    log_of(tmp_path, [1, 2, 3, 4])
    log = MetricLog(tmp_path, resume_step=2)
    assert [row["step"] for row in log.rows] == steps_in(tmp_path) == [1, 2]
    log.add({"step": 3, "loss": 0.5})
    assert steps_in(tmp_path) == [1, 2, 3]


def test_half_written_last_line_is_dropped(tmp_path):
    log_of(tmp_path, [1, 2])
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "lo')
    MetricLog(tmp_path, resume_step=5).add({"step": 3, "loss": 0.1})
    assert steps_in(tmp_path) == [1, 2, 3]


def test_fresh_run_starts_an_empty_log(tmp_path):
    log_of(tmp_path, [1, 2])
    assert MetricLog(tmp_path, resume_step=0).rows == []


@pytest.mark.parametrize("with_heldout", [True, False])
def test_plot_is_an_image(tmp_path, with_heldout):
    rows = [{"step": i, "loss": 1 / i, "learning_rate": 1e-3 / i} for i in range(1, 30)]
    if with_heldout:
        rows += [{"step": i, "heldout": {"tulu_a": 2 / i, "tulu_b": 3 / i}} for i in (1, 10, 20)]
    path = tmp_path / "loss.png"
    plot_losses(rows, path)
    assert path.read_bytes().startswith(b"\x89PNG\r\n") and path.stat().st_size > 5_000
    image = matplotlib.image.imread(path)
    assert image.shape[0] > 400 and image.shape[1] > 600 and image.std() > 0.05


def test_plot_of_no_steps_is_drawn_too(tmp_path):
    plot_losses([], tmp_path / "loss.png")
    assert (tmp_path / "loss.png").stat().st_size > 1_000
