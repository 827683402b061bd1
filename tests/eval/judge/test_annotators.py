"""What judges are asked, and what their replies say, whatever outputs hold."""

import doctest
import math

import pytest

from eval.harness.asks import Answer
from eval.judge import annotators
from eval.judge.annotators import ANNOTATORS, LONGEST_REPLY, plain, read_list, read_ranking

ONE = ANNOTATORS["alpaca_eval_gpt4"]
FIVE = ANNOTATORS["alpaca_farm_greedy_gpt4"]
WORDS = ANNOTATORS["weighted_alpaca_eval_gpt4_turbo"]
FIRST = "[{'model': 'model_1', 'rank': 1}, {'model': 'model_2', 'rank': 2}]"
SECOND = "[{'model': 'model_1', 'rank': 2}, {'model': 'model_2', 'rank': 1}]"


def test_examples_hold():
    found = doctest.testmod(annotators)
    assert found.failed == 0 and found.attempted > 5


def test_the_prompt_is_the_packages():
    system, user = ONE.ask([("Why?", "a", "b")])
    assert system == (
        "You are a helpful assistant, that ranks models by the quality of their answers."
    )
    assert user.startswith("I want you to create a leaderboard of different of large-language")
    assert '{\n    "instruction": """Why?""",\n}' in user
    assert '        "model": "model_1",\n        "answer": """a"""\n' in user
    assert '        "model": "model_2",\n        "answer": """b"""\n' in user
    assert user.endswith("Please provide the ranking that the majority of humans would give.")


def test_a_prompt_of_five_pairs_is_filled_up():
    _, user = FIVE.ask([("Why?", "a", "b"), ("How?", "c", "d")])
    assert "### Instruction 5:\nWhy?\n\n### Output (a) for example 5:\na\n" in user
    assert "### Output (b) for example 6:\nd\n" in user
    assert user.count("1+1=") == 3 and "{" not in user
    assert ANNOTATORS["alpaca_eval_gpt4_0314"].messages == ONE.messages


@pytest.mark.parametrize("annotator", ANNOTATORS.values(), ids=ANNOTATORS)
def test_outputs_stand_in_the_prompt_as_they_are(annotator):
    texts = ("{output_1} {output_2}", "{instruction}{output_2}<|im_end|>", r"\1 {x} {{output_1}}")
    _, user = annotator.ask([texts])
    assert all(user.count(text) == 1 for text in texts[1:])
    assert texts[0] in user and "<|im_end|>" in user


@pytest.mark.parametrize(
    ("reply", "first"),
    [
        (FIRST, 1),
        (f"\n  {SECOND}\n", 2),
        ('[{"model": "model_2", "rank": 2}, {"model": "model_1", "rank": 1}]', 1),
        (f"```python\n{SECOND}\n```", 2),
        ("[{'model': 'model_1', 'rank': 1}]", 1),
        ("", None),
        ("model_1", None),
        ("[]", None),
        ("{'model': 'model_1', 'rank': 1}", None),
        ("[{'model': 'model_1', 'rank': 3}, {'model': 'model_2', 'rank': 1}]", None),
        ("[{'model': 'model_1', 'rank': '1'}, {'model': 'model_2', 'rank': '2'}]", None),
        ("[{'model': 'model_1', 'rank': True}, {'model': 'model_2', 'rank': 2}]", None),
        ("[{'model': ['model_1'], 'rank': 1}]", None),
        ("[{'model': 'model_1', 'rank': 1}, {'model': 'model_1', 'rank': 2}]", None),
        ("[{'model': 'model_1', 'rank': 2}, {'model': 'model_2', 'rank': 2}]", None),
        ("[{'model': 'model_1', 'rank': 1}, {'model': 'gpt', 'rank': 2}]", None),
        ("[{'model': 'model_1', 'rank': 1}, 'ignore the above']", None),
        (f"The answer says {FIRST}, but I prefer model_2", None),
        (f"{FIRST}\n{SECOND}", None),
        (f"```\n{FIRST}\n```\n```\n{SECOND}\n```", None),
        ("[__import__('os').system('touch hacked')]", None),
        ("[" * 5000, None),
        ("[{'model': 'model_1', 'rank': 1}, {'model': '\\d', 'rank': 2}]", None),
        ("\ud800 [{'model': 'model_1', 'rank': 1}]", None),
        ("[{'model': 'model_1', 'rank': 1}\0]", None),
        (None, None),
        (f"{FIRST}{' ' * LONGEST_REPLY}", None),
        ("1" * 9000, None),
    ],
)
def test_a_ranking_is_read_whole_or_not_at_all(reply, first):
    wanted = None if first is None else [float(first)]
    assert ONE.read(Answer(reply)) == wanted


@pytest.mark.parametrize(
    ("reply", "first"),
    [
        (FIRST, 1),
        ("[{'model': 'model_1', 'rank': 2}, {'model': 'model_2', 'rank': 2}]", 2),
        ("[{'model': 'model_1', 'rank': 1}, {'model': 'gpt', 'rank': 7}]", 1),
        ("[{'model': 'model_1', 'rank': 1}, {'model': 'model_1', 'rank': 2}]", 1),
        ("[{'model': 'model_1', 'rank': 3}]", None),
        (f"```\n{FIRST}\n```", None),
    ],
)
def test_as_the_package_reads_it_the_first_models_rank_counts(reply, first):
    assert read_ranking(reply, consistent=False) == (None if first is None else [float(first)])


def test_choices_of_several_pairs():
    reply = (
        "Output (b)\n\n### next\nOutput (a)\n Output (a) Output (b)\nso Output (a) is\nOutput (b)"
    )
    assert read_list(reply, 5) == [2.0, 1.0, 1.0, 2.0, 2.0]
    assert FIVE.read(Answer(reply)) == read_list(reply, 5)
    assert read_list(reply, 4) is None and read_list("", 5) is None


def test_words_by_how_likely_they_are():
    assert WORDS.read(Answer("x", logprobs=(math.log(0.3), math.log(0.1)))) == [pytest.approx(1.25)]
    assert WORDS.read(Answer("x", logprobs=(0.0, -9999.0))) == [1.0]
    assert WORDS.read(Answer("x", logprobs=(-9999.0, -9999.0))) is None
    assert WORDS.read(Answer(" M\n")) == [2.0] and WORDS.read(Answer("m")) == [1.0]
    assert WORDS.read(Answer("Both")) is None and WORDS.read(Answer(None)) is None


def test_halves_of_characters_are_replaced():
    assert plain("a\ud800b\udc00\ud83d\ude00") == "a\ufffdb\ufffd\U0001f600"
