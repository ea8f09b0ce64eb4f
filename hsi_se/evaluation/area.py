"""Estimates class areas and map accuracy, adjusted for the map's errors, with 95 % intervals.

Axes: i map class (the stratum), k reference class; both run over the same C classes.
"""

from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from hsi_se.evaluation.metrics import Fractions

AREA_CAVEAT = (
    "Valid only if the test pixels are a probability sample of the map. Benchmark labels are not a "
    "probability sample: the fields were chosen by hand. The estimate for the whole map assumes that "
    "unlabelled pixels are misclassified as often as labelled ones; its intervals do not include the error "
    "of this assumption."
)
_NORMAL_95 = 1.96  # rounded as in the paper
_M2_PER_HECTARE = 10_000

Quantity = TypeVar("Quantity", float, Fractions)


@dataclass(frozen=True, eq=False)
class Estimate(Generic[Quantity]):
    """An estimate, overall or per class, with its standard error; NaN where it cannot be computed."""

    value: Quantity
    standard_error: Quantity

    @property
    def margin(self) -> Quantity:
        """Returns half the width of the 95 % interval: 1.96 standard errors."""
        return self.standard_error * _NORMAL_95


@dataclass(frozen=True, eq=False)
class AreaEstimate:
    """The area of each class and the accuracy of a map, estimated from the map and its test pixels."""

    mapped_pixels: NDArray[np.int64]  # (C,)
    pixel_area_m2: float | None
    proportion: Estimate[Fractions]  # (C,) of the map's area that truly belongs to each class (eqs. 9, 10)
    overall_accuracy: Estimate[float]  # fraction of the area that is classified correctly (eqs. 1, 5)
    users_accuracy: Estimate[Fractions]  # (C,) of the area mapped as a class that belongs to it (eqs. 2, 6)
    producers_accuracy: Estimate[Fractions]  # (C,) of a class's true area that is mapped as it (eqs. 3, 7)

    @property
    def pixels(self) -> Estimate[Fractions]:
        """Returns the estimated true area of each class in pixels, `(C,)` (eq. 11)."""
        return self._scale(1.0)

    @property
    def hectares(self) -> Estimate[Fractions] | None:
        """Returns the estimated true area in hectares, `(C,)`; None if the area of a pixel is unknown."""
        return None if self.pixel_area_m2 is None else self._scale(self.pixel_area_m2 / _M2_PER_HECTARE)

    def _scale(self, pixel_area: float) -> Estimate[Fractions]:
        factor = self.mapped_pixels.sum() * pixel_area
        return Estimate(self.proportion.value * factor, self.proportion.standard_error * factor)


def estimate_area(
    confusion: NDArray[np.integer], *, mapped_pixels: NDArray[np.integer], pixel_area_m2: float | None = None
) -> AreaEstimate:
    """Returns the stratified estimates of Olofsson et al. 2014, with the map's classes as strata.

    Good practices for estimating area and assessing accuracy of land change, Remote Sensing of
    Environment 148, https://doi.org/10.1016/j.rse.2014.02.015, eqs. 1-7 and 9-11.

    The estimates are valid only if the test pixels are a probability sample of the pixels counted in
    `mapped_pixels`: drawn at random within each map class, or from all pixels (the map classes are then
    post-strata). Benchmark labels are not; `AREA_CAVEAT`, which the reports print, says what follows.
    Neighbouring test pixels tend to share their errors, which the intervals ignore.

    If a class of the map was predicted for only one test pixel, its variance is unknown, and all standard
    errors are NaN, except those of the other classes' user's accuracies. If it was predicted for none, the
    areas, the overall accuracy and all producer's accuracies are NaN as well. The producer's accuracy of a
    class whose estimated area is zero is NaN.

    Args:
        confusion: `(C, C)` test pixels; rows are the reference, columns the map. The paper's error matrix
            is its transpose.
        mapped_pixels: `(C,)` pixels that the map assigns to each class.
        pixel_area_m2: area of one pixel in m², if known.

    Raises:
        ValueError: more test pixels were predicted as a class than `mapped_pixels` counts for it.
    """
    sample = confusion.T  # (i, k), as in the paper
    num_sampled = sample.sum(axis=1)
    if (num_sampled > mapped_pixels).any():
        worst = int(np.argmax(num_sampled - mapped_pixels))
        raise ValueError(
            f"mapped_pixels[{worst}] = {mapped_pixels[worst]}: {num_sampled[worst]} test pixels are "
            "mapped as this class; count all pixels of the map from which the test pixels were drawn"
        )
    weight = mapped_pixels / mapped_pixels.sum()
    is_mapped = mapped_pixels[:, None] > 0
    with np.errstate(invalid="ignore"):  # 0 / 0 where a class has too few test pixels
        share = sample / num_sampled[:, None]
        share_variance = share * (1 - share) / (num_sampled[:, None] - 1)
        # A class absent from the map has weight 0 and no test pixels: its 0 · NaN must be 0.
        proportion = np.where(is_mapped, weight[:, None] * share, 0)  # eq. 4
        variance = np.where(is_mapped, weight[:, None] ** 2 * share_variance, 0)
        adjusted = proportion.sum(axis=0)
        producers = np.diag(proportion) / adjusted
        # Eq. 7: the residual of class k is 1 - P where it is mapped as k and -P elsewhere.
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
