"""`tulu import`: a model in Hugging Face's or Meta's layout becomes checkpoint 0 of a run."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from tulu_jax.cli import verify
from tulu_jax.cli.flags import model_argument, new_command, path_argument, place_argument
from tulu_jax.errors import ConfigError
from tulu_jax.files import TIKTOKEN, kind_of_file
from tulu_jax.places import Place, readable

DESCRIPTION = """\
Turns a model into checkpoint 0 of a run folder. It may be in Hugging Face's layout (config.json
with *.safetensors or pytorch_model*.bin) or in Meta's original one (params.json with
consolidated.*.pth).

Every tensor's name, shape and size is checked before anything is written. Where the folder has a
checksums.json, the checksum of every file is compared meanwhile: a file that has changed leaves no
checkpoint. Weights stream through a layer at a time, so a model larger than memory is fine. No
pickle is ever loaded: what a torch file holds besides tensors is refused, not run. Tokenizer files
are copied to MODEL_DIR/tokenizer. Torch is not needed.
"""

EPILOG = """\
examples:
  tulu import --hf models/llama-7b --model_dir runs/llama-7b
  tulu import --hf models/llama-7b --model_dir runs/llama-7b --vocab_size 32001   # a row for <pad>
  tulu import --meta llama/7B --model_dir runs/llama-7b --dtype bfloat16
  tulu train --gin_file=runs/alpaca_7b.gin --gin.MODEL_DIR=runs/alpaca_7b \\
      --gin.INITIAL_CHECKPOINT_PATH=runs/llama-7b          # start from it
  tulu chat --model runs/llama-7b                          # talk to it
  tulu export --model_dir runs/llama-7b --output back      # and back, unchanged

INITIAL_CHECKPOINT_PATH may also name the Hugging Face folder itself: then nothing is imported, and
every host reads just its own slices of the files.
"""


def add_parser(subparsers: Any) -> None:
    """Adds `tulu import` to the command line."""
    parser = new_command(
        subparsers,
        "import",
        run,
        help="Hugging Face or Meta folder -> run folder",
        description=DESCRIPTION,
        epilog=EPILOG,
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--hf", type=model_argument, metavar="DIR", help="folder in Hugging Face's layout"
    )
    source.add_argument(
        "--meta", type=path_argument, metavar="DIR", help="folder in Meta's original layout"
    )
    parser.add_argument(
        "--model_dir", type=place_argument, required=True, metavar="OUT", help="run folder to make"
    )
    parser.add_argument(
        "--dtype",
        default="float32",
        choices=("float32", "bfloat16", "float16"),
        help="dtype to store; training wants float32 (default)",
    )
    parser.add_argument(
        "--verify",
        action="store_true",
        help="then compare with transformers, as `tulu verify` does; exit status 1 if different",
    )
    parser.add_argument(
        "--vocab_size",
        type=int,
        metavar="N",
        help="tokens to make room for; a new row is the mean of the rows there are",
    )
    parser.add_argument(
        "--max_length",
        type=int,
        metavar="N",
        help="with --meta: tokens it was trained on, which its params.json does not say "
        "(default 2048; 4096 for LLaMA 2, 8192 for LLaMA 3)",
    )
    parser.add_argument(
        "--skip_checksums", action="store_true", help="do not compare files with checksums.json"
    )
    verify.add_limits(parser)
    parser.set_defaults(step=None)


def run(args: argparse.Namespace) -> int:
    """Imports and reports; returns the exit status."""
    from tulu_jax.chat import copy_tokenizer_files
    from tulu_jax.console import plain_console

    console = plain_console(soft_wrap=True)
    start = time.perf_counter()
    named = args.hf or args.meta
    args.hf = args.hf and readable(args.hf)
    _check_verify(args)
    _check_source(args)
    place = _tokenizer_place(args, console)
    with _comparing(args) as compared:
        config, step = _import(args, console, compared, named.name)
    if compared.result() is not None:
        console.print(f"checksums of {compared.result()} files are right")
    copied = args.model_dir / "tokenizer"  # where later commands find it
    if place is not None:
        copy_tokenizer_files(place, copied)
        _say_tokens(config, place, console)
    console.print(
        f"imported {config.num_params:,} weights as {args.dtype} "
        f"in {time.perf_counter() - start:.1f} s: {config.num_layers} layers, width "
        f"{config.d_model}, {config.num_heads} heads ({config.num_kv_heads} key/value), "
        f"vocabulary {config.vocab_size}"
    )
    console.print(f"checkpoint {step}")
    console.print(
        f"tokenizer  {copied if place else 'none found: give --tokenizer to later commands'}"
    )
    return verify.run(args) if args.verify else 0


def _check_source(args: argparse.Namespace) -> None:
    """Refuses a file where a folder is wanted."""
    source = args.hf or args.meta
    if source.is_file():
        raise ConfigError(
            f"{'--hf' if args.hf else '--meta'} is a file, not a folder",
            got=source,
            expected="the folder that holds the model's files",
            do=f"give its folder, {source.parent}",
        )


def _import(
    args: argparse.Namespace, console: Any, compared: Future[Any], name: str
) -> tuple[Any, Place]:
    """Writes the checkpoint, if the files are right; returns the model and the folder."""
    import jax

    import tulu_jax
    from tulu_jax.checkpoint.arrays import save_params
    from tulu_jax.console import show_bytes
    from tulu_jax.models import config_to_dict

    reader, source = _open(args)
    for note in reader.notes:
        console.print(f"note {note}", style="yellow")
    params = reader.lazy_params()
    meta = {
        "model": config_to_dict(reader.config),
        "step": 0,
        "source": {"format": source, "folder": name,
                   "dtype": args.dtype},
        "generation": dict(reader.generation),
        "versions": {"tulu_jax": tulu_jax.__version__},
    }  # fmt: skip
    total = sum(lazy.nbytes for lazy in jax.tree.leaves(params))
    with show_bytes(console) as progress:
        task = progress.add_task("importing weights", total=total)
        counted = jax.tree.map(
            lambda lazy: _counted(lazy, lambda done: progress.advance(task, done)), params
        )
        step = save_params(args.model_dir, counted, meta, before_commit=compared.result)
    return reader.config, step


def _open(args: argparse.Namespace) -> tuple[Any, str]:
    """The model to import, checked, and what its layout is called."""
    from tulu_jax.checkpoint.hf import open_folder
    from tulu_jax.checkpoint.meta_llama import DEFAULT_MAX_LENGTH, open_meta
    from tulu_jax.checkpoint.resize import resized

    if args.meta:
        if args.verify:
            raise ConfigError("--verify goes with --hf only", expected="what transformers can read")
        length = args.max_length or DEFAULT_MAX_LENGTH
        folder, source = open_meta(args.meta, args.dtype, max_length=length), "meta"
    else:
        if args.max_length is not None:
            raise ConfigError(
                "--max_length goes with --meta only",
                got=args.max_length,
                expected="config.json to say how long sequences may be",
            )
        folder, source = open_folder(args.hf, args.dtype), "huggingface"
    return resized(folder, args.vocab_size), source


@contextlib.contextmanager
def _comparing(args: argparse.Namespace) -> Iterator[Future[int | None]]:
    """What compares the files with checksums.json, side by side with what is done inside."""
    from tulu_jax.checkpoint.checksums import verify_checksums

    folder, stop = args.hf or args.meta, threading.Event()
    with ThreadPoolExecutor(1) as pool:
        try:
            yield pool.submit(
                lambda: None if args.skip_checksums else verify_checksums(folder, stop)
            )
        except BaseException:
            stop.set()
            raise


def _counted(lazy: Any, report: Callable[[int], None]) -> Any:
    """The lazy array, telling how many bytes it made."""

    def told(array: Any) -> Any:
        report(array.nbytes)
        return array

    return dataclasses.replace(
        lazy,
        load=lambda: told(lazy.load()),
        load_part=lambda start, stop: told(lazy.load_part(start, stop)),
    )


def _tokenizer_place(args: argparse.Namespace, console: Any) -> Place | None:
    """The folder that holds the model's tokenizer; Meta keeps it beside the folders of the sizes.

    None where there is none that can be used: of Llama 3 Meta's folders have tiktoken's file only.

    Raises:
      TokenizerError: it is damaged, or a file of another kind: a copy would be of no use.
    """
    from tulu_jax.chat import holds_tokenizer, load_tokenizer, tokenizer_files
    from tulu_jax.console import print_line
    from tulu_jax.errors import TokenizerError

    source = args.hf or args.meta
    for place in (source, source.parent) if args.meta else (source,):
        if not holds_tokenizer(place):
            continue
        try:
            tokenizer_files(place)
        except TokenizerError as error:
            file = place / "tokenizer.model"
            if args.meta is None or not file.is_file() or kind_of_file(file) != TIKTOKEN:
                raise
            print_line(console, f"note the tokenizer is not copied: {error}", style="yellow")
            return None
        load_tokenizer(place)
        return place
    return None


def _say_tokens(config: Any, place: Place, console: Any) -> None:
    """Says where the tokenizer begins or ends a text with other tokens than config.json says."""
    from tulu_jax.chat import load_tokenizer
    from tulu_jax.console import print_line

    tokenizer = load_tokenizer(place)
    pairs = {
        "eos_token": (tokenizer.eos_id, config.stop_ids, "each of them ends a text"),
        "bos_token": (tokenizer.bos_id, (config.bos_id,), "texts begin with the tokenizer's"),
    }
    for name, (token, own, what) in pairs.items():
        if token is not None and token not in own:
            listed = ", ".join(map(str, own))
            text = f"{name} is token {token} of the tokenizer and {listed} in the model's config"
            print_line(console, f"note {text}: {what}; training refuses that", style="yellow")


def _check_verify(args: argparse.Namespace) -> None:
    """Refuses what only a comparison reads where none is asked for, and limits that are none.

    Raises:
      ConfigError: naming the flag.
    """
    if args.verify:
        verify.limits_of(args)
        return
    for name in ("prompts", *verify.LIMITS):
        if getattr(args, name) is not None:
            raise ConfigError(
                f"--{name} goes with --verify only", got=getattr(args, name), do="add --verify"
            )
