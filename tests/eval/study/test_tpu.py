"""Steps on TPU slices: what gcloud is asked, by a stand-in that notes it."""

import sys

import pytest

from eval.study.tpu import accelerator, main
from tulu_jax.errors import ConfigError

TULU = [sys.executable, "-m", "tulu_jax", "train", "--gin.MODEL_DIR='a b'"]


@pytest.fixture
def gcloud(tmp_path):
    """Notes every call; states come from a file, a line a look, the last one stays."""
    noted, states, status = (tmp_path / name for name in ("noted", "states", "status"))
    program = tmp_path / "gcloud"
    program.write_text(
        f"#!{sys.executable}\nimport sys, pathlib\n"
        f"noted, states, status = (pathlib.Path(p) for p in "
        f"{(str(noted), str(states), str(status))!r})\n"
        "with open(noted, 'a') as out: out.write(' '.join(sys.argv[1:]) + '\\n')\n"
        "if 'describe' in sys.argv:\n"
        "    lines = states.read_text().splitlines()\n"
        "    if len(lines) > 1: states.write_text('\\n'.join(lines[1:]))\n"
        "    if lines[0] == 'none': sys.exit('NOT_FOUND')\n"
        "    print(lines[0])\n"
        "if 'ssh' in sys.argv or ('create' in sys.argv and states.read_text() == 'none'):\n"
        "    sys.exit(int(status.read_text()))\n"
    )
    program.chmod(0o755)

    def run(*, seen=("none", "CREATING", "ACTIVE"), ends=0, topology="v4:2x2x4", more=()):
        states.write_text("\n".join(seen))
        status.write_text(str(ends))
        flags = ["--name", "tulu-1", "--topology", topology, "--zone", "z", "--folder", "/mnt/s t"]
        result = main([*flags, "--gcloud", str(program), "--poll", "0", *more, "--", *TULU])
        lines = noted.read_text().splitlines() if noted.exists() else []
        noted.unlink(missing_ok=True)
        return result, [line.removeprefix("compute tpus ") for line in lines]

    return run


def test_a_slice_is_ordered_used_and_given_back(gcloud):
    status, calls = gcloud(more=["--spot", "--project", "p"])
    look = "queued-resources describe tulu-1 --zone z --project p --format value(state.state)"
    assert status == 0
    assert calls == [
        look,
        "queued-resources create tulu-1 --zone z --project p --node-id tulu-1 --accelerator-type "
        "v4-32 --runtime-version tpu-ubuntu2204-base --spot",
        look, look,
        "tpu-vm ssh tulu-1 --zone z --project p --worker all --command cd '/mnt/s t' && tulu train "
        "'--gin.MODEL_DIR='\"'\"'a b'\"'\"''",
        "queued-resources delete tulu-1 --zone z --project p --force --quiet --async",
    ]  # fmt: skip


def test_one_that_is_there_is_used_and_failures_pass_on(gcloud):
    status, calls = gcloud(seen=["ACTIVE"], ends=7)
    assert status == 7
    assert [line.split()[1] for line in calls] == ["describe", "describe", "ssh", "delete"]


def test_one_that_never_comes_is_given_back_and_said(gcloud, capfd):
    status, calls = gcloud(seen=["none", "WAITING", "FAILED"])
    assert (status, calls[-1].split()[1]) == (2, "delete")
    assert "error: the slice never came - got FAILED at tulu-1" in capfd.readouterr().err


def test_an_order_that_is_refused_is_said(gcloud, capfd):
    status, calls = gcloud(seen=["none"], ends=1)
    assert (status, len(calls)) == (2, 2)
    assert "the slice cannot be ordered - got v4-32 at z" in capfd.readouterr().err


def test_what_is_no_slice_is_refused(gcloud, capfd):
    status, calls = gcloud(topology="cpu:2")
    assert (status, calls) == (2, [])
    assert "topology is no TPU slice - got 'cpu:2'" in capfd.readouterr().err
    with pytest.raises(ConfigError, match="topology is no TPU slice - got 'v4'"):
        accelerator("v4")
    assert [accelerator(f"{chip}:2x4")[0] for chip in ("v5p", "v6e")] == ["v5p-16", "v6e-8"]
