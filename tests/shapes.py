"""Checks the shapes and dtypes in signatures, and nothing else of them: that values are of the
other types mypy shows, and to ask a large graph at run time whether it is one would compute it."""

from collections.abc import Callable
from typing import Any, TypeVar, get_args

from beartype import beartype
from jaxtyping import AbstractArray

F = TypeVar("F", bound=Callable[..., Any])


def shapes(function: F) -> F:
    """beartype, for the arrays among the annotations of a function."""
    told = function.__annotations__
    function.__annotations__ = {
        name: hint if _of_arrays(hint) else Any for name, hint in told.items()
    }
    return beartype(function)


def _of_arrays(hint: Any) -> bool:
    if isinstance(hint, type) and issubclass(hint, AbstractArray):
        return True
    return any(map(_of_arrays, get_args(hint)))
