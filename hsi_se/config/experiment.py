"""The settings of one experiment; `yaml_file` reads and writes them."""

import hashlib
import json
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Discriminator, Field, PositiveInt, StringConstraints, model_validator

from hsi_se.config.base import Seed, Settings, mistake
from hsi_se.config.model import ModelSettings, PixelClassifier
from hsi_se.config.registry import list_plugins
from hsi_se.config.scene import SceneSettings
from hsi_se.config.split import AllSplit, BlocksSplit, FieldsSplit, FoldsSplit, SplitSettings
from hsi_se.config.training import PredictionSettings, TrainSettings
from hsi_se.errors import ConfigError


class _Projection(Settings):
    kind: str
    components: PositiveInt
    """number of components to keep; at most the number of bands and one less than the number of pixels in the fit"""
    whiten: bool = True
    """scale every component to unit variance (default); false divides all by the standard deviation of the first"""
    fit_on: Literal["train", "scene"]
    """pixels that the fit uses: train uses the training pixels only, scene uses every pixel, including test
    pixels; mnf with train also uses the differences of the training pixels to their four direct neighbours. If
    these are test pixels, as in a random split, the report says that the reduction was fitted on test pixels"""
    reach: ClassVar[int] = 0  # distance in pixels from a training pixel to those that `fit_on: train` sees too


class PcaReduction(_Projection):
    """Principal component analysis: keeps the components with the largest variance."""

    kind: Literal["pca"]


class MnfReduction(_Projection):
    """Minimum noise fraction: keeps the components with the largest signal-to-noise ratio.

    The noise is estimated from differences of neighbouring pixels. Source: Green et al. 1988, *A transformation
    for ordering multispectral data in terms of image quality with implications for noise removal*, IEEE TGRS
    26(1), 65-74, https://doi.org/10.1109/36.3001.
    """

    kind: Literal["mnf"]
    whiten: bool = False
    """scale every component to unit variance; false (default) divides all of them by the standard deviation of
    the first, so that noise stays equal in all"""
    reach: ClassVar[int] = 1


class NoReduction(Settings):
    """No reduction: keeps every band, optionally standardized."""

    components: ClassVar[None] = None
    fit_on: ClassVar[Literal["train"]] = "train"
    reach: ClassVar[int] = 0
    kind: Literal["none"]
    standardize: bool = True
    """scale each band to zero mean and unit variance over the training pixels (default); false keeps the values"""


ReductionSettings = Annotated[PcaReduction | MnfReduction | NoReduction, Discriminator("kind")]

MAX_PATCH_SIZE = 199  # larger patches would need gigabytes in a dense layer


class PatchSettings(Settings):
    """The square window around each pixel that the classifier sees."""

    size: int = Field(
        ge=1, le=MAX_PATCH_SIZE, description=f"side of a square patch in pixels; odd, from 1 to {MAX_PATCH_SIZE}"
    )
    padding: Literal["zero", "reflect"] = "reflect"
    """how patches continue beyond the scene's edge: reflect mirrors the scene (default), zero fills with zeros"""

    def check_together(self) -> None:
        if self.size % 2 == 0:
            remedy = f"write {self.size - 1} or {self.size + 1}"
            raise mistake(f"a patch needs a centre pixel, so its size must be odd; {remedy}", key="size")


NO_VALIDATION = (
    "needs validation pixels, and the split sets none aside; set some aside with split.validation (in a partition map, "
    "number them 2), or leave early_stopping out"
)
ConfigName = Annotated[str, StringConstraints(pattern=r"^[\w.+-]*$")]


class Config(Settings):
    """One experiment: all settings that determine the result of `hsi-se train`."""

    name: ConfigName = ""
    """name used for run folders: letters, digits, '.', '_', '+' and '-'; default: the file's name"""
    seed: Seed = 0
    """seed of the split, the initial weights and the training, from 0 to 2⁶³ - 1; default 0"""
    scene: SceneSettings
    """the image and its labels: a known scene's name, your own files, or a synthetic scene"""
    split: SplitSettings
    """how labelled pixels are divided into training, validation and test sets"""
    reduction: ReductionSettings
    """how bands become the components that the classifier sees"""
    patch: PatchSettings
    """size and padding of the patch around each pixel"""
    model: ModelSettings
    """the network or classical classifier, and its attention blocks"""
    train: TrainSettings
    """the optimizer, its schedule and the augmentation"""
    prediction: PredictionSettings = PredictionSettings()
    """post-processing of logits in `eval` and `map`; default: none"""

    @property
    def window_size(self) -> int:
        """Side in pixels of the window that determines a pixel's class: patch plus reach of smoothing."""
        return self.patch.size + 2 * self.prediction.reach

    @property
    def default_buffer(self) -> int:
        """Smallest distance in pixels at which no test prediction depends on a training pixel.

        In a split by blocks or fields it does not depend on any pixel of a training patch either. For folds, which
        lose training pixels on all sides of each test block, that would leave too few.
        """
        if isinstance(self.split, FoldsSplit):
            return self.window_size // 2 + 1
        return self.patch.size + self.train.shift + self.prediction.reach

    @model_validator(mode="after")
    def _buffer_is_the_patch_size_unless_given(self) -> Self:
        if isinstance(self.split, BlocksSplit | FieldsSplit | FoldsSplit) and self.split.buffer is None:
            split = self.split.model_copy(update={"buffer": self.default_buffer})
            object.__setattr__(self, "split", split)
        return self

    def check_together(self) -> None:
        depth = self.reduction.components or 10**6  # without a reduction it is the scene's
        try:
            self.model.check_input(num_bands=depth, patch_size=self.patch.size, origin="reduction.components")
        except ConfigError as error:
            path, _, problem = str(error).partition(": ")
            raise mistake(problem, key=path.partition(" = ")[0]) from None
        if self.train.shift > (most := self.patch.size // 2):
            problem = f"shifts patches of {self.patch.size} pixels past their centre pixel"
            raise mistake(f"{problem}; use at most {most}", key="train.shift")
        if self.train.norm_statistics == "scene" and getattr(self.model, "norm", "batch") == "none":
            problem = "model.norm: none leaves the network without batch norm"
            raise mistake(f"{problem}; leave norm_statistics out", key="train.norm_statistics")
        is_network, split = not isinstance(self.model, PixelClassifier), self.split
        for key in ("early_stopping", "max_minutes"):
            if getattr(self.train, key) is not None and not is_network:
                problem = f"model.name = {self.model.name} is not trained in epochs"
                raise mistake(f"{problem}; leave {key} out", key=f"train.{key}")
        if self.train.early_stopping and not (split.validation or getattr(split, "partition", None)):
            raise mistake(NO_VALIDATION, key="train.early_stopping")
        if self.prediction.calibration == "validation" and isinstance(self.model, PixelClassifier):
            problem = f"model.name = {self.model.name} is trained on the validation pixels too"
            raise mistake(f"{problem}; use cross-fit", key="prediction.calibration")

    def list_folds(self) -> tuple["Config", ...]:
        """Returns the config of every fold to be trained; a config without folds, or of one fold, is its own."""
        if not isinstance(self.split, FoldsSplit) or self.split.fold is not None:
            return (self,)
        return tuple(self.with_fold(fold) for fold in range(1, self.split.folds + 1))

    def with_fold(self, fold: int | None) -> "Config":
        """Returns this config for a single fold of its split, or for all folds, drawn once."""
        split = self.split.model_copy(update={"fold": fold, "repeats": 1})
        return self.model_copy(update={"split": split})

    def without_calibration(self) -> "Config":
        """Returns this config with `prediction.calibration: none`, unless it sets a calibration itself."""
        if "calibration" in self.prediction.model_fields_set:
            return self
        prediction = self.prediction.model_copy(update={"calibration": "none"})
        return self.model_copy(update={"prediction": prediction})

    @property
    def label(self) -> str:
        """`NAME-DIGEST`, which names the runs of these settings wherever no folder is given."""
        return f"{self.name or 'run'}-{self.digest[:8]}"

    @property
    def digest(self) -> str:
        """SHA-256 of every setting that affects the result: all but `name` and `train.checkpoint_every_s`.

        Of blocks and networks of plugins, their source counts as a setting.
        """
        unused: dict[str, Any] = {"name": True, "train": {"checkpoint_every_s"}}
        if isinstance(self.split, AllSplit):
            unused["split"] = {"folds"}
        settings = self.model_dump(mode="json", exclude=unused)
        if plugins := list_plugins(self.model):
            settings["plugins"] = {name: plugin.digest for name, plugin in plugins.items()}
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


class Sections(Settings):
    """Sections of a config that are given alone."""

    scene: SceneSettings | None = None
    split: SplitSettings | None = None
