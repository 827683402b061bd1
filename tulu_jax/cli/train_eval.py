"""EVAL_TASKS of a training run: benchmarks asked of the weights while they are trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tulu_jax.errors import ConfigError, DataError

if TYPE_CHECKING:
    from eval.harness.asks import Answer
    from eval.harness.context import Context
    from eval.harness.runner import Result, Task
    from tulu_jax.chat import Tokenizer
    from tulu_jax.generate import Engine
    from tulu_jax.models import ModelConfig
    from tulu_jax.train.config import TrainConfig

Say = Callable[[str], None]


def open_tasks(config: TrainConfig, say: Say) -> RunTasks | None:
    """What asks EVAL_TASKS, every question read and checked; None where there are none.

    Args:
      config: the run.
      say: shows a line to the user.

    Raises:
      TuluError: the run cannot be, an unknown task, data that are missing or damaged, a task that
        cannot be asked here, or prompts that are longer than the model.
    """
    if not config.eval_tasks:
        return None
    from tulu_jax.data.ensure import prepare_options
    from tulu_jax.train.checks import check_before_data

    if config.data.chat_template != "tulu":
        raise ConfigError(
            "tasks are asked in a chat format that is written as text",
            got=f"EVAL_TASKS with CHAT_TEMPLATE={config.data.chat_template!r}",
            expected="CHAT_TEMPLATE='tulu'",
            do="leave EVAL_TASKS out, or change the template",
        )
    model = check_before_data(config)
    tokenizer = prepare_options(config.data).load_tokenizer().fitting(model.vocab_size)
    tasks = [
        _open_task(name, limit, Path(config.eval_data_dir), model, tokenizer)
        for name, limit in config.limits.items()
    ]
    return RunTasks(config, model, tokenizer, tasks, say)


def _open_task(
    name: str, limit: int, folder: Path, model: ModelConfig, tokenizer: Tokenizer
) -> Task:
    from eval.harness.context import Context
    from eval.harness.quirks import Quirks
    from eval.harness.registry import find_task
    from eval.harness.runner import fit_all, load_task
    from eval.templates import create_prompt_with_tulu_chat_format

    benchmark, options = find_task(name)
    context = Context(
        data_dir=folder / benchmark.data,
        options=options,
        quirks=Quirks(benchmark.quirks, "fixed"),
        formatter=create_prompt_with_tulu_chat_format if benchmark.chats else None,
        tokenizer=tokenizer,
        max_length=model.max_length,
        extras={"judges": False},
    )
    _check_task(name, benchmark, context)
    task = load_task(name, benchmark, context, limit=limit)
    _, cut = fit_all(task.instances, model.max_length)
    if cut:
        first, most = next(iter(cut)), max(cut.values())
        raise DataError(
            f"prompts of task {name} are longer than the model",
            got=f"{len(cut)} of {len(task.instances)}, one by {most} tokens",
            at=first,
            expected=f"at most {model.max_length - 1} tokens, which leave one for an answer",
            do="leave the task out of EVAL_TASKS; tulu eval cuts the beginning of such prompts",
        )
    return task


def _check_task(name: str, benchmark: Any, context: Context) -> None:
    """Refuses what cannot be asked without flags that only `tulu eval` has."""
    try:
        benchmark.check(context)
    except ConfigError as error:
        raise ConfigError(
            f"task {name} cannot be asked during training",
            got=str(error).split(" - ")[0],
            do="leave it out of EVAL_TASKS, and evaluate checkpoints: tulu eval",
        ) from error


def _questions(task: Task) -> list[Any]:
    """What is asked, so that processes can tell whether they ask the same."""
    return [[one.id, one.ask.key("")] for one in task.instances]


class RunTasks:
    """Asks the tasks of a run; see `tulu_jax.train.evaluation.Evaluate`.

    Between two times nothing of it lies on the devices.
    """

    def __init__(
        self, config: TrainConfig, model: ModelConfig, tokenizer: Tokenizer, tasks: list[Task],
        say: Say,
    ) -> None:  # fmt: skip
        """Says what will be asked; there is no engine yet."""
        from tulu_jax.cli.engine import LENGTH_STEP
        from tulu_jax.cli.eval_run import longest_of
        from tulu_jax.generate.engine import SLOTS
        from tulu_jax.generate.sizes import fit

        self._config, self._model, self._tokenizer = config, model, tokenizer
        self._tasks, self._say = tasks, say
        self._engine: Engine | None = None
        instances = [instance for task in tasks for instance in task.instances]
        longest = -(-longest_of(instances) // LENGTH_STEP) * LENGTH_STEP
        length = min(model.max_length, longest)
        slots = min(SLOTS, len(instances))
        dtype = config.compute.dtype
        self._sizes = fit(model, slots=slots, length=length, dtype=dtype, free_bytes=None)
        period = config.eval_tasks_period or config.eval_period
        names = ", ".join(f"{task.name} ({len(task.instances)})" for task in tasks)
        say(f"Asked every {period:,} steps: {names}; meanwhile {self._sizes.line()}")
        for task in tasks:
            for note in task.notes:
                say(f"note {task.name}: {note}")

    def __call__(self, params: Any, step: int, *, alive: Callable[[], None]) -> Mapping[str, float]:
        """See `Evaluate`.

        Raises:
          DataError: a task gives no number, or answers cannot be kept.
          GuardError: the processes of a run read different questions, or another one failed.
        """
        from tulu_jax.parallel.hosts import check_agree, check_all_well

        engine, self._engine = self._engine, None
        if engine is None:
            check_agree({f"questions of {t.name}": _questions(t) for t in self._tasks})
            engine = self._new_engine(params)
        else:
            engine.load(params)
        try:
            # First what all processes do together, then what one of them may fail at alone.
            answers = [self._ask(task, engine, alive) for task in self._tasks]
        finally:
            engine.abandon()
            engine.load(None)
        scores: dict[str, float] = {}
        trouble: Exception | None = None
        try:
            for task, found in zip(self._tasks, answers, strict=True):
                scores |= self._score(self._grade(task, found, step), step)
        except Exception as error:
            trouble = error
        told = trouble and f"{type(trouble).__name__}: {trouble}"
        check_all_well(f"evaluation after step {step}", told)
        if trouble is not None:
            raise trouble
        self._engine = engine  # not where something went wrong: the next time has a new one
        return scores

    def _new_engine(self, params: Any) -> Engine:
        from tulu_jax.checkpoint.arrays import complete_steps
        from tulu_jax.checkpoint.hf.generation import all_stops
        from tulu_jax.checkpoint.manager import saved_generation
        from tulu_jax.generate import Engine
        from tulu_jax.models import ComputeConfig

        config, path = self._config, self._config.initial_checkpoint
        if complete_steps(config.model_dir):
            path = config.model_dir
        kept = {} if path is None else saved_generation(path)
        stops = dict.fromkeys((*all_stops(self._model, kept), *self._tokenizer.stop_ids))
        return Engine(
            self._model,
            params,
            slots=self._sizes.slots,
            compute=ComputeConfig(dtype=config.compute.dtype),
            max_length=self._sizes.length,
            stop_ids=tuple(stops),
            tokenizer=self._tokenizer,
        )

    def _ask(self, task: Task, engine: Engine, alive: Callable[[], None]) -> list[Answer]:
        from eval.harness.backends import EngineBackend
        from eval.harness.cache import AnswerCache
        from eval.harness.runner import ask_all

        # Answers are of these weights only: they are kept no longer than it takes to grade them.
        with AnswerCache(None) as cache:
            backend = EngineBackend(engine, "the weights of this step")
            return ask_all(task.name, task.instances, backend, cache, lambda _: alive())

    def _grade(self, task: Task, answers: list[Answer], step: int) -> Result:
        """The graded answers, which the first process writes into the run's folder."""
        import jax

        from eval.harness.data import write_jsonl
        from eval.harness.runner import grade, rows_of
        from tulu_jax.train.mirror import run_folder

        result = grade(task.name, task.benchmark, task.context, rows_of(task, answers))
        if jax.process_index() == 0:
            folder = run_folder(self._config.model_dir) / "eval" / task.name
            folder.mkdir(parents=True, exist_ok=True)
            write_jsonl(folder / f"step_{step}.jsonl", result.rows)
        return result

    def _score(self, result: Result, step: int) -> dict[str, float]:
        """The number that counts, as a share from 0 to 1, by its name."""
        run = result.run
        if result.failures:
            self._say(f"step {step:,}  {run['task']}: {result.failures} instances failed")
        if run["value"] is None:
            raise DataError(
                f"task {run['task']} gives no number",
                got=f"{run['metric']} of {run['n']} instances",
                do="leave it out of EVAL_TASKS; tulu eval has the flags that it needs",
            )
        whole = 100 if run["unit"] == "percent" else 1
        return {f"{run['task']}/{run['metric']}": run["value"] / whole}
