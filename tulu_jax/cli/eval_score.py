"""`tulu eval score`: saved outputs graded again, without a model."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tulu_jax.errors import ConfigError, DataError

if TYPE_CHECKING:
    from eval.harness.runner import Result


AGAIN = "run `tulu eval` again with the same --save_dir: it asks nothing twice"
NEEDED = {
    "task": str, "benchmark": str, "quirks": dict, "compat": str, "settings": dict, "data": str,
    "model": dict, "chat": bool,
}  # fmt: skip
JUDGED = "judged.jsonl"
"""What judges say in a result folder that is graded again."""


def score(args: argparse.Namespace) -> int:
    """Grades result folders, or all in a folder of them; the exit status."""
    from tulu_jax.cli.eval_run import print_table, say
    from tulu_jax.console import plain_console

    console = plain_console(stderr=True, soft_wrap=True)
    results = []
    for folder in args.folders:
        found = sorted(path.parent for path in folder.glob("**/run.json"))
        if not found:
            raise ConfigError("no results", at=folder, expected="a folder with run.json in it")
        for one in found:
            results.append(_score_one(args, one))
            say(console, results[-1].run["warnings"], results[-1].run["task"])
    print_table(results)
    return int(any(result.failures for result in results))


def _score_one(args: argparse.Namespace, folder: Path) -> Result:
    from eval.harness import inspect_log
    from eval.harness.cache import AnswerCache
    from eval.harness.context import Context
    from eval.harness.quirks import Quirks, read_overrides
    from eval.harness.registry import all_quirks, find_benchmark
    from eval.harness.runner import grade, ungraded, write_result
    from tulu_jax.cli.eval_flags import override_options
    from tulu_jax.cli.eval_judges import Judges
    from tulu_jax.cli.eval_run import CACHE

    old = _old_run(folder / "run.json")
    benchmark = find_benchmark(old["benchmark"])
    known: dict[str, Any] = old["quirks"] if args.compat is None else {}
    overrides = known | read_overrides(args.quirk, all_quirks())
    compat = args.compat or old["compat"]
    options = _options(benchmark, old["settings"], folder / "run.json")
    context = Context(
        data_dir=Path(old["data"]),
        options=override_options(options, benchmark.name, args.option),
        quirks=Quirks(benchmark.quirks, compat, overrides),
        endpoint=old.get("endpoint", False),
        allow_code=args.allow_code_execution,
        allow_unsafe=args.allow_unsafe_execution,
        extras={"answered": True},
    )
    benchmark.check(context)
    logged = (folder / inspect_log.FILE).exists()
    if logged:
        inspect_log.check_installed()
    of_the_run = [folder / CACHE, folder.parent / CACHE]
    with AnswerCache(folder / JUDGED, of_the_run) as cache:
        context.extras.update(model=old["model"]["path"], judge=Judges(_defaults(old), cache))
        rows = ungraded(folder / "predictions.jsonl")
        result = grade(old["task"], benchmark, context, rows)
    result.run["warnings"] = [*_notes(old), *result.run["warnings"]]
    kept = {key: value for key, value in old.items() if key not in result.run}
    result.run.update(kept | {"compat": compat, "chat": old["chat"]})
    result.run["scored_again"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    write_result(result, benchmark, context, folder)
    if logged:
        inspect_log.write_inspect_log(result, folder)
    return result


def _notes(old: dict[str, Any]) -> list[str]:
    """What was noted of the questions when they were asked; older results do not tell it apart."""
    notes = old.get("notes")
    return [str(note) for note in notes] if isinstance(notes, list) else []


def _defaults(old: dict[str, Any]) -> argparse.Namespace:
    """The flags of a run that says nothing but its seed, for a judge that is opened."""
    from tulu_jax.cli.eval_flags import add_run_flags

    parser = argparse.ArgumentParser()
    add_run_flags(parser)
    seed = old.get("seed")
    return parser.parse_args(["--seed", str(seed)] if isinstance(seed, int) else [])


def _old_run(path: Path) -> dict[str, Any]:
    """What run.json says.

    Raises:
      DataError: it is damaged, or lacks what grading needs.
    """
    from tulu_jax.files import read_json

    old = read_json(path, DataError)
    lacking = [name for name, kind in NEEDED.items() if not isinstance(old.get(name), kind)]
    if lacking or "path" not in old["model"]:
        raise DataError(
            "run.json is not whole", got=f"no {', '.join(lacking) or 'path of the model'}", at=path,
            expected=", ".join(NEEDED), do=AGAIN,
        )  # fmt: skip
    return old


def _options(benchmark: Any, settings: dict[str, Any], path: Path) -> Any:
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()}
    try:
        return benchmark.options(**values)
    except TypeError as error:
        raise DataError("settings are not this version's", got=error, at=path, do=AGAIN) from error
