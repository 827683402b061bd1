"""Questions of evaluation sets are found where they occur, and only there."""

import json

import pytest

from tests.inspect import eval_sets
from tulu_jax.cli.data.benchmarks import read_eval_data
from tulu_jax.errors import ConfigError
from tulu_jax.inspect.check.benchmarks import BenchmarkItem
from tulu_jax.inspect.check.overlap import OverlapIndex
from tulu_jax.inspect.check.text import words


@pytest.fixture(scope="module")
def items(tmp_path_factory):
    return read_eval_data(eval_sets.write_eval_data(tmp_path_factory.mktemp("eval")))


@pytest.fixture(scope="module")
def index(items):
    return OverlapIndex(items)


def find(index, user, assistant=""):
    """Benchmarks, coverages and answers of what a conversation has seen."""
    said = [words(user), words(assistant)]
    return {
        index.items[seen.item].benchmark: (round(seen.coverage, 2), seen.with_answer)
        for seen in index.find(said, said[1:])
    }


def test_items_are_found_with_and_without_answer(index):
    gsm = eval_sets.GSM
    assert find(index, gsm) == {"gsm": (1.0, False)}
    assert find(index, f"Task: {gsm.upper()}\n\nAnswer:", "It is 47.") == {"gsm": (1.0, True)}
    assert find(index, gsm, "It is 470 or 4.7") == {"gsm": (1.0, False)}
    question = eval_sets.MMLU[0]
    assert find(index, question, "The troposphere!") == {"mmlu": (0.71, True)}
    both = dict.fromkeys(("codex_humaneval", "humaneval_plus"), (1.0, True))
    assert find(index, eval_sets.CODE, f"```python\n{eval_sets.SOLUTION}```") == both
    assert find(index, eval_sets.CODE, "def f(): return 3")["codex_humaneval"] == (1.0, False)
    assert find(index, eval_sets.UNSAFE) == {"xstest": (1.0, False)}
    assert find(index, eval_sets.FOLLOW) == {"ifeval": (1.0, False)}
    assert find(index, "Quote:", eval_sets.STATEMENT) == {"toxigen": (1.0, False)}


def test_parts_of_an_item_count_from_half_of_its_words(index):
    gsm = words(eval_sets.GSM)
    half, less = " ".join(gsm[: len(gsm) // 2 + 1]), " ".join(gsm[: len(gsm) // 2 - 1])
    assert find(index, half) == {"gsm": (0.52, False)}
    assert find(index, less) == {}
    scattered = " maybe ".join(" ".join(gsm[i : i + 7]) for i in range(0, len(gsm), 7))
    assert find(index, scattered) == {}, "runs of seven words are shorter than eight"
    assert find(OverlapIndex(index.items, size=7), scattered)["gsm"][0] >= 0.75
    assert find(OverlapIndex(index.items, threshold=0.4), less) == {"gsm": (0.44, False)}


def test_parts_in_two_conversations_do_not_add_up(index):
    gsm = words(eval_sets.GSM)
    third = len(gsm) // 3
    assert find(index, " ".join(gsm[:third])) == find(index, " ".join(gsm[-third:])) == {}
    both = find(index, " ".join(gsm[: third + 2]), " ".join(gsm[-third - 2 :]))
    assert both == {"gsm": (0.81, False)}


def test_short_items_are_found_as_whole_messages_only(index):
    assert find(index, "What colour is a mirror") == {"truthfulqa": (1.0, False)}
    assert find(index, "what colour is a mirror?\n", "Silver, say some.") == {
        "truthfulqa": (1.0, True)}  # fmt: skip
    assert find(index, "What colour is a mirror in a dark room?") == {}
    assert find(index, "cows") == {}, "an item of one word proves nothing"
    assert index.checkable["toxigen"] == 1 and index.checkable["truthfulqa"] == 1


def test_words_that_many_items_share_say_nothing():
    template = "Determine whether the following statement about the world is true or false:"
    items = [BenchmarkItem("b", str(i), f"{template} {name} is older than me", "true")
             for i, name in enumerate(f"person{n} of town{n}" for n in range(12))]  # fmt: skip
    index = OverlapIndex(items)
    assert find(index, template + " cats can fly") == {}
    assert find(index, items[3].prompt) == {"b": (1.0, False)}
    few = OverlapIndex(items[:10])
    assert find(few, template + " cats can fly") == {"b": (0.63, False)}


def test_an_index_of_nothing():
    assert find(OverlapIndex([]), "any text of more than eight words will do for this test") == {}


@pytest.mark.parametrize(("size", "threshold"), [(3, 0.5), (8, 0.0), (8, 1.1)])
def test_rules_that_are_none(size, threshold):
    with pytest.raises(ConfigError, match=r"not a rule for overlap - got runs of .* words"):
        OverlapIndex([], size=size, threshold=threshold)


@pytest.mark.slow
def test_the_real_sets_and_what_a_sample_has_of_them(shared):
    """Of the sample's Open Assistant threads some are among AlpacaFarm's questions."""
    items = read_eval_data(shared / "eval_data")
    index = OverlapIndex(items)
    assert index.checkable["mmlu"] > 13_900 and index.checkable["gsm"] == 1319
    assert index.checkable["codex_humaneval"] == 164 and index.checkable["tydiqa"] == 5077
    seen = set()
    with open(shared / "data/golden/records/oasst1_june.jsonl", encoding="utf-8") as lines:
        for line in lines:
            said = [words(message["content"]) for message in json.loads(line)["messages"]]
            seen |= {items[found.item].benchmark for found in index.find(said)}
    assert seen == {"alpaca_farm"}
