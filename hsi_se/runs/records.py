"""The facts of a run: those known before its first step, those of a finished run, and of its gates and modes."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from hsi_se.config.registry import Plugin
from hsi_se.config.scene import Byte
from hsi_se.progress import EpochRecord
from hsi_se.scene.scene import PlacedImage
from hsi_se.system.forms import Count, Form, NotNegative, Share, list_forms

Colour = tuple[Byte, Byte, Byte]
Unknown = BeforeValidator(lambda value: None if value != value else value)  # NaN becomes None: JSON has no NaN


class Record(BaseModel):
    """Something measured or decided, as JSON: immutable, finite, and unknown keys are errors; see `Form` for tables."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="after")
    def _check_forms(self) -> Self:
        lengths: dict[str, int] = {}
        for name, form in list_forms(type(self)).items():
            values = getattr(self, name)
            if values is not None and not form.fits(values, lengths):
                raise ValueError(f"{name} has not the size {' × '.join(form.axes.split())}, as other parts have it")
        return self


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
    num_train: Count
    num_val: Count
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
    epochs: Count
    class_ids: Annotated[tuple[Count, ...], Form("classes")]
    class_names: Annotated[tuple[str, ...], Form("classes")]


class RunRecord(RunFacts):
    """Everything a report needs to know about a training, except its evaluation."""

    bundle_digest: str | None = None  # SHA-256 of its two files; None for several folds, which have none in common
    num_parameters: Count
    macs_per_patch: Count
    best_epoch: Count
    history: tuple[EpochRecord, ...]
    stopped: str = ""  # why training ended before the last epoch of the config; empty if it did not
    training_s: NotNegative
    peak_memory_bytes: Count | None = None  # during training, of the GPU's allocator or of the whole process


class MappingCost(Record):
    """Cost of mapping a run's own scene; `peak_bytes` as in `memory.Cost`."""

    num_pixels: Annotated[Count, Field(gt=0)]
    seconds: NotNegative
    peak_bytes: Count | None


class ClassPixels(Record):
    label: Count
    name: str
    num_pixels: Count


class Spectrum(Record):
    """A gate's excitation at each band of the scene; see `explain.to_bands`."""

    unit: str  # nm, or band: the number of the band in the reduced scene, from 1
    positions: Annotated[tuple[float, ...], Form("bands")]
    # One row per class; None where there is no component.
    mean_excitation: Annotated[tuple[tuple[Annotated[float | None, Unknown], ...], ...], Form("classes bands")]


class GateExplanation(Record):
    """One gate, which multiplies each channel by an excitation in (0, 1).

    `between_class_std` is the standard deviation of a channel's mean excitation over the classes, as root
    mean square over the channels. It is 0 if the gate treats all classes alike. `between_class_share` is
    the fraction of the excitations' variance over the pixels that the class explains: ω² (Hays 1963), with
    equal weight for every class. Unlike η², it is not biased upwards where classes have few pixels.
    """

    point: str
    block: str
    axis: Literal["feature", "band"]
    between_class_std: NotNegative
    between_class_share: Share | None  # None if the gate never changes, or with fewer than two classes
    mean_excitation: Annotated[tuple[tuple[float, ...], ...], Form("classes channels")]
    spectrum: Spectrum | None
    no_spectrum: str  # the reason, if there is none

    def __str__(self) -> str:
        return f"{self.point} (spectral depth)" if self.axis == "band" else self.point


class ModeComparison(Record):
    """Accuracy in evaluation mode, and in two passes in training mode, of the same pixels.

    In training mode dropout is active, and batch norm uses the statistics of the batch. The batches are those
    of evaluation: test pixels in the order of rows. No pass includes `prediction.symmetries` or smoothing.
    """

    num_pixels: Count
    num_test: Count  # of which `num_pixels` are a sample, stratified by class
    batch_size: Count
    causes: tuple[str, ...]  # what the mode changes; the passes are None if this is empty
    evaluation: Share
    training: tuple[Share, Share] | None
    num_changed: Count  # pixels whose class differs between the two passes


class Explanation(Record):
    """Every channel gate of a run, in the order of the network, over its test pixels."""

    name: str
    scene: str
    pixels: str
    classes: Annotated[tuple[ClassPixels, ...], Form("classes")]  # those with pixels
    palette: Annotated[tuple[Colour, ...], Form("classes 3")]
    gates: tuple[GateExplanation, ...]
    skipped: tuple[str, ...]  # blocks whose gates are not shown, and why
    modes: ModeComparison
    gates_in_words: str
    modes_in_words: str

    @model_validator(mode="after")
    def _check_gates(self) -> Self:
        tables = [each for gate in self.gates for each in (gate, gate.spectrum) if each is not None]
        if any(len(each.mean_excitation) != len(self.classes) for each in tables):
            raise ValueError(f"gates have not one row for each of {len(self.classes)} classes")
        return self

    @property
    def best_gate(self) -> GateExplanation | None:
        """The gate between whose excitations the class makes the largest difference: that of the highest ω²."""
        return max(self.gates, key=lambda gate: gate.between_class_share or 0.0, default=None)


def flatten(values: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    """Returns nested values by their dotted names, such as `split.kind`."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= flatten(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return found
