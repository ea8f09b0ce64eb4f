"""The `split` section of the config: how labelled pixels are divided into training, validation and test."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Discriminator, Field, NonNegativeInt, PositiveInt, Tag

from hsi_se.config.base import Seed, Settings, Share, _tag_by_shape, mistake
from hsi_se.config.scene import FileName


def _check_fraction(value: float) -> float:
    if not 0 < value < 1:
        raise mistake("a fraction must lie in (0, 1); write 0.1, or {per_class: 50} for counts")
    return value


class PerClass(Settings):
    """A number of training pixels instead of a fraction."""

    per_class: Annotated[
        Annotated[PositiveInt, Tag("a value")] | Annotated[dict[int, NonNegativeInt], Tag("a section")],
        Discriminator(_tag_by_shape),
    ]
    """training pixels of every class, validation pixels included: one number for all classes, or a mapping
    from label to number (labels left out get none)"""


Fraction = Annotated[float, AfterValidator(_check_fraction)]
_VALIDATION = 0.05
Buffer = Annotated[int | None, Field(ge=0)]


class _Split(Settings):
    kind: str
    validation: Share = _VALIDATION
    """fraction of each class's training pixels set aside to choose the epoch, from 0 (none) to below 1; default 0.05"""
    seed: Seed | None = None
    """seed of the split, from 0 to 2⁶³ - 1; default: the experiment's seed"""


class _GivenSplit(_Split):
    """A split whose seed draws nothing but the validation pixels."""

    def check_together(self) -> None:
        if self.seed is not None and not self.validation:
            raise mistake("has no effect with validation: 0, as nothing is drawn; leave it out", key="seed")


class RandomSplit(_Split):
    """Stratified random split, class by class. Test patches will contain training pixels."""

    kind: Literal["random"]
    train: Annotated[
        Annotated[Fraction, Tag("a value")] | Annotated[PerClass, Tag("a section")], Discriminator(_tag_by_shape)
    ]
    """training pixels of each class, validation pixels included: a fraction between 0 and 1, or {per_class:
    50} for a number; a fraction takes at least one pixel per class"""


class BlocksSplit(_Split):
    """Spatially disjoint split by square blocks with a buffer; blocks too coarse for a class are cut."""

    kind: Literal["blocks"]
    train: Fraction
    """fraction of each class's pixels to train on, validation pixels included; between 0 and 1, met as
    closely as whole blocks or fields allow"""
    block_size: PositiveInt = 16
    """side of a block in pixels; default 16"""
    buffer: Buffer = None
    """smallest Chebyshev distance in pixels between training and test pixels, 0 or more; default: patch size
    + train.shift + reach of smoothing, so that no test prediction depends on a pixel of a training patch"""


class FieldsSplit(_Split):
    """Split by whole connected fields of a class; a class with a single field is cut, with a buffer."""

    kind: Literal["fields"]
    train: Fraction
    """fraction of each class's pixels to train on, validation pixels included; between 0 and 1, met as
    closely as whole blocks or fields allow"""
    buffer: Buffer = None
    """smallest Chebyshev distance in pixels between the training and test pixels of a field that is cut, 0 or
    more; default: patch size + train.shift + reach of smoothing; other fields may touch"""


class MasksSplit(_GivenSplit):
    """Training and test pixels from files: two label maps, or one partition map."""

    kind: Literal["masks"]
    train: FileName | None = None
    """label map of the training pixels (0 elsewhere); required unless partition is given"""
    train_key: str | None = None
    """variable in the train file; default: the file's only label map"""
    test: FileName | None = None
    """label map of the test pixels (0 elsewhere); required with train"""
    test_key: str | None = None
    """variable in the test file; default: the file's only label map"""
    partition: FileName | None = None
    """map of 0 unused, 1 training, 2 validation, 3 test, 4 buffer, in place of train, test and validation"""
    partition_key: str | None = None
    """variable in the partition file; default: the file's only map"""

    def check_together(self) -> None:
        if (self.partition is None) == (self.train is None) or (self.train is None) != (self.test is None):
            raise mistake("give train: FILE and test: FILE, or only partition: FILE")
        if self.partition is None and self.partition_key is not None:
            raise mistake("has no effect without partition: FILE; leave it out", key="partition_key")
        for key in ("train_key", "test_key", "validation", "seed"):
            free = (0, _VALIDATION) if key == "validation" else (None,)
            if self.partition is not None and getattr(self, key) not in free:
                raise mistake("has no effect with partition: FILE; leave it out", key=key)
        super().check_together()


BLOCK_SIZE = 16


class FoldsSplit(_Split):
    """Spatial cross-validation: every labelled pixel is tested once, away from the pixels that are trained on."""

    kind: Literal["folds"]
    by: Literal["blocks", "fields", "groups", "images"]
    """what is tested as a whole: square blocks, connected fields of a class, groups (polygons, or from a file), or
    whole images of a scene of several"""
    folds: Annotated[int, Field(ge=2)] = 5
    """number of folds, at least 2 and at most one per block, field, group or image; default 5"""
    block_size: PositiveInt = BLOCK_SIZE
    """side of a block in pixels; default 16; only with by: blocks"""
    groups: FileName | None = None
    """map of group numbers, rows × cols, 0 for pixels that are not used; default: the polygons that were drawn as
    labels; if there are as many numbers as folds, each number is a fold"""
    groups_key: str | None = None
    """variable in the groups file; default: the file's only map"""
    buffer: Buffer = None
    """smallest Chebyshev distance in pixels between the training and test pixels of a fold, 0 or more; default:
    half the patch + reach of smoothing + 1, so that no test prediction depends on a training pixel"""
    repeats: PositiveInt = 1
    """number of times the folds are drawn and trained, with the seeds from the experiment's on; default 1; two or
    more give an interval over the draws"""
    fold: PositiveInt | None = None
    """train and test a single fold, from 1 to the number of folds; default: all of them"""

    def check_together(self) -> None:
        for key, owner in (("block_size", "blocks"), ("groups", "groups"), ("groups_key", "groups")):
            if self.by != owner and getattr(self, key) not in (None, BLOCK_SIZE):
                raise mistake(f"has no effect with by: {self.by}; leave it out, or write by: {owner}", key=key)
        if self.groups_key is not None and self.groups is None:
            raise mistake("has no effect without groups: FILE; leave it out", key="groups_key")
        if self.fold is not None and self.fold > self.folds:
            raise mistake(f"there are {self.folds} folds; use 1 to {self.folds}", key="fold")
        for key, reason in (("fold", "which is trained once"), ("seed", "which fixes the draw of the folds")):
            if self.repeats > 1 and getattr(self, key) is not None:
                raise mistake(f"has no effect with {key}, {reason}; leave one of them out", key="repeats")


class ImagesSplit(_GivenSplit):
    """Tests whole images of a scene of several, and trains on the others."""

    kind: Literal["images"]
    test: Annotated[tuple[str, ...], Field(min_length=1)]
    """names of the images to test, such as [tile2]"""


class AllSplit(_GivenSplit):
    """Trains on every labelled pixel, for a map to deliver; without test pixels, folds elsewhere tell its accuracy."""

    kind: Literal["all"]
    folds: str | None = None
    """folder of the folds of a config with the same other settings, whose accuracies `eval` reports"""


SplitSettings = Annotated[
    RandomSplit | BlocksSplit | FieldsSplit | FoldsSplit | ImagesSplit | MasksSplit | AllSplit, Discriminator("kind")
]
