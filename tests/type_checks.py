"""What checks signatures such as `Float[Array, "B T D"]` while tests run."""

import inspect
import typing

from beartype import beartype
from jaxtyping import AbstractArray


def check(function):
    """The function, checked by beartype if its signature tells the shape of an array.

    Others are left alone: tests give them what stands for a run or a store, and configs say
    themselves, in words, which field is wrong.
    """
    return beartype(function) if any(map(_has_shape, _hints(function))) else function


def _hints(function):
    signature = inspect.signature(function)
    return [*(one.annotation for one in signature.parameters.values()), signature.return_annotation]


def _has_shape(hint):
    if inspect.isclass(hint) and issubclass(hint, AbstractArray):
        return True
    return any(map(_has_shape, typing.get_args(hint)))
