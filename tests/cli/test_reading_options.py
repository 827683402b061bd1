"""`--option TASK.NAME=VALUE`: what a task is read with."""

import pytest

from tulu_jax.cli.data.common import reading_options
from tulu_jax.errors import ConfigError


def test_values_are_literals_or_text():
    given = [
        "tulu_oasst1.rule=every",
        "oasst1.top_k=1",
        "tulu_sharegpt.split='paper'",
        "chats/own.jsonl.x=a=b",
        "tulu_oasst1.filter_names=True",
    ]
    assert reading_options(given) == {
        "tulu_oasst1": {"rule": "every", "filter_names": True},
        "oasst1": {"top_k": 1},
        "tulu_sharegpt": {"split": "paper"},
        "chats/own.jsonl": {"x": "a=b"},
    }
    assert reading_options([]) == {}


@pytest.mark.parametrize("wrong", ["rule=every", "tulu_oasst1.rule", "tulu_oasst1.=1", ".rule=1"])
def test_other_forms(wrong):
    with pytest.raises(ConfigError, match=r"--option is not understood - got .* TASK.NAME=VALUE"):
        reading_options([wrong])
