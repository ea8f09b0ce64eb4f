"""The `prediction` section of the config: what happens to logits before a class is picked."""

import math

from pydantic import (
    Field,
    PositiveFloat,
    PositiveInt,
)

from hsi_se.config.base import Settings


class Smoothing(Settings):
    """A joint bilateral filter of the class probabilities, guided by the components (Kang et al. 2014)."""

    spatial: PositiveFloat = Field(
        default=3.0,
        le=20,
        description="standard deviation over rows and cols, in pixels; the window ends at two",
    )
    range: PositiveFloat = Field(
        default=0.3,
        description="standard deviation over the components, each in units of its own over the scene",
    )
    components: PositiveInt = Field(
        default=6, description="how many of the first components, at most, guide the filter"
    )
    passes: PositiveInt = Field(
        default=1, le=10, description="how often the filter runs, each time on what the time before has left"
    )

    @property
    def radius(self) -> int:
        """Pixels that the window reaches to either side."""
        return math.ceil(2 * self.spatial)


class PredictionSettings(Settings):
    """What becomes of a trained classifier's logits before a class is picked, in `eval` and in `map`."""

    symmetries: bool = Field(
        default=False,
        description="the mean logits of the scene's eight flips and transposes: eight times the work",
    )
    smoothing: Smoothing | None = Field(default=None, description="no filter unless given")

    @property
    def reach(self) -> int:
        """Pixels beyond its own patch that decide a pixel's class."""
        return 0 if self.smoothing is None else self.smoothing.passes * self.smoothing.radius

    @property
    def num_passes(self) -> int:
        """How often each pixel goes through the classifier."""
        return 8 if self.symmetries else 1
