"""The model that `--model` names and its engine: what `generate`, `chat` and `serve` share."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from tulu_jax.cli.flags import model_argument, number, whole
from tulu_jax.errors import ConfigError
from tulu_jax.fields import LARGEST, PORTION, least
from tulu_jax.places import readable

if TYPE_CHECKING:
    from tulu_jax.chat import Tokenizer
    from tulu_jax.generate import Front, Request, Sampling
    from tulu_jax.models import ModelConfig

MAX_NEW_TOKENS = 256
"""Tokens of the longest answer, where the user does not say."""

LENGTH_STEP = 256
"""The cache is made for a multiple of so many tokens: few shapes, few compilations."""


def add_model_arguments(parser: argparse.ArgumentParser, *, sampling: bool = True) -> None:
    """Adds the arguments that `generate`, `chat` and `serve` share; how to draw, if wanted."""
    parser.add_argument(
        "--model",
        type=model_argument,
        required=True,
        metavar="PATH",
        help="Hugging Face or run folder",
    )
    parser.add_argument("--step", type=int, help="checkpoint of a run folder (default: newest)")
    parser.add_argument(
        "--base",
        type=model_argument,
        metavar="DIR",
        help="where the base of a run's adapters lies now (default: as in training)",
    )
    parser.add_argument(
        "--tokenizer",
        type=model_argument,
        metavar="PATH",
        help="tokenizer (default: the model's own)",
    )
    parser.add_argument(
        "--chat_template",
        metavar="NAME",
        help="how conversations are written (default: as the model was trained; else its folder's "
        "own chat template, or tulu where it has none)",
    )
    parser.add_argument(
        "--max_length",
        type=whole(1),
        metavar="N",
        help="longest prompt and answer together (default: the model's); more than the model was "
        "trained on is possible with rotary positions",
    )
    parser.add_argument(
        "--dtype", default="float32", choices=("float32", "bfloat16"), help="dtype of computation"
    )
    add_device_arguments(parser)
    if sampling:
        _add_sampling_arguments(parser)


def add_device_arguments(parser: Any) -> None:
    """Adds the arguments that say how weights are kept, and on which devices."""
    parser.add_argument(
        "--quantize",
        default="none",
        choices=("none", "int8"),
        help="int8 keeps the layers' matrices in 8 bits (default none)",
    )
    parser.add_argument(
        "--tensor",
        type=whole(1),
        metavar="N",
        help="devices that share a copy of the weights (default: as few as have room for it)",
    )
    parser.add_argument(
        "--replicas",
        type=whole(1),
        metavar="N",
        help="copies of the weights, each with slots of its own (default: as many as the machine's "
        "devices have room for; 1 on CPU)",
    )


def _add_sampling_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--temperature",
        type=number(least(0)),
        default=0.0,
        help="0 takes the likeliest token (default)",
    )
    parser.add_argument(
        "--top_p",
        type=number(PORTION),
        default=1.0,
        help="draw from the smallest set with this mass",
    )
    parser.add_argument(
        "--top_k", type=whole(0), default=0, help="draw from the k likeliest (0: all)"
    )
    parser.add_argument(
        "--max_new_tokens",
        type=whole(1),
        metavar="N",
        default=MAX_NEW_TOKENS,
        help=f"longest answer in tokens (default {MAX_NEW_TOKENS}); fewer where the model's length "
        "is reached",
    )
    parser.add_argument(
        "--seed", type=whole(0, LARGEST), default=0, help="of the random draws (default 0)"
    )


def checked_sampling(args: argparse.Namespace) -> Sampling:
    """How tokens are drawn; says so where a setting will do nothing.

    Raises:
      ConfigError: a number is outside its range.
    """
    from tulu_jax.console import WARNING, plain_console, print_line
    from tulu_jax.generate import Sampling

    sampling = Sampling(args.temperature, args.top_p, args.top_k)
    if sampling.temperature == 0 and (sampling.top_p, sampling.top_k, args.seed) != (1.0, 0, 0):
        note = "note --top_p, --top_k and --seed do nothing without --temperature"
        print_line(plain_console(stderr=True), note, WARNING)
    return sampling


class OpenedModel(NamedTuple):
    """A model that is known but for its weights."""

    reader: Any
    config: ModelConfig
    tokenizer: Tokenizer
    stop_ids: tuple[int, ...]
    max_length: int

    def check(self, requests: Sequence[Request], names: Sequence[str]) -> None:
        """Refuses requests that cannot be done, before weights are read.

        Raises:
          DataError: see `Engine.run`.
        """
        from tulu_jax.generate.requests import check_request

        for request, at in zip(requests, names, strict=True):
            check_request(
                request,
                at,
                vocab_size=self.config.vocab_size,
                max_length=self.max_length,
                has_tokenizer=True,
            )


def open_model(args: argparse.Namespace) -> OpenedModel:
    """The model and tokenizer that `--model` names, with what there is to say about them.

    Raises:
      CheckpointError: neither a Hugging Face folder nor a run folder, or a damaged one.
      ConfigError: no tokenizer, or a length that the model cannot have.
    """
    from tulu_jax.checkpoint.hf.generation import all_stops
    from tulu_jax.cli.exporter import find_tokenizer
    from tulu_jax.cli.own_tokenizer import say_tokenizer
    from tulu_jax.console import WARNING, plain_console, print_line
    from tulu_jax.generate.sizes import check_length

    reader, config, meta, kept = _open_model(args)
    tokenizer = find_tokenizer(args.model, args.tokenizer, meta, chat_template=args.chat_template)
    assert tokenizer is not None  # "none" is a path here
    say_tokenizer(args, meta, tokenizer)
    for note in [*getattr(reader, "notes", []), *_not_followed(args, kept)]:
        print_line(plain_console(stderr=True), f"note {note}", WARNING)
    stops = dict.fromkeys((*all_stops(config, kept), *tokenizer.stop_ids))
    max_length = args.max_length or config.max_length
    check_length(config, max_length)
    return OpenedModel(reader, config, tokenizer, tuple(stops), max_length)


def make_engine(
    args: argparse.Namespace,
    opened: OpenedModel,
    console: Any,
    *,
    slots: int,
    longest: int,
    requests: int | None = None,
) -> Front:
    """The engine, or its replicas, with weights moved to the devices one by one.

    Args:
      args: the command's.
      opened: the model.
      console: to show progress on.
      slots: most requests to run side by side on a replica; fewer where memory has no room.
      longest: tokens of the longest prompt and answer that will be asked for.
      requests: most that there will be at a time; None where that is not known.

    Raises:
      CheckpointError: weights that are no numbers, or damaged.
      ConfigError: model and cache do not fit into the memory, or the devices not together.
    """
    from tulu_jax.cli.placement import find_placement
    from tulu_jax.console import print_line
    from tulu_jax.generate import Engine, Replicas
    from tulu_jax.generate.weights import moved
    from tulu_jax.models import ComputeConfig
    from tulu_jax.parallel.compile_cache import use_compilation_cache

    use_compilation_cache(lambda line: print_line(console, line))
    config = opened.config
    length = min(opened.max_length, -(-longest // LENGTH_STEP) * LENGTH_STEP)
    placement = find_placement(
        config, slots=slots, length=length, dtype=args.dtype, int8=args.quantize == "int8",
        tensor=args.tensor, replicas=args.replicas, requests=requests,
    )  # fmt: skip
    for line in placement.lines():
        print_line(console, line)
    engines: list[Engine] = []
    with console.status(f"loading {config.num_params:,} weights"):
        for scope, device in zip(placement.scopes, placement.devices, strict=True):
            with scope():
                first = engines[0].weights if engines else None
                params = _read(args, opened) if first is None else moved(config, first, device)
                engines.append(
                    Engine(
                        config,
                        params,
                        slots=placement.sizes.slots,
                        compute=ComputeConfig(dtype=args.dtype),
                        max_length=length,
                        stop_ids=opened.stop_ids,
                        tokenizer=opened.tokenizer,
                        int8=args.quantize == "int8",
                    )
                )
                engines[-1].stats.bandwidth = placement.bandwidth
    return engines[0] if placement.plain else Replicas(engines, placement.scopes)


def _read(args: argparse.Namespace, opened: OpenedModel) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The weights, one by one, with their paths."""
    from tulu_jax.checkpoint.hf.tensors import all_finite, cast, not_finite, numpy_dtype

    for name in opened.reader.paths():
        array = cast(opened.reader.read(name), numpy_dtype(args.dtype), "/".join(name))
        if not all_finite(array):
            raise not_finite(array, "/".join(name), args.model)
        yield name, array


def _open_model(args: argparse.Namespace) -> tuple[Any, Any, dict[str, Any], dict[str, Any]]:
    """What `--model` names: a reader, the config, a run's metadata, and its generation_config."""
    from tulu_jax.checkpoint.hf import open_folder
    from tulu_jax.checkpoint.hf.kinds import no_model
    from tulu_jax.checkpoint.merged import open_weights

    path = readable(args.model)
    if (path / "checkpoints").is_dir():
        run: Any = open_weights(path, args.step, base=args.base)
        return run, run.config, run.meta, run.meta.get("generation") or {}
    if not (path / "config.json").is_file():
        raise no_model(path, expected="a Hugging Face folder (config.json) or a run (checkpoints/)")
    for name in ("step", "base"):
        if (value := getattr(args, name)) is not None:
            raise ConfigError(
                f"--{name} goes with a run folder", got=value, at=path, do="leave it out"
            )
    folder = open_folder(path, args.dtype)
    return folder, folder.config, {}, dict(folder.generation)


def _not_followed(args: argparse.Namespace, kept: dict[str, Any]) -> list[str]:
    """Says what the model's generation_config.json asks for and is not done here."""
    from tulu_jax.checkpoint.hf.generation import asked_for

    found = asked_for(kept, sampled=getattr(args, "temperature", 1.0) > 0)
    said = ", ".join(f"{name}={value}" for name, value in found.items())
    return [f"generation_config.json asks for {said}: not followed here"] if found else []
