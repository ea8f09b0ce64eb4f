"""The bundle: a trained model with everything needed to map another scene."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from hsi_se.config.experiment import MAX_PATCH_SIZE
from hsi_se.config.model import ModelSettings
from hsi_se.config.registry import Plugin, check_plugins, list_plugins
from hsi_se.config.training import PredictionSettings
from hsi_se.evaluation.confidence import TemperatureScaling
from hsi_se.runs.records import Colour, Record
from hsi_se.sampling.reduction import Reduction
from hsi_se.scene.scene import HIGHEST_LABEL
from hsi_se.system.forms import Count, Form, NotNegative, Positive

Arrays = dict[str, NDArray[Any]]
# Widths of some bands alone are of no use.
_UnlessGaps = BeforeValidator(lambda widths: None if widths and any(width != width for width in widths) else widths)
REDUCTION = ("mean", "components", "scale")


class BundleFacts(Record):
    """Architecture, patch, classes with their colours, and the origin of the weights.

    RunError if a plugin of the network is not loaded, or is not the one of the training.
    """

    plugins: Annotated[dict[str, Plugin], AfterValidator(check_plugins)]  # before the model, which needs them
    model: ModelSettings
    patch_size: int = Field(ge=1, le=MAX_PATCH_SIZE)
    padding: Literal["zero", "reflect"]
    class_ids: Annotated[tuple[Count, ...], Form("classes")]
    class_names: Annotated[tuple[str, ...], Form("classes")]
    palette: dict[int, Colour]
    wavelengths_nm: Annotated[tuple[Positive, ...] | None, Form("bands")]
    fwhm_nm: Annotated[tuple[Positive, ...] | None, _UnlessGaps, Form("bands")] = None
    dropped_bands: dict[int, str] = Field(default_factory=dict)  # number from 1, and the reason
    value_range: tuple[float, float] | None = None  # of the training pixels, before the reduction
    prediction: PredictionSettings = PredictionSettings()
    scaling: TemperatureScaling
    # For smoothing: the standard deviation of each component over the training scene.
    guide_scale: tuple[NotNegative, ...] = ()
    split_digest: str
    versions: dict[str, str]

    @model_validator(mode="after")
    def _names_its_plugins(self) -> Self:
        if missing := list_plugins(self.model).keys() - self.plugins.keys():
            raise ValueError(f"plugins: do not name {min(missing)}")
        return self

    @model_validator(mode="after")
    def _check_classes(self) -> Self:
        ids = self.class_ids
        if (
            not ids
            or list(ids) != sorted({*ids})
            or not {0, *ids} <= {*self.palette}
            or not 0 < ids[0] <= ids[-1] <= HIGHEST_LABEL
        ):
            raise ValueError(f"class_ids are not ascending labels from 1 to {HIGHEST_LABEL} with a colour each")
        return self

    @property
    def lengths(self) -> dict[str, int]:
        """Returns the lengths of the axes of the bundle's arrays, as far as they are known here; see `Form`."""
        known = {"bands": self.wavelengths_nm, "components": self.guide_scale or None}
        return {axis: len(values) for axis, values in known.items() if values is not None}


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
        return {name: np.asarray(array, order="C") for name, array in arrays.items()}

    @classmethod
    def of(cls, facts: BundleFacts, arrays: Arrays) -> "ModelBundle":
        """Returns the bundle with these facts and stored arrays."""
        reduction = Reduction(*(arrays[f"reduction.{name}"] for name in REDUCTION))
        weights = {name.removeprefix("model."): each for name, each in arrays.items() if name.startswith("model.")}
        return cls(facts, weights, reduction)
