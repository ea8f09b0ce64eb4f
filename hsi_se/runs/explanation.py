"""What the gates of a trained network do, as `explain.json` has it."""

from pydantic import BaseModel, ConfigDict


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ClassPixels(_Record):
    """A class, and how many of the pixels are of it."""

    label: int
    name: str
    num_pixels: int


class Spectrum(_Record):
    """A gate's excitation at each band of the scene; see `explain.to_bands`."""

    unit: str  # nm, or band: their numbers in the reduced scene, from 1
    positions: tuple[float, ...]
    mean_excitation: tuple[tuple[float | None, ...], ...]  # a row a class; None where no component is


class GateExplanation(_Record):
    """One gate: what it multiplies its channels by, a number in (0, 1) for each.

    `between_class_std` is the standard deviation over the classes of a channel's mean excitation, as root
    mean square over the channels: 0 if the gate treats all classes alike. `between_class_share` is the
    part of the excitations' variance over the pixels that the class explains (η²).
    """

    point: str
    block: str
    axis: str  # feature or band
    between_class_std: float
    between_class_share: float | None  # None of a gate that never changes
    mean_excitation: tuple[tuple[float, ...], ...]  # a row a class, a column a channel
    spectrum: Spectrum | None
    no_spectrum: str  # the reason, where there is none


class Explanation(_Record):
    """Every channel gate of a run, in the order of the network, over its test pixels."""

    name: str
    scene: str
    pixels: str
    classes: tuple[ClassPixels, ...]  # those that have pixels
    palette: tuple[tuple[int, int, int], ...]
    gates: tuple[GateExplanation, ...]
    skipped: tuple[str, ...]  # blocks that gate no whole channels
