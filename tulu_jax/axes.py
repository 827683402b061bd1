"""The letters of array shapes, fixed once for signatures, einsum strings and docstrings.

| letter | axis |
|---|---|
| B | batch (rows) |
| T | query position |
| S | key position |
| D | model width |
| N | query heads |
| K | key/value heads |
| G | query heads that share one key/value head, N / K |
| H | head width |
| F | feed-forward width |
| V | vocabulary |
| L | layers |
| E | example within a packed row |

A signature such as `Float[Array, "B T D"]` is checked while the tests run (`ops`, `models`,
`parallel`, `train` and sampling: `pyproject.toml`) and costs nothing otherwise.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Bool, Int

Batch = dict[str, Any]
"""Rows on a host or on devices: `tokens, loss_mask, segment_ids, positions`, each int32[B, T]."""

BATCH_KEYS = ("tokens", "loss_mask", "segment_ids", "positions")

TokenIds = Int[np.ndarray, "T"]
Mask = Bool[np.ndarray, "T"]

MESH_AXES = ("slice", "data", "fsdp", "sequence", "tensor")
"""Axes of the device mesh, from the slowest network to the fastest: pod slices (copies of the
weights, over the data-center network), copies, shards of the weights, parts of each row, shards of
each matrix."""

BATCH_AXES = ("slice", "data", "fsdp")
"""Mesh axes over which the rows of a batch are spread."""

SEQUENCE_AXIS = "sequence"
"""Mesh axis over which the positions of a row are split."""

TENSOR_AXIS = "tensor"
"""Mesh axis over which heads, feed-forward channels and vocabulary are split."""
