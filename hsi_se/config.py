"""Every setting of an experiment, as frozen pydantic models; `config_file` reads and writes them."""

import hashlib
import json
import math
import re
from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Discriminator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    StringConstraints,
    Tag,
    model_validator,
)

from hsi_se.config_model import ModelSettings
from hsi_se.errors import ConfigError
from hsi_se.settings import Settings, mistake

Seed = Annotated[int, Field(ge=0, lt=2**63)]  # what torch's generators take


def _tag_by_shape(value: object) -> str:
    """Tags have a space, so that no key of a config is mistaken for one."""
    return "a section" if isinstance(value, Mapping | BaseModel) else "a value"


def _check_fraction(value: float) -> float:
    if not 0 < value < 1:
        raise mistake("a fraction must lie in (0, 1); write 0.1, or {per_class: 50} for counts")
    return value


def _check_bands(value: object) -> str:
    """`104-108` or `150`, counted from 1."""
    match = re.fullmatch(r"([1-9]\d{0,6})(?:\s*[-–]\s*([1-9]\d{0,6}))?", str(value).strip())
    if match is None or isinstance(value, bool) or int(match[2] or match[1]) < int(match[1]):
        raise mistake("write bands as 150 or 104-108, counted from 1")
    return f"{match[1]}-{match[2]}" if match[2] else match[1]


def _name_nan(value: object) -> object:
    """NaN is spelt as a word, because no two NaNs are equal."""
    return "nan" if isinstance(value, float) and value != value else value


Bands = Annotated[str, BeforeValidator(_check_bands, json_schema_input_type=PositiveInt | str)]
Byte = Annotated[int, Field(ge=0, le=255)]


class SceneFiles(Settings):
    """A scene of the user's own: two files in any format, found as given or below the data folder."""

    cube: str
    labels: str
    cube_key: str | None = None
    labels_key: str | None = None
    class_names: tuple[str, ...] | str | None = Field(
        default=None, description="names in ascending order of label, or a known scene to take them from"
    )
    palette: tuple[tuple[Byte, Byte, Byte], ...] | None = Field(
        default=None, description="[red, green, blue] from 0 to 255, in ascending order of label"
    )
    unlabelled: int = Field(default=0, description="the stored value of pixels without a label")
    drop_bands: tuple[Bands, ...] = Field(
        default=(), description="bands of the file to leave out, counted from 1: [104-108, 150]"
    )
    wavelengths: tuple[PositiveFloat, ...] | str | None = Field(
        default=None,
        description="of each band of the file, or a text file of them; in nm, or in µm if none reaches 100",
    )
    nodata: Annotated[float | Literal["nan"] | None, BeforeValidator(_name_nan)] = Field(
        default=None, description="the stored value that means nothing was measured; the file's unless given"
    )
    scale: PositiveFloat | None = Field(
        default=None, description="what values are divided by, such as 10000; the file's unless given"
    )
    byte_order: Literal["little", "big"] | None = Field(
        default=None, description="of an ENVI image whose header leaves it out"
    )
    name: str | None = None

    @model_validator(mode="after")
    def _classes_are_told_apart(self) -> Self:
        names = self.class_names if isinstance(self.class_names, tuple) else ()
        for name in names:
            if not name or names.count(name) > 1:
                raise mistake(
                    f"{name!r} is no class's name, or more than one's; give each one of its own",
                    key="class_names",
                )
        return self

    def list_dropped_bands(self) -> list[int]:
        """Returns the bands of `drop_bands`, 0-based."""
        ends = [(part.partition("-")[0], part.rpartition("-")[2]) for part in self.drop_bands]
        return [band - 1 for first, last in ends for band in range(int(first), int(last) + 1)]


class SyntheticScene(Settings):
    """The embedded demo scene, generated from a seed."""

    synthetic: Seed = Field(description="the seed that the scene is generated from")
    rows: int = Field(default=72, ge=24)
    cols: int = Field(default=72, ge=24)
    bands: int = Field(default=64, ge=16)

    @model_validator(mode="before")
    @classmethod
    def _has_no_files(cls, data: object) -> object:
        for key in ("cube", "labels"):
            if isinstance(data, Mapping) and key in data:
                raise mistake("a synthetic scene has no files; write scene: {cube: …, labels: …}", key=key)
        return data


def _tag_scene(value: object) -> str:
    if isinstance(value, SyntheticScene) or (isinstance(value, Mapping) and "synthetic" in value):
        return "a synthetic scene"
    return _tag_by_shape(value)


SceneSettings = Annotated[
    Annotated[str, Tag("a value")]
    | Annotated[SceneFiles, Tag("a section")]
    | Annotated[SyntheticScene, Tag("a synthetic scene")],
    Discriminator(_tag_scene),
]


class PerClass(Settings):
    """A count of training pixels: one for every class, or one for each label (a label left out has none)."""

    per_class: PositiveInt | dict[int, NonNegativeInt]


Fraction = Annotated[float, AfterValidator(_check_fraction)]
ValidationShare = Annotated[
    float, Field(ge=0, lt=1, description="share of the training side kept for choosing the epoch")
]
SplitSeed = Annotated[Seed | None, Field(description="the config's seed unless given")]
Buffer = Annotated[
    int | None,
    Field(
        ge=0,
        description="pixels between the sides; unless given the patch size, train.shift and what smoothing "
        "reaches, so that no test pixel's class depends on a pixel of a training patch",
    ),
]


class RandomSplit(Settings):
    """Pixels drawn class by class. Test patches will contain training pixels: see the README."""

    kind: Literal["random"]
    train: Annotated[
        Annotated[Fraction, Tag("a value")] | Annotated[PerClass, Tag("a section")],
        Discriminator(_tag_by_shape),
    ]
    validation: ValidationShare = 0.05
    seed: SplitSeed = None


class BlocksSplit(Settings):
    """Square blocks go to one side each, with a buffer between; those too coarse for a class are cut."""

    kind: Literal["blocks"]
    train: Fraction
    block_size: PositiveInt = 16
    buffer: Buffer = None
    validation: ValidationShare = 0.05
    seed: SplitSeed = None


class FieldsSplit(Settings):
    """Whole connected fields of a class go to one side; a class's only field is cut, with a buffer."""

    kind: Literal["fields"]
    train: Fraction
    buffer: Buffer = None
    validation: ValidationShare = 0.05
    seed: SplitSeed = None


class MasksSplit(Settings):
    """Both sides from files: label maps of the two, or one map of 1 train, 2 validation, 3 test, 4 buffer.

    `validation` is a share of the training map; a partition map says itself what validates.
    """

    kind: Literal["masks"]
    train: str | None = None
    train_key: str | None = None
    test: str | None = None
    test_key: str | None = None
    partition: str | None = None
    partition_key: str | None = None
    validation: ValidationShare = 0.05
    seed: SplitSeed = None

    @model_validator(mode="after")
    def _files_are_complete(self) -> Self:
        if (self.partition is None) == (self.train is None) or (self.train is None) != (self.test is None):
            raise mistake("give train: FILE and test: FILE, or partition: FILE alone")
        if self.partition is None and self.partition_key is not None:
            raise mistake("has no effect without partition: FILE; leave it out", key="partition_key")
        for key in ("train_key", "test_key"):
            if self.partition is not None and getattr(self, key) is not None:
                raise mistake("has no effect beside partition: FILE; leave it out", key=key)
        return self


SplitSettings = Annotated[RandomSplit | BlocksSplit | FieldsSplit | MasksSplit, Discriminator("kind")]


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


class TrainSettings(Settings):
    epochs: PositiveInt
    batch_size: int = Field(default=256, ge=2)
    learning_rate: PositiveFloat = 1e-3
    weight_decay: NonNegativeFloat = 1e-2
    schedule: Literal["one-cycle", "cosine", "constant"] = "one-cycle"
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    flips: bool = Field(default=True, description="a random flip or transpose of every training patch")
    shift: NonNegativeInt = Field(
        default=0, description="pixels by which a training patch may be moved off its pixel; its label stays"
    )
    noise: NonNegativeFloat = Field(
        default=0.0, description="standard deviation of Gaussian noise on the components of training patches"
    )
    spectral_jitter: NonNegativeFloat = Field(
        default=0.0,
        description="standard deviation of a training patch's gain on each of its components",
    )
    band_dropout: float = Field(
        default=0.0, ge=0, lt=1, description="share of each training patch's components that are set to 0"
    )
    vary_by: Literal["patch", "batch"] = Field(
        default="patch",
        description="whether flips, jitter, noise and band dropout are drawn for each patch, or once a "
        "batch for the whole scene, so that patches that overlap can share their work",
    )
    precision: Literal["float32", "bfloat16", "auto"] = Field(
        default="float32",
        description="of products in the training step; weights and evaluation stay float32; auto is bfloat16 "
        "where the device computes with it",
    )
    compile: bool = Field(
        default=False,
        description="torch.compile the step, a minute or two before the first; a GPU then replays it as CUDA "
        "graphs, a processor gains nothing",
    )
    weight_averaging: float = Field(
        default=0.0, ge=0, lt=1, description="decay a step of the moving average that is kept; 0 keeps none"
    )
    norm_statistics: Literal["train", "scene"] = Field(
        default="train",
        description="what batch norm goes by in the end: the training patches, or patches of the whole scene "
        "without their labels",
    )
    class_weights: Literal["none", "sqrt", "balanced"] = Field(
        default="none", description="weight of a class in the loss: 1, 1/√n or 1/n of its training pixels"
    )
    checkpoint_every_s: NonNegativeFloat = Field(
        default=60.0,
        description="seconds between checkpoints within an epoch, more where saving would cost over 1 % of "
        "the time; 0 saves after every step",
    )

    def list_variations(self) -> list[str]:
        """Returns the settings in force that change the values of a patch, or turn it."""
        return [key for key in ("flips", "spectral_jitter", "noise", "band_dropout") if getattr(self, key)]

    @model_validator(mode="after")
    def _there_is_something_to_vary(self) -> Self:
        if self.vary_by == "batch" and not self.list_variations():
            raise mistake(
                "has no effect without flips, spectral_jitter, noise or band_dropout", key="vary_by"
            )
        return self


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
