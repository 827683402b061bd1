"""`tulu eval preferences`: win rates and biases of stored judgements."""

import csv
import gzip
import json

import pytest

from tulu_jax.cli.main import main


@pytest.fixture
def tulu(capfd, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")

    def run(*words):
        code = main(["eval", "preferences", *map(str, words)])
        out = capfd.readouterr()
        return code, out.out, out.err

    return run


def reduced(model, index, preference, unique):
    row = {"model": model, "index": index, "preference": preference}
    for side, count in (("output_1", 5), ("output_2", unique)):
        row |= {f"{side}_{name}": count for name in ("chars", "words", "unique_words")}
    return row


@pytest.fixture
def stored(tmp_path):
    """Six models, of which those with more words win more."""
    rows = [
        reduced(f"m{m}", n, 2 if n < 3 * m else 1, 3 * m + n % 3)
        for m in range(1, 7)
        for n in range(20)
    ]
    path = tmp_path / "p.jsonl.gz"
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    return path


def test_models_and_what_their_win_rates_follow(tulu, stored, tmp_path):
    code, out, _ = tulu(stored, "--json", tmp_path / "all.json", "--plot", tmp_path / "p.svg")
    assert code == 0 and "m6" in out and "win rate against unique words (linear): r = " in out
    found = json.loads((tmp_path / "all.json").read_text())
    assert [row["name"] for row in found["models"]] == ["m6", "m5", "m4", "m3", "m2", "m1"]
    assert found["models"][0]["win_rate"] == 90.0 and found["models"][0]["n_total"] == 20
    assert found["over_models"]["unique"]["linear"]["r"] == pytest.approx(1.0)
    assert (tmp_path / "p.svg").read_text().startswith("<?xml")
    code, out, _ = tulu(stored, "--leave_out", "m1", "m6")
    assert code == 0 and "m1 " not in out and "n = 4" in out


def test_published_rates_of_files(tulu, shared, tmp_path):
    data = shared / "eval_data" / "alpaca_eval"
    lc = ["--lc_weights", data / "lc/glm_weights.csv"]
    lc += ["--lc_difficulty", data / "lc/instruction_difficulty.csv"]
    code, _, _ = tulu(data / "gpt4_preferences.jsonl.gz", *lc, "--json", tmp_path / "all.json")
    found = json.loads((tmp_path / "all.json").read_text())
    with open(data / "gpt4_leaderboard.csv", newline="") as stream:
        published = {row["name"]: row["win_rate"] for row in csv.DictReader(stream)}
    rates = {row["name"]: row["win_rate"] for row in found["models"]}
    wanted = {name: float(rate) for name, rate in published.items() if rate}
    assert code == 0 and len(rates) == 43
    assert {name: rates[name] for name in wanted} == pytest.approx(wanted, abs=1e-12, rel=0)
    with open(data / "lc/lc_win_rates.csv", newline="") as stream:
        wanted = {row["name"]: float(row["lc_win_rate"]) for row in csv.DictReader(stream)}
    rates = {row["name"]: row["lc_win_rate"] for row in found["length_controlled"]}
    assert len(wanted) == 149
    assert {name: rates[name] for name in wanted} == pytest.approx(wanted, abs=1e-6, rel=0)
    assert all(row["difficulty_known"] for row in found["models"])


def test_one_model_against_another(tulu, tmp_path):
    weights, difficulty = tmp_path / "w.csv", tmp_path / "d.csv"
    weights.write_text("name,length,instruction_difficulty,baseline\na,0,0,1\nb,0,0,1\n")
    difficulty.write_text("index,instruction_difficulty\n0,0\n1,2\n")
    lc = ["--lc_weights", weights, "--lc_difficulty", difficulty]
    code, out, _ = tulu(*lc, "--against", "b")
    assert code == 0 and out.count("50.00") == 2
    assert tulu(*lc, "--against", "c")[2].startswith("tulu eval: model has no weights - got c")


def test_annotations_of_the_package_take_the_name_of_their_folder(tulu, tmp_path):
    rows = [
        {
            "instruction": f"i{n}",
            "output_1": "a b",
            "output_2": "a b c " * n,
            "preference": 1 + n % 2,
        }
        for n in range(6)
    ]
    path = tmp_path / "mine" / "annotations.json"
    path.parent.mkdir()
    path.write_text(json.dumps(rows))
    code, out, _ = tulu(path)
    assert code == 0 and "mine" in out and "50.00" in out and "shown first" not in out
    for n, row in enumerate(rows):  # of a judge that takes what is first, but once
        better = 1 + (n == 5)
        row["raw_completion"] = str([{"model": "model_1", "rank": better}])
    path.write_text(json.dumps(rows))
    code, out, _ = tulu(path, "--json", tmp_path / "all.json")
    assert code == 0 and "shown first" in out and "83.3 % (p 0.22)" in out
    (model,) = json.loads((tmp_path / "all.json").read_text())["models"]
    assert model["position"]["first_preferred"] == pytest.approx(5 / 6)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"preference": 3}, "annotation has no preference - got 3"),
        ({"preference": "2"}, "annotation has no preference - got '2'"),
        ({"output_1_chars": -1}, "entry's 'output_1_chars' is no count - got -1"),
        ({"index": None}, "entry's 'index' is no count - got None"),
        ({"model": None}, "entry has no text 'model' - got None"),
    ],
)
def test_entries_that_are_none_are_told(tulu, tmp_path, row, message):
    path = tmp_path / "p.jsonl"
    path.write_text(json.dumps({**reduced("m", 0, 2, 5), **row}))
    code, _, err = tulu(path)
    assert code == 2 and message in " ".join(err.split())


def test_what_cannot_be_done_is_told(tulu, stored, tmp_path):
    def told(*words):
        code, _, err = tulu(*words)
        assert code == 2
        return " ".join(err.split())

    assert "no judgements - expected FILES, or --lc_weights" in told()
    assert "length-controlled rates need difficulties" in told("--lc_weights", stored)
    assert "model is judged in two files - got m1" in told(stored, stored)
    (tmp_path / "null.jsonl").write_text(json.dumps(reduced("m", 0, None, 5)))
    assert "model has no verdict - got m" in told(tmp_path / "null.jsonl")
    assert "--json would replace a file of a result" in told(stored, "--json", "run.json")
