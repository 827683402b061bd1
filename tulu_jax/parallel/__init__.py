"""Devices as a mesh, and which axis of which array lies on which axis of the mesh."""

from tulu_jax.parallel.mesh import MeshConfig, make_mesh
from tulu_jax.parallel.report import report_summary, report_text, sharding_report
from tulu_jax.parallel.rules import Layout, layout_for

__all__ = [
    "Layout",
    "MeshConfig",
    "layout_for",
    "make_mesh",
    "report_summary",
    "report_text",
    "sharding_report",
]
