"""The `prediction` section of the config: post-processing of logits before a class is chosen."""

import math
from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt

from hsi_se.config.base import Settings


class Smoothing(Settings):
    """Joint bilateral filter of the class probabilities, guided by the components (Kang et al. 2014)."""

    spatial: PositiveFloat = Field(default=3.0, le=20)
    """spatial standard deviation in pixels, above 0 and at most 20; the window reaches two of them; default 3"""
    range: PositiveFloat = 0.3
    """spectral standard deviation, above 0, in units of each component's standard deviation over the scene;
    default 0.3"""
    components: PositiveInt = 6
    """number of leading components that guide the filter, at most; default 6"""
    passes: PositiveInt = Field(default=1, le=10)
    """number of filter passes, 1 to 10, each on the result of the previous one; default 1"""

    @property
    def radius(self) -> int:
        """Distance in pixels from the window's centre to its edge."""
        return math.ceil(2 * self.spatial)


Precision = Literal["float32", "tf32"]


class PredictionSettings(Settings):
    """Post-processing of a trained classifier's logits, in `eval` and in `map`."""

    symmetries: bool = False
    """average the logits over the eight flips and transposes of the scene, at eight times the cost; default false"""
    smoothing: Smoothing | None = None
    """filter for the class probabilities; default: no filter"""
    calibration: Literal["auto", "validation", "cross-fit", "none"] = "auto"
    """pixels that fit the temperature of the probabilities at the end of training: validation, or cross-fit
    (trains three more times, each on about two thirds of the training set, and predicts the rest); auto
    (default) uses 100 or more validation pixels if they are as far from training pixels as test pixels are,
    otherwise cross-fit; none leaves the probabilities uncalibrated, as ablations, folds and gap do by default"""

    precision: Precision = "float32"
    """number format of the factors in products: float32 (default), or tf32 where a GPU has it, with 10 of 23 bits"""

    @property
    def reach(self) -> int:
        """Distance in pixels beyond a pixel's own patch that can influence its class."""
        return 0 if self.smoothing is None else self.smoothing.passes * self.smoothing.radius

    @property
    def num_passes(self) -> int:
        """Number of times each pixel passes through the classifier."""
        return 8 if self.symmetries else 1
