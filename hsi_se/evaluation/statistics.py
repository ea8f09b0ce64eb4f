"""What repeated runs say together: mean, spread and the interval of the mean."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t

_CONFIDENCE = 0.95


@dataclass(frozen=True)
class Summary:
    """A number over seeds.

    Attributes:
        n: How many values there are.
        mean: Their mean; NaN where there is none.
        std: Sample standard deviation (n-1); NaN below two values.
        low: Lower end of the 95 % Student t interval of the mean; NaN below two values.
        high: Upper end.
    """

    n: int
    mean: float
    std: float
    low: float
    high: float


def summarize(values: Sequence[float] | NDArray[np.floating]) -> Summary:
    """Returns the summary of the values that are numbers: NaN is dropped, and `n` counts the rest.

    The interval is for the mean over seeds of one scene and protocol, and takes the values as independent
    and about normal. It says nothing about another scene.
    """
    numbers = np.asarray(values, dtype=np.float64)
    numbers = numbers[~np.isnan(numbers)]
    n = len(numbers)
    mean = float(numbers.mean()) if n else float("nan")
    if n < 2:
        return Summary(n, mean, float("nan"), float("nan"), float("nan"))
    std = float(numbers.std(ddof=1))
    # Not t.interval: that is NaN where all values are the same, and the interval is then the mean alone.
    margin = float(t.ppf((1 + _CONFIDENCE) / 2, n - 1)) * std / n**0.5
    return Summary(n, mean, std, mean - margin, mean + margin)
