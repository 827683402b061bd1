"""Plain data between processes: what comes back is equal, and of a plain type."""

import collections
import decimal
import enum
import fractions
import io
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.sandbox.inside import plain


def sent(value):
    message = plain.dumps(plain.to_tree(value))
    return plain.from_tree(plain.read_message(io.BytesIO(message).read))


hashable = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.binary()
    | st.text(st.characters(exclude_categories=())) | st.complex_numbers(allow_nan=False),
    lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
values = st.recursive(
    hashable,
    lambda inner: st.lists(inner) | st.dictionaries(hashable, inner) | st.tuples(inner, inner),
    max_leaves=12,
)


def types_of(value):
    if isinstance(value, list | tuple):
        return [type(value), *map(types_of, value)]
    if isinstance(value, dict):
        return [type(value), *((types_of(k), types_of(v)) for k, v in value.items())]
    return type(value)


@given(values)
def test_what_is_sent_arrives(value):
    assert sent(value) == value
    assert types_of(sent(value)) == types_of(value)


class Colour(enum.IntEnum):
    RED = 1


class Name(str):
    def __str__(self):
        return "another"


Pair = collections.namedtuple("Pair", "a b")


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (collections.Counter("aab"), {"a": 2, "b": 1}),
        (collections.OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
        (collections.defaultdict(list, a=[1]), {"a": [1]}),
        (Pair(1, 2), (1, 2)),
        (Colour.RED, 1),
        (Name("one"), "one"),
        (True, True),
        (np.float64(1.5), 1.5),
        (np.int32(7), 7),
        (np.bool_(True), True),
        (-0.0, -0.0),
        (-(2**63), -(2**63)),
        (range(3, 9, 2), range(3, 9, 2)),
        (fractions.Fraction(1, 3), fractions.Fraction(1, 3)),
        (decimal.Decimal("1.10"), decimal.Decimal("1.10")),
        (bytearray(b"a"), bytearray(b"a")),
        ({"a": 1}.keys(), {"a"}),
    ],
)
def test_subclasses_are_told_as_their_plain_type(value, told):
    assert sent(value) == told
    assert type(sent(value)) is type(told) or isinstance(value, type({}.keys()))
    assert repr(sent(value)) == repr(told) or isinstance(value, type({}.keys()))


def test_integers_of_any_length_arrive():
    assert sent([-(10**5000)]) == [-(10**5000)]


def test_nan_and_infinities_arrive():
    first, second = sent([float("nan"), float("-inf")])
    assert first != first and second == float("-inf")


def test_lone_surrogates_that_meet_stay_two():
    assert sent("\ud83d\ude00") == "\ud83d\ude00" and len(sent("\ud83d\ude00")) == 2


def test_arrays_are_arrays():
    array = np.arange(6, dtype=np.int16).reshape(2, 3)
    assert sent(array).dtype == np.int16
    np.testing.assert_array_equal(sent(array), array)


@pytest.mark.parametrize(
    "lazy", [iter([1, 2]), map(int, "12"), (n for n in (1, 2)), enumerate([1])]
)
def test_iterators_are_iterators_and_equal_to_no_list(lazy):
    got = sent(lazy)
    assert got != [1, 2] and next(got) in (1, (0, 1))


class Liar(list):
    def __eq__(self, other):
        return True

    __hash__ = None


def test_equality_is_that_of_the_content():
    assert sent(Liar([1])) == [1] and sent(Liar([1])) != [2]
    assert sent(object()) != object() and repr(sent(print)) == "<builtin_function_or_method>"
    assert sent(np.array([object()])) != 1
    assert plain.has_opaque(plain.to_tree({"a": [print]}))


@pytest.mark.parametrize(
    "tree",
    [
        {}, {"a": 1}, {"tuple": 1}, {"int": "x"}, {"int": 3}, {"set": [[1]]}, {"dict": [[1]]},
        {"dict": [[[1], 2]]}, {"str": "zz"}, {"bytes": 3}, {"range": [1, 2, 0]}, {"range": [1] * 4},
        {"complex": [1]}, {"fraction": [1, 0]}, {"decimal": "x"}, {"array": ["O", [1]]},
        {"array": ["<i4", ["x"]]}, {"array": []}, {"tuple": [], "list": []}, {"keys": [[1]]},
        {"iterator": 5}, {"frozenset": {"tuple": []}}, {"__class__": "os.system"},
    ],
)  # fmt: skip
def test_anything_else_is_malformed(tree):
    with pytest.raises(plain.Malformed):
        plain.from_tree(tree)


def test_messages_that_are_none():
    def read(message):
        return plain.read_message(io.BytesIO(message).read)

    with pytest.raises(EOFError):
        read(b"")
    with pytest.raises(EOFError):
        read(plain.dumps([1])[:-1])
    with pytest.raises(plain.Malformed, match="too long"):
        read((2**50).to_bytes(8, "big"))
    for content in (b"x", b"\xff", b"[" * 10**5, b"[1]" * 2, json.dumps("é").encode()[:-2]):
        with pytest.raises(plain.Malformed, match="no JSON"):
            read(len(content).to_bytes(8, "big") + content)
