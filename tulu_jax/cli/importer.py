"""`tulu import`: a Hugging Face LLaMA becomes the first checkpoint of a run folder."""

from __future__ import annotations

import argparse
import dataclasses
import shutil
import time
from pathlib import Path
from typing import Any

DESCRIPTION = """\
Turns a LLaMA in Hugging Face format (config.json + safetensors) into checkpoint 0 of a run folder.

Every tensor's name, shape and size is checked before anything is written; weights stream through
one parameter at a time, so a model larger than memory is fine. Tokenizer files are copied to
MODEL_DIR/tokenizer. Torch is not needed.
"""

EPILOG = """\
examples:
  tulu import --hf models/llama-7b --model_dir runs/llama-7b
  tulu train --gin_file=runs/alpaca_7b.gin --gin.MODEL_DIR=runs/alpaca_7b \\
      --gin.INITIAL_CHECKPOINT_PATH=runs/llama-7b          # start from it
  tulu chat --model runs/llama-7b                          # talk to it
  tulu export --model_dir runs/llama-7b --output back      # and back, unchanged
"""

TOKENIZER_FILES = (
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)


def add_parser(subparsers: Any) -> None:
    """Adds `tulu import` to the command line."""
    parser = subparsers.add_parser(
        "import",
        help="Hugging Face folder -> run folder",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--hf", required=True, metavar="DIR", help="folder in Hugging Face format")
    parser.add_argument("--model_dir", required=True, metavar="OUT", help="run folder to make")
    parser.add_argument(
        "--dtype",
        default="float32",
        choices=("float32", "bfloat16", "float16"),
        help="dtype to store; training wants float32 (default)",
    )
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Imports and reports; returns the exit status."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    import tulu_jax
    from tulu_jax.checkpoint.arrays import LazyArray, save_params
    from tulu_jax.checkpoint.hf import open_folder

    console = Console(highlight=False, soft_wrap=True)
    start = time.perf_counter()
    folder = open_folder(args.hf, args.dtype)
    for note in folder.notes:
        console.print(f"[yellow]note[/] {note}")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
        task = progress.add_task("importing weights", total=len(folder.paths()))

        def counted(lazy: LazyArray) -> LazyArray:
            def load() -> Any:
                array = lazy.load()
                progress.advance(task)
                return array

            return dataclasses.replace(lazy, load=load)

        meta = {
            "model": dataclasses.asdict(folder.config),
            "step": 0,
            "source": {"format": "huggingface", "folder": Path(args.hf).name, "dtype": args.dtype},
            "versions": {"tulu_jax": tulu_jax.__version__},
        }
        step = save_params(args.model_dir, _map_leaves(folder.lazy_params(), counted), meta)
    copied = _copy_tokenizer(Path(args.hf), Path(args.model_dir))
    config = folder.config
    console.print(
        f"imported {config.num_params:,} weights as {args.dtype} "
        f"in {time.perf_counter() - start:.1f} s: {config.num_layers} layers, width "
        f"{config.d_model}, {config.num_heads} heads ({config.num_kv_heads} key/value), "
        f"vocabulary {config.vocab_size}"
    )
    console.print(f"checkpoint [bold]{step}[/]")
    console.print(f"tokenizer  {copied or 'none found: give --tokenizer to later commands'}")
    return 0


def _map_leaves(tree: Any, change: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _map_leaves(child, change) for key, child in tree.items()}
    return change(tree)


def _copy_tokenizer(source: Path, model_dir: Path) -> Path | None:
    """Copies the tokenizer into the run folder, so that later commands find it."""
    if not (source / "tokenizer.model").is_file():
        return None
    target = model_dir / "tokenizer"
    target.mkdir(exist_ok=True)
    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)
    return target
