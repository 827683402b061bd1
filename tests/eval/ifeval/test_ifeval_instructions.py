"""Each of IFEval's instructions: texts that follow it, and texts that do not."""

import doctest

import pytest

from eval.ifeval import instructions, language
from eval.ifeval.instructions import CHECKS, check_arguments, follows, is_unstable, variants
from tulu_jax.errors import DataError

AT_LEAST, LESS = "at least", "less than"
ENGLISH = "the quick brown fox jumps over the lazy dog and runs away into the deep dark forest"
GERMAN = "Der schnelle braune Fuchs springt über den faulen Hund und läuft in den Wald."

TABLE = [
    ("keywords:existence", {"keywords": ["Forest", "dog"]}, [ENGLISH, "dogs, foresters"], ["dog"]),
    ("keywords:existence", {"keywords": ["a.c"]}, ["A.C."], ["abc"]),
    ("keywords:frequency", {"keyword": " the ", "frequency": 3, "relation": AT_LEAST},
     ["The theme: then"], ["The theme"]),
    ("keywords:frequency", {"keyword": "the", "frequency": 2, "relation": LESS},
     ["The", "none"], ["the The"]),
    ("keywords:forbidden_words", {"forbidden_words": ["can", "ride"]},
     ["Canned pride"], ["You CAN!", "a ride-on"]),
    ("keywords:letter_frequency", {"letter": "Q", "let_frequency": 2, "let_relation": AT_LEAST},
     ["quiet Quack"], ["quiet"]),
    ("keywords:letter_frequency", {"letter": "q", "let_frequency": 2, "let_relation": LESS},
     ["quiet"], ["quiet Quack"]),
    ("keywords:letter_frequency", {"letter": "#", "let_frequency": 4, "let_relation": AT_LEAST},
     ["## a ##"], ["## a #"]),
    ("language:response_language", {"language": "de"}, [GERMAN, "123 456"], [ENGLISH]),
    ("length_constraints:number_sentences", {"num_sentences": 2, "relation": AT_LEAST},
     ["Dr. Fox is here. He waits."], ["Dr. Fox is here, at 5 p.m. today", "One\n\nTwo"]),
    ("length_constraints:number_sentences", {"num_sentences": 2, "relation": LESS},
     ["Mr. Fox met J. Smith of the U.S. today"], ["Is it? It is!"]),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2},
     ["a\n***\nb", "***\na\n***\nb\n***"], ["a\n\nb", "a\n***\n***\nb", "a ****** b"]),
    ("length_constraints:number_words", {"num_words": 4, "relation": AT_LEAST},
     ["It's 3.5"], ["two-three words"]),
    ("length_constraints:number_words", {"num_words": 3, "relation": LESS},
     ["हिन्दी में"], ["It's two"]),
    ("length_constraints:nth_paragraph_first_word",
     {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "Then"},
     ["One.\n\nthen, two", "One\n\n'\"Then's", "One\n\nTHEN\n\n \n\n"],
     ["One\n\nNow", "then", "One\n\nthen\n\nthree", "One\n\n\n\nthen", "One\n\nthen-two"]),
    ("detectable_content:number_placeholders", {"num_placeholders": 2},
     ["[a] and [b]", "[a][b]", "[][]"], ["[a]", "[a\nb] [c]"]),
    ("detectable_content:postscript", {"postscript_marker": "P.S."},
     ["Bye\nP.S. more", "p. s. x"], ["PS: more", "p.  s."]),
    ("detectable_content:postscript", {"postscript_marker": "P.P.S"},
     ["P.P.S more", "p. p. s"], ["P.S. more"]),
    ("detectable_content:postscript", {"postscript_marker": "Nota.Bene"},
     ["nota.bene: x"], ["nota bene"]),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2},
     ["* a\n* b", "- a\n\n  * b\ntext", "Intro\n-a\n--", "*\ntext\n* b"],
     ["* a", "** a\n* b", "1. a\n2. b", "* a\n- b\n* c", "*\n* a\n"]),
    ("detectable_format:constrained_response", {},
     ["My answer is maybe.", "So: My answer is no. Really"],
     ["My answer is yes", "my answer is no."]),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 2},
     ["*a* and *b*", "**a** *b*"], ["*a*", "**a**", "*a b* **c", "* * *b", "*a\nb* *c*"]),
    ("detectable_format:multiple_sections", {"section_spliter": " Day ", "num_sections": 2},
     ["Day 1: a\nDay 2: b", "Day1Day 10"], ["Day 1", "day 1 day 2", "Day one Day two"]),
    ("detectable_format:json_format", {},
     ['{"a": [1, null]}', '```json\n{"a": 1}\n```', "```JSON 3```", " 7 ", "NaN"],
     ["{'a': 1}", "Sure: {}", '{"a": 1', "```python\n1\n```", "[" * 100_000]),
    ("detectable_format:title", {}, ["<<A poem>>", "x <<<b>> y"], ["<A>", "<< >>", "<<a\nb>>"]),
    ("combination:two_responses", {},
     ["a\n******\nb", "******a******b******"], ["a", "a****** a", "a******\n******b", "a***b"]),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Say hi. "},
     [" say HI. Hi!"], ["Sure. Say hi. Hi!", "Say hi"]),
    ("startend:end_checker", {"end_phrase": " Is that all? "},
     ["Yes. is that ALL?", 'He: "Is that all?" \n'], ["Is that all? Yes.", "Is that all"]),
    ("startend:quotation", {}, [' "a" ', '""'], ['"', "'a'", '"a" b', "“a”"]),
    ("change_case:capital_word_frequency", {"capital_frequency": 2, "capital_relation": AT_LEAST},
     ["I said NO", "A-B and DON'T"], ["Not A Chance", "NO-ONE is"]),
    ("change_case:capital_word_frequency", {"capital_frequency": 2, "capital_relation": LESS},
     ["NO way"], ["NO WAY"]),
    ("change_case:english_capital", {}, [ENGLISH.upper()], [ENGLISH, GERMAN.upper(), "123 456"]),
    ("change_case:english_lowercase", {}, [ENGLISH], [ENGLISH.capitalize(), GERMAN.lower(), "123"]),
    ("punctuation:no_comma", {}, ["a; b", "a，b"], ["a, b"]),
]  # fmt: skip
CASES = [
    (name, given, text, wanted)
    for name, given, good, bad in TABLE
    for texts, wanted in ((good, True), (bad, False))
    for text in texts
]


@pytest.mark.parametrize(("name", "given", "text", "wanted"), CASES, ids=lambda v: str(v)[:40])
def test_golden_texts(name, given, text, wanted):
    assert follows(text, name, check_arguments(name, given, "row 1")) is wanted


@pytest.mark.parametrize(("module", "least"), [(instructions, 2), (language, 4)])
def test_examples_hold(module, least):
    found = doctest.testmod(module)
    assert found.failed == 0 and found.attempted >= least


def test_every_instruction_is_in_the_table():
    assert {name for name, *_ in TABLE} == set(CHECKS) and len(CHECKS) == 25


def test_a_blank_text_follows_nothing():
    for name, given, *_ in TABLE:
        assert follows(" \n\t", name, given) is False


def test_whitespace_without_end_is_counted_in_time():
    text = "\n" * 30_000 + "x" + " " * 30_000 + "p.s"
    assert not follows(text, "detectable_format:number_bullet_lists", {"num_bullets": 1})
    assert not follows(text, "detectable_content:postscript", {"postscript_marker": "P.S."})


def test_variants_leave_out_lines_and_asterisks():
    assert variants("a") == ["a", ""]
    assert variants("*a*\n\nb\n c ") == [
        "*a*\n\nb\n c ", "b\n c", "*a*\n\nb", "b", "a\n\nb\n c ", "a\n\nb",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "given", "unstable"),
    [
        ("keywords:letter_frequency", {"letter": "!"}, True),
        ("keywords:letter_frequency", {"letter": "é"}, True),
        ("keywords:letter_frequency", {"letter": "Z"}, False),
        ("keywords:frequency", {"keyword": "!"}, False),
    ],
)
def test_what_is_random_in_the_reference_is_known(name, given, unstable):
    assert is_unstable(name, given) is unstable


def test_arguments_that_are_null_are_none():
    given = {"num_bullets": 3, "num_words": None, "relation": None}
    kept = check_arguments("detectable_format:number_bullet_lists", given, "row 1")
    assert kept == {"num_bullets": 3}


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("keywords:rhyme", {}, "unknown instruction - got 'keywords:rhyme' at row 7"),
        (["keywords:existence"], {}, "unknown instruction"),
        ("keywords:existence", {}, "got {} at row 7, keywords:existence - expected keywords"),
        ("keywords:existence", {"keywords": "dog"}, "arguments do not fit"),
        ("keywords:existence", {"keywords": [1]}, "arguments do not fit"),
        ("keywords:existence", {"keywords": []}, "arguments do not fit"),
        ("keywords:frequency", {"keyword": "a", "frequency": 1, "relation": "about"}, "do not fit"),
        ("keywords:frequency", {"keyword": "a", "frequency": -1, "relation": LESS}, "do not fit"),
        ("keywords:frequency", {"keyword": "a", "frequency": True, "relation": LESS}, "do not fit"),
        ("keywords:frequency", {"keyword": " ", "frequency": 1, "relation": LESS}, "do not fit"),
        ("keywords:letter_frequency",
         {"letter": "ab", "let_frequency": 1, "let_relation": LESS}, "do not fit"),
        ("length_constraints:nth_paragraph_first_word",
         {"num_paragraphs": 2, "nth_paragraph": 3, "first_word": "a"}, "do not fit"),
        ("length_constraints:nth_paragraph_first_word",
         {"num_paragraphs": 2, "nth_paragraph": 0, "first_word": "a"}, "do not fit"),
        ("punctuation:no_comma", {"num_words": 3}, "expected none"),
        ("punctuation:no_comma", None, "got null"),
        ("punctuation:no_comma", [], r"got \[\]"),
    ],
)  # fmt: skip
def test_arguments_that_no_check_can_use_are_refused(name, given, message):
    with pytest.raises(DataError, match=message):
        check_arguments(name, given, "row 7")
