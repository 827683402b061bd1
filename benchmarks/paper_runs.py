"""Writes gin_configs/runs/paper and gin_configs/runs/fast: the paper's runs, and packed twins.

    python benchmarks/paper_runs.py              # writes the files
    python benchmarks/paper_runs.py --measure    # first compiles what has not been compiled yet

What `tulu plan` found is kept in benchmarks/paper_runs.json and stands in the files' headers.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
from pathlib import Path
from typing import Any

from tulu_jax.data.mixtures import mixture_specs, resolve
from tulu_jax.inspect.dry_run import plan_mixture

RESULTS = Path(__file__).with_suffix(".json")
RUNS = Path(__file__).parent.parent / "gin_configs" / "runs"
GIB = 2**30

SINGLES = {
    "super_ni": ("SuperNI", "MMLU 49.7, GSM 4.0, BBH 4.5, TydiQA 50.2, Codex-Eval 12.9, "
                 "AlpacaEval 4.2; average 20.9"),
    "cot": ("CoT", "MMLU 44.2, GSM 40.0, BBH 41.9, TydiQA 47.8, Codex-Eval 23.7, "
            "AlpacaEval 6.0; average 33.9"),
    "flan_v2": ("Flan V2", "MMLU 50.6, GSM 20.0, BBH 40.8, TydiQA 47.2, Codex-Eval 16.8, "
                "AlpacaEval 3.2; average 29.8"),
    "dolly": ("Dolly", "MMLU 45.6, GSM 18.0, BBH 28.4, TydiQA 46.5, Codex-Eval 31.0, "
              "AlpacaEval 13.7; average 30.5"),
    "oasst1": ("Open Assistant 1", "MMLU 43.3, GSM 15.0, BBH 39.6, TydiQA 33.4, "
               "Codex-Eval 31.9, AlpacaEval 58.1; average 36.9"),
    "self_instruct": ("Self-Instruct", "MMLU 30.4, GSM 11.0, BBH 30.7, TydiQA 41.3, "
                      "Codex-Eval 12.5, AlpacaEval 5.0; average 21.8"),
    "unnatural_instructions": ("Unnatural Instructions", "MMLU 46.4, GSM 8.0, BBH 33.7, "
                               "TydiQA 40.9, Codex-Eval 23.9, AlpacaEval 8.4; average 26.9"),
    "stanford_alpaca": ("Alpaca", "MMLU 45.0, GSM 9.5, BBH 36.6, TydiQA 31.1, Codex-Eval 29.9, "
                        "AlpacaEval 21.9; average 29.0"),
    "code_alpaca": ("Code-Alpaca", "MMLU 42.5, GSM 13.5, BBH 35.6, TydiQA 38.9, "
                    "Codex-Eval 34.2, AlpacaEval 15.8; average 30.1"),
    "gpt4_alpaca": ("GPT4-Alpaca", "MMLU 46.9, GSM 16.5, BBH 38.8, TydiQA 23.5, "
                    "Codex-Eval 36.6, AlpacaEval 63.1; average 37.6"),
    "baize": ("Baize", "MMLU 43.7, GSM 10.0, BBH 38.7, TydiQA 33.6, Codex-Eval 28.7, "
              "AlpacaEval 21.9; average 29.4"),
    "sharegpt": ("ShareGPT", "MMLU 49.3, GSM 27.0, BBH 40.4, TydiQA 30.5, Codex-Eval 34.1, "
                 "AlpacaEval 70.5; average 42.0"),
}  # fmt: skip
"""Dataset -> what the paper calls it, and its 13B scores. Source: arXiv 2306.04751v2, table 3."""

MIXTURES = {
    "human": ("tulu_v1_human", "the human mixture"),
    "tulu": ("tulu_v1_human_gpt", "the human + GPT mixture (TÜLU)"),
}
CARD = "model card of June 2023"
SCORES = {
    "tulu_7b": ("MMLU 44.8, AlpacaEval 48.6; average 38.3", "tables 5, 7 and 4"),
    "tulu_13b": ("MMLU 49.3, GSM 40.5, BBH 43.3, TydiQA 45.6, Codex-Eval 35.9, AlpacaEval 56.5; "
                 "average 45.2", "table 3"),
    "tulu_30b": ("MMLU 57.7, GSM 51.0, BBH 48.7, TydiQA 58.2, Codex-Eval 46.0, AlpacaEval 63.5; "
                 "average 44.7", CARD),
    "tulu_65b": ("MMLU 59.2, AlpacaEval 61.8; average 56.7", "table 5"),
    "human_13b": ("MMLU 50.2, GSM 38.5, BBH 39.6, TydiQA 47.0, Codex-Eval 25.0, AlpacaEval 35.0; "
                  "average 39.2", "table 3"),
    "human_65b": ("MMLU 60.7, GSM 57.5, BBH 52.7, TydiQA 58.5, Codex-Eval 43.2, AlpacaEval 46.5; "
                  "average 43.8", CARD),
    "tulu_opt_6.7b": ("average 22.2", "table 4"),
    "tulu_pythia_6.9b": ("average 26.2", "table 4"),
}  # fmt: skip
"""Run -> what the paper reports and where: arXiv 2306.04751v2, or what was published in June."""


@dataclasses.dataclass(frozen=True)
class Place:
    """Hardware for one size: a topology, its mesh, and the paper's batch cut to fit it."""

    topology: str
    chips: int
    micro_batches: int
    tensor: int = 1

    @property
    def row_shards(self) -> int:
        """Parts that the rows of a batch are split into."""
        return self.chips // self.tensor


PLACES = {
    "single": Place("v5p:2x2x2", 8, 8),
    "7B": Place("v4:2x2x4", 16, 4),
    "13B": Place("v4:2x4x4", 32, 2),
    "30B": Place("v4:4x4x4", 64, 1),
    "65B": Place("v4:4x4x8", 128, 1, tensor=4),
}


@dataclasses.dataclass(frozen=True)
class PaperRun:
    """One run of the paper."""

    name: str
    model: str
    """File of gin_configs/models."""
    title: str
    mixture: str
    place: Place
    large: bool = False
    encoding: str = "paper"

    @property
    def length(self) -> int:
        """Tokens in a row."""
        return 1024 if self.large else 2048

    @property
    def has_sharegpt(self) -> bool:
        """Whether ShareGPT is among the data, which the paper cut in a way of its own."""
        return self.mixture in ("tulu_sharegpt", "tulu_v1_human_gpt")

    def rows(self, packing: str) -> int:
        """Rows of a batch: 128, or packed so many that they hold about 128 conversations."""
        if packing == "padded":
            return 128
        shards = self.place.row_shards
        wanted = 128 * mean_tokens(self.mixture) / self.length
        return shards * max(1, round(wanted / shards))


def mean_tokens(mixture: str) -> float:
    """Mean tokens of a conversation, by the lengths in the paper's table 1."""
    specs = {spec.task_name: spec for spec in mixture_specs(mixture)}
    parts = [(one, specs[one.task]) for one in resolve(mixture)]
    plan = plan_mixture(mixture, parts, row_length=2048, batch_size=128, epochs=1)
    return plan.tokens / plan.examples


def all_runs() -> list[PaperRun]:
    """The paper's runs: each dataset at 13B, both mixtures at every size, two other families."""
    runs = [
        PaperRun(f"{name}_13b", "llama_13b", f"LLaMA 13B on {title}", f"tulu_{name}",
                 PLACES["single"])
        for name, (title, _) in SINGLES.items()
    ]  # fmt: skip
    for short, (mixture, title) in MIXTURES.items():
        for size in ("7B", "13B", "30B", "65B"):
            runs.append(
                PaperRun(f"{short}_{size.lower()}", f"llama_{size.lower()}",
                         f"LLaMA {size} on {title}", mixture, PLACES[size],
                         large=size in ("30B", "65B"))
            )  # fmt: skip
    title = MIXTURES["tulu"][1]
    for model, name, encoding in (
        ("opt_6.7b", "OPT-6.7B", "paper"),
        ("pythia_6.9b", "Pythia-6.9B", "hf"),
    ):
        runs.append(
            PaperRun(f"tulu_{model}", model, f"{name} on {title}", "tulu_v1_human_gpt",
                     PLACES["7B"], encoding=encoding)
        )  # fmt: skip
    return runs


def scores(run: PaperRun) -> str:
    """What the paper reports of the run, and where."""
    single = SINGLES.get(run.name.removesuffix("_13b"))
    if single:
        return f"{single[1]} (arXiv 2306.04751v2, table 3)"
    if run.name not in SCORES:
        return "not reported singly"
    text, where = SCORES[run.name]
    return f"{text} ({where if where == CARD else f'arXiv 2306.04751v2, {where}'})"


def paper_file(run: PaperRun, found: dict[str, Any]) -> str:
    """The run with the paper's settings."""
    settings = [f"MIXTURE_OR_TASK_NAME = '{run.mixture}'"]
    if run.has_sharegpt:
        settings.append("DataConfig.options = {'tulu_sharegpt': {'split': 'paper'}}")
    if run.encoding != "paper":
        settings.append("ENCODING = 'hf'  # For this tokenizer it is what the paper's runs used.")
    settings.append(f"MICRO_BATCHES = {run.place.micro_batches}")
    if run.place.tensor > 1:
        settings.append(f"MESH_TENSOR = {run.place.tensor}")
        settings.append("AXIS_RULES = {'activation_length': ('sequence', 'tensor')}")
    shared = "large" if run.large else "paper"
    return (
        f"{_header(run, 'paper', found)}"
        f"include 'runs/paper/{shared}.gin'\ninclude 'models/{run.model}.gin'\n\n"
        + "\n".join(settings)
        + "\n"
    )


def fast_file(run: PaperRun, found: dict[str, Any]) -> str:
    """The packed twin."""
    return (
        f"{_header(run, 'fast', found)}"
        f"include 'runs/paper/{run.name}.gin'\ninclude 'runs/fast/fast.gin'\n\n"
        f"BATCH_SIZE = {run.rows('best_fit')}  # About "
        f"{run.rows('best_fit') * run.length / mean_tokens(run.mixture):.0f} conversations.\n"
    )


def _title(run: PaperRun, kind: str) -> str:
    if kind == "paper":
        return f"{run.title}, as in the paper."
    return f"{run.title}, packed: the tokens of runs/paper/{run.name}.gin in fewer rows."


def _header(run: PaperRun, kind: str, found: dict[str, Any]) -> str:
    place, base = run.place, run.model.replace("_", "-")
    folder = run.name if kind == "paper" else f"{run.name}_fast"
    file = f"runs/{kind}/{run.name}.gin"
    plan = found[f"{kind}/{run.name}"]
    if plan["peak"]:
        fits = f"peak {plan['peak'] / GIB:.1f} GiB of {plan['usable'] / GIB:.2f} a chip, compiled"
    else:
        estimate = f"{plan['estimate'] / GIB:.1f} GiB of {plan['usable'] / GIB:.2f} a chip"
        fits = f"about {estimate}, estimated from shapes"
    lines = [
        *_wrapped(_title(run, kind)),
        "",
        f"  tulu plan --gin_file={file} --topology={place.topology}",
        f"  tulu train --gin_file={file} \\",
        f"      --gin.MODEL_DIR=runs/{folder} --gin.INITIAL_CHECKPOINT_PATH={base}",
        "",
        *_wrapped(
            f"{base}: the model as a Hugging Face folder with its tokenizer, or a run folder made "
            "of it by `tulu import`."
        ),
        f"Slice: {plan['slice']} ({place.chips} chips). Fits: {fits}.",
        f"Time: about {plan['steps']:,} steps, {_hours(plan['hours'])} if 60 % of the roofline "
        f"({plan['bound']}) is reached.",
        *_wrapped(f"Expected scores: {scores(run)}."),
    ]
    if kind == "fast":
        lines.append("They are of the padded run; this one has not been run.")
    return "".join(f"# {line}".rstrip() + "\n" for line in lines)


def _hours(hours: float) -> str:
    return f"{hours:.1f} hours" if hours < 10 else f"{hours:.0f} hours"


def _wrapped(text: str, width: int = 96) -> list[str]:
    lines = [""]
    for word in text.split():
        if len(lines[-1]) + len(word) + 1 > width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


def files(found: dict[str, Any]) -> dict[str, str]:
    """Path below gin_configs/runs -> what is written there."""
    written = {}
    for run in all_runs():
        written[f"paper/{run.name}.gin"] = paper_file(run, found)
        written[f"fast/{run.name}.gin"] = fast_file(run, found)
    return written


def plan(kind: str, run: PaperRun, *, peaks: dict[str, Any], measure: bool) -> dict[str, Any]:
    """What `tulu plan` says of a run file. Equal steps are compiled once; see `peaks`."""
    from tulu_jax.cli.gin_config import load_train_config
    from tulu_jax.cli.plan import schedule_of
    from tulu_jax.plan import compile_step, find_topology, memory_budget, plan_run, roofline
    from tulu_jax.plan.duration import duration
    from tulu_jax.plan.estimate import estimate_traffic

    bindings = ["MODEL_DIR = 'unused'", "INITIAL_CHECKPOINT_PATH = 'unused'"]
    config = load_train_config([f"runs/{kind}/{run.name}.gin"], bindings)
    planned = plan_run(config, find_topology(run.place.topology))
    data = config.data
    key = f"{run.model} {run.place.topology} {data.batch_size}x{data.length} {config.micro_batches}"
    if measure and key not in peaks:
        peaks[key] = compile_step(planned).peak
        print(key, peaks[key] / GIB, flush=True)
    schedule, chip = schedule_of(planned.config), planned.topology.chip
    assert schedule is not None and chip is not None
    roof = roofline(planned, estimate_traffic(planned), schedule.work)
    assert roof is not None
    return {
        "slice": planned.topology.slice_name,
        "estimate": memory_budget(planned).total,
        "peak": peaks.get(key),
        "usable": chip.usable_bytes,
        "steps": schedule.steps,
        "hours": duration(planned, roof, schedule).hours,
        "bound": roof.bound,
    }


def main() -> None:
    """Writes the files, plans them, and writes them again with what was found."""
    import jax

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--measure", action="store_true", help="compile what has not been yet")
    args = parser.parse_args()
    jax.config.update("jax_platforms", "cpu")
    kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"peaks": {}, "plans": {}}
    unknown = {"slice": "", "estimate": math.nan, "peak": None, "usable": math.nan, "steps": 0,
               "hours": math.nan, "bound": ""}  # fmt: skip
    runs = [(kind, run) for kind in ("paper", "fast") for run in all_runs()]
    _write({f"{kind}/{run.name}": unknown for kind, run in runs})
    for kind, run in runs:
        found = plan(kind, run, peaks=kept["peaks"], measure=args.measure)
        kept["plans"][f"{kind}/{run.name}"] = found
        RESULTS.write_text(json.dumps(kept, indent=1) + "\n")
    _write(kept["plans"])


def _write(found: dict[str, Any]) -> None:
    for path, text in files(found).items():
        (RUNS / path).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
