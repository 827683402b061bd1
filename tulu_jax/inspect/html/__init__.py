"""The report of `tulu data inspect --html` and `tulu data check --html`: one page, no network."""

from tulu_jax.inspect.html.page import write_report
from tulu_jax.inspect.html.payload import PackedRow, packed_rows, report_data
from tulu_jax.inspect.html.sections import Section, check_sections

__all__ = ["PackedRow", "Section", "check_sections", "packed_rows", "report_data", "write_report"]
