"""Answers that are empty, stop in the middle, or leave a block of code open."""

from __future__ import annotations

import re

from tulu_jax.chat.messages import is_blank

EMPTY, CUT, OPEN_FENCE = "empty_answers", "cut_answers", "open_code_blocks"

LONG_WORDS, VERY_LONG_WORDS = 60, 150
"""From so many words on a rare end, and any end without a full stop, mean that it was cut."""

_FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})(.*)$", re.MULTILINE)
_NEVER_LAST = """a an the and or nor because if whether than its their your my which whose very"""
_SELDOM_LAST = """of to with for from by at into onto as is are was were has have had will
    would can could should may might must been our his such these those"""
_OPEN_END = re.compile(rf"[,(\[{{–—]$|[^-\s]-$|\b(?:{'|'.join(_NEVER_LAST.split())})$")
"""Ends no English sentence has: an opening bracket, a comma, an article, a conjunction."""
_WEAK_END = re.compile(rf"\b(?:{'|'.join(_SELDOM_LAST.split())})$")
"""Ends that are rare ("as best as he can"), so that they count in long answers only."""

_SENTENCE_END = re.compile(r"[.!?…:;。！？।؟][\"'”’»)\]}*_`」』]*$|[\"”»」』)\]}`*_|>]$")
_LIST_OR_MARKUP = re.compile(r"^\s*(?:[-*+•#|>]|\d+[.)]|[A-Za-z][.)] |\w[\w ]{0,30}: )")


def answer_faults(answer: str) -> list[str]:
    """What is wrong with one answer of the assistant; mostly nothing.

    Only what is nearly certain is named: a short answer needs no full stop, nor does the last
    line of a list, a table or code.

    >>> answer_faults("Paris"), answer_faults("The capital of France is the"), answer_faults(" ")
    ([], ['cut_answers'], ['empty_answers'])
    """
    text = answer.strip()
    if is_blank(text):
        return [EMPTY]
    if _open_fence(text):
        return [OPEN_FENCE]
    return [CUT] if _stops_midway(text) else []


def _open_fence(text: str) -> bool:
    """Whether a fenced block of Markdown is open at the end.

    A line closes a block when it is a fence of the same kind, as long at least, and nothing else.
    """
    if "```" not in text and "~~~" not in text:
        return False
    opened = ""
    for fence, rest in _FENCE.findall(text):
        if not opened:
            if fence[0] == "~" or "`" not in rest:
                opened = fence
        elif fence.startswith(opened) and not rest.strip():
            opened = ""
    return bool(opened)


def _stops_midway(text: str) -> bool:
    last = text[text.rfind("\n") + 1 :].strip()
    words = last.split()
    if len(words) < 5 or _LIST_OR_MARKUP.match(last) or _SENTENCE_END.search(last):
        return False
    if _looks_like_code(last):
        return False
    if _OPEN_END.search(last):
        return True
    total = len(text.split())
    if total >= LONG_WORDS and _WEAK_END.search(last):
        return True
    in_sentences = len(words) >= 8 and ". " in text
    return total >= VERY_LONG_WORDS and in_sentences and last[-1].isalpha()


def _looks_like_code(line: str) -> bool:
    """Whether signs of code are too many for prose."""
    return sum(line.count(sign) for sign in "{}()[];=<>\\/$^+%") > len(line) / 25
