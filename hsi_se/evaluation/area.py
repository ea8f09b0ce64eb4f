"""Areas and accuracies of a map, corrected for the map's errors, with 95 % intervals.

Axes: i map class (the stratum, as called), k true class; both run over the same C classes.
"""

from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from hsi_se.evaluation.metrics import Fractions

AREA_CAVEAT = (
    "Valid only if the test pixels are a probability sample of the map. Labelled pixels of a benchmark scene "
    "are not: somebody chose the fields. Over the whole map the estimate takes unlabelled pixels to err as "
    "labelled ones do, and its intervals do not know how far they differ."
)
_NORMAL_95 = 1.96  # as the paper rounds it
_M2_PER_HECTARE = 10_000

Quantity = TypeVar("Quantity", float, Fractions)


@dataclass(frozen=True, eq=False)
class Estimate(Generic[Quantity]):
    """A number, or one for each class, with its standard error; NaN where it cannot be computed."""

    value: Quantity
    standard_error: Quantity

    @property
    def margin(self) -> Quantity:
        """Half the width of the 95 % interval: 1.96 standard errors."""
        return self.standard_error * _NORMAL_95


@dataclass(frozen=True, eq=False)
class AreaEstimate:
    """What a map and its test pixels say together about the area of each class.

    Attributes:
        mapped_pixels: `(C,)` pixels the map calls each class.
        pixel_area_m2: area of one pixel, if known.
        proportion: `(C,)` share of the map's area that truly is each class (eqs. 9 and 10).
        overall_accuracy: share of the map's area that is called right (eqs. 1 and 5).
        users_accuracy: `(C,)` of the area called a class, the share that is (eqs. 2 and 6).
        producers_accuracy: `(C,)` of the area of a class, the share called so (eqs. 3 and 7).
    """

    mapped_pixels: NDArray[np.int64]
    pixel_area_m2: float | None
    proportion: Estimate[Fractions]
    overall_accuracy: Estimate[float]
    users_accuracy: Estimate[Fractions]
    producers_accuracy: Estimate[Fractions]

    @property
    def pixels(self) -> Estimate[Fractions]:
        """`(C,)` true area in pixels (eq. 11)."""
        return self._scale(float(self.mapped_pixels.sum()))

    @property
    def hectares(self) -> Estimate[Fractions] | None:
        """`(C,)` true area in hectares; None where the area of a pixel is not known."""
        if self.pixel_area_m2 is None:
            return None
        return self._scale(float(self.mapped_pixels.sum()) * self.pixel_area_m2 / _M2_PER_HECTARE)

    def _scale(self, factor: float) -> Estimate[Fractions]:
        return Estimate(self.proportion.value * factor, self.proportion.standard_error * factor)


def estimate_area(
    confusion: NDArray[np.integer],
    *,
    mapped_pixels: NDArray[np.integer],
    pixel_area_m2: float | None = None,
) -> AreaEstimate:
    """Returns the stratified estimates of Olofsson et al. 2014, whose strata are the map's classes.

    Good practices for estimating area and assessing accuracy of land change, Remote Sensing of
    Environment 148, https://doi.org/10.1016/j.rse.2014.02.015, eqs. 1-7 and 9-11.

    Valid only where the test pixels are a probability sample of the pixels in `mapped_pixels`: drawn at
    random within each map class, or from all, the classes then being post-strata. The labelled pixels
    of a benchmark scene are no such sample of the scene, for they lie where somebody chose to label; a
    random draw from them stands for the labelled area alone, whose classes are known. Over a whole map the
    estimate then takes the unlabelled pixels to err as the labelled ones do, which the reports say.
    Test pixels close together err together; the intervals know nothing of that.

    A class that the map holds but that only one test pixel is called leaves its share of every variance
    unknown: all standard errors are NaN but those of the other classes' user's accuracies. Where no
    test pixel is called so, the areas, the overall and all producer's accuracies are NaN too. A class
    estimated to cover nothing has no producer's accuracy.

    Args:
        confusion: `(C, C)` counts of test pixels, rows the truth, columns the map, as everywhere in
            this package; the paper's error matrix is its transpose.
        mapped_pixels: `(C,)` pixels that the map calls each class.
        pixel_area_m2: area of one pixel, if known.

    Raises:
        ValueError: A class has more test pixels than the map has pixels of it.
    """
    sample = confusion.T  # (i, k), as in the paper
    num_sampled = sample.sum(axis=1)
    if (num_sampled > mapped_pixels).any():
        worst = int(np.argmax(num_sampled - mapped_pixels))
        raise ValueError(
            f"mapped_pixels[{worst}] = {mapped_pixels[worst]}, but the map calls {num_sampled[worst]} "
            "test pixels so; count the pixels of the map that the test pixels were drawn from"
        )
    weight = mapped_pixels / mapped_pixels.sum()
    is_mapped = mapped_pixels[:, None] > 0
    with np.errstate(invalid="ignore"):  # too few test pixels are 0 / 0
        share = sample / num_sampled[:, None]
        share_variance = share * (1 - share) / (num_sampled[:, None] - 1)
        # A class that the map does not hold weighs nothing, and cannot have been sampled.
        proportion = np.where(is_mapped, weight[:, None] * share, 0)  # eq. 4
        variance = np.where(is_mapped, weight[:, None] ** 2 * share_variance, 0)
        adjusted = proportion.sum(axis=0)
        producers = np.diag(proportion) / adjusted
        # Eq. 7: area of class k counts 1 - P where it is called k, and -P where it is called another.
        residual = np.where(np.eye(len(weight), dtype=bool), 1 - producers, -producers)
        producers_error = np.sqrt((residual**2 * variance).sum(axis=0)) / adjusted
    return AreaEstimate(
        np.asarray(mapped_pixels, dtype=np.int64),
        pixel_area_m2,
        proportion=Estimate(adjusted, np.sqrt(variance.sum(axis=0))),
        overall_accuracy=Estimate(float(np.trace(proportion)), float(np.sqrt(np.trace(variance)))),
        users_accuracy=Estimate(np.diag(share), np.sqrt(np.diag(share_variance))),
        producers_accuracy=Estimate(producers, producers_error),
    )
