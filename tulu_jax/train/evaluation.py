"""Benchmarks' questions, answered by the model while it trains.

Whoever knows benchmarks hands the loop a callable; here is when it is called, and that nothing it
does can change the run or end it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from tulu_jax.console import WARNING
from tulu_jax.errors import ConfigError
from tulu_jax.parallel.hosts import of_first

if TYPE_CHECKING:
    from tulu_jax.train.config import TrainConfig
    from tulu_jax.train.goodput import Clock
    from tulu_jax.train.reporter import Reporter
    from tulu_jax.train.run import Run
    from tulu_jax.train.stopping import Stop
    from tulu_jax.train.watchdog import Watch


class Evaluate(Protocol):
    """Asks the tasks of a run; made by the command line from the harness of `eval`.

    Of several processes each calls it, with its shards of the weights, and all take the same way
    through it: scores, and whether something is raised, are the same in all.
    """

    def __call__(self, params: Any, step: int, *, alive: Callable[[], None]) -> Mapping[str, float]:
        """What the tasks come to, by name, such as `tulu_demo/exact_match`.

        Args:
          params: the model's weights as they lie; adapters beside the weights that they adapt.
          step: optimizer steps that were done.
          alive: to be called after every answer; raises where the run is asked to stop, but not
            with several processes, which would leave off after different answers.
        """
        ...


class _Stopped(Exception):
    """The run is asked to stop, and shall not wait for the answers."""


def check_evaluation(config: TrainConfig, evaluate: Evaluate | None) -> None:
    """Refuses tasks that nobody would ask.

    Raises:
      ConfigError: see above.
    """
    if config.eval_tasks and evaluate is None:
        raise ConfigError(
            "tasks are to be asked during training, and nobody is there to do it",
            got=f"EVAL_TASKS={','.join(config.eval_tasks)}",
            expected="train(..., evaluate=...), which `tulu train` gives",
        )


class Evaluation:
    """When the tasks of a run are asked, and what becomes of the answers."""

    def __init__(
        self,
        run: Run,
        frozen: tuple[Any, ...],
        evaluate: Evaluate | None,
        *,
        clock: Clock,
        watch: Watch,
        stop: Stop,
        reporter: Reporter,
    ) -> None:
        """Nothing is asked yet; `frozen` are the weights beside those that are trained."""
        self._run, self._frozen, self._evaluate = run, frozen, evaluate
        self._clock, self._watch, self._stop, self._reporter = clock, watch, stop, reporter
        self._period = run.config.eval_tasks_period or run.config.eval_period

    def due(self, step: int) -> bool:
        """Whether the tasks are to be asked of the weights after this step, and were not yet.

        A run that is told to stop does not ask: it saves, and asks when it is resumed.
        """
        if self._evaluate is None or not self._period or self._stop.name:
            return False
        if step % self._period and step != self._run.total_steps:
            return False
        known = "known" if self._reporter.has_scores(step) else ""  # to the first process alone
        return not of_first(f"scores of step {step}", known)

    def measure(self, params: Any, step: int) -> None:
        """Asks all tasks and tells their scores.

        What goes wrong is told, and training goes on; but before anything is learnt it is raised.
        """
        assert self._evaluate is not None
        weights = self._run.trained.weights(params, self._frozen)
        with self._clock.phase("evaluation"), self._watch.phase("evaluation"):
            try:
                scores = self._evaluate(weights, step, alive=self._alive)
            except _Stopped:
                self._reporter.say(f"step {step:,}  evaluation broken off: {self._stop.name}")
                return
            except Exception as error:
                if step == 0:
                    raise
                words = f"{type(error).__name__}: {error}"
                self._reporter.say(
                    f"step {step:,}  evaluation failed, training goes on: {words}", WARNING
                )
                return
        self._reporter.scores(step, scores)

    def _alive(self) -> None:
        self._watch.alive()
        if self._stop.name:
            raise _Stopped
