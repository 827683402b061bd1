"""`tulu demo`: from nothing to a model that follows instructions, in minutes on a laptop."""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tulu_jax.cli.flags import path_text, whole

if TYPE_CHECKING:
    from rich.console import Console

    from tasks.demo import EvalItem
    from tulu_jax.chat import Tokenizer

MAX_NEW_TOKENS = 24
NUM_SAMPLES = 5


def add_parser(subparsers: Any) -> None:
    """Adds the command to the `tulu` parser."""
    parser = subparsers.add_parser(
        "demo",
        help="train a small LLaMA on generated instructions, score it, export it",
        description="Prepares the embedded dataset tulu_demo, trains a small LLaMA on it from "
        "random weights, scores it by exact match on held-out questions before and after, exports "
        "it to Hugging Face format and shows a few answers. Run again, it resumes.",
    )
    parser.add_argument(
        "--dir", type=path_text, default="demo", help="folder for everything (default: demo)"
    )
    parser.add_argument(
        "--steps", type=whole(1), metavar="N", help="train N steps instead of the whole recipe"
    )
    parser.add_argument(
        "--questions",
        type=whole(1),
        metavar="N",
        help="ask the first N held-out questions, not all",
    )
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Prepare, score, train, score, export, show."""
    from tasks.demo import TOKENIZER_DIR, eval_items
    from tulu_jax.chat import load_tokenizer
    from tulu_jax.checkpoint import hf
    from tulu_jax.cli.gin_config import load_train_config, to_gin
    from tulu_jax.console import plain_console, write_verbatim
    from tulu_jax.inspect.report import print_training_data
    from tulu_jax.train.loop import train

    console = plain_console(soft_wrap=True)
    folder, run_dir = Path(args.dir), Path(args.dir) / "run"
    settings = {"MODEL_DIR": run_dir, "DATA_DIR": folder / "data", "TOKENIZER": TOKENIZER_DIR}
    bindings = [f"{name} = {str(value)!r}" for name, value in settings.items()]
    if args.steps is not None:
        bindings += [f"TRAIN_STEPS = {args.steps}", "EPOCHS = None"]
    config = load_train_config(["runs/demo.gin"], bindings)
    tokenizer, items = load_tokenizer(TOKENIZER_DIR), eval_items("test")[: args.questions]

    console.rule("1. The untrained model answers the held-out questions")
    assert config.model is not None
    before, _ = _score(config.model, _fresh_params(config), tokenizer, items)
    console.print(f"exact match before training: {before:.1%} of {len(items)} questions")

    console.rule("2. Training")
    started = time.perf_counter()
    result = train(
        config,
        settings=to_gin(config),
        console=console,
        show_data=lambda data: print_training_data(data, config.data, console),
    )
    if not result.finished:
        return 130
    console.print(f"trained for {time.perf_counter() - started:.0f} s in all")

    console.rule("3. Export to Hugging Face format")
    export = folder / "hf"
    _export(run_dir, export, tokenizer)
    console.print(f"{export}: " + ", ".join(sorted(path.name for path in export.iterdir())))

    console.rule("4. The exported model answers the same questions")
    after, answers = _score(*hf.load(export), tokenizer, items)
    _print_kinds(console, items, answers)
    console.print(
        f"exact match on held-out questions: {before:.1%} before training, "
        f"{after:.1%} after {result.step:,} steps"
    )

    console.rule("5. Some answers")
    for item, answer in _samples(items, answers):
        question = " | ".join(message["content"] for message in item.messages)
        write_verbatim(f"{question}\n  {answer}")
    _print_next(console, folder, run_dir, export)
    return 0


def _fresh_params(config: Any) -> Any:
    import jax

    from tulu_jax.models import init_params

    return jax.jit(lambda: init_params(config.model, jax.random.key(config.seed)))()


def _score(
    model: Any, params: Any, tokenizer: Tokenizer, items: list[EvalItem]
) -> tuple[float, list[str]]:
    """Share of exactly right answers, and the answers."""
    from tasks.demo import score
    from tulu_jax.chat import encode_prompt
    from tulu_jax.generate import Engine

    prompts = [encode_prompt(item.messages, tokenizer) for item in items]
    engine = Engine(model, params, slots=64)
    outputs = engine.generate(prompts, max_new_tokens=MAX_NEW_TOKENS)
    answers = [tokenizer.decode(output.tokens) for output in outputs]
    right = [score(answer, item.reference) for answer, item in zip(answers, items, strict=True)]
    return sum(right) / len(right), answers


def _print_kinds(console: Console, items: list[EvalItem], answers: list[str]) -> None:
    """The score of each kind of question."""
    from rich.table import Table

    from tasks.demo import score

    by_kind: dict[str, list[float]] = defaultdict(list)
    for item, answer in zip(items, answers, strict=True):
        by_kind[item.kind].append(score(answer, item.reference))
    table = Table("kind of question", "questions", "exact match", box=None)
    for kind, scores in sorted(by_kind.items(), key=lambda pair: -sum(pair[1]) / len(pair[1])):
        table.add_row(kind, str(len(scores)), f"{sum(scores) / len(scores):.0%}")
    console.print(table)


def _export(run_dir: Path, target: Path, tokenizer: Tokenizer) -> None:
    from tulu_jax.checkpoint.arrays import CheckpointReader
    from tulu_jax.checkpoint.hf import save

    reader = CheckpointReader(run_dir)
    save(target, reader.config, reader, tokenizer=tokenizer, overwrite=True)


def _samples(items: list[EvalItem], answers: list[str]) -> list[tuple[EvalItem, str]]:
    """The first answer of each of the first few kinds."""
    seen: dict[str, tuple[EvalItem, str]] = {}
    for item, answer in zip(items, answers, strict=True):
        seen.setdefault(item.kind, (item, answer))
    return list(seen.values())[:NUM_SAMPLES]


def _print_next(console: Console, folder: Path, run_dir: Path, export: Path) -> None:
    console.rule("Where everything lies, and what to try next")
    console.print(
        f"""\
{folder / "data"}      tokenized data
{run_dir}       checkpoints, settings.gin, metrics.jsonl, loss.png, tensorboard/
{export}        config.json, model.safetensors, tokenizer.json: what transformers loads

  tulu chat --model {export}                      talk to it
  tulu generate --model {export} --prompt "What comes right after 41?"
  tulu data inspect tulu_demo --tokenizer {run_dir / "tokenizer"}
  tulu export --help                              other dtypes, shards, checkpoints
  tulu train --help                               train on real data: the README has the command"""
    )
