"""The value of a torch state dict's pickle, read without running anything that it names.

A pickle is a program: loading one may call any function of any module. Python's own reader asks
`find_class` for every name in it: here a dozen names are answered with stand-ins that make dicts
and `StoredTensor`s, no module is imported, and every other name is refused. Opcodes that a dict of
tensors does not need are refused before the reader sees them.

Source: torch/serialization.py and torch/_utils.py of torch 2 (what `torch.save` writes), and
Python's pickletools.py (what the opcodes mean).
"""

from __future__ import annotations

import io
import pickle
import pickletools
from typing import Any, NamedTuple

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

_OPCODES = {
    "PROTO", "FRAME", "STOP", "MARK", "NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2",
    "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINSTRING",
    "SHORT_BINSTRING", "EMPTY_DICT", "EMPTY_LIST", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2",
    "TUPLE3", "SETITEM", "SETITEMS", "APPEND", "APPENDS", "BINPUT", "LONG_BINPUT", "MEMOIZE",
    "BINGET", "LONG_BINGET", "GLOBAL", "STACK_GLOBAL", "BINPERSID", "REDUCE", "BUILD",
}  # fmt: skip


class PickleError(Exception):
    """The pickle is damaged, or does what a dict of tensors never does; says which."""


class _Storage(NamedTuple):
    key: str
    dtype: str
    num_elements: int


class StoredTensor(NamedTuple):
    """A tensor as the pickle describes it: a window into a storage. Counts are in elements."""

    key: str
    """Name of the storage: the zip entry data/KEY."""
    dtype: str
    storage_elements: int
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _StateDict(dict[str, Any]):
    """An OrderedDict's stand-in; of its attributes, `_metadata` says nothing about its tensors."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        """Drops attributes."""


class _Global:
    """The stand-in of a known global; a pickle may call it but not change it."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __setstate__(self, state: Any) -> None:
        raise PickleError("attributes set on what is no dict")

    def __call__(self, *arguments: Any) -> Any:
        """What the global would make of these."""
        match self.name, arguments:
            case "collections.OrderedDict", ():
                return _StateDict()
            case "torch._utils._rebuild_parameter", (StoredTensor() as tensor, *_):
                return tensor
            case (
                "torch._utils._rebuild_tensor_v2",
                (_Storage() as storage, int(offset), tuple(shape), tuple(strides), *_),
            ):
                return _window(storage, offset, shape, strides)
        raise PickleError("a call that makes no tensor")


class _Unpickler(pickle.Unpickler):
    def find_class(self, module_name: str, global_name: str) -> _Global:
        """The stand-in of a known global."""
        dotted = f"{module_name}.{global_name}"
        if dotted not in KNOWN:
            raise PickleError(f"the global {dotted[:200]}")
        return _Global(dotted)

    def persistent_load(self, pid: Any) -> _Storage:
        """The storage of ('storage', class, key, device, elements)."""
        match pid:
            case ("storage", _Global(name=name), str(key), str(), int(count)) if count >= 0:
                dtype = STORAGES.get(name.removeprefix("torch."))
                if dtype is not None:
                    return _Storage(key, dtype, count)
        raise PickleError("a persistent id that is no storage")


def read_pickle(data: bytes) -> Any:
    """The value that a pickle describes, of dicts, lists, tuples, text, numbers and tensors.

    Raises:
      PickleError: an opcode or a global that is not known, or a damaged pickle.
    """
    try:
        for opcode, argument, _ in pickletools.genops(data):
            if opcode.name not in _OPCODES:
                raise PickleError(f"opcode {opcode.name}")
            if opcode.name == "LONG_BINPUT" and (argument or 0) > len(data):  # the memo is as long
                raise PickleError(f"damaged: a memo of {argument:,} values")
        return _Unpickler(io.BytesIO(data)).load()
    except (
        pickle.UnpicklingError, EOFError, AttributeError, LookupError, TypeError, ValueError,
        RecursionError, OverflowError, MemoryError,
    ) as error:  # fmt: skip
        raise PickleError(f"damaged: {type(error).__name__} {str(error)[:100]}") from error


def _window(
    storage: _Storage, offset: int, shape: tuple[Any, ...], strides: tuple[Any, ...]
) -> StoredTensor:
    sizes = (offset, *shape, *strides)
    if not all(type(size) is int and 0 <= size < 2**62 for size in sizes):
        raise PickleError("a tensor whose sizes are no whole numbers")
    if len(shape) != len(strides) or len(shape) > 8:
        raise PickleError(f"a tensor with {len(shape)} axes and {len(strides)} strides")
    return StoredTensor(storage.key, storage.dtype, storage.num_elements, offset, shape, strides)
