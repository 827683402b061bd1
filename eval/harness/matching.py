"""How answers are compared with what is right."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")


def exact_match(prediction: str, gold: str) -> bool:
    """Equality of whole texts but for case and punctuation; spaces count.

    >>> exact_match("The End.", "the end"), exact_match("-10", "10"), exact_match("a  b", "a b")
    (True, True, False)

    Source: Hugging Face `evaluate`'s exact_match of 2023, with ignore_case and ignore_punctuation.
    """
    return _plain(prediction) == _plain(gold)


def _plain(text: str) -> str:
    return text.lower().translate(_PUNCTUATION)


def squad_normal(text: str) -> str:
    """A text as SQuAD compares it: lower case, no punctuation, no articles, single spaces.

    >>> squad_normal("The  cat, a dog.")
    'cat dog'
    """
    return " ".join(_ARTICLES.sub(" ", _plain(text)).split())


def squad_em(prediction: str, golds: Sequence[str]) -> float:
    """1 where the prediction is one of the answers as SQuAD compares them, else 0."""
    return max(float(squad_normal(prediction) == squad_normal(gold)) for gold in golds)


def squad_f1(prediction: str, golds: Sequence[str]) -> float:
    """The best F1 of words in common with one of the answers, 0 to 1.

    >>> squad_f1("the red cat", ["a cat", "dog"])
    0.6666666666666666

    Source: Rajpurkar et al. (arXiv 1606.05250), evaluate-v1.1.
    """
    return max(_f1(squad_normal(prediction).split(), squad_normal(gold).split()) for gold in golds)


def _f1(found: list[str], wanted: list[str]) -> float:
    same = sum((Counter(found) & Counter(wanted)).values())
    if not same:
        return 0.0
    precision, recall = same / len(found), same / len(wanted)
    return 2 * precision * recall / (precision + recall)
