"""Statistics of the gates of a trained network: the contents of `explain.json`."""

from hsi_se.runs.records import Record


class ClassPixels(Record):
    """A class and its number of pixels."""

    label: int
    name: str
    num_pixels: int


class Spectrum(Record):
    """A gate's excitation at each band of the scene; see `explain.to_bands`."""

    unit: str  # nm, or band: the number of the band in the reduced scene, from 1
    positions: tuple[float, ...]
    # One row per class; None where there is no component.
    mean_excitation: tuple[tuple[float | None, ...], ...]


class GateExplanation(Record):
    """One gate, which multiplies each channel by an excitation in (0, 1).

    `between_class_std` is the standard deviation of a channel's mean excitation over the classes, as root
    mean square over the channels. It is 0 if the gate treats all classes alike. `between_class_share` is
    the fraction of the excitations' variance over the pixels that the class explains (η²).
    """

    point: str
    block: str
    axis: str  # feature or band
    between_class_std: float
    between_class_share: float | None  # None if the gate never changes
    mean_excitation: tuple[tuple[float, ...], ...]  # one row per class, one column per channel
    spectrum: Spectrum | None
    no_spectrum: str  # the reason, if there is none


class Explanation(Record):
    """Every channel gate of a run, in the order of the network, over its test pixels."""

    name: str
    scene: str
    pixels: str
    classes: tuple[ClassPixels, ...]  # those with pixels
    palette: tuple[tuple[int, int, int], ...]
    gates: tuple[GateExplanation, ...]
    skipped: tuple[str, ...]  # blocks that do not gate channels
