"""The `split` section of the config: how labelled pixels are divided."""

from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    Discriminator,
    Field,
    NonNegativeInt,
    PositiveInt,
    Tag,
    model_validator,
)

from hsi_se.config.base import Seed, Settings, _tag_by_shape, mistake


def _check_fraction(value: float) -> float:
    if not 0 < value < 1:
        raise mistake("a fraction must lie in (0, 1); write 0.1, or {per_class: 50} for counts")
    return value


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
