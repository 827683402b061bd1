"""`tulu export`: a checkpoint of a run becomes a Hugging Face folder."""

from __future__ import annotations

import argparse
import contextlib
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tulu_jax.cli.flags import (
    model_argument,
    model_or_none,
    model_text,
    new_command,
    place_argument,
)
from tulu_jax.cli.trained_on import dataset_of_run
from tulu_jax.errors import ConfigError
from tulu_jax.files import real_path
from tulu_jax.places import Address, Place, as_place, is_address, user_place

if TYPE_CHECKING:
    from tulu_jax.chat import Tokenizer
    from tulu_jax.checkpoint.arrays import CheckpointReader

DESCRIPTION = """\
Writes a checkpoint as a folder that transformers, vLLM and llama.cpp load: safetensors (split above
--max_shard_size), config.json, generation_config.json, the tokenizer's files and the chat template.

Weights stream through a layer at a time, so a model larger than memory is fine. The folder gets
its name when it is complete: a killed export leaves only OUTPUT.partial, and the same command again
keeps its whole files and goes on. checksums.json lists the XXH128 of every file (what the program
xxh128sum prints); `tulu import` compares them. No accelerator and no torch is needed.
"""

EPILOG = """\
examples:
  tulu export --model_dir runs/alpaca --output exported                    # newest step, as trained
  tulu export --model_dir runs/alpaca --step 500 --output e500 --dtype bfloat16
  python -c "import transformers as t; t.AutoModelForCausalLM.from_pretrained('exported')"
"""

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


def add_parser(subparsers: Any) -> None:
    """Adds `tulu export` to the command line."""
    parser = new_command(
        subparsers,
        "export",
        run,
        help="run folder -> Hugging Face folder",
        description=DESCRIPTION,
        epilog=EPILOG,
    )
    parser.add_argument(
        "--model_dir", type=place_argument, required=True, metavar="RUN", help="run folder"
    )
    parser.add_argument("--step", type=int, metavar="N", help="step to export (default: newest)")
    parser.add_argument(
        "--output", type=model_argument, required=True, metavar="DIR",
        help="folder to make, also gs://bucket/folder; hf://org/name uploads it to the Hub",
    )  # fmt: skip
    parser.add_argument(
        "--private", action="store_true", help="with --output hf://org/name: only you may see it"
    )
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16", "float16"),
        help="dtype to write (default: as stored, which for training runs is float32)",
    )
    parser.add_argument(
        "--max_shard_size",
        default="5GB",
        metavar="SIZE",
        help="largest weights file, such as 500MB or 5GB (default)",
    )
    parser.add_argument(
        "--tokenizer",
        type=model_or_none,
        metavar="PATH",
        help="folder with a tokenizer (default: the run's own; 'none': weights only)",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace a model that OUTPUT already holds"
    )
    _add_adapter_arguments(parser)
    parser.add_argument(
        "--pad_vocab_to",
        type=int,
        metavar="N",
        help="round the vocabulary up to a multiple of N, with rows that stand for no token "
        "(default: its true size)",
    )


def _add_adapter_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--merge",
        action="store_true",
        help="a run that trained adapters (LoRA): write base + adapters as one model "
        "(default: write the adapters alone, in PEFT's format)",
    )
    parser.add_argument(
        "--base",
        type=model_text,
        metavar="DIR",
        help="where the adapters' base lies now (default: as in training); without --merge also a "
        "name on the Hub, which PEFT will find it by",
    )


def run(args: argparse.Namespace) -> int:
    """Exports and reports; returns the exit status."""
    with _destination(args):
        return _export(args)


@contextlib.contextmanager
def _destination(args: argparse.Namespace) -> Iterator[None]:
    """Inside, `args.output` is where to write; of hf:// a folder that is uploaded afterwards."""
    named = args.output
    hub = isinstance(named, Address) and named.scheme == "hf"
    if args.private and not hub:
        raise ConfigError(
            "--private goes with --output hf://org/name only", got=named, do="leave it out"
        )
    if not isinstance(named, Address) or not hub:
        yield
        return
    from tulu_jax.places import check_free, push

    check_free(named)
    with tempfile.TemporaryDirectory(prefix="tulu-") as folder:
        args.output = Path(folder) / named.name
        yield
        print(f"uploaded to {push(args.output, named, private=args.private)}", flush=True)


def _export(args: argparse.Namespace) -> int:
    from tulu_jax.checkpoint.arrays import CheckpointReader
    from tulu_jax.checkpoint.checksums import ALGORITHM
    from tulu_jax.checkpoint.hf import save
    from tulu_jax.checkpoint.resize import padded
    from tulu_jax.console import plain_console, show_bytes

    console = plain_console(soft_wrap=True)
    max_shard_bytes = parse_size(args.max_shard_size)
    refuse_within(args.output, args.model_dir)
    reader = CheckpointReader(args.model_dir, args.step)
    if reader.meta.get("lora") is not None and not args.merge:
        return _export_adapters(args, reader, console)
    if args.merge:
        reader = merged(args, reader)
    elif args.base is not None:
        raise ConfigError(
            "--base goes with adapters only", got=args.base, at=args.model_dir, do="leave it out"
        )
    weights = reader
    if args.pad_vocab_to is not None:
        weights = padded(reader, reader.config, args.pad_vocab_to)
    tokenizer = find_tokenizer(args.model_dir, args.tokenizer, reader.meta)
    dataset = dataset_of_run(reader.meta)
    with show_bytes(console) as progress:
        task = progress.add_task(f"exporting step {reader.step}", total=None)
        saved = save(
            args.output,
            weights.config,
            weights,
            tokenizer=tokenizer,
            dtype=args.dtype,
            max_shard_bytes=max_shard_bytes,
            overwrite=args.overwrite,
            generation=reader.meta.get("generation"),
            training=None if dataset is None else {"dataset": dataset, "step": reader.step},
            on_progress=lambda _, done, total: progress.update(task, completed=done, total=total),
        )
    if saved.was_there:
        console.print(
            "this export was there already, every file with the checksum it would have now"
        )
    if saved.kept:
        console.print(f"kept from an export that was killed: {', '.join(saved.kept)}")
    for name, checksum in sorted(saved.checksums.items()):
        console.print(f"{ALGORITHM} {checksum}  {name}")
    console.print(f"step {reader.step}, {saved.num_bytes:,} bytes of weights -> {saved.folder}")
    return 0


def merged(args: argparse.Namespace, reader: CheckpointReader) -> Any:
    """The whole weights that a run's adapters and their base make.

    Raises:
      CheckpointError: the run trained no adapters, or the base is not the same.
    """
    from tulu_jax.checkpoint.merged import MergedReader, saved_lora

    saved_lora(reader.meta)
    whole = MergedReader(reader, args.base and user_place(args.base, name="--base", hub=True))
    if getattr(args, "output", None) and same_place(whole.base_path, args.output):
        raise ConfigError(
            "--output is the base of these adapters, which is read meanwhile",
            got=args.output,
            expected="another folder",
            do="choose another --output",
        )
    return whole


def refuse_within(output: Place, model_dir: Place) -> None:
    """Refuses an output among a run's checkpoints, where it would pass for one.

    Raises:
      ConfigError: it is there.
    """
    from tulu_jax.checkpoint.arrays import checkpoints_dir

    checkpoints = _real(checkpoints_dir(model_dir))
    if f"{_real(output)}/".startswith(f"{checkpoints}/"):
        raise ConfigError(
            "--output lies among the run's checkpoints",
            got=output,
            expected=f"a folder outside {checkpoints}",
            do="choose another --output",
        )


def same_place(one: Place, other: Place) -> bool:
    """Whether both lead to the same folder."""
    return _real(one) == _real(other)


def _real(place: Place) -> Any:
    return place if isinstance(place, Address) else real_path(place)


def _export_adapters(args: argparse.Namespace, reader: CheckpointReader, console: Any) -> int:
    from tulu_jax.checkpoint.merged import saved_lora
    from tulu_jax.checkpoint.peft import save_peft

    lora, base = saved_lora(reader.meta), args.base or str(reader.meta.get("base_path") or "")
    given = {
        "--dtype": args.dtype,
        "--pad_vocab_to": args.pad_vocab_to,
        "--tokenizer": args.tokenizer,
        "--overwrite": args.overwrite or None,
        "--max_shard_size": None if args.max_shard_size == "5GB" else args.max_shard_size,
    }
    unused = next((flag for flag, value in given.items() if value is not None), None)
    if unused is not None:
        raise ConfigError(
            "adapters are written as they are, into a new folder",
            got=unused if given[unused] is True else f"{unused} {given[unused]}",
            do="leave it out, or add --merge for one whole model",
        )
    if args.base and not is_address(args.base) and Path(args.base).is_dir():
        base = str(user_place(args.base))
    base = base.removeprefix("hf://")  # as PEFT names a model of the Hub
    folder = save_peft(
        args.output, reader.config, lora, reader.params(), base=base,
        base_weights=(reader.meta.get("lora") or {}).get("base_weights"),
    )  # fmt: skip
    console.print(f"step {reader.step}, adapters of rank {lora.rank} in PEFT's format -> {folder}")
    console.print("a model by itself: the same with --merge")
    return 0


def find_tokenizer(
    run_dir: str | Place,
    given: str | Place | None,
    meta: dict[str, Any],
    *,
    chat_template: str | None = None,
) -> Tokenizer | None:
    """The tokenizer given, else the run's own (in its folder, or where it was trained from).

    Its chat template is the one named, else the one that was trained, else the folder's own. The
    path 'none' gives None.

    Raises:
      ConfigError: none is given and the run has none.
      TokenizerError: it is damaged, or not the one whose fingerprint the checkpoint holds.
    """
    from tulu_jax.chat import load_model_tokenizer, load_tokenizer
    from tulu_jax.errors import TokenizerError

    if given == "none":
        return None
    found = None if given else own_tokenizer_place(run_dir, meta)
    if given is None and found is None:
        raise ConfigError(
            "no tokenizer",
            at=run_dir,
            expected="a tokenizer in the run folder",
            do="give --tokenizer PATH",
        )
    path, encoding = given or found or run_dir, meta.get("encoding", "hf")
    if "tokenizer" not in meta:
        if chat_template is None:
            return load_model_tokenizer(path, encoding)
        return load_tokenizer(path, encoding, template=chat_template)
    trained = meta.get("chat_template", "tulu")
    tokenizer = load_tokenizer(path, encoding, template=trained)
    wanted = meta["tokenizer"]
    if tokenizer.fingerprint != wanted:
        raise TokenizerError(
            "tokenizer is not the one the model was trained with",
            got=f"fingerprint {tokenizer.fingerprint[:12]}",
            at=tokenizer.path,
            expected=str(wanted)[:12],
            do=f"give the run's own with --tokenizer ({meta.get('tokenizer_path')})",
        )
    if chat_template in (None, trained):
        return tokenizer
    return load_tokenizer(path, encoding, template=chat_template)


def own_tokenizer_place(run_dir: str | Place, meta: dict[str, Any]) -> Place | None:
    """Where a run or Hugging Face folder keeps its tokenizer; None where it has none."""
    from tulu_jax.chat import holds_tokenizer

    run = as_place(run_dir)
    places = [run / "tokenizer", run, as_place(meta.get("tokenizer_path", run_dir))]
    return next(filter(holds_tokenizer, places), None)


def parse_size(text: str) -> int:
    """Bytes of a size such as "5GB" (decimal units).

    >>> parse_size("1.5KB")
    1500

    Raises:
      ConfigError: not a positive number with B, KB, MB, GB or TB.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?B?)", text.strip().upper())
    unit = match and (match[2] if match[2].endswith("B") or not match[2] else match[2] + "B")
    size = int(float(match[1]) * _UNITS[unit]) if match and unit is not None else 0
    if size <= 0:
        raise ConfigError(
            "--max_shard_size is not a size", got=repr(text), expected="such as 500MB or 5GB"
        )
    return size
