r"""Codex-Eval (HumanEval): programs that complete a function, run against its tests.

    python -m eval.codex_humaneval.run_eval \
        --data_file data/eval/codex_humaneval/HumanEval.jsonl.gz \
        --eval_pass_at_ks 1 5 10 20 --unbiased_sampling_size_n 20 --temperature 0.1 \
        --save_dir results/codex --model_name_or_path MODEL --allow_code_execution

The paper asks for the bare function header, of tuned models too.

Source: Chen et al. (arXiv 2107.03374); allenai/open-instruct:eval/codex_humaneval/@662c2ad49.
"""

from __future__ import annotations

import dataclasses
import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from eval.codex_humaneval.problems import Problem, read_problems
from eval.codex_humaneval.scoring import (
    PREDICTIONS,
    RESULTS,
    Form,
    metrics,
    result_rows,
    run_rows,
)
from eval.harness.asks import Generate, Instance
from eval.harness.benchmark import Benchmark, Headline, Item, Metrics, Row
from eval.harness.context import Context
from eval.harness.data import OWN, read_jsonl, take, write_jsonl
from eval.harness.quirks import Quirk
from tulu_jax.errors import ConfigError, DataError
from tulu_jax.fields import Check, above, check_fields, least, setting

MAX_NEW_TOKENS = 512
TOP_P = 0.95
STOPS = ("\nclass", "\ndef", "\n#", "\nif", "\nprint")
FENCE = "\n```"
WARM = 0.5
"""From this temperature on samples differ enough that pass@10 says more than pass@1."""

QUIRKS = (
    Quirk(
        "codex_one_process",
        "where a program and its tests run",
        "in one process: a program can patch its own tests, or return what equals everything",
        "in two, that tell each other plain data",
    ),
    Quirk(
        "codex_answer_appended",
        "what of an answer with a fenced block is run",
        "all of it, after the function's header",
        "the fenced block that defines the function, else the first; in place of the header "
        "where it repeats it",
    ),
)


def _several(given: Sequence[int]) -> bool:
    return bool(given) and min(given) >= 1


@dataclasses.dataclass(frozen=True)
class Options:
    """Settings of Codex-Eval."""

    eval_pass_at_ks: tuple[int, ...] = setting(
        (1,), Check(_several, "whole numbers of 1 or more"), help="k of each pass@k"
    )
    unbiased_sampling_size_n: int = setting(20, least(1), help="samples of each problem")
    temperature: float = setting(0.1, above(0), help="of the samples")
    max_num_examples: int | None = setting(None, least(1), help="at most so many problems")
    data_file_hep: str | None = setting(
        None,
        path=True,
        help="humanevalpack.jsonl: its instructions are the questions in chat format",
    )
    timeout_s: float = setting(3.0, above(0), help="seconds of its own that a program has")

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
          ConfigError: one is out of range, or fewer samples than the largest k.
        """
        check_fields(self)
        if self.unbiased_sampling_size_n < max(self.eval_pass_at_ks):
            raise ConfigError(
                "fewer samples than k", got=self.unbiased_sampling_size_n,
                at="unbiased_sampling_size_n", expected=f"at least {max(self.eval_pass_at_ks)}",
            )  # fmt: skip


PAPER = {"eval_pass_at_ks": (1, 5, 10, 20), "unbiased_sampling_size_n": 20}


class CodexEval(Benchmark):
    """See the module; sample 3 of HumanEval/0 is the instance `HumanEval/0#3`."""

    name = "codex_humaneval"
    title = "programs that complete a function (HumanEval)"
    options = Options
    tasks = {
        "codex_eval_temp_0.1": {**PAPER, "temperature": 0.1},
        "codex_eval_temp_0.8": {**PAPER, "temperature": 0.8},
    }
    own_quirks = QUIRKS
    data = "codex_humaneval/HumanEval.jsonl.gz"
    questions = 164
    data_flag = "--data_file"
    metric = "pass@1"
    chats = False

    def check(self, context: Context) -> None:
        """Programs are run only where that is asked for."""
        if not context.allow_code:
            raise ConfigError(
                "programs that the model wrote would be run on this machine",
                at=self.name,
                expected="--allow_code_execution",
                do="add it (they run in a sandbox, see docs/sandbox.md), or leave the task out",
            )

    def load(self, context: Context) -> list[Instance]:
        """See `Benchmark`.

        Raises:
          ConfigError: HumanEvalPack's instructions where nothing is asked in chat format.
        """
        options: Options = context.options
        if options.data_file_hep is not None and not context.chat:
            raise ConfigError(
                "instructions are questions in chat format", got=options.data_file_hep,
                at="--data_file_hep",
                do="leave it out" if context.endpoint else "add --use_chat_format",
            )  # fmt: skip
        problems = read_problems(context.data_dir)
        problems = take(problems, options.max_num_examples, random.Random(42))
        pack = _instructions(options) if context.chat else {}
        prompts = context.prompts([_text(problem, context, pack) for problem in problems])
        stops = context.stops(*STOPS, *((FENCE,) if pack else ()), in_chat=True)
        return [
            Instance(
                f"{problem.task_id}#{sample}",
                Generate(
                    prompt, MAX_NEW_TOKENS, temperature=options.temperature, top_p=TOP_P,
                    sample=sample, **stops,
                ),
                problem.entry_point,
                {"task_id": problem.task_id},
                cluster=problem.task_id,
            )
            for problem, prompt in zip(problems, prompts, strict=True)
            for sample in range(options.unbiased_sampling_size_n)
        ]  # fmt: skip

    def items(self, data: Path) -> Iterator[Item]:
        """See `Benchmark`; the file may be unpacked."""
        plain = data.with_suffix("")
        for problem in read_problems(plain if plain.is_file() and not data.exists() else data):
            yield Item(problem.task_id, problem.prompt, problem.canonical_solution)

    def notes(self, instances: Sequence[Instance], context: Context) -> list[str]:
        """Says which tests were corrected."""
        found = [problem for problem in read_problems(context.data_dir) if problem.correction]
        return [f"{problem.task_id}: test corrected ({problem.correction})" for problem in found]

    def grade(self, row: Row, context: Context) -> Row:
        """See `Benchmark`."""
        return self.grade_all([row], context)[0]

    def grade_all(self, rows: Sequence[Row], context: Context) -> list[Row]:
        """See `Benchmark`; programs run side by side. A failure of the sandbox is an error."""
        problems = read_problems(context.data_dir)
        completions = [{"task_id": row["task_id"], "completion": row["output"]} for row in rows]
        answer: Form = "answer" if context.endpoint else "either"
        outcomes = run_rows(
            completions,
            problems,
            form="continuation" if context.paper("codex_answer_appended") else answer,
            mode="paper" if context.paper("codex_one_process") else "fixed",
            timeout_s=context.options.timeout_s,
            allow_unsafe_execution=context.allow_unsafe,
        )
        graded: list[Row] = []
        for outcome in outcomes:
            found: Row = {"result": outcome.result, "prediction": outcome.result}
            found |= {"isolation": outcome.isolation}
            if outcome.passed is None:
                graded.append({**found, "error": outcome.result})
            else:
                graded.append({**found, "correct": outcome.passed})
        return graded

    def metrics(self, rows: Sequence[Row], context: Context) -> Metrics:
        """pass@k of every k that there are samples enough for."""
        found = metrics(_results(rows), context.options.eval_pass_at_ks)
        return {name: value for name, value in found.items() if not name.endswith("_stderr")}

    def headline(self, rows: Sequence[Row], context: Context) -> Headline:
        """pass@10 of warm samples if it is asked for, else pass@1; none of too few samples."""
        options: Options = context.options
        found = metrics(_results(rows), options.eval_pass_at_ks) if rows else {}
        warm = options.temperature >= WARM and 10 in options.eval_pass_at_ks
        name = "pass@10" if warm else self.metric
        nan = float("nan")
        error = found.get(f"{name}_stderr", nan)
        problems = len({row["task_id"] for row in rows})
        return Headline(name, found.get(name, nan), error, problems, self.unit)

    def write(self, rows: Sequence[Row], metrics: Metrics, folder: Path, context: Context) -> None:
        """The samples, and the samples with what came of them."""
        problems = {problem.task_id: problem for problem in read_problems(context.data_dir)}
        samples = [
            {
                "task_id": row["task_id"],
                "prompt": problems[row["task_id"]].prompt,
                "completion": row["output"],
            }
            for row in rows
        ]
        write_jsonl(folder / PREDICTIONS, samples)
        outcomes: list[Any] = [_Outcome(row["result"], row["correct"]) for row in rows]
        write_jsonl(folder / RESULTS, result_rows(samples, outcomes))


@dataclasses.dataclass(frozen=True)
class _Outcome:
    """What `result_rows` reads of an outcome."""

    result: str
    passed: bool


def _results(rows: Sequence[Row]) -> list[Row]:
    return [
        {"task_id": row["task_id"], "passed": row["correct"], "result": row["result"]}
        for row in rows
    ]


def _instructions(options: Options) -> dict[str, str]:
    """HumanEvalPack's instruction of each problem; none without its file."""
    if options.data_file_hep is None:
        return {}
    rows = read_jsonl(Path(options.data_file_hep), "task_id", "instruction", origin=OWN)
    return {row["task_id"].replace("Python", "HumanEval"): row["instruction"] for row in rows}


def _text(problem: Problem, context: Context, pack: Mapping[str, str]) -> str:
    """What the model is asked.

    Raises:
      DataError: HumanEvalPack lacks the problem.
    """
    if context.endpoint:
        return (
            "Complete the following python function. Please only output the code for the "
            f"completed function.\n\n\n{problem.prompt}"
        )
    if not context.chat:
        return problem.prompt
    if pack:
        if problem.task_id not in pack:
            raise DataError("no instruction for a problem", got=problem.task_id,
                            at=context.options.data_file_hep)  # fmt: skip
        cue = "Here is the function:\n\n```python\n" + problem.prompt
        return context.text(pack[problem.task_id], cue)
    question = f"Complete the following python function.\n\n\n{problem.prompt}"
    return context.text(question, f"Here is the completed function:\n\n\n{problem.prompt}")


if __name__ == "__main__":
    from tulu_jax.cli.evaluate import run_benchmark

    sys.exit(run_benchmark("codex_humaneval"))
