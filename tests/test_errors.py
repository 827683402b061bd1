"""How errors read, and how the command line shows them."""

import pytest

from tulu_jax.cli import main as cli
from tulu_jax.errors import DataError, TuluError


def test_message_has_all_parts_in_order():
    error = DataError("what", got=3, at="row 1", expected="4", do="mend it")
    assert str(error) == "what - got 3 at row 1 - expected 4 - mend it"


def test_absent_parts_leave_no_trace():
    assert str(TuluError("what")) == "what"
    assert str(TuluError("what", at="row 1")) == "what - at row 1"


def test_values_that_are_false_are_shown():
    assert str(TuluError("what", got=0)) == "what - got 0"


@pytest.mark.parametrize(
    ("raised", "status", "message"),
    [
        (DataError("broken", at="x"), 2, "tulu data: broken - at x"),
        (OSError(28, "No space left on device", "/full"), 2, "No space left on device at /full"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_command_line_prints_one_line_and_no_traceback(
    monkeypatch, capsys, raised, status, message
):
    def fail(_):
        raise raised

    parser = cli.make_parser()
    monkeypatch.setattr(cli, "make_parser", lambda: parser)
    monkeypatch.setattr(
        parser, "parse_known_args",
        lambda argv: (type("Args", (), {"command": "data", "func": staticmethod(fail)})(), []),
    )  # fmt: skip
    assert cli.main([]) == status
    assert message in capsys.readouterr().err


def test_unknown_arguments_are_refused(capsys):
    with pytest.raises(SystemExit):
        cli.main(["export", "--no_such_flag"])
    assert "usage" in capsys.readouterr().err
