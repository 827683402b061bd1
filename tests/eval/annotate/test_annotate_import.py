"""Sheets of annotations that come into a study."""

import dataclasses

import pytest
import sqlalchemy as sa

from eval.annotate.figures import compute
from eval.annotate.instances import read_instances
from eval.annotate.sheet import read_sheet
from eval.annotate.store import accounts, answers, tables
from eval.annotate.store.annotations import add_annotations, read_annotations, settled
from tests.eval.annotate import studies
from tulu_jax.errors import DataError

YES = answers.Answer((True, False), "a-is-better")


def test_a_sheet_comes_into_a_study_once(study, tmp_path):
    with study.read() as connection:
        bob = accounts.find_user(connection, "bob")
    answers.next_position(study, bob.id)
    for position in (1, 2, 3):
        answers.submit(study, bob.id, position, "k", YES)
    found = read_annotations(study)
    other = studies.make(tmp_path / "other.db", studies.instances(1))
    assert add_annotations(study, found) == (0, 3)
    assert add_annotations(other, found) == (3, 0)
    assert add_annotations(other, found) == (0, 3)
    back = read_annotations(other)
    assert {(one.instance_id, one.winner, one.time) for one in back} == {
        (one.instance_id, one.winner, one.time) for one in found
    }
    assert accounts.log_in(other, "bob", studies.PASSWORD) is None
    assert len(settled(other)) == 3
    wrong = [dataclasses.replace(one, completions=("x", "y")) for one in found]
    with pytest.raises(DataError, match="sheet has other completions than the study"):
        add_annotations(other, wrong)
    other.close()


def test_the_released_sheet_through_a_study(shared, tmp_path):
    folder = shared / "eval_data" / "human_eval"
    database = studies.make(
        tmp_path / "s.db", read_instances(folder / "eval_instances_tulu_1.jsonl")
    )
    found, _ = read_sheet(folder / "eval_annotations_tulu_1.xlsx")
    assert add_annotations(database, found) == (1150, 0)
    with database.read() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(tables.instances)) == 996
    assert compute(read_annotations(database)).as_json() == compute(found).as_json()
    database.close()


def test_a_row_that_corrects_another_of_its_time_comes_in_too(study, tmp_path):
    """Only its labels of acceptability differ: it was taken for the one that was there."""
    with study.read() as connection:
        bob = accounts.find_user(connection, "bob")
    answers.next_position(study, bob.id)
    answers.submit(study, bob.id, 1, "k", YES)
    (first,) = read_annotations(study)
    changed = dataclasses.replace(first, acceptable=(False, False))
    other = studies.make(tmp_path / "other.db", studies.instances(1))
    assert add_annotations(other, [first, changed]) == (2, 0)
    assert add_annotations(other, [first, changed]) == (0, 2)
    (counted,) = settled(other)
    assert counted.acceptable == (False, False)
    other.close()
