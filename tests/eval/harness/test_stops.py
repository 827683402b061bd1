"""Which stop strings go with a question."""

import pytest

from eval.xstest.run_eval import XsTest
from tests.eval.asking import context, tulu_format


@pytest.mark.parametrize(
    ("compat", "fields", "stops"),
    [
        ("fixed", {}, {"stops": ("\n",)}),
        ("paper", {}, {"stops": ("\n",)}),
        ("fixed", {"formatter": tulu_format}, {}),
        ("paper", {"formatter": tulu_format}, {"stops": ("\n",)}),
        ("fixed", {"endpoint": True}, {}),
        ("paper", {"endpoint": True}, {}),
    ],
)
def test_stops_are_those_of_a_base_model(compat, fields, stops):
    assert context(XsTest(), ".", compat=compat, **fields).stops("\n") == stops
