"""`tulu study losses`: a model's loss on the held-out conversations of datasets, one by one.

Held out are those that `HELDOUT_EXAMPLES` and `RANDOM_SEED` keep out of training, whatever mixture
a dataset is trained in; of a dataset with a split `validation` all of that.
"""

from __future__ import annotations

import argparse
import math
from typing import TYPE_CHECKING, Any

from tulu_jax.cli.flags import model_argument, path_argument, whole
from tulu_jax.fields import LARGEST

if TYPE_CHECKING:
    from tulu_jax.data.config import DataConfig
    from tulu_jax.data.ensure import TrainingData

UNIT = "nats a trained token"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's flags."""
    from tulu_jax.cli.data.common import ENCODING, READING, add_flag, add_flags
    from tulu_jax.cli.engine import add_device_arguments

    parser.add_argument("tasks", nargs="+", metavar="TASK", help="datasets")
    parser.add_argument(
        "--model", type=model_argument, required=True, metavar="PATH",
        help="Hugging Face or run folder",
    )  # fmt: skip
    parser.add_argument(
        "--heldout", type=whole(1), required=True, metavar="N",
        help="examples of each dataset that training did not see (HELDOUT_EXAMPLES)",
    )  # fmt: skip
    parser.add_argument(
        "--seed", type=whole(0, LARGEST), default=42, help="by which they are chosen (default 42)"
    )
    add_flag(parser, "--tokenizer", required=True)
    add_flags(parser, *ENCODING, "--max_length", "--data_dir", *READING)
    parser.add_argument(
        "--dtype", default="float32", choices=("float32", "bfloat16"), help="dtype of computation"
    )
    add_device_arguments(parser)
    parser.add_argument(
        "--output", type=path_argument, required=True, metavar="FILE", help="JSON to write"
    )


def run(args: argparse.Namespace) -> int:
    """Writes the losses; the exit status.

    Raises: ConfigError for a dataset that is not larger than what is to be held out.
    """
    from tulu_jax.console import plain_console, print_line
    from tulu_jax.files import write_json

    tasks = measure(args)
    write_json(args.output, {"unit": UNIT, "seed": args.seed, "tasks": tasks}, durable=True)
    for name, found in tasks.items():
        line = f"{name}: {found['loss']:.4f} {UNIT}, {len(found['examples'])} examples"
        print_line(plain_console(), line)
    return 0


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """By task its `loss`, mean nll of all trained tokens, and `examples`: [id, nll, tokens] each.

    Raises: see `run`.
    """
    from tulu_jax.cli.engine import make_engine, open_model
    from tulu_jax.console import plain_console
    from tulu_jax.data.ensure import open_training_data

    config = _data(args)
    every = _heldout(open_training_data(config), config)
    namespace = argparse.Namespace(
        **{**vars(args), "step": None, "base": None, "temperature": 0.0, "max_length": None}
    )
    opened = open_model(namespace)
    engine = make_engine(
        namespace, opened, plain_console(stderr=True), slots=16, longest=config.length
    )
    found = {}
    for task, rows in every.items():
        scores = engine.score([(tokens[:1], tokens[1:]) for _, tokens, _ in rows])
        examples = [
            [name, -math.fsum(score.logprobs[mask[1:]].tolist()), int(mask[1:].sum())]
            for (name, _, mask), score in zip(rows, scores, strict=True)
        ]
        total = math.fsum(nll for _, nll, _ in examples)
        found[task] = {"loss": total / sum(count for *_, count in examples), "examples": examples}
    return found


def _data(args: argparse.Namespace) -> DataConfig:
    from tulu_jax.cli.data.common import chosen_options
    from tulu_jax.cli.data.encoding import tokenizer_options
    from tulu_jax.data.config import DataConfig

    return DataConfig(
        mixture=",".join(args.tasks),
        tokenizer=str(args.tokenizer),
        **tokenizer_options(args),
        length=args.max_length,
        data_dir=args.data_dir,
        raw_dir=args.raw_dir,
        options=chosen_options(args),
        packing="padded",
        seed=args.seed,
        heldout_examples=args.heldout,
    )


def _heldout(data: TrainingData, config: DataConfig) -> dict[str, list[Any]]:
    """By task the id, tokens and loss mask of each conversation."""
    from tulu_jax.data.mixtures import get_mixture

    mixture, found = get_mixture(config.mixture), {}
    for task, spec in zip(mixture.tasks, mixture.specs(), strict=True):
        source = data.heldout[spec.task_name]
        (store,) = source.stores
        ids = store.ids
        found[task] = [(ids[i], *store[i]) for i in source.examples.tolist()]
    return found
