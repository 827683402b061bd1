"""`tulu verify`: an imported model against transformers' own reading of the folder."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tulu_jax.cli.flags import model_argument, new_command, number, path_argument, place_argument
from tulu_jax.errors import ConfigError
from tulu_jax.fields import between, least
from tulu_jax.files import kind_of
from tulu_jax.places import local_folder

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from tulu_jax.checkpoint.arrays import CheckpointReader
    from tulu_jax.checkpoint.verify import Comparison, Difference, Limits

DESCRIPTION = """\
Runs a checkpoint and the Hugging Face folder it came from side by side, the latter by transformers,
both in float32 on the CPU, and prints how far their activations differ, layer by layer, and what is
left of it in the predictions. Both models must fit in memory. Needs torch and transformers.

Exit status 1 when a limit is broken; the first part that differs is then named.
"""

EPILOG = """\
examples:
  tulu verify --hf models/llama-7b --model_dir runs/llama-7b
  tulu import --hf models/llama-7b --model_dir runs/llama-7b --verify      # at once
  tulu verify --hf exported --model_dir runs/alpaca --prompts my_prompts.txt
"""

MAX_TOKENS = 128
"""Longest part of a prompt that is run."""
LIMITS = {"max_difference": "difference", "max_kl": "kl", "min_agreement": "agreement"}
"""Flags, and the fields of `Limits` that they set."""


def add_parser(subparsers: Any) -> None:
    """Adds `tulu verify` to the command line."""
    parser = new_command(
        subparsers,
        "verify",
        run,
        help="checkpoint against transformers, layer by layer",
        description=DESCRIPTION,
        epilog=EPILOG,
    )
    parser.add_argument(
        "--hf",
        type=model_argument,
        required=True,
        metavar="DIR",
        help="folder in Hugging Face format",
    )
    parser.add_argument(
        "--model_dir", type=place_argument, required=True, metavar="RUN", help="run folder"
    )
    parser.add_argument("--step", type=int, metavar="N", help="step to read (default: newest)")
    add_limits(parser)


def add_limits(parser: argparse.ArgumentParser) -> None:
    """Adds what is run and how far it may differ; `tulu import --verify` takes the same."""
    group = parser.add_argument_group("comparison")
    group.add_argument(
        "--prompts",
        type=path_argument,
        metavar="FILE",
        help="texts to run, one a line (default: five built-in ones)",
    )
    group.add_argument(
        "--max_difference",
        type=number(least(0)),
        metavar="X",
        help="largest relative L2 difference of any activation (default 1e-3)",
    )
    group.add_argument(
        "--max_kl",
        type=number(least(0)),
        metavar="X",
        help="largest mean KL divergence of predictions, in nats (default 1e-5)",
    )
    group.add_argument(
        "--min_agreement",
        type=number(between(0, 1, "a share")),
        metavar="X",
        help="smallest share of positions with the same most likely token (default 0.99)",
    )


def run(args: argparse.Namespace) -> int:
    """Compares and reports; returns the exit status."""
    from tulu_jax.checkpoint.arrays import CheckpointReader
    from tulu_jax.checkpoint.transformers_model import TransformersModel
    from tulu_jax.checkpoint.verify import compare
    from tulu_jax.console import plain_console

    if args.hf is None:
        raise ConfigError(
            "nothing to compare with",
            expected="a folder that transformers loads",
            do="convert the model to Hugging Face's layout, then tulu verify --hf DIR",
        )
    console = plain_console(soft_wrap=True)
    limits = limits_of(args)
    texts = None if args.prompts is None else _lines(args.prompts)
    reader = CheckpointReader(args.model_dir, args.step)
    config = reader.config
    reference = TransformersModel(local_folder(args.hf, weights=True), config)
    prompts = _prompts(args, texts, reader, reference.vocab_size)
    found = compare(config, reader.params(), reference, prompts, limits)
    console.print(
        f"step {reader.step} of {args.model_dir} against {args.hf} "
        f"(transformers {reference.version}): {len(prompts)} prompts, {found.num_tokens} tokens"
    )
    return show(found, console)


def limits_of(args: argparse.Namespace) -> Limits:
    """How far the two may differ: as the flags say, else as `Limits` does."""
    from tulu_jax.checkpoint.verify import Limits

    given = {field: getattr(args, flag) for flag, field in LIMITS.items()}
    return Limits(**{field: value for field, value in given.items() if value is not None})


def _prompts(
    args: argparse.Namespace, given: list[str] | None, reader: CheckpointReader, vocab_size: int
) -> list[list[int]]:
    """Token ids to run: of the texts given or built in, or, without a tokenizer, any ids."""
    import numpy as np

    from tulu_jax.checkpoint.verify import PROMPTS
    from tulu_jax.cli.exporter import find_tokenizer

    longest = min(MAX_TOKENS, reader.config.max_length)
    texts = list(PROMPTS) if given is None else given
    try:
        tokenizer = find_tokenizer(args.model_dir, None, reader.meta)
    except ConfigError:
        if given is not None:
            raise
        shape = (len(PROMPTS), min(32, longest))
        return np.random.default_rng(0).integers(0, vocab_size, shape).tolist()
    assert tokenizer is not None
    bos = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
    return [[*bos, *tokenizer.encode_text(text)][:longest] for text in texts]


def _lines(path: Path) -> list[str]:
    """The lines of the file that hold text.

    Raises:
      ConfigError: there are none, or it is not UTF-8.
    """
    try:
        data = path.read_bytes()
        lines = [line for line in data.decode("utf-8-sig").splitlines() if line]
    except OSError as error:
        raise ConfigError("--prompts cannot be read", got=error.strerror, at=path) from error
    except UnicodeDecodeError as error:
        found = kind_of(data) or error.reason
        raise ConfigError("--prompts is not UTF-8 text", got=found, at=path) from error
    if not lines:
        raise ConfigError(
            "--prompts holds no text", got="an empty file", at=path, expected="one prompt a line"
        )
    return lines


def show(found: Comparison, console: Console) -> int:
    """Prints the comparison; returns 0, or 1 when a limit is broken."""
    from rich.table import Table

    table = Table(title="relative difference of activations; in brackets the largest absolute")
    for name in ("layer", *(part.replace("_", " ") for part in found.order)):
        table.add_column(name, justify="right")
    limit = found.limits.difference
    for index, row in enumerate(found.layers):
        table.add_row(str(index), *(_cell(row[part], limit) for part in found.order))
    console.print(table)
    console.print("final norm ", _cell(found.final, limit))
    console.print("logits     ", _cell(found.logits, limit))
    console.print(f"KL          mean {found.kl:.2e}, largest {found.max_kl:.2e} nats")
    console.print(f"top-1       {found.agreement:.2%} of {found.num_tokens} positions agree")
    faults = found.faults()
    for fault in faults:
        console.print(f"DIFFERENT {fault}", style="red")
    if not faults:
        console.print("same model: every limit holds", style="green")
    return 1 if faults else 0


def _cell(difference: Difference, limit: float) -> Text:
    from rich.text import Text

    text = f"{difference.relative:.1e} ({difference.max_abs:.1e})"
    return Text(text, "" if difference.relative <= limit else "red")
