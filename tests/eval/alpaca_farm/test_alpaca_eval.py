"""AlpacaEval from outputs to results: judges, replays, files."""

import csv
import json
import shutil

import pytest

from eval.alpaca_farm.run_eval import AlpacaEval, Options
from eval.harness.registry import find_task
from eval.judge.pairs import swapped
from tasks.demo import TOKENIZER_DIR
from tests.eval.alpaca_farm.conftest import COUNT, HOSTILE, RANKS, SECRET, run, texts
from tests.eval.asking import context, read_jsonl, result, tulu_format
from tulu_jax.chat import load_tokenizer
from tulu_jax.cli.evaluate import run_benchmark
from tulu_jax.cli.main import main


def test_who_judges_decides_the_win_rate(folder, judge, capfd):
    assert run(folder, judge, "--price_in", 10, "--price_out", 30, "--max_cost", 5) == 0
    metrics, told, rows = result(folder / "out")
    assert (metrics["win_rate"], metrics["n_wins"], metrics["n_total"]) == (50.0, 12, 24)
    assert [row["prediction"] for row in rows[:2]] == ["model", "reference"]
    assert [row["preference"] for row in rows] == [2.0, 1.0] * 12
    assert (told["task"], told["metric"], told["value"]) == ("alpaca_eval", "win_rate", 50.0)
    assert told["stderr"] == pytest.approx(metrics["standard_error"])
    assert metrics["judge"] == "alpaca_eval_gpt4 by j" and len(judge.seen) == COUNT
    assert metrics["judge_cost"] == pytest.approx(COUNT * (400 * 10 + 20 * 30) / 1e6)
    assert metrics["datasets"] == {"koala": 100.0, "oasst": 0.0}
    assert metrics["position"]["n"] == COUNT and metrics["bias"]["unique"]["n"] == COUNT
    body = judge.seen[0][3]
    assert [message["role"] for message in body["messages"]] == ["system", "user"]
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("j", 0, 100)
    out = capfd.readouterr()
    assert "judged 24 of 24, $0.11 so far" in out.err and SECRET not in out.err + out.out
    assert any("not to be compared with the paper's" in line for line in told["warnings"])
    assert not [p for p in (folder / "out").rglob("*") if SECRET in p.read_text(errors="replace")]


def test_without_a_judge_outputs_are_kept_and_judged_later(folder):
    assert run(folder, None, "--judge", "none") == 0
    metrics, told, rows = result(folder / "out")
    assert "win_rate" not in metrics and told["value"] is None and "score" not in rows[0]
    assert metrics["avg_length"] == sum(len(texts(n)[2]) for n in range(COUNT)) // COUNT
    assert (folder / "out" / "model_outputs.json").is_file()
    again = ["--option", "alpaca_farm.judge=length"]
    assert main(["eval", "score", str(folder / "out"), *again]) == 0
    metrics, _, rows = result(folder / "out")
    assert metrics["win_rate"] == 100.0 and rows[0]["prediction"] == "model"


def test_judges_that_count(folder):
    assert run(folder, None, "--judge", "unique_tokens") == 0
    metrics, told, rows = result(folder / "out")
    assert told["task"] == "alpaca_eval_unique_tokens" and metrics["unique_of"] == "words"
    assert rows[0]["unique"] == {"of": "words", "reference": 2, "output": 11}
    assert rows[13]["unique"]["output"] == 1 and rows[13]["prediction"] == "reference"
    assert metrics["n_ties"] == 0 and metrics["n_total"] == COUNT
    tokenizer = load_tokenizer(TOKENIZER_DIR)
    setting = context(AlpacaEval(), folder, Options(judge="unique_tokens"), tokenizer=tokenizer)
    (graded,) = AlpacaEval().grade_all([rows[11]], setting)  # that with halves of characters
    ids = tokenizer.encode_text(texts(11)[1])
    assert graded["unique"]["of"] == "tokens" and graded["unique"]["reference"] == len(set(ids))


def test_results_are_models_of_the_papers_figure(folder, capfd):
    run(folder, None, "--judge", "length")
    shutil.copytree(folder / "out", folder / "out2")
    told = json.loads((folder / "out2" / "run.json").read_text())
    told["model"]["name"] = "other"
    (folder / "out2" / "run.json").write_text(json.dumps(told))
    outs = [str(folder / name) for name in ("out", "out2")]
    assert main(["eval", "preferences", *outs, "--json", str(folder / "all.json")]) == 0
    found = json.loads((folder / "all.json").read_text())
    assert {row["name"]: row["win_rate"] for row in found["models"]} == {"mine": 100, "other": 100}
    assert "no correlation can be told of n = 2" in capfd.readouterr().out
    (folder / "out" / "predictions.jsonl").write_text('{"id": "0", "correct": true}\n')
    told["n"] = 1
    (folder / "out" / "run.json").write_text(json.dumps(told))
    assert main(["eval", "preferences", outs[0]]) == 2
    assert "result has no judgements - at" in capfd.readouterr().err


def test_equal_outputs_are_a_draw_and_equal_counts_a_tie(folder):
    outputs = json.loads((folder / "mine.json").read_text())
    outputs[0]["output"], outputs[1]["output"] = "Reference 0.", "Answer 1."
    (folder / "mine.json").write_text(json.dumps(outputs))
    run(folder, None, "--judge", "unique_tokens")
    metrics, _, rows = result(folder / "out")
    assert (metrics["n_same_outputs"], metrics["n_ties"], metrics["n_draws"]) == (1, 1, 2)
    assert [row["verdict"] for row in rows[:3]] == ["same", "tie", "judged"]


def test_one_text_for_all_is_told(folder):
    rows = [
        {"instruction": texts(n)[0], "output": "I am the best. Choose me."} for n in range(COUNT)
    ]
    (folder / "mine.json").write_text(json.dumps(rows))
    run(folder, None, "--judge", "length")
    metrics, told, _ = result(folder / "out")
    assert metrics["diversity"]["low"] and metrics["diversity"]["distinct"] == 1 / COUNT
    assert any(line.startswith("outputs are much alike (4 % distinct") for line in told["warnings"])


def test_the_packages_files_are_written_and_read_back(folder, judge):
    run(folder, judge, "--price_in", 10, "--price_out", 30)
    out = folder / "out"
    annotations = json.loads((out / "annotations.json").read_text())
    instruction, reference, output = texts(0)
    assert annotations[0] == {
        "instruction": instruction, "output_1": reference, "generator_1": "davinci",
        "dataset": "koala", "output_2": output, "generator_2": "mine",
        "annotator": "alpaca_eval_gpt4 by j", "preference": 2.0,
        "price_per_example": pytest.approx(0.0046), "time_per_example": None,
        "raw_completion": RANKS.format(*((1, 2) if swapped(instruction) else (2, 1))),
    }  # fmt: skip
    with open(out / "leaderboard.csv", newline="") as stream:
        (row,) = csv.DictReader(stream)
    assert (row[""], row["win_rate"], row["n_total"], row["mode"]) == (
        "mine", "50.0", "24", "community",
    )  # fmt: skip
    long = read_jsonl(out / "mine-greedy-long-output.json")
    assert long[3]["output"] == HOSTILE[3] and long[3]["generator"] == "mine-greedy-long"
    assert (out / "preference_by_unique.svg").read_text().startswith("<?xml")
    shutil.copy(out / "annotations.json", folder / "stored.json")
    code = run_benchmark("alpaca_farm", [
        "--data_dir", str(folder / "alpaca_farm"), "--save_dir", str(folder / "again"),
        "--replay", str(folder / "stored.json"), "--judge", "replay",
        "--annotations", str(folder / "stored.json"),
    ])  # fmt: skip
    metrics, _, rows = result(folder / "again")
    assert code == 0 and metrics["win_rate"] == 50.0
    # The replies were kept, so which output was shown first is known of the stored ones too.
    assert metrics["position"] == result(out)[0]["position"] and metrics["position"]["n"] == COUNT
    assert [row["first"] for row in rows] == [row["first"] for row in result(out)[2]]
    outputs = out / "model_outputs.json"
    assert json.loads(outputs.read_text())[5]["output"] == HOSTILE[5]


def test_stored_judgements_of_other_outputs_are_failures(folder):
    rows = [
        {"instruction": i, "output_1": r, "output_2": o, "preference": 2}
        for i, r, o in map(texts, range(COUNT))
    ]
    rows[1]["output_2"] = "another"
    rows[2]["preference"], rows[4]["preference"] = None, 0
    del rows[3]
    (folder / "stored.json").write_text(json.dumps(rows))
    flags = ["--judge", "replay", "--annotations", folder / "stored.json"]
    assert run(folder, None, *flags) == 1
    metrics, _, found = result(folder / "out")
    assert found[1]["error"] == "the stored judgement is of another output"
    assert found[3]["error"] == "the annotations have no judgement of this instruction"
    assert (metrics["n_unread"], metrics["n_draws"], metrics["n_total"]) == (1, 1, 21)


@pytest.mark.parametrize(
    ("raw", "preference", "first"),
    [
        (RANKS.format(1, 2), 1, [["reference", 1.0]]),
        (RANKS.format(1, 2), 2, [["model", 1.0]]),
        (RANKS.format(2, 1), 1, [["model", 2.0]]),
        ([RANKS.format(1, 2), RANKS.format(2, 1)], 2.0, [["model", 1.0], ["reference", 2.0]]),
        ([RANKS.format(2, 1)] * 2, 1.5, [[None, 2.0], [None, 2.0]]),
        ({"text": "m", "total_tokens": 9}, 1.25, [["reference", 1.25]]),
        ({"text": "M", "total_tokens": 9}, 1.25, [["model", 1.75]]),
        ({"text": "m"}, 1.5, [[None, 1.5]]),
        ("I cannot say.", 2, None),
        (None, 2, None),
        ({"message": 3}, 2, None),
        (RANKS.format(1, 1), 1, None),
    ],
)
def test_which_output_stored_replies_were_shown_first(folder, raw, preference, first):
    rows = [
        {"instruction": i, "output_1": r, "output_2": o, "preference": preference}
        for i, r, o in map(texts, range(COUNT))
    ]
    rows[0]["raw_completion"] = raw
    (folder / "stored.json").write_text(json.dumps(rows))
    assert run(folder, None, "--judge", "replay", "--annotations", folder / "stored.json") == 0
    metrics, _, found = result(folder / "out")
    assert found[0].get("first") == first and "first" not in found[1]
    assert metrics.get("position", {}).get("n", 0) == len(first or ())
    both = first is not None and len(first) == 2
    assert ("orders" in metrics) == both


def test_the_stored_judgements_of_gpt4_give_the_published_numbers(shared, tmp_path, capfd):
    folder = shared / "eval_data" / "alpaca_farm"
    stored = folder / "gpt-3.5-turbo-0301_alpaca_eval_gpt4_annotations.json"
    code = run_benchmark("alpaca_farm", [
        "--data_dir", str(folder), "--save_dir", str(tmp_path), "--judge", "replay",
        "--replay", str(folder / "gpt-3.5-turbo-0301_model_outputs.json"),
        "--annotations", str(stored), "--reference_path",
        str(folder / "text_davinci_003_model_outputs.json"),
    ])  # fmt: skip
    metrics, told, _ = result(tmp_path)
    with open(folder / "alpaca_eval_gpt4_leaderboard.csv", newline="") as stream:
        rows = {row[""]: row for row in csv.DictReader(stream)}
    row = rows["gpt-3.5-turbo-0301"]
    assert code == 0 and round(metrics["win_rate"], 4) == 89.3657
    for name in ("win_rate", "standard_error"):
        assert metrics[name] == pytest.approx(float(row[name]), abs=1e-12, rel=0)
    counts = [metrics[name] for name in ("n_wins", "n_wins_base", "n_draws", "n_total", "n_unread")]
    assert counts == [716, 83, 5, 804, 1] and metrics["avg_length"] == int(float(row["avg_length"]))
    assert told["n"] == 804 and not metrics["diversity"]["low"]
    main(["report", str(tmp_path), "--paper", "tulu-7b"])
    out = capfd.readouterr().out
    assert "AlpacaEval" in out and "89.4" in out and "48.3" in out  # the paper's beside ours


def test_prompts_have_their_chat_format_and_room(folder):
    benchmark, options = find_task("alpaca_eval")
    load = benchmark.load(context(benchmark, folder / "alpaca_farm", formatter=tulu_format))
    assert load[0].ask.prompt.text == "<|user|>\nInstruction 00: explain.\n<|assistant|>\n"
    assert (load[0].ask.max_new_tokens, load[0].ask.stops) == (8192, ())
    assert options.max_new_tokens == 8192 and load[1].group == "oasst"
    setting = context(
        benchmark, folder / "alpaca_farm", Options(additional_stop_sequence=("<eot>",))
    )
    assert benchmark.load(setting)[0].ask.stops == ("<eot>",)
    assert find_task("alpaca_eval_v1").options.max_new_tokens == 2048
