"""Checks the arguments of public functions against their annotations, so that a wrong one is an error of one line."""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

from hsi_se.errors import ConfigError

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")
_LONGEST_SHOWN = 200  # characters, or bits


def checked(*others: str) -> Callable[[Callable[Parameters, Result]], Callable[Parameters, Result]]:
    """Returns a decorator that raises ConfigError if an argument is not of the type that its annotation says.

    The function itself looks at the `others`. Arguments are passed on unchanged.
    """

    def decorate(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
        @functools.wraps(function)
        def call(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
            for name, value in inspect.signature(function).bind(*args, **kwargs).arguments.items():
                if name not in others:
                    _check(name, value, adapters()[name])
            return function(*args, **kwargs)

        @functools.cache
        def adapters() -> dict[str, TypeAdapter[Any]]:
            hints = get_type_hints(function, include_extras=True)
            settings = ConfigDict(arbitrary_types_allowed=True, strict=True)
            return {
                name: TypeAdapter(hint, config=settings)
                for name, hint in hints.items()
                if name not in (*others, "return")
            }

        return call

    return decorate


def _check(name: str, value: object, adapter: TypeAdapter[Any]) -> None:
    try:
        adapter.validate_python(value.item() if hasattr(value, "item") and not hasattr(value, "__len__") else value)
    except ValidationError as error:
        wanted = dict.fromkeys(each["msg"].removeprefix("Input should be ") for each in error.errors())
        raise ConfigError(f"{name} = {show(value)}: must be {' or '.join(wanted)}") from None


def show(value: object) -> str:
    """Returns a value as it may stand in a line: arrays and tensors by their shape, long ones shortened."""
    if isinstance(value, tuple | list) and 0 < len(value) <= 4:
        return f"({', '.join(map(show, value))})"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key!r}: {show(each)}' for key, each in list(value.items())[:4])}}}"
    if hasattr(value, "shape"):
        return str(tuple(value.shape))
    text = show_setting(value)
    is_short = "\n" not in text and len(text) <= _LONGEST_SHOWN
    return text if is_short or isinstance(value, str) else f"a value of type {type(value).__name__}"


def show_setting(value: object) -> str:
    """Returns a value of a config as it may stand in a line; Python itself refuses to print very long integers."""
    if isinstance(value, int) and value.bit_length() > _LONGEST_SHOWN:
        return f"a number of {value.bit_length():,} bits"
    text = repr(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"
