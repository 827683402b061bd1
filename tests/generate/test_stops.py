import pytest
from hypothesis import given
from hypothesis import strategies as st

from tulu_jax.generate.stops import find_stop, held_back

PIECES = ["Hel", "lo\n", "\nBye", "ab", "c", "b", "é".encode()[:1], "é".encode()[1:]]


def decode(tokens):
    joined = b"".join(
        p if isinstance(p, bytes) else p.encode() for p in (PIECES[t] for t in tokens)
    )
    return joined.decode(errors="replace")


def test_one_that_spans_tokens():
    assert find_stop([0, 1, 2], ["\n\n"], decode) == ("\n\n", "Hello", 3)
    assert find_stop([0, 1], ["\n\n"], decode) is None


def test_one_that_is_a_character_of_two_tokens():
    assert find_stop([0, 6, 7, 0], ["é"], decode) == ("é", "Hel", 3)


def test_the_first_to_be_complete_then_the_first_to_begin_then_the_longest():
    assert find_stop([3, 4, 5], ["bc", "b"], decode) == ("b", "a", 1)
    assert find_stop([3, 4], ["c", "abc", "bc"], decode) == ("abc", "", 2)
    assert find_stop([2], ["B", "By"], decode).string == "By"


@given(
    st.lists(st.integers(0, 7), max_size=12), st.lists(st.sampled_from(["b", "bc", "\n\n", "lé"]))
)
def test_text_before_it_has_none(tokens, strings):
    found = find_stop(tokens, strings, decode)
    if found is None:
        assert not any(string in decode(tokens) for string in strings)
    else:
        text = decode(tokens[: found.num_tokens])
        assert text.startswith(found.text + found.string)
        earlier = decode(tokens[: found.num_tokens - 1])
        assert not any(string in earlier for string in strings)


@pytest.mark.parametrize(
    ("text", "strings", "count"),
    [("Hello\n", ["\n\n"], 1), ("abc", ["bcd", "cx"], 2), ("abc", [], 0), ("ab�", ["b"], 1)],
)
def test_what_is_held_back(text, strings, count):
    assert held_back(text, strings) == count
