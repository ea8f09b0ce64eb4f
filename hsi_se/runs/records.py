"""The facts of a run: those known before its first step, those of a finished run, and of its gates and modes."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict

from hsi_se.config.registry import Plugin
from hsi_se.progress import EpochRecord
from hsi_se.scene.scene import PlacedImage

Unknown = BeforeValidator(lambda value: None if value != value else value)  # NaN becomes None: JSON has no NaN


class Record(BaseModel):
    """Something measured or decided, as JSON: immutable, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class RunFacts(Record):
    """Facts known before the first step."""

    name: str
    seed: int
    config_digest: str
    scene: str
    scene_digest: str
    image_digests: tuple[str, ...]  # of the values of each image; see `Scene.image_digests`
    split_digest: str
    data: str | None  # as given with --data
    start: str  # the folder in which the command ran: relative paths begin there
    start_from_run: str  # the same, relative to the run folder
    device: str
    precision: Literal["float32", "tf32", "bfloat16"]  # of the training step's products
    notes: tuple[str, ...]
    num_train: int
    num_val: int
    images: tuple[PlacedImage, ...] = ()  # of a scene of several, in pixels of its canvas
    versions: dict[str, str]  # of hsi_se, python and the libraries that train
    plugins: dict[str, Plugin] = {}  # the origins of blocks and networks that are not the package's own


class RunStart(RunFacts):
    """First line of `progress.jsonl`: what `resume` and `watch` need besides the config.

    `epochs` epoch lines follow, none for a classifier that is fitted in one go. The classes are in the order
    of `EpochRecord.validation_per_class`.
    """

    started: datetime  # in UTC
    device_kind: str  # cpu or cuda
    epochs: int
    class_ids: tuple[int, ...]
    class_names: tuple[str, ...]


class RunRecord(RunFacts):
    """Everything a report needs to know about a training, except its evaluation."""

    bundle_digest: str | None = None  # SHA-256 of its two files; None for several folds, which have none in common
    num_parameters: int
    macs_per_patch: int
    best_epoch: int
    history: tuple[EpochRecord, ...]
    stopped: str = ""  # why training ended before the last epoch of the config; empty if it did not
    training_s: float
    peak_memory_bytes: int | None = None  # during training, of the GPU's allocator or of the whole process


class MappingCost(Record):
    """Cost of mapping a run's own scene; `peak_bytes` as in `memory.Cost`."""

    num_pixels: int
    seconds: float
    peak_bytes: int | None


class ClassPixels(Record):
    label: int
    name: str
    num_pixels: int


class Spectrum(Record):
    """A gate's excitation at each band of the scene; see `explain.to_bands`."""

    unit: str  # nm, or band: the number of the band in the reduced scene, from 1
    positions: tuple[float, ...]
    # One row per class; None where there is no component.
    mean_excitation: tuple[tuple[Annotated[float | None, Unknown], ...], ...]


class GateExplanation(Record):
    """One gate, which multiplies each channel by an excitation in (0, 1).

    `between_class_std` is the standard deviation of a channel's mean excitation over the classes, as root
    mean square over the channels. It is 0 if the gate treats all classes alike. `between_class_share` is
    the fraction of the excitations' variance over the pixels that the class explains: ω² (Hays 1963), with
    equal weight for every class. Unlike η², it is not biased upwards where classes have few pixels.
    """

    point: str
    block: str
    axis: str  # feature or band
    between_class_std: float
    between_class_share: float | None  # None if the gate never changes, or with fewer than two classes
    mean_excitation: tuple[tuple[float, ...], ...]  # one row per class, one column per channel
    spectrum: Spectrum | None
    no_spectrum: str  # the reason, if there is none

    def __str__(self) -> str:
        return f"{self.point} (spectral depth)" if self.axis == "band" else self.point


class ModeComparison(Record):
    """Accuracy in evaluation mode, and in two passes in training mode, of the same pixels.

    In training mode dropout is active, and batch norm uses the statistics of the batch. The batches are those
    of evaluation: test pixels in the order of rows. No pass includes `prediction.symmetries` or smoothing.
    """

    num_pixels: int
    num_test: int  # of which `num_pixels` are a sample, stratified by class
    batch_size: int
    causes: tuple[str, ...]  # what the mode changes; the passes are None if this is empty
    evaluation: float
    training: tuple[float, float] | None
    num_changed: int  # pixels whose class differs between the two passes


class Explanation(Record):
    """Every channel gate of a run, in the order of the network, over its test pixels."""

    name: str
    scene: str
    pixels: str
    classes: tuple[ClassPixels, ...]  # those with pixels
    palette: tuple[tuple[int, int, int], ...]
    gates: tuple[GateExplanation, ...]
    skipped: tuple[str, ...]  # blocks whose gates are not shown, and why
    modes: ModeComparison
    gates_in_words: str
    modes_in_words: str


def flatten(values: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    """Returns nested values by their dotted names, such as `split.kind`."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= flatten(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return found
