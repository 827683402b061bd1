"""One bad row is left out and counted; all others become conversations."""

import doctest

import pytest

from tasks import convert, inputs_targets, name_filter, read_conversations, templates
from tasks.convert import convert_rows
from tulu_jax.data.faults import Faults
from tulu_jax.errors import DataError


def conversation(text, name="x"):
    message = {"role": "user", "content": text}
    return {"dataset": name, "id": f"{name}_0", "messages": [message]}


def twice(index, row, *, at):
    """Two conversations of a row; the second one is what may fail."""
    yield conversation("first")
    if row == "bad":
        raise DataError("a bad row", at=at)
    yield conversation(row)


def rows(*values):
    return [(f"f, line {number}", value) for number, value in enumerate(values, start=1)]


def test_a_bad_row_gives_nothing_and_is_counted():
    faults = Faults()
    made = list(convert_rows(rows("a", "bad", "b"), twice, faults))
    assert [row["messages"][0]["content"] for row in made] == ["first", "a", "first", "b"]
    assert (faults.records, faults.skipped) == (3, 1)
    assert faults.messages == ["a bad row - at f, line 2"]


def test_without_faults_the_first_bad_row_is_raised():
    made = convert_rows(rows("a", "bad", "b"), twice)
    assert next(made) and next(made)
    with pytest.raises(DataError, match="a bad row - at f, line 2"):
        next(made)


def test_half_a_character_is_refused_wherever_it_is():
    for bad in (conversation("a\ud800"), conversation("a", name="\udc00")):
        with pytest.raises(DataError, match=r"half a character .*got U\+D[8C]00 at f, line 1"):
            list(convert_rows(rows(1), lambda index, row, *, at, bad=bad: [bad]))
    whole = conversation("a\x00\u2028😀")
    assert list(convert_rows(rows(1), lambda index, row, *, at: [whole])) == [whole]


def test_endless_nesting_is_refused():
    def nested(index, row, *, at):
        yield from nested(index, row, at=at)

    with pytest.raises(DataError, match=r"record is nested too deeply - at f, line 1"):
        list(convert_rows(rows(1), nested))


def test_rows_are_numbered_as_given_and_converted_as_asked_for():
    seen = []

    def convert(index, row, *, at):
        seen.append(index)
        return [conversation(row)]

    made = convert_rows(rows("a", "b", "c"), convert)
    assert next(made) and seen == [0]
    assert len(list(made)) == 2 and seen == [0, 1, 2]


def test_conversations_without_messages_pass():
    empty = {"dataset": "x", "id": "x_0", "messages": []}
    assert list(convert_rows(rows(1), lambda index, row, *, at: [empty])) == [empty]


def test_read_conversations_passes_faults_on(tmp_path):
    (tmp_path / "databricks-dolly-15k.jsonl").write_text(
        '{"instruction": "a", "response": "b"}\n{"instruction": "a"}\n{\n'
    )
    faults = Faults()
    assert len(list(read_conversations("dolly", tmp_path, faults=faults))) == 1
    assert (faults.records, faults.skipped) == (3, 2)
    with pytest.raises(DataError, match="too many bad records - got 2 of 3; first: missing field"):
        faults.check("dolly")
    with pytest.raises(DataError, match="missing field 'response'"):
        list(read_conversations("dolly", tmp_path))


@pytest.mark.parametrize("module", [convert, inputs_targets, name_filter, templates])
def test_examples_in_the_docstrings(module):
    result = doctest.testmod(module)
    assert result.attempted > 0 and not result.failed
