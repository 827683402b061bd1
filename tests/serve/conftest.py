"""One server in this process for the tests of a file."""

import pytest

from .served import in_process, new_engine, new_service


@pytest.fixture(scope="module")
def service():
    return new_service()


@pytest.fixture(scope="module")
def client(service):
    with in_process(service) as client:
        yield client


@pytest.fixture(scope="module")
def alone():
    """An engine that serves nobody else, to compare with."""
    return new_engine()
