"""The bundle: a trained model with everything needed to map another scene."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from hsi_se.config.experiment import MAX_PATCH_SIZE
from hsi_se.config.model import ModelSettings
from hsi_se.config.prediction import PredictionSettings
from hsi_se.evaluation.confidence import TemperatureScaling
from hsi_se.runs.records import Record
from hsi_se.sampling.reduction import Reduction

Arrays = dict[str, NDArray[Any]]
REDUCTION = ("mean", "components", "scale")


class BundleFacts(Record):
    """Architecture, patch, classes with their colours, and the origin of the weights."""

    model: ModelSettings
    patch_size: int = Field(ge=1, le=MAX_PATCH_SIZE)
    padding: Literal["zero", "reflect"]
    class_ids: tuple[int, ...]
    class_names: tuple[str, ...]
    palette: dict[int, tuple[int, int, int]]
    wavelengths_nm: tuple[float, ...] | None
    fwhm_nm: tuple[float, ...] | None = None
    dropped_bands: dict[int, str] = Field(default_factory=dict)  # number from 1, and the reason
    value_range: tuple[float, float] | None = None  # of the training pixels, before the reduction
    prediction: PredictionSettings = PredictionSettings()
    scaling: TemperatureScaling
    # For smoothing: the standard deviation of each component over the training scene.
    guide_scale: tuple[float, ...] = ()
    split_digest: str
    versions: dict[str, str]


@dataclass(frozen=True, eq=False)
class ModelBundle:
    """A trained model: the network's state by name, and the reduction fitted on the training scene."""

    facts: BundleFacts
    weights: Arrays
    reduction: Reduction

    @property
    def class_ids(self) -> NDArray[np.int32]:
        return np.array(self.facts.class_ids, dtype=np.int32)

    @property
    def class_names(self) -> dict[int, str]:
        return dict(zip(self.facts.class_ids, self.facts.class_names, strict=True))

    def to_arrays(self) -> Arrays:
        """Returns weights and reduction as they are stored, by name."""
        arrays = {f"model.{name}": array for name, array in self.weights.items()}
        arrays |= {f"reduction.{name}": getattr(self.reduction, name) for name in REDUCTION}
        return {name: np.ascontiguousarray(array) for name, array in arrays.items()}

    @classmethod
    def of(cls, facts: BundleFacts, arrays: Arrays) -> "ModelBundle":
        """Returns the bundle with these facts and stored arrays."""
        reduction = Reduction(*(arrays[f"reduction.{name}"] for name in REDUCTION))
        weights = {name.removeprefix("model."): each for name, each in arrays.items() if name.startswith("model.")}
        return cls(facts, weights, reduction)
