"""The FLAN file made anew: shares, order, and the reference's draws."""

import json
import random
import tracemalloc

import pytest

from tasks.flan_resampling import TULU_V1_SHARES, TULU_V2_SHARES, resample
from tulu_jax.errors import DataError


def write_submixes(folder, shares, lines=50):
    for name in shares:
        (folder / name).mkdir(parents=True)
        rows = [json.dumps({"inputs": f"{name} {n}", "targets": ""}) for n in range(lines)]
        (folder / name / f"{name}.jsonl").write_text("\n".join(rows))


def test_shares_are_whole_and_of_known_size():
    assert sum(TULU_V1_SHARES.values()) == pytest.approx(1) and len(TULU_V1_SHARES) == 14
    counts = {name: int(share * 100_000) for name, share in TULU_V1_SHARES.items()}
    assert sum(counts.values()) == 100_000 and counts["dialog_zsopt"] == 1_500
    assert sum(TULU_V2_SHARES.values()) == pytest.approx(1)
    assert not any(name.startswith("dialog") or "zs" in name for name in TULU_V2_SHARES)


@pytest.mark.parametrize("shares", [TULU_V1_SHARES, TULU_V2_SHARES])
def test_lines_are_the_reference_draws_in_file_order(tmp_path, shares):
    write_submixes(tmp_path, shares)
    counts = resample(tmp_path, tmp_path / "out.jsonl", shares=shares, total=200)
    rng = random.Random(42)
    expected = []
    for name, share in shares.items():
        drawn = rng.sample(range(50), int(share * 200))
        expected += [f"{name} {n}" for n in sorted(drawn)]
    lines = (tmp_path / "out.jsonl").read_text().splitlines()
    assert [json.loads(line)["inputs"] for line in lines] == expected
    assert sum(counts.values()) == len(lines)
    assert not (tmp_path / "out.jsonl.partial").exists()


def test_memory_does_not_grow_with_the_file(tmp_path):
    (tmp_path / "a").mkdir()
    with open(tmp_path / "a/a.jsonl", "w") as stream:
        for number in range(20_000):
            stream.write(f'{{"inputs": "{number} {"x" * 1000}"}}\n')
    tracemalloc.start()
    resample(tmp_path, tmp_path / "out.jsonl", shares={"a": 1.0, "b": 0.0}, total=2_000)
    assert tracemalloc.get_traced_memory()[1] < 2_000_000
    tracemalloc.stop()


def test_missing_or_small_submix(tmp_path):
    write_submixes(tmp_path, ["a"], lines=5)
    with pytest.raises(DataError, match=r"FLAN submix is too small - got 5 lines at .*a.jsonl - "):
        resample(tmp_path, tmp_path / "out.jsonl", shares={"a": 1.0}, total=6)
    with pytest.raises(DataError, match=r"cannot read FLAN submix - got No such file"):
        resample(tmp_path, tmp_path / "out.jsonl", shares={"b": 1.0}, total=6)
    assert not (tmp_path / "out.jsonl").exists()
