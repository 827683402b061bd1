"""Policies of recomputation: the activations kept for the backward pass, by name."""

from __future__ import annotations

from typing import Any

import jax
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array

from tulu_jax.ops.attention import KERNELS, RESIDUALS

TAGS = (
    "layer_input",
    "query",
    "key",
    "value",
    "attention_out",
    "attention_joined",
    "mlp_gate",
    "mlp_up",
    "mlp_hidden",
)
"""Activations of a layer by name: what it is given; queries, keys and values as attention takes
them; what attention makes of them (with what its kernel needs for the gradient) before and after
the output projection; the feed-forward's products, and what its last matrix is given."""

PRODUCTS = {
    "attention/query": "query",
    "attention/key": "key",
    "attention/value": "value",
    "mlp/gate": "mlp_gate",
    "mlp/up": "mlp_up",
}
"""The matrices of a layer whose products are tagged; those of `attention/out` and `mlp/down` lead
back to the model's width."""

POLICIES: dict[str, tuple[str, ...]] = {
    "minimal": ("query", "key", "value", "attention_out", "attention_joined", "mlp_gate", "mlp_up"),
    "attention": ("attention_out",),
    "full": (),
}
"""Activations that each policy keeps besides the input of every layer: all matrix products, what
attention made, nothing. `dots` is another name for `minimal`; `none` keeps everything."""

ALIASES = {"dots": "minimal"}


def tag(x: Array, name: str) -> Array:
    """`x`, known to policies as `name` of `TAGS`."""
    return checkpoint_name(x, name)


def kept_names(remat: str) -> tuple[str, ...] | None:
    """The tags that `remat` keeps: a policy's, or those it lists, by commas; None keeps everything.

    none            None
    full            ()
    query,mlp_gate  (query, mlp_gate)
    """
    name = ALIASES.get(remat, remat)
    if name == "none":
        return None
    return POLICIES[name] if name in POLICIES else split_names(name)


def split_names(text: str) -> tuple[str, ...]:
    """Names listed by commas; none of the empty text."""
    return tuple(part.strip() for part in text.split(",")) if text.strip() else ()


def policy(remat: str, offload: str, kernel: str) -> Any:
    """The policy for `jax.checkpoint`, or None where nothing is to be recomputed.

    Args:
      remat: as of `ComputeConfig`.
      offload: tags, by commas, of what is kept in the host's memory.
      kernel: the attention kernel that runs.
    """
    kept, moved = kept_names(remat), split_names(offload)
    if kept is None:
        return None
    saved = [_in_kernel(name, kernel) for name in kept if name not in moved]
    policies = jax.checkpoint_policies
    if not moved:
        by_name: Any = policies.save_only_these_names(*saved)
    else:
        by_name = policies.save_and_offload_only_these_names(
            names_which_can_be_saved=saved,
            names_which_can_be_offloaded=[_in_kernel(name, kernel) for name in moved],
            offload_src="device",
            offload_dst="pinned_host",
        )
    untagged = KERNELS[kernel].residuals_of
    if untagged is None or "attention_out" not in saved:
        return by_name

    def with_residuals(primitive: Any, *avals: Any, **params: Any) -> Any:
        """A result without a tag is known by the primitive that makes it."""
        return primitive.name.startswith(untagged) or by_name(primitive, *avals, **params)

    return with_residuals


def _in_kernel(name: str, kernel: str) -> str:
    return RESIDUALS if name == "attention_out" and KERNELS[kernel].tags_residuals else name
