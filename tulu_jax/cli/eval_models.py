"""Who answers in `tulu eval`: a folder's model on the engine, an endpoint, or a file."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tulu_jax.cli.eval_flags import CONCURRENCY, MOST_REQUESTS, SLOTS, read_quirks
from tulu_jax.errors import ConfigError
from tulu_jax.places import Place, as_place, local_folder, readable

if TYPE_CHECKING:
    from tulu_jax.chat import Tokenizer
    from tulu_jax.cli.engine import OpenedModel


class Answerer:
    """Who answers, before any weight is read or request is sent."""

    tokenizer: Tokenizer | None = None
    endpoint = False
    """Whether it is asked by messages, which it wraps itself."""
    chats: bool | None = None
    """Whether it has a chat format; None where that is unknown."""
    max_length: int | None = None

    def formatter(self, dotted: str | None) -> Callable[..., str]:
        """What writes the chat format: the function of that name, or Tülu's.

        Raises:
          ConfigError: no such function.
        """
        from eval.templates import TULU, import_formatter

        return import_formatter(dotted or TULU)

    def backend(self, longest: int, count: int) -> Any:
        """The `Backend`, ready.

        Args:
          longest: tokens of the longest prompt and answer together.
          count: of instances.
        """
        raise NotImplementedError

    def description(self) -> dict[str, Any]:
        """What `run.json` says of it."""
        raise NotImplementedError


def open_answerer(args: argparse.Namespace) -> Answerer:
    """The one that the flags name."""
    if args.model is not None:
        return FolderModel(args)
    return Endpoint(args) if args.engine is not None else Replayed(args)


def only_tokenizer(args: argparse.Namespace) -> Answerer:
    """One that answers nothing, and has a tokenizer where the flags name one or a model."""
    answerer = Answerer()
    if args.model is not None:
        answerer = FolderModel(args)
    elif args.tokenizer is not None:
        answerer.tokenizer = _tokenizer(args.tokenizer, slow=_slow(args))
    answerer.endpoint = args.engine is not None and args.api == "chat"
    return answerer


def _slow(args: argparse.Namespace) -> bool:
    """Whether prompts are tokenized as the paper's slow tokenizers did."""
    from eval.harness.quirks import SHARED, Quirks

    return Quirks(SHARED, args.compat, read_quirks(args)).paper("slow_tokenizer")


def _tokenizer(place: Place, *, slow: bool) -> Tokenizer:
    """A tokenizer; the slow one where it has one."""
    from tulu_jax.chat import load_model_tokenizer

    path = local_folder(place)
    names = {file.name for file in path.iterdir()} if path.is_dir() else {path.name}
    has_slow = "tokenizer.model" in names or {"vocab.json", "merges.txt"} <= names
    return load_model_tokenizer(path, "paper" if slow and has_slow else "hf")


class FolderModel(Answerer):
    """A run folder or Hugging Face folder."""

    def __init__(self, args: argparse.Namespace) -> None:
        """Reads all but the weights."""
        from tulu_jax.cli.engine import open_model

        self._args = args
        args.chat_template, args.temperature = None, 0.0
        self._opened: OpenedModel = open_model(args)
        self.tokenizer = self._opened.tokenizer
        if _slow(args):
            self.tokenizer = _tokenizer(self.tokenizer.path.parent, slow=True)
        self.max_length = self._opened.max_length
        self.chats = self._has_format()

    @property
    def own_tokenizer(self) -> Tokenizer:
        """The tokenizer with the model's own chat template, whatever prompts are tokenized by."""
        return self._opened.tokenizer

    def _has_format(self) -> bool:
        """Whether it was trained here, or its folder has a chat template; an import is neither."""
        from tulu_jax.chat.load import has_template

        trained = "tokenizer" in (getattr(self._opened.reader, "meta", None) or {})
        return trained or has_template(self._opened.tokenizer.path)

    def formatter(self, dotted: str | None) -> Callable[..., str]:
        """See `Answerer`; the model's own template where it is not Tülu's."""
        template = self._opened.tokenizer.template
        if dotted is not None or template.name == "tulu":
            return super().formatter(dotted)
        raise ConfigError(
            "evaluation asks in the formats that are written as text",
            got=f"a model with the chat template {template.name!r}",
            expected="Tülu's, or a function of yours",
            do="name one: --chat_formatting_function MODULE.FUNCTION, or --no_chat_format",
        )

    def backend(self, longest: int, count: int) -> Any:
        """See `Answerer`: the engine, with the weights on the device."""
        from eval.harness.backends import EngineBackend
        from tulu_jax.cli.engine import make_engine
        from tulu_jax.console import plain_console

        args, most = self._args, self._args.batch_size or SLOTS
        engine = make_engine(
            args, self._opened, plain_console(stderr=True),
            slots=most, longest=longest, requests=count or None,
        )  # fmt: skip
        engine.tokenizer = self.tokenizer
        return EngineBackend(engine, self._fingerprint(), seed=args.seed)

    @property
    def _dtype(self) -> str:
        """Of the numbers that it answers with."""
        rounded = self._args.quantize != "none"
        return f"{self._args.dtype}+{self._args.quantize}" if rounded else self._args.dtype

    def _fingerprint(self) -> str:
        from eval.harness.fingerprint import fingerprint

        assert self.tokenizer is not None
        args = self._args
        model = readable(args.model)
        run = model / "checkpoints"
        folders = [run if run.is_dir() else model]
        folders += [readable(args.base)] if args.base else []
        return fingerprint(
            folders, step=args.step, dtype=self._dtype, tokenizer=self.tokenizer.fingerprint,
            max_length=self.max_length, seed=args.seed,
        )  # fmt: skip

    def description(self) -> dict[str, Any]:
        """See `Answerer`."""
        from tulu_jax.cli.trained_on import dataset_of_folder, dataset_of_run

        path = as_place(self._args.model)
        meta = getattr(self._opened.reader, "meta", None)
        return {
            "name": path.name,
            "path": str(path),
            "dataset": dataset_of_folder(readable(path)) if meta is None else dataset_of_run(meta),
            "step": self._args.step,
            "dtype": self._dtype,
            "num_params": self._opened.config.num_params,
            "fingerprint": self._fingerprint(),
            "tokenizer": None if self.tokenizer is None else self.tokenizer.fingerprint,
            "template": self._opened.tokenizer.template.name,
        }


class Endpoint(Answerer):
    """A model behind an OpenAI-compatible endpoint."""

    def __init__(self, args: argparse.Namespace) -> None:
        """Notes how it is reached."""
        self._args = args
        self.endpoint = args.api == "chat"

    def backend(self, longest: int, count: int) -> Any:
        """See `Answerer`."""
        from eval.harness.endpoint import EndpointBackend

        args = self._args
        at_once = args.concurrency or min(args.batch_size or CONCURRENCY, MOST_REQUESTS)
        return EndpointBackend(
            args.engine, base_url=args.base_url, api=args.api, concurrency=at_once,
            requests_per_minute=args.requests_per_minute, seed=args.seed,
        )  # fmt: skip

    def description(self) -> dict[str, Any]:
        """See `Answerer`; never the key."""
        from eval.harness.endpoint import address

        return {"name": self._args.engine, "path": address(self._args.base_url)}


class Replayed(Answerer):
    """Answers from a file."""

    def __init__(self, args: argparse.Namespace) -> None:
        """Loads the tokenizer, where one is named."""
        self._args = args
        if args.tokenizer is not None:
            self.tokenizer = _tokenizer(args.tokenizer, slow=_slow(args))

    def backend(self, longest: int, count: int) -> Any:
        """See `Answerer`."""
        from eval.harness.replay import ReplayBackend

        return ReplayBackend(self._args.replay)

    def description(self) -> dict[str, Any]:
        """See `Answerer`."""
        return {"name": Path(self._args.replay).stem, "path": str(self._args.replay)}
