"""The 25 instructions of IFEval, each with the check of whether a text follows it.

A check is a function of the text, and of the instruction's arguments by their names in the data.
Keywords, forbidden words and section marks are plain text here; the reference takes them for
regular expressions, which is the same for all of its data.

Source: google-research/google-research:instruction_following_eval/instructions.py@d76be32.
"""

from __future__ import annotations

import json
import re
import typing
from collections.abc import Callable, Mapping
from typing import Any, Literal

from eval.ifeval.language import count_words, is_language, sentences, words
from tulu_jax.errors import DataError

Relation = Literal["less than", "at least"]

ANSWERS = ("My answer is yes.", "My answer is no.", "My answer is maybe.")
FENCES = ("```json", "```Json", "```JSON", "```")
WORD_ENDS = frozenset(".,?!'\"")


def _holds(count: int, relation: Relation, bound: int) -> bool:
    return count < bound if relation == "less than" else count >= bound


def keyword_existence(text: str, *, keywords: list[str]) -> bool:
    """Every keyword is there, as part of a word too, in any case."""
    return all(re.search(re.escape(word), text, re.IGNORECASE) for word in keywords)


def keyword_frequency(text: str, *, keyword: str, frequency: int, relation: Relation) -> bool:
    """The keyword is there so many times, as part of words too, in any case."""
    found = re.findall(re.escape(keyword.strip()), text, re.IGNORECASE)
    return _holds(len(found), relation, frequency)


def forbidden_words(text: str, *, forbidden_words: list[str]) -> bool:
    """None of the words is there as a whole word, in any case."""
    return not any(
        re.search(rf"\b{re.escape(word)}\b", text, re.IGNORECASE) for word in forbidden_words
    )


def letter_frequency(text: str, *, letter: str, let_frequency: int, let_relation: Relation) -> bool:
    """The character is there so many times, in any case.

    Differs from the reference where it is no letter from a to z: that takes a random letter.
    """
    return _holds(text.lower().count(letter.lower()), let_relation, let_frequency)


def response_language(text: str, *, language: str) -> bool:
    """The text is in this language."""
    return is_language(text, language)


def number_sentences(text: str, *, num_sentences: int, relation: Relation) -> bool:
    """The text has so many sentences."""
    return _holds(len(sentences(text)), relation, num_sentences)


def number_paragraphs(text: str, *, num_paragraphs: int) -> bool:
    """Lines of `***` divide the text into just so many paragraphs, none of them empty."""
    parts = [bool(part.strip()) for part in re.split(r"\s?\*\*\*\s?", text)]
    return all(parts[1:-1]) and sum(parts) == num_paragraphs


def number_words(text: str, *, num_words: int, relation: Relation) -> bool:
    """The text has so many words."""
    return _holds(count_words(text), relation, num_words)


def nth_paragraph_first_word(
    text: str, *, num_paragraphs: int, nth_paragraph: int, first_word: str
) -> bool:
    r"""Empty lines divide the text into just so many paragraphs, and one begins with a word.

    Blank paragraphs do not count, yet stand in the order in which the nth is looked up.
    """
    parts = text.split("\n\n")
    count = sum(bool(part.strip()) for part in parts)
    if count != num_paragraphs or nth_paragraph > count:
        return False
    beginning = parts[nth_paragraph - 1].split()[:1]
    return bool(beginning) and _bare(beginning[0]) == first_word.lower()


def _bare(word: str) -> str:
    """A word in small letters up to its first punctuation mark, without quotes before it."""
    word = word.lstrip("'").lstrip('"').lower()
    end = next((index for index, letter in enumerate(word) if letter in WORD_ENDS), len(word))
    return word[:end]


def number_placeholders(text: str, *, num_placeholders: int) -> bool:
    """So many placeholders such as [address] are there, or more."""
    return len(re.findall(r"\[.*?\]", text)) >= num_placeholders


def postscript(text: str, *, postscript_marker: str) -> bool:
    """A postscript with this mark is there."""
    marker = postscript_marker.strip()
    patterns = {"P.P.S": r"p\.\s?p\.\s?s", "P.S.": r"p\.\s?s\."}
    return bool(re.search(patterns.get(marker, re.escape(marker.lower())), text.lower()))


def number_bullet_lists(text: str, *, num_bullets: int) -> bool:
    """Just so many lines begin with * or -, or with * and something other than a second one."""
    stars = re.findall(r"^[^\S\n]*\*[^*].*$", text, re.MULTILINE)
    dashes = re.findall(r"^[^\S\n]*-.*$", text, re.MULTILINE)
    return len(stars) + len(dashes) == num_bullets


def constrained_response(text: str) -> bool:
    """One of the three answers is there."""
    return any(answer in text for answer in ANSWERS)


def number_highlighted_sections(text: str, *, num_highlights: int) -> bool:
    """So many *highlighted* or **highlighted** parts are there, or more."""
    single = re.findall(r"\*[^\n*]*\*", text)
    double = re.findall(r"\*\*([^\n*]*)\*\*", text)
    filled = [part for part in (*(part.strip("*") for part in single), *double) if part.strip()]
    return len(filled) >= num_highlights


def multiple_sections(text: str, *, section_spliter: str, num_sections: int) -> bool:
    """So many sections with a mark and a number are there, or more."""
    return len(re.findall(rf"{re.escape(section_spliter.strip())}\s?\d+", text)) >= num_sections


def json_format(text: str) -> bool:
    """The whole text is JSON, with a Markdown fence around it or without."""
    text = text.strip()
    for fence in FENCES:
        text = text.removeprefix(fence)
    try:
        json.loads(text.removesuffix("```").strip())
    except (ValueError, RecursionError):
        return False
    return True


def title(text: str) -> bool:
    """A <<title>> is there, with something in it."""
    return any(part.strip("<>").strip() for part in re.findall(r"<<[^\n]+>>", text))


def two_responses(text: str) -> bool:
    """Six asterisks divide two answers, which differ."""
    parts = [part.strip() for part in text.split("******")]
    answers = [part for part in parts if part]
    return all(parts[1:-1]) and len(answers) == 2 and answers[0] != answers[1]


def repeat_prompt(text: str, *, prompt_to_repeat: str) -> bool:
    """The text begins with the request, in any case."""
    return text.strip().lower().startswith(prompt_to_repeat.strip().lower())


def end_checker(text: str, *, end_phrase: str) -> bool:
    """The text ends with the phrase, in any case; quotes after it do not count."""
    return text.strip().strip('"').lower().endswith(end_phrase.strip().lower())


def capital_word_frequency(
    text: str, *, capital_frequency: int, capital_relation: Relation
) -> bool:
    """So many words are in capital letters."""
    count = sum(word.isupper() for word in words(text))
    return _holds(count, capital_relation, capital_frequency)


def english_capital(text: str) -> bool:
    """The text is in English, and all in capital letters."""
    return text.isupper() and is_language(text, "en")


def english_lowercase(text: str) -> bool:
    """The text is in English, and all in small letters."""
    return text.islower() and is_language(text, "en")


def no_comma(text: str) -> bool:
    """No comma is there."""
    return "," not in text


def quotation(text: str) -> bool:
    """Double quotes are around the whole text."""
    text = text.strip()
    return len(text) > 1 and text[0] == text[-1] == '"'


CHECKS: Mapping[str, Callable[..., bool]] = {
    "change_case:capital_word_frequency": capital_word_frequency,
    "change_case:english_capital": english_capital,
    "change_case:english_lowercase": english_lowercase,
    "combination:repeat_prompt": repeat_prompt,
    "combination:two_responses": two_responses,
    "detectable_content:number_placeholders": number_placeholders,
    "detectable_content:postscript": postscript,
    "detectable_format:constrained_response": constrained_response,
    "detectable_format:json_format": json_format,
    "detectable_format:multiple_sections": multiple_sections,
    "detectable_format:number_bullet_lists": number_bullet_lists,
    "detectable_format:number_highlighted_sections": number_highlighted_sections,
    "detectable_format:title": title,
    "keywords:existence": keyword_existence,
    "keywords:forbidden_words": forbidden_words,
    "keywords:frequency": keyword_frequency,
    "keywords:letter_frequency": letter_frequency,
    "language:response_language": response_language,
    "length_constraints:nth_paragraph_first_word": nth_paragraph_first_word,
    "length_constraints:number_paragraphs": number_paragraphs,
    "length_constraints:number_sentences": number_sentences,
    "length_constraints:number_words": number_words,
    "punctuation:no_comma": no_comma,
    "startend:end_checker": end_checker,
    "startend:quotation": quotation,
}


def is_unstable(name: str, arguments: Mapping[str, Any]) -> bool:
    """Whether the reference's verdict depends on a random draw.

    >>> is_unstable("keywords:letter_frequency", {"letter": "#"})
    True
    """
    return name == "keywords:letter_frequency" and not "a" <= arguments["letter"].lower() <= "z"


def follows(text: str, name: str, arguments: Mapping[str, Any]) -> bool:
    """Whether a text follows an instruction; a blank one follows none."""
    return bool(text.strip()) and CHECKS[name](text, **arguments)


def variants(text: str) -> list[str]:
    r"""What the loose verdict looks at: without a first or last line, without asterisks.

    >>> variants("Sure:\n*a*\nb")
    ['Sure:\n*a*\nb', '*a*\nb', 'Sure:\n*a*', '*a*', 'Sure:\na\nb', 'a\nb', 'Sure:\na', 'a']
    """
    lines = text.split("\n")
    cut = ["\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1])]
    found = [text, *cut]
    return list(dict.fromkeys([*found, *(one.replace("*", "") for one in found)]))


def check_arguments(name: str, arguments: Any, at: str) -> dict[str, Any]:
    """The arguments of an instruction, those that are null left out.

    Raises:
      DataError: no such instruction, or arguments that its check does not have, lacks, or cannot
        use.
    """
    if not isinstance(name, str) or name not in CHECKS:
        raise DataError(
            "unknown instruction", got=repr(name), at=at, expected=", ".join(CHECKS),
        )  # fmt: skip
    hints = typing.get_type_hints(CHECKS[name])
    wanted = {key: hint for key, hint in hints.items() if key not in ("text", "return")}
    given = arguments if isinstance(arguments, dict) else {}
    found = {key: value for key, value in given.items() if value is not None}
    wrong = [key for key, value in found.items() if not _fits(value, wanted.get(key))]
    wrong += [key for key in wanted if key not in found]
    if not isinstance(arguments, dict) or wrong or not _sane(found):
        raise DataError(
            "arguments do not fit their instruction", got=json.dumps(arguments)[:200],
            at=f"{at}, {name}", expected=", ".join(wanted) or "none",
        )  # fmt: skip
    return found


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value is of a check's annotated type; None is that of no argument."""
    if hint == list[str]:
        return isinstance(value, list) and bool(value) and all(_fits(one, str) for one in value)
    if hint is Relation:
        return value in typing.get_args(Relation)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool) and value >= 0
    return hint is str and isinstance(value, str) and bool(value.strip())


def _sane(arguments: Mapping[str, Any]) -> bool:
    """Whether the reference would not draw another value in the place of an empty one."""
    nth, count = arguments.get("nth_paragraph", 1), arguments.get("num_paragraphs", 1)
    return len(arguments.get("letter", "x")) == 1 and 1 <= nth <= max(count, 1)
