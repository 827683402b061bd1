"""Result folders as `tulu eval` writes them, small, for the tests of what reads them."""

import json

import numpy as np

METRICS = {"gsm_cot": "exact_match", "codex_eval_temp_0.8": "pass@10", "tydiqa_goldp_1shot": "f1",
           "toxigen": "overall"}  # fmt: skip


def row(name, value, **more):
    """A line of predictions.jsonl; a whole score is right or wrong."""
    score = {"correct": bool(value)} if value in (0, 1) else {"score": value}
    return {
        "id": name,
        "prompt": f"Question: what is {name}?\nAnswer:",
        "output": f" It is {value} of {name}.",
        "prediction": str(value),
        "gold": "1",
        "stop_reason": "stop",
        "prompt_tokens": 9,
        "output_tokens": 5,
        **score,
        **more,
    }


def write_result(folder, rows, *, task="gsm_cot", model="tulu-7b", **run):
    """A result folder; `model` is its name or what run.json says of it, `run` replaces fields."""
    folder.mkdir(parents=True, exist_ok=True)
    values = [r.get("score", r.get("correct")) for r in rows if not r.get("error")]
    values = np.array([v for v in values if v is not None], float)
    whole = {
        "task": task,
        "benchmark": task.split("_")[0],
        "metric": METRICS.get(task, "exact_match"),
        "value": float(values.mean()) if len(values) else None,
        "stderr": float(values.std(ddof=1) / len(values) ** 0.5) if len(values) > 1 else None,
        "n": len(rows),
        "unit": "share",
        "higher_is_better": True,
        "model": model
        if isinstance(model, dict)
        else {"name": model, "path": f"models/{model}", "fingerprint": model},
        "compat": "fixed",
        "warnings": [],
        **run,
    }
    (folder / "run.json").write_text(json.dumps(whole))
    with open(folder / "predictions.jsonl", "w") as stream:
        for one in rows:
            stream.write(json.dumps(one) + "\n")
    return folder
