"""Our model against transformers', layer by layer: where they part, and whether it matters."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import jax
import numpy as np

from tulu_jax.models import ModelConfig
from tulu_jax.models.trace import trace

PROMPTS = (
    "The capital of France is Paris, and the capital of Italy is",
    "Once upon a time there was a little girl who lived in a house by the sea.",
    "def mean(values):\n    total = 0\n    for value in values:\n        total += value\n",
    "Q: What is 17 + 25?\nA: 17 + 25 = 42. So the answer is",
    "Le chat dort sur le canapé. Der Hund schläft im Garten. 今天天气很好。",
)
"""Texts of several kinds, for models whose users name none."""


class Reference(Protocol):
    """A model whose activations ours are compared with; see `checkpoint.transformers_model`."""

    def trace(self, tokens: np.ndarray) -> dict[str, np.ndarray]:
        """Activations by name, as `tulu_jax.models.trace` gives them."""
        ...


@dataclasses.dataclass(frozen=True)
class Limits:
    """How far two computations of the same model may differ."""

    difference: float = 1e-3
    """Largest relative difference of any part's output: |ours - theirs| / |theirs|, in L2 norm."""
    kl: float = 1e-5
    """Largest mean KL divergence of next-token distributions, in nats."""
    agreement: float = 0.99
    """Smallest share of positions whose most likely next token is the same."""


@dataclasses.dataclass
class Difference:
    """Two versions of one activation, compared over all prompts so far."""

    max_abs: float = 0.0
    _error: float = 0.0
    _size: float = 0.0

    def add(self, ours: np.ndarray, theirs: np.ndarray) -> None:
        """Takes one prompt's arrays in; a value that is no number counts as infinitely far."""
        gap = np.abs(ours.astype(np.float64) - theirs)
        gap = np.where(np.isfinite(gap), gap, np.inf)
        self.max_abs = max(self.max_abs, float(gap.max(initial=0.0)))
        self._error += float(np.square(gap).sum())
        self._size += float(np.square(theirs.astype(np.float64)).sum())

    @property
    def relative(self) -> float:
        """The L2 norm of the difference over that of the reference."""
        if self._error == 0:
            return 0.0
        return float(np.sqrt(self._error / self._size)) if self._size else float("inf")


@dataclasses.dataclass
class Comparison:
    """What `compare` found."""

    limits: Limits
    order: tuple[str, ...]
    """Names of what a layer computes, in the order in which it does."""
    layers: list[dict[str, Difference]]
    final: Difference
    logits: Difference
    kl: float = 0.0
    """Mean over positions of KL(theirs || ours), nats."""
    max_kl: float = 0.0
    agreement: float = 1.0
    num_tokens: int = 0

    def first_fault(self) -> str | None:
        """The earliest activation that differs too much, such as "layer 3, attention"; or None.

        Everything after a fault differs too, so the first is where to look.
        """
        rows = [
            (f"layer {index}, {name.replace('_', ' ')}", differences[name])
            for index, differences in enumerate(self.layers)
            for name in self.order
        ]
        for name, difference in [*rows, ("final norm", self.final), ("logits", self.logits)]:
            if not difference.relative <= self.limits.difference:
                return name
        return None

    def faults(self) -> list[str]:
        """Every limit that is broken, in words; empty when the two models are the same."""
        faults = []
        first = self.first_fault()
        if first is not None:
            faults.append(f"activations differ from {first} on")
        if not self.kl <= self.limits.kl:
            faults.append(f"KL divergence {self.kl:.2e} is above {self.limits.kl:g}")
        if not self.agreement >= self.limits.agreement:
            faults.append(f"top-1 agreement {self.agreement:.4f} is below {self.limits.agreement}")
        return faults


def compare(
    config: ModelConfig,
    params: Mapping[str, Any],
    reference: Reference,
    prompts: Sequence[Sequence[int]],
    limits: Limits | None = None,
) -> Comparison:
    """Our forward pass against the reference's on every prompt (token ids), in float32."""
    order = ("input", *config.layer_parts)
    layers = [{name: Difference() for name in order} for _ in range(config.num_layers)]
    found = Comparison(limits or Limits(), order, layers, Difference(), Difference())
    length = max(len(prompt) for prompt in prompts)
    run = jax.jit(lambda *batch: trace(config, dict(params), *batch))
    kls, agreed = [], []
    for prompt in prompts:
        tokens = np.zeros((1, length), np.int32)
        tokens[0, : len(prompt)] = prompt
        slots = np.arange(length, dtype=np.int32)[None]
        ours = run(tokens, (slots < len(prompt)).astype(np.int32), slots)
        theirs = reference.trace(np.asarray([prompt], np.int64))
        real = {name: np.asarray(x)[..., : len(prompt), :] for name, x in ours.items()}
        real["logits"] = real["logits"][..., : theirs["logits"].shape[-1]]
        for index, row in enumerate(layers):
            for name in order:
                row[name].add(real[name][index], theirs[name][index])
        found.final.add(real["final"], theirs["final"])
        found.logits.add(real["logits"], theirs["logits"])
        kls.append(kl_divergence(theirs["logits"][0], real["logits"][0]))
        agreed.append(theirs["logits"][0].argmax(-1) == real["logits"][0].argmax(-1))
    every = np.concatenate(kls)
    found.kl, found.max_kl = float(every.mean()), float(every.max())
    found.agreement = float(np.concatenate(agreed).mean())
    found.num_tokens = every.size
    return found


def kl_divergence(reference: np.ndarray, other: np.ndarray) -> np.ndarray:
    """KL(reference || other) of the distributions of two sets of logits [T, V], in nats: [T].

    >>> kl_divergence(np.log([[0.5, 0.5]]), np.log([[0.25, 0.75]])).round(4)
    array([0.1438])
    """
    log_p, log_q = _log_softmax(reference), _log_softmax(other)
    return (np.exp(log_p) * (log_p - log_q)).sum(-1)


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
