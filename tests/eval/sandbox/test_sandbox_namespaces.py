"""Calls that some machines refuse."""

import errno
import os

import pytest

from eval.sandbox.inside import namespaces


def refusing(monkeypatch, *numbers):
    """Makes the next calls fail with these numbers, and counts what is left of them."""
    left = list(numbers)

    def call(name, *arguments):
        if left:
            number = left.pop(0)
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(namespaces, "_call", call)
    monkeypatch.setattr(namespaces.time, "sleep", lambda seconds: None)
    return left


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOSYS])
def test_keyrings_that_are_refused_to_all_are_no_error(monkeypatch, number):
    left = refusing(monkeypatch, number)
    namespaces.new_keyring()
    assert left == []


def test_a_full_quota_of_keyrings_is_waited_for(monkeypatch):
    left = refusing(monkeypatch, errno.EDQUOT, errno.EDQUOT)
    namespaces.new_keyring()
    assert left == []
    refusing(monkeypatch, *[errno.EDQUOT] * 200)
    with pytest.raises(OSError, match="quota"):
        namespaces.new_keyring()
    refusing(monkeypatch, errno.ENOMEM)
    with pytest.raises(OSError, match="memory"):
        namespaces.new_keyring()


def test_an_unknown_machine_is_named(monkeypatch):
    monkeypatch.setattr(namespaces.platform, "machine", lambda: "pdp11")
    with pytest.raises(OSError, match="does not know this kind of machine: pdp11"):
        namespaces.new_keyring()
