"""Which cell of a study a line of the paper's tables is of."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from eval.report.paper import paper_data, read_records
from eval.study.cells import Cell, Table
from eval.study.study import NONE


def cell_of(
    record: Mapping[str, str], table: Table, records: Sequence[Mapping[str, str]] | None = None
) -> Cell | None:
    """The cell of a line of paper_results.csv; None where the study has none.

    A line that names no base model (the human evaluation's) is of the model that other lines of
    `records`, the paper's where nothing is said, have under its label.
    """
    label = plain_label(record["label"])
    for cell in table.cells:
        if cell.model.engine and cell.model.engine in label:
            return cell
    if record["base_model"] and record["size"]:
        return _trained(record, table)
    for other in read_records() if records is None else records:
        if other["size"] and plain_label(other["label"]) == label:
            return _trained(other, table)
    return None


def _trained(record: Mapping[str, str], table: Table) -> Cell | None:
    wanted = record["base_model"], record["size"]
    for cell in table.cells:
        data = NONE if cell.dataset == NONE else paper_data(cell.dataset)
        if (cell.model.family, cell.model.size) == wanted and data == record["data"]:
            return cell
    return None


def plain_label(label: str) -> str:
    """A label without the remark behind it.

    >>> plain_label("Tulu 65B (mean of its 3 pairings: 79.22)"), plain_label("GPT-4 (gpt-4-0314)")
    ('Tulu 65B', 'GPT-4 (gpt-4-0314)')
    """
    return re.sub(r" \(mean .*\)$", "", label)
