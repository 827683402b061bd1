"""Plain data as JSON and back: all that candidate and checker ever tell each other.

A value of a subclass of a plain type is told as that type, by its content: a `Counter` is a dict,
a list whose `__eq__` is always true is its items. What is no plain data at all arrives as `Opaque`,
which is equal to nothing. Nothing that is read can name a class or run code.
"""

from __future__ import annotations

import decimal
import fractions
import json
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

MOST_BYTES = 64 * 2**20
"""No message may be longer."""
_SMALL = 2**63
_NUMBERS = {int, bool, float}
_LAZY = (types.GeneratorType, map, filter, zip, enumerate, reversed, range(0).__iter__().__class__)


class Malformed(ValueError):
    """What was sent is not a value that `to_tree` makes."""


class Opaque:
    """A value that is no plain data: it has a type's name, and is equal to itself alone."""

    def __init__(self, name: str) -> None:
        """Named as its type was."""
        self.name = name

    def __repr__(self) -> str:
        return f"<{self.name}>"


def to_tree(value: Any) -> Any:
    """The value as JSON can tell it: lists are lists, every other kind is an object of one field.

    >>> to_tree([1, (2.5, "a"), {3: {4}}])
    [1, {'tuple': [2.5, 'a']}, {'dict': [[3, {'set': [4]}]]}]

    Raises: RecursionError; what an iterator raises while it is read.
    """
    kind = type(value)
    if value is None or kind is bool or kind is float:
        return value
    if kind is int:
        return value if -_SMALL < value < _SMALL else {"int": hex(value)}
    if kind is str:
        return _string(value)
    if kind is list:
        return value if _told_as_it_is(value) else [to_tree(item) for item in value]
    for plain, tree_of in _KINDS:
        if issubclass(kind, plain):
            return tree_of(value)
    return _of_numpy(value, kind)


def _told_as_it_is(items: list[Any]) -> bool:
    """Whether a list is of plain numbers alone: then JSON needs no tree, five times as fast."""
    kinds = set(map(type, items))
    if not kinds <= _NUMBERS:
        return False
    return int not in kinds or -_SMALL < min(items) <= max(items) < _SMALL


def _string(value: str) -> Any:
    text = str.__str__(value) if type(value) is str else str.__getitem__(value, slice(None))
    try:
        text.encode()
    except UnicodeEncodeError:  # JSON would join two lone surrogates that meet
        return {"str": text.encode("utf-32-le", "surrogatepass").hex()}
    return text


def _items(name: str, each: Callable[[Any], Iterator[Any]]) -> Callable[[Any], Any]:
    return lambda value: {name: [to_tree(item) for item in each(value)]}


def _pairs(name: str, each: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: {name: [[to_tree(k), to_tree(v)] for k, v in each(value)]}


_KINDS: tuple[tuple[Any, Callable[[Any], Any]], ...] = (
    (int, lambda value: to_tree(int.__add__(value, 0))),
    (float, lambda value: float.__add__(value, 0.0) if value else float.__pos__(value)),
    (str, _string),
    (list, lambda value: [to_tree(item) for item in list.__iter__(value)]),
    (tuple, _items("tuple", tuple.__iter__)),
    (dict, _pairs("dict", dict.items)),
    (set, _items("set", set.__iter__)),
    (frozenset, _items("frozenset", frozenset.__iter__)),
    (bytes, lambda value: {"bytes": bytes.hex(value)}),
    (bytearray, lambda value: {"bytearray": bytearray.hex(value)}),
    (complex, lambda value: {"complex": [value.real, value.imag]}),
    (range, lambda value: {"range": [to_tree(n) for n in (value.start, value.stop, value.step)]}),
    (fractions.Fraction, _items("fraction", lambda value: iter(value.as_integer_ratio()))),
    (decimal.Decimal, lambda value: {"decimal": decimal.Decimal.__str__(value)}),
    (type({}.keys()), _items("keys", iter)),
    (type({}.values()), _items("values", iter)),
    (type({}.items()), _pairs("items", iter)),
    (_LAZY, _items("iterator", iter)),
    (type(iter([])), _items("iterator", iter)),
)


def _of_numpy(value: Any, kind: type) -> Any:
    """NumPy's scalars as Python's, its arrays as lists with a type, anything else by its name."""
    numpy = sys.modules.get("numpy")
    if numpy is not None and issubclass(kind, numpy.generic) and value.dtype.kind in "biufc":
        return to_tree(value.item())
    if numpy is not None and issubclass(kind, numpy.ndarray) and value.dtype.kind in "biufcU":
        return {"array": [value.dtype.str, to_tree(value.tolist())]}
    return {"opaque": str(getattr(kind, "__name__", "object"))[:100]}


def from_tree(tree: Any) -> Any:
    """The value that such a tree tells of, made of plain types alone.

    >>> from_tree({"dict": [[3, {"set": [4]}]]})
    {3: {4}}

    Raises: Malformed.
    """
    if tree is None or isinstance(tree, bool | int | float | str):
        return tree
    if isinstance(tree, list):
        if set(map(type, tree)) <= _NUMBERS:
            return tree
        return [from_tree(item) for item in tree]
    if not isinstance(tree, dict) or len(tree) != 1:
        raise Malformed("not one field")
    ((name, content),) = tree.items()
    if name not in _MAKERS:
        raise Malformed("an unknown kind")
    try:
        return _MAKERS[name](content)
    except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
        raise Malformed(f"no {name}") from error


def _list(content: Any) -> list[Any]:
    if not isinstance(content, list):
        raise Malformed("no list")
    return from_tree(content)


def _dict(content: Any) -> dict[Any, Any]:
    return {from_tree(key): from_tree(value) for key, value in content}


def _array(content: Any) -> Any:
    import numpy

    dtype = numpy.dtype(str(content[0]))
    if dtype.kind not in "biufcU":
        raise Malformed("a kind of array that is not data")
    return numpy.array(from_tree(content[1]), dtype=dtype)


_MAKERS: dict[str, Callable[[Any], Any]] = {
    "int": lambda content: int(content, 16),
    "str": lambda content: bytes.fromhex(content).decode("utf-32-le", "surrogatepass"),
    "tuple": lambda content: tuple(_list(content)),
    "dict": _dict,
    "set": lambda content: set(_list(content)),
    "frozenset": lambda content: frozenset(_list(content)),
    "bytes": bytes.fromhex,
    "bytearray": bytearray.fromhex,
    "complex": lambda content: complex(float(content[0]), float(content[1])),
    "range": lambda content: range(*_list(content)),
    "fraction": lambda content: fractions.Fraction(*_list(content)),
    "decimal": lambda content: decimal.Decimal(str(content)),
    "keys": lambda content: dict.fromkeys(_list(content)).keys(),
    "values": lambda content: dict(enumerate(_list(content))).values(),
    "items": lambda content: _dict(content).items(),
    "iterator": lambda content: iter(_list(content)),
    "array": _array,
    "opaque": lambda content: Opaque(str(content)[:100]),
}


def has_opaque(tree: Any) -> bool:
    """Whether something in the value of that tree arrives as `Opaque` and not as it is.

    >>> has_opaque(to_tree([1, {"a": (2,)}])), has_opaque(to_tree([len]))
    (False, True)
    """
    if isinstance(tree, list):
        return not set(map(type, tree)) <= _NUMBERS and any(map(has_opaque, tree))
    return isinstance(tree, dict) and ("opaque" in tree or any(map(has_opaque, tree.values())))


def dumps(tree: Any) -> bytes:
    """The tree as a message: its length in 8 bytes, and JSON in ASCII.

    Raises: ValueError when it is too long; RecursionError.
    """
    content = json.dumps(tree, separators=(",", ":")).encode("ascii")
    if len(content) > MOST_BYTES:
        raise ValueError("more data than may be passed on")
    return len(content).to_bytes(8, "big") + content


def read_message(read: Callable[[int], bytes]) -> Any:
    """The next message's tree; `read(n)` gives up to n bytes, and none at the end.

    Raises: EOFError; Malformed when it is no such message.
    """
    size = int.from_bytes(_exactly(read, 8), "big")
    if size > MOST_BYTES:
        raise Malformed("too long a message")
    content = _exactly(read, size)
    try:
        return json.loads(content.decode("ascii"))
    except (ValueError, RecursionError) as error:
        raise Malformed("no JSON") from error


def _exactly(read: Callable[[int], bytes], size: int) -> bytes:
    pieces = []
    while size:
        piece = read(min(size, 2**20))
        if not piece:
            raise EOFError
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)
