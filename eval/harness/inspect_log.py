"""A result as a log of Inspect (UK AI Security Institute), for `inspect view`.

Needs the extra `inspect`. Source: its own classes (UKGovernmentBEIS/inspect_ai:src/inspect_ai/log).
"""

from __future__ import annotations

import importlib
import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eval.harness.benchmark import Row
from eval.harness.runner import INSPECT_LOG, Result
from tulu_jax.errors import ConfigError
from tulu_jax.files import json_sha256

FILE = INSPECT_LOG
STOPS = {"eos": "stop", "length": "max_tokens", "content_filter": "content_filter"}
"""Why an output ended -> Inspect's word for it; stop strings are `stop` too."""
SHOWN = ("prompt", "output", "gold", "prediction", "correct", "score", "error", "id")
"""Fields of a row that have a place of their own in a sample; the others are its metadata."""


def check_installed() -> None:
    """Passes where Inspect is installed.

    Raises:
      ConfigError: it is not.
    """
    if importlib.util.find_spec("inspect_ai") is None:
        raise ConfigError(
            "logs of Inspect need a package that is not installed", got="no inspect_ai",
            at="--log_format inspect", do="pip install 'tulu-jax[inspect]'",
        )  # fmt: skip


def write_inspect_log(result: Result, folder: Path) -> Path:
    """Writes a finished result beside its `run.json`; the log's path."""
    log = importlib.import_module("inspect_ai.log")
    path = folder / FILE
    samples = [_sample(log, result, row) for row in result.rows]
    run, time = result.run, result.run["time"]["finished"]
    spec = log.EvalSpec(
        run_id=json_sha256([time, run["model"]])[:22],
        task_id=json_sha256([time, run["model"], run["task"]])[:22],
        created=time,
        task=run["task"],
        model=str(run["model"]["name"]),
        dataset=log.EvalDataset(
            name=run["benchmark"], location=run["data"], samples=len(samples),
            sample_ids=[sample.id for sample in samples],
        ),
        config=log.EvalConfig(limit=run["limit"]),
        task_args=run["settings"],
        packages=run["versions"],
        metadata={name: run[name] for name in ("compat", "quirks", "chat", "data_sha256")},
    )  # fmt: skip
    log.write_eval_log(
        log.EvalLog(
            status="success",
            eval=spec,
            results=_results(log, result),
            stats=log.EvalStats(started_at=time, completed_at=time),
            samples=samples,
        ),
        str(path),
        format="eval",
    )
    return path


def _results(log: Any, result: Result) -> Any:
    """The headline and its standard error; Inspect has no place for a number that is none."""
    run = result.run
    values = {"mean": run["value"], "stderr": run["stderr"]}
    metrics = {
        name: log.EvalMetric(name=name, value=value)
        for name, value in values.items()
        if value is not None
    }
    score = log.EvalScore(
        name=run["metric"], scorer=run["benchmark"], metrics=metrics, scored_samples=run["n"]
    )
    return log.EvalResults(
        total_samples=len(result.rows), completed_samples=run["n"], scores=[score]
    )


def _sample(log: Any, result: Result, row: Row) -> Any:
    """One instance; one that failed has no score, and its error in the metadata."""
    model = importlib.import_module("inspect_ai.model")
    scorer = importlib.import_module("inspect_ai.scorer")
    name = str(result.run["model"]["name"])
    output = row.get("output")
    if output is None:
        output = json.dumps(row["choice_logprobs"]) if "choice_logprobs" in row else ""
    scores = {}
    if "error" not in row:
        value = row["correct"] if "correct" in row else row.get("score")
        scores[result.run["metric"]] = scorer.Score(
            value=float(value) if value is not None else "N", answer=_text(row.get("prediction"))
        )
    return log.EvalSample(
        id=row["id"],
        epoch=1,
        input=clean(row["prompt"]),
        target=_text(row["gold"]),
        output=model.ModelOutput.from_content(name, clean(output), _stop(row)),
        scores=scores,
        metadata=_metadata(row),
    )


def _stop(row: Mapping[str, Any]) -> str:
    reason = row.get("stop_reason") or "eos"
    return STOPS.get(reason, "stop" if reason.startswith("stop") else "unknown")


def _metadata(row: Row) -> dict[str, Any]:
    kept = {name: value for name, value in row.items() if name not in SHOWN}
    if "error" in row:
        kept["error"] = row["error"]
    return _plain(kept)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {clean(str(name)): _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return clean(value) if isinstance(value, str) else value


def _text(value: Any) -> str:
    """A value as Inspect shows it: text as it is, anything else as JSON."""
    return clean(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def clean(text: str) -> str:
    r"""The text with lone surrogates spelled out: Inspect writes UTF-8, which has none.

    >>> clean("a\ud800")
    'a\\ud800'
    """
    return text.encode("utf-8", "backslashreplace").decode()
