"""`tulu plan`: what a run takes on hardware that need not be there."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from tulu_jax.cli import plan_decode
from tulu_jax.cli.flags import new_command, number, path_argument, whole
from tulu_jax.fields import PORTION
from tulu_jax.files import write_json

if TYPE_CHECKING:
    from tulu_jax.data.config import DataConfig
    from tulu_jax.plan import Compiled, PlannedRun, Topology
    from tulu_jax.plan.duration import Schedule
    from tulu_jax.plan.report import Plan
    from tulu_jax.plan.search import Candidate
    from tulu_jax.train.config import TrainConfig

EXAMPLES = """\
examples:
  tulu plan --gin_file=runs/paper/tulu_7b.gin --topology v4:2x2x4
  tulu plan --gin_file=runs/paper/tulu_65b.gin --topology v5p:4x4x4 --search
  tulu plan --gin_file=runs/paper/tulu_13b.gin --topology v5e:8x8 --num_slices 2 --json plan.json
  tulu plan --decode --gin_file=models/llama_30b.gin --topology v5e:2x4 --tensor 8

A topology is a TPU generation (v4, v5e, v5p, v6e, v7x) and the chips along each side of the slice,
or what the slice is called (v4-32), or cpu:N for N virtual CPU devices, or local for what is here.
No TPU is needed, and neither data nor weights; TPU slices need `pip install 'tulu-jax[plan]'`.
Settings are changed as in `tulu train`: --gin.BATCH_SIZE=256.
"""


def add_parser(subparsers: Any) -> None:
    """Adds the command to the `tulu` parser."""
    parser = new_command(
        subparsers,
        "plan",
        run,
        help="memory, traffic and time of a run, on hardware that need not be there",
        description="Compiles the real training step for a topology and says what it takes; with "
        "--decode the engine's programs.",
        epilog=EXAMPLES,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--gin_file", action="append", required=True, metavar="FILE",
        help="recipe, as in `tulu train`; may be repeated",
    )  # fmt: skip
    parser.add_argument("--gin_bindings", action="append", default=[], metavar="'NAME = VALUE'")
    parser.add_argument("--topology", required=True, help="such as v4:4x4x8, v5e-16, cpu:8, local")
    parser.add_argument("--num_slices", type=whole(1), default=1, metavar="N")
    parser.add_argument(
        "--estimate", action="store_true", help="from shapes alone, in a second; compile nothing"
    )
    parser.add_argument(
        "--largest_batch", action="store_true", help="also find the most rows that fit"
    )
    parser.add_argument(
        "--search", action="store_true", help="try meshes, micro-batches and remat policies"
    )
    parser.add_argument(
        "--compile_at_most", type=whole(1), default=4, metavar="N", help="with --search (default 4)"
    )
    parser.add_argument(
        "--efficiency", type=number(PORTION), default=0.6, metavar="SHARE",
        help="share of the roofline's speed that the time to train assumes (default 0.6)",
    )  # fmt: skip
    parser.add_argument(
        "--json", type=path_argument, metavar="FILE", help="also write the plan here"
    )
    plan_decode.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Plans, prints, and writes the JSON file."""
    from tulu_jax.errors import ConfigError

    plan_decode.check_used(args)
    if args.estimate and (args.search or args.largest_batch):
        raise ConfigError(
            "--estimate compiles nothing",
            got="--search" if args.search else "--largest_batch",
            expected="it alone, since what these recommend was compiled",
        )
    only_cpu(args.topology)
    from tulu_jax.cli.gin_config import parse_overrides
    from tulu_jax.console import plain_console
    from tulu_jax.plan.planned import plan_run
    from tulu_jax.plan.report import print_plan
    from tulu_jax.plan.topology import find_topology

    bindings = [*args.gin_bindings, *parse_overrides(args.overrides)]
    if args.decode:
        return plan_decode.run(args, bindings)
    config = _load(args.gin_file, bindings)
    topology = find_topology(args.topology, num_slices=args.num_slices)
    console = plain_console()
    schedule, compiled, extra = schedule_of(config), None, {}
    if args.search:
        best, extra = _search(config, topology, schedule, args, console)
        planned, compiled = best.run, best.compiled
    else:
        planned = plan_run(config, topology)
    if not (args.estimate or compiled):
        compiled = _compile(planned, args, console)
    plan = _plan(planned, compiled, schedule, args, console)
    print_plan(plan, console)
    if args.json:
        write_json(args.json, {**plan.as_json(), **extra})
    return 0


def _load(files: list[str], bindings: list[str]) -> TrainConfig:
    """The run; a plan needs neither its folder nor, if MODEL says its shape, weights."""
    from tulu_jax.cli.gin_config import load_train_config
    from tulu_jax.errors import ConfigError
    from tulu_jax.files import user_path

    unused = user_path("unused")
    names = ("MODEL_DIR", "TOKENIZER", "INITIAL_CHECKPOINT_PATH")
    config = load_train_config(files, bindings, unset=dict.fromkeys(names, str(unused)))
    if config.model is None and config.initial_checkpoint == str(unused):
        raise ConfigError(
            "the run has no model to plan for",
            got="MODEL=None and INITIAL_CHECKPOINT_PATH=None",
            do="add --gin_file=models/llama_7b.gin or the like, or --gin.INITIAL_CHECKPOINT_PATH",
        )
    if not config.data.add_tokens:
        return config
    if config.data.tokenizer == str(unused):
        raise ConfigError(
            "how many rows ADD_TOKENS adds depends on the tokenizer",
            got="TOKENIZER=None",
            do="add --gin.TOKENIZER=DIR",
        )
    return _with_added_tokens(config)


def _with_added_tokens(config: TrainConfig) -> TrainConfig:
    """The run with a model that has the rows that ADD_TOKENS adds, as training makes them."""
    import dataclasses

    from tulu_jax.data.ensure import prepare_options
    from tulu_jax.train.checks import initial_model_config
    from tulu_jax.train.format import with_added_tokens

    model = config.model or initial_model_config(str(config.initial_checkpoint))
    tokenizer = prepare_options(config.data).load_tokenizer()
    added, path = config.data.add_tokens, config.initial_checkpoint
    model = with_added_tokens(model, tokenizer, added=added, checkpoint=path)
    return dataclasses.replace(config, model=model)


def only_cpu(topology: str) -> None:
    """Keeps JAX from taking hold of accelerators that the plan does not need."""
    import os

    import jax

    if topology == "local":
        return
    jax.config.update("jax_platforms", "cpu")
    name, _, count = topology.partition(":")
    flag = "--xla_force_host_platform_device_count"
    if name == "cpu" and count.isdigit() and flag not in os.environ.get("XLA_FLAGS", ""):
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}={count}"


def _compile(planned: PlannedRun, args: argparse.Namespace, console: Any) -> Compiled | None:
    """What the compiler says; None if it does not fit and a batch that does is asked for."""
    from tulu_jax.plan import TooLargeError, compile_step, memory_budget
    from tulu_jax.plan.report import budget_table

    try:
        with console.status("compiling the step"):
            return compile_step(planned)
    except TooLargeError as error:
        if args.largest_batch:
            console.print(f"{error}\n", soft_wrap=True)
            return None
        chip = planned.topology.chip
        console.print(budget_table(memory_budget(planned), chip and chip.usable_bytes))
        raise


def _plan(
    planned: PlannedRun,
    compiled: Compiled | None,
    schedule: Schedule | None,
    args: argparse.Namespace,
    console: Any,
) -> Plan:
    from tulu_jax.plan import memory_budget, roofline
    from tulu_jax.plan.duration import duration, full_rows
    from tulu_jax.plan.estimate import estimate_traffic
    from tulu_jax.plan.report import Plan
    from tulu_jax.plan.search import largest_batch

    traffic = compiled.traffic if compiled else estimate_traffic(planned)
    roof = roofline(planned, traffic, schedule.work if schedule else full_rows(planned))
    time = most = None
    if roof and schedule:
        time = duration(planned, roof, schedule, efficiency=args.efficiency)
    if args.largest_batch:
        with console.status("looking for the largest batch") as status:
            most = largest_batch(planned, done=lambda rows, _: status.update(f"tried {rows} rows"))
    return Plan(planned, memory_budget(planned), compiled, roof, schedule, time, most)


def _search(
    config: TrainConfig,
    topology: Topology,
    schedule: Schedule | None,
    args: argparse.Namespace,
    console: Any,
) -> tuple[Candidate, dict[str, Any]]:
    """The best layout found, and the search as JSON values."""
    from rich.progress import Progress

    from tulu_jax.errors import ConfigError
    from tulu_jax.plan.report import search_table
    from tulu_jax.plan.search import HEADROOM, candidates, search

    work = schedule.work if schedule else None
    found = candidates(config, topology, work=work)
    most = min(args.compile_at_most, len(found))
    with Progress(console=console) as progress:
        task = progress.add_task(f"compiling {most} of {len(found)} layouts", total=most)
        tried = search(
            found, compile_at_most=most, work=work, done=lambda _: progress.advance(task)
        )
        progress.update(task, completed=most)
    console.print(search_table(tried))
    if tried[0].failure:
        raise ConfigError(
            "none of the layouts tried fits",
            got=tried[0].failure,
            do="raise --compile_at_most, take more devices or a smaller batch",
        )
    flags = " ".join(f"--gin.{name}={value}" for name, value in tried[0].settings.items())
    console.print(f"Recommended: {flags}", soft_wrap=True)
    if tried[0].is_tight:
        console.print(
            f"It leaves less than {HEADROOM:.0%} of the memory free: a longer search "
            "(--compile_at_most) or more MICRO_BATCHES may be safer",
            style="yellow",
        )
    console.print()
    rows = [
        {
            **one.settings,
            "estimated_bytes": one.estimated_bytes,
            "peak_bytes": one.compiled.peak if one.compiled else None,
            "tight": one.is_tight,
            "seconds": one.seconds,
        }
        for one in tried
    ]
    return tried[0], {"search": rows}


def schedule_of(config: TrainConfig) -> Schedule | None:
    """How many steps, on how many tokens: from prepared stores, else from published counts."""
    data = config.data
    prepared = _prepared(data)
    if prepared is None:
        return published_schedule(config)
    note = f"rows and tokens as prepared in {data.data_dir}"
    return _schedule(config, *prepared, notes=(note,))


def published_schedule(config: TrainConfig) -> Schedule | None:
    """The same from published counts alone: no file is read."""
    from tulu_jax.data.mixtures import mixture_specs, resolve
    from tulu_jax.inspect.dry_run import plan_mixture
    from tulu_jax.inspect.table1 import PAPER

    data = config.data
    components = resolve(data.mixture, max_examples=data.max_examples, seed=data.seed)
    specs = {spec.task_name: spec for spec in mixture_specs(data.mixture, data.options)}
    mixed = plan_mixture(
        data.mixture, [(one, specs[one.task]) for one in components], row_length=data.length,
        batch_size=data.batch_size, epochs=data.epochs or 1, packing=data.packing,
    )  # fmt: skip
    known = [one for one in mixed.datasets if one.tokens and one.examples]
    if not known or not mixed.rows:
        return None
    answers = 0.0
    for one in known:
        row = PAPER[specs[one.task].name]
        answers += (one.examples or 0) * row.rounds * (row.completion + 1)
    return _schedule(
        config, mixed.tokens, answers, mixed.rows, mixed.examples, notes=tuple(mixed.notes)
    )


def _schedule(
    config: TrainConfig, tokens: float, loss_tokens: float, rows: int, examples: int,
    *, notes: tuple[str, ...],
) -> Schedule:  # fmt: skip
    """The steps of a run on so much an epoch."""
    from tulu_jax.plan.duration import Schedule

    data = config.data
    steps = config.train_steps or -(-(data.epochs or 1) * rows // data.batch_size)
    share = data.batch_size / rows
    return Schedule(steps, examples, tokens * share, loss_tokens * share, notes)


def _prepared(data: DataConfig) -> tuple[float, float, int, int] | None:
    """Tokens, loss tokens, rows and examples of an epoch, if all stores are there."""
    from tulu_jax.cli.data.reading import find_stores
    from tulu_jax.data.ensure import assemble, prepare_options
    from tulu_jax.data.mixtures import resolve
    from tulu_jax.errors import TuluError

    options = prepare_options(data)
    try:
        tokenizer = options.load_tokenizer()
        found = find_stores(options.specs(data.mixture), options, tokenizer)
    except (TuluError, OSError):
        return None  # No tokenizer or no raw files: nothing has been prepared here.
    if not found or any(None in splits.values() for splits in found.values()):
        return None
    stores: dict[str, Any] = found
    parts = resolve(data.mixture, max_examples=data.max_examples, seed=data.seed)
    train = assemble(data, parts, stores, tokenizer).train
    shares = train.composition()
    return (
        float(sum(one.tokens for one in shares)),
        float(sum(one.loss_tokens for one in shares)),
        int(train.num_rows or 0),
        sum(one.examples for one in shares),
    )
