"""Declares the form of a table of numbers beside the field that holds it, and checks it where a file is read."""

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import numpy as np
from pydantic import Field

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0, lt=2**63)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]


@dataclass(frozen=True)
class Form:
    """The axes of a table, its type and its bounds: `Annotated[NDArray[np.uint8], Form("rows cols 3")]`.

    Attributes:
        axes: a name or a length for each axis; axes of one name have one length in all fields of a class.
        dtype: of an array's values; by default that of the annotation.
        low, high: lowest and highest value of an array; `high` may be the name of an axis, and means its length.
        index_of: the axis that values are places on, from 0.
        has_gaps: whether values may be NaN or infinite.
    """

    axes: str = ""
    dtype: str = ""
    low: float = -math.inf
    high: float | str = math.inf
    index_of: str = ""
    has_gaps: bool = False

    def fits(self, values: Any, lengths: dict[str, int]) -> bool:
        """Returns whether values have these axes; the lengths of those not known yet are added to `lengths`."""
        shape, axes = np.shape(values), self.axes.split()  # ValueError if rows differ in length
        return len(shape) == len(axes) and all(
            length == (int(axis) if axis.isdecimal() else lengths.setdefault(axis, length))
            for axis, length in zip(axes, shape, strict=True)
        )


@functools.cache
def list_forms(kind: type) -> Mapping[str, Form]:
    """Returns the form of each field of a class that has one, by name."""
    found = {}
    for name, hint in get_type_hints(kind, include_extras=True).items():
        parts = get_args(hint) if get_origin(hint) is Annotated else ()
        for form in (part for part in parts if isinstance(part, Form)):
            kinds = [of for part in (parts[0], *get_args(parts[0])) for of in get_args(part)]
            dtypes = [get_args(of)[0].__name__ for of in kinds if get_origin(of) is np.dtype]
            found[name] = replace(form, dtype=form.dtype or next(iter(dtypes), ""))
    return found


def check_arrays(kind: type, arrays: Mapping[str, Any], lengths: Mapping[str, int]) -> None:
    """Raises ValueError unless each array fits its field of a class, and all without a default are there.

    `lengths` of some axes are known from elsewhere.
    """
    known, forms = dict(lengths), list_forms(kind)
    lacks = [name for name in forms if name not in arrays and not hasattr(kind, name)]
    if unlike := [*lacks, *(name for name in arrays if name not in forms)]:
        raise ValueError(f"{unlike[0]} is {'missing' if lacks else 'unknown'}")
    forms = {name: form for name, form in forms.items() if name in arrays}
    for name, form in forms.items():
        array = arrays[name]
        if array.dtype != form.dtype or not form.fits(array, known):
            axes = ", ".join(f"{axis} = {known[axis]}" if axis in known else axis for axis in form.axes.split())
            raise ValueError(f"{name} is {array.dtype} {list(array.shape)} instead of {form.dtype} [{axes}]")
    for name, form in forms.items():
        array, low = arrays[name], 0 if form.index_of else form.low
        high = known[form.index_of] - 1 if form.index_of else known.get(str(form.high), form.high)
        if not form.has_gaps and not (np.isfinite(array) & (array >= low) & (array <= high)).all():
            raise ValueError(f"{name} has values that are not finite, or outside {low:g} to {high:g}")
