"""What a torch state dict's pickle says, found out without running it.

A pickle is a program: loading one may call any function of any module. Here its opcodes are read
by a machine of our own that knows the dozen which a dict of tensors needs and makes nothing but
dicts, lists, tuples, numbers, text and `StoredTensor`s. Of all functions it knows four names, and
none of them is imported or called. Everything else is refused by name.

Source: torch/serialization.py and torch/_utils.py of torch 2 (what `torch.save` writes), and
Python's pickletools.py (what the opcodes mean).
"""

from __future__ import annotations

import dataclasses
import pickletools
from collections.abc import Callable, Iterator
from typing import Any

STORAGES = {
    "FloatStorage": "F32", "HalfStorage": "F16", "BFloat16Storage": "BF16", "DoubleStorage": "F64",
    "LongStorage": "I64", "IntStorage": "I32", "ShortStorage": "I16", "CharStorage": "I8",
    "ByteStorage": "U8", "BoolStorage": "BOOL",
}  # fmt: skip
"""Names of torch's storages, and their dtypes as safetensors spells them."""

REBUILD = "torch._utils._rebuild_tensor_v2"
PARAMETER = "torch._utils._rebuild_parameter"
ORDERED_DICT = "collections.OrderedDict"
KNOWN = {REBUILD, PARAMETER, ORDERED_DICT, *(f"torch.{name}" for name in STORAGES)}
"""Every global that a pickle may name."""


class PickleError(Exception):
    """The pickle is damaged, or does what a dict of tensors never does; says which."""


@dataclasses.dataclass(frozen=True)
class _Global:
    name: str


@dataclasses.dataclass(frozen=True)
class _Storage:
    key: str
    dtype: str
    num_elements: int


@dataclasses.dataclass(frozen=True)
class StoredTensor:
    """A tensor as the pickle describes it: a window into a storage. Counts are in elements."""

    key: str
    """Name of the storage: the zip entry data/KEY."""
    dtype: str
    storage_elements: int
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read_pickle(data: bytes) -> Any:
    """The value that a pickle describes, of dicts, lists, tuples, text, numbers and tensors.

    Raises:
      PickleError: an opcode or a global that is not known, or a damaged pickle.
    """
    machine = _Machine()
    try:
        for opcode, argument, _ in _opcodes(data):
            if machine.step(opcode, argument):
                return machine.result()
    except (IndexError, KeyError, TypeError, ValueError, RecursionError, OverflowError) as error:
        raise PickleError(f"damaged: {type(error).__name__} {str(error)[:100]}") from error
    raise PickleError("damaged: it has no end")


def _opcodes(data: bytes) -> Iterator[tuple[str, Any, int | None]]:
    for opcode, argument, position in pickletools.genops(data):
        yield opcode.name, argument, position


class _Machine:
    """A stack, a memo, and what each known opcode does to them."""

    def __init__(self) -> None:
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def result(self) -> Any:
        """What is on the stack at the end."""
        if len(self._stack) != 1:
            raise PickleError(f"damaged: {len(self._stack)} values at its end")
        return self._stack[0]

    def step(self, opcode: str, argument: Any) -> bool:
        """Does one opcode; True when it was the last."""
        if opcode == "STOP":
            return True
        if opcode in _VALUES:
            self._stack.append(argument)
        elif opcode in _CONSTANTS:
            self._stack.append(_CONSTANTS[opcode]())
        elif opcode in _ACTIONS:
            _ACTIONS[opcode](self, argument)
        elif opcode not in ("PROTO", "FRAME"):
            raise PickleError(f"opcode {opcode}")
        return False

    def remember(self, index: int | None) -> None:
        """Keeps the top of the stack under `index`, by default the next one."""
        self._memo[len(self._memo) if index is None else index] = self._stack[-1]

    def recall(self, index: int) -> None:
        """Puts what was kept on the stack."""
        self._stack.append(self._memo[index])

    def since_mark(self) -> list[Any]:
        """Takes everything above the last mark."""
        place = self._marks.pop()
        values = self._stack[place:]
        del self._stack[place:]
        return values

    def mark(self, _: Any) -> None:
        """Marks where the next values begin."""
        self._marks.append(len(self._stack))

    def make_tuple(self, count: int | None) -> None:
        """Makes the top `count` values, or those since the mark, one tuple."""
        if count is None:
            values = self.since_mark()
        else:
            values = self._stack[len(self._stack) - count :]
            del self._stack[len(self._stack) - count :]
        if len(values) < (count or 0):
            raise PickleError("damaged: too few values for a tuple")
        self._stack.append(tuple(values))

    def set_items(self, pairs: list[Any]) -> None:
        """Adds key, value, key, value ... to the dict on top."""
        target = self._stack[-1]
        if not isinstance(target, dict) or len(pairs) % 2:
            raise PickleError("damaged: items for what is no dict")
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            if not isinstance(key, str | int):
                raise PickleError(f"a dict with a key of type {type(key).__name__}")
            if key in target:
                raise PickleError(f"the name {str(key)[:100]!r} twice in one dict")
            target[key] = value

    def append(self, values: list[Any]) -> None:
        """Adds to the list on top."""
        if not isinstance(self._stack[-1], list):
            raise PickleError("damaged: values for what is no list")
        self._stack[-1].extend(values)

    def name_global(self, name: str | None) -> None:
        """Puts a known global on the stack; `None` takes its module and name from there."""
        if name is None:
            attribute, module = self._stack.pop(), self._stack.pop()
            name = f"{module} {attribute}" if isinstance(module, str) else "? ?"
        dotted = name.replace(" ", ".", 1)
        if dotted not in KNOWN:
            raise PickleError(f"the global {dotted[:200]}")
        self._stack.append(_Global(dotted))

    def load_storage(self, _: Any) -> None:
        """Makes ('storage', class, key, device, elements) a storage."""
        match self._stack.pop():
            case ("storage", _Global(name), str(key), str(), int(count)) if count >= 0:
                self._stack.append(_Storage(key, STORAGES[name.removeprefix("torch.")], count))
            case _:
                raise PickleError("a persistent id that is no storage")

    def call(self, _: Any) -> None:
        """Stands in for the call of a known global."""
        arguments, function = self._stack.pop(), self._stack.pop()
        match function, arguments:
            case _Global(name="collections.OrderedDict"), ():
                self._stack.append({})
            case _Global(name="torch._utils._rebuild_parameter"), (StoredTensor() as tensor, *_):
                self._stack.append(tensor)
            case (
                _Global(name="torch._utils._rebuild_tensor_v2"),
                (_Storage() as storage, int(offset), tuple(shape), tuple(strides), *_),
            ):
                self._stack.append(_window(storage, offset, shape, strides))
            case _:
                raise PickleError("a call that makes no tensor")

    def build(self, _: Any) -> None:
        """Drops attributes: a state dict has `_metadata`, which says nothing about its tensors."""
        state = self._stack.pop()
        if not isinstance(self._stack[-1], dict) or not isinstance(state, dict):
            raise PickleError("attributes set on what is no dict")

    def pop(self) -> Any:
        """Takes the top of the stack."""
        return self._stack.pop()


def _window(
    storage: _Storage, offset: int, shape: tuple[Any, ...], strides: tuple[Any, ...]
) -> StoredTensor:
    sizes = (offset, *shape, *strides)
    if not all(type(size) is int and 0 <= size < 2**62 for size in sizes):
        raise PickleError("a tensor whose sizes are no whole numbers")
    if len(shape) != len(strides) or len(shape) > 8:
        raise PickleError(f"a tensor with {len(shape)} axes and {len(strides)} strides")
    return StoredTensor(storage.key, storage.dtype, storage.num_elements, offset, shape, strides)


_VALUES = {
    "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE",
    "BINUNICODE8", "BINSTRING", "SHORT_BINSTRING",
}  # fmt: skip
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None, "NEWTRUE": lambda: True, "NEWFALSE": lambda: False,
    "EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple,
}  # fmt: skip
_ACTIONS: dict[str, Callable[[_Machine, Any], Any]] = {
    "MARK": _Machine.mark,
    "BINPUT": _Machine.remember,
    "LONG_BINPUT": _Machine.remember,
    "MEMOIZE": _Machine.remember,
    "BINGET": _Machine.recall,
    "LONG_BINGET": _Machine.recall,
    "TUPLE": lambda machine, _: machine.make_tuple(None),
    "TUPLE1": lambda machine, _: machine.make_tuple(1),
    "TUPLE2": lambda machine, _: machine.make_tuple(2),
    "TUPLE3": lambda machine, _: machine.make_tuple(3),
    "SETITEM": lambda machine, _: machine.set_items([machine.pop(), machine.pop()][::-1]),
    "SETITEMS": lambda machine, _: machine.set_items(machine.since_mark()),
    "APPEND": lambda machine, _: machine.append([machine.pop()]),
    "APPENDS": lambda machine, _: machine.append(machine.since_mark()),
    "GLOBAL": _Machine.name_global,
    "STACK_GLOBAL": lambda machine, _: machine.name_global(None),
    "BINPERSID": _Machine.load_storage,
    "REDUCE": _Machine.call,
    "BUILD": _Machine.build,
}
