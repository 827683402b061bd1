"""The same activations as `tulu_jax.models.trace`, computed by transformers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tulu_jax.checkpoint.hf.families import hf_family
from tulu_jax.errors import CheckpointError
from tulu_jax.models import ModelConfig


class TransformersModel:
    """A Hugging Face folder as transformers runs it: float32, on the CPU, eager attention."""

    def __init__(self, folder: str | Path, config: ModelConfig) -> None:
        """Loads the model, which must have the depth of ours.

        Raises:
          CheckpointError: torch or transformers is not installed, or cannot load the folder.
        """
        try:
            import torch
            import transformers
        except ModuleNotFoundError as error:
            raise CheckpointError(
                "nothing to compare with",
                got=f"no module {error.name}",
                expected="transformers and torch, which only this comparison needs",
                do="pip install transformers torch",
            ) from error
        try:
            model = transformers.AutoModelForCausalLM.from_pretrained(
                str(folder), local_files_only=True, attn_implementation="eager"
            )
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            raise CheckpointError(
                "transformers cannot load the folder", got=str(error)[:500], at=folder
            ) from error
        self.version = transformers.__version__
        self._torch = torch
        self._model = model.float().eval()
        self._family = hf_family(config)
        self._parts = config.layer_parts
        found = (model.config.model_type, model.config.num_hidden_layers)
        wanted = (next(iter(self._family.architectures.values())), config.num_layers)
        self.vocab_size = int(model.config.vocab_size)
        """Ours may have more: rows added for special tokens."""
        if found != wanted or self.vocab_size > config.vocab_size:
            raise CheckpointError(
                "folder holds another model than the checkpoint",
                got="{}, {} layers, vocabulary {}".format(*found, self.vocab_size),
                at=folder,
                expected="{}, {} layers, vocabulary {}".format(*wanted, config.vocab_size),
            )

    def trace(self, tokens: np.ndarray) -> dict[str, np.ndarray]:
        """The activations for tokens [B, T], named and shaped as `tulu_jax.models.trace` does."""
        layers: Any = self._model.get_submodule(self._family.layers)
        kept: dict[str, list[np.ndarray]] = {}
        hooks = []
        for layer in layers:
            keep = _keep_input(kept, "input")
            hooks.append(layer.register_forward_pre_hook(keep, with_kwargs=True))
            for part in self._parts:
                module = layer.get_submodule(self._family.module(part))
                hooks.append(module.register_forward_hook(_keep_output(kept, part)))
        head: Any = self._model.get_output_embeddings()
        keep = _keep_input(kept, "final")
        hooks.append(head.register_forward_pre_hook(keep, with_kwargs=True))
        try:
            with self._torch.no_grad():
                logits = self._model(self._torch.tensor(tokens), use_cache=False).logits
        finally:
            for hook in hooks:
                hook.remove()
        shape = (*tokens.shape, -1)
        states = {name: np.stack([x.reshape(shape) for x in kept[name]]) for name in kept}
        return {**states, "final": states["final"][0], "logits": logits.numpy()}


def _keep_input(kept: dict[str, list[np.ndarray]], name: str) -> Callable[..., None]:
    def hook(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = args[0] if args else kwargs["hidden_states"]
        kept.setdefault(name, []).append(given.numpy().copy())

    return hook


def _keep_output(kept: dict[str, list[np.ndarray]], name: str) -> Callable[..., None]:
    def hook(_module: Any, _args: Any, output: Any) -> None:
        tensor = output[0] if isinstance(output, tuple) else output
        kept.setdefault(name, []).append(tensor.numpy().copy())

    return hook
