"""Every setting of an experiment, as frozen pydantic models; `config_file` reads and writes them."""

import hashlib
import json
from typing import Annotated, Literal, Self

from pydantic import (
    Discriminator,
    Field,
    PositiveInt,
    StringConstraints,
    model_validator,
)

from hsi_se.config.base import Seed, Settings, mistake
from hsi_se.config.model import ModelSettings
from hsi_se.config.prediction import PredictionSettings
from hsi_se.config.scene import SceneSettings
from hsi_se.config.split import BlocksSplit, FieldsSplit, SplitSettings
from hsi_se.config.training import TrainSettings
from hsi_se.errors import ConfigError


class PcaReduction(Settings):
    kind: Literal["pca"]
    components: PositiveInt
    whiten: bool = True
    fit_on: Literal["train", "scene"]


class NoReduction(Settings):
    """Every band stays; `standardize` scales each to zero mean and unit variance over the training pixels."""

    kind: Literal["none"]
    standardize: bool = True


MAX_PATCH_SIZE = 199  # a dense layer over more would take gigabytes


class PatchSettings(Settings):
    size: int = Field(ge=1, le=MAX_PATCH_SIZE)
    padding: Literal["zero", "reflect"] = "reflect"

    @model_validator(mode="after")
    def _size_is_odd(self) -> Self:
        if self.size % 2 == 0:
            raise mistake(
                "a patch needs a centre pixel, so its size must be odd; "
                f"write {self.size - 1} or {self.size + 1}",
                key="size",
            )
        return self


ConfigName = Annotated[str, StringConstraints(pattern=r"^[\w.+-]*$")]


class Config(Settings):
    """One experiment: everything that decides what `hsi-se train` writes."""

    name: ConfigName = Field(
        default="", description="how run folders are called; the file's name unless given"
    )
    seed: Seed = 0
    scene: SceneSettings
    split: SplitSettings
    reduction: Annotated[PcaReduction | NoReduction, Discriminator("kind")]
    patch: PatchSettings
    model: ModelSettings
    train: TrainSettings
    prediction: PredictionSettings = PredictionSettings()

    @property
    def window_size(self) -> int:
        """Rows and cols of the scene that decide a pixel's class: its patch, and what smoothing reaches."""
        return self.patch.size + 2 * self.prediction.reach

    @property
    def default_buffer(self) -> int:
        """Pixels between the sides at which no test pixel's class depends on a pixel of a training patch."""
        return self.patch.size + self.train.shift + self.prediction.reach

    @model_validator(mode="after")
    def _buffer_is_the_patch_size_unless_given(self) -> Self:
        if isinstance(self.split, BlocksSplit | FieldsSplit) and self.split.buffer is None:
            split = self.split.model_copy(update={"buffer": self.default_buffer})
            object.__setattr__(self, "split", split)
        return self

    @model_validator(mode="after")
    def _network_fits_its_input(self) -> Self:
        known_depth = self.reduction.components if isinstance(self.reduction, PcaReduction) else None
        try:
            self.model.check_input(
                num_bands=known_depth if known_depth is not None else 10**6,
                patch_size=self.patch.size,
                origin="reduction.components",
            )
        except ConfigError as error:
            path, _, problem = str(error).partition(": ")
            raise mistake(problem, key=path.partition(" = ")[0]) from None
        return self

    @model_validator(mode="after")
    def _shifted_patch_holds_its_pixel(self) -> Self:
        most = self.patch.size // 2
        if self.train.shift > most:
            raise mistake(
                f"moves patches of {self.patch.size} off their own pixel; write at most {most}",
                key="train.shift",
            )
        return self

    @model_validator(mode="after")
    def _norm_statistics_have_a_norm(self) -> Self:
        if self.train.norm_statistics == "scene" and getattr(self.model, "norm", "batch") == "none":
            raise mistake(
                "model.norm: none leaves no batch norm; leave norm_statistics out",
                key="train.norm_statistics",
            )
        return self

    @property
    def digest(self) -> str:
        """SHA-256 over what decides the result: every setting but the name and the checkpoints' pace."""
        settings = self.model_dump(mode="json", exclude={"name": True, "train": {"checkpoint_every_s"}})
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
