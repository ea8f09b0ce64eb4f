"""What the gates and the modes of a trained network do: the contents of `explain.json`, and in words."""

from collections.abc import Sequence

import numpy as np

from hsi_se.evaluation.statistics import SHARE, SIGNED, Summary, summarize
from hsi_se.runs.records import Record
from hsi_se.scene.raster import Floats

_MEDIUM = 0.06  # a smaller ω² is a small effect (Cohen 1988, section 8.2)
_LITTLE = 0.01  # of the range of a gate, which is from 0 to 1


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
    skipped: tuple[str, ...]  # blocks that do not gate channels
    modes: ModeComparison
    gates_in_words: str
    modes_in_words: str


def describe_gates(runs: Sequence[Sequence[GateExplanation]]) -> str:
    """Returns whether early gates treat the classes alike and late ones differ, in one run or over seeds.

    The claim is of Hu et al. 2020, section 7.2. Every run has the same gates, in the order of the network.
    """
    gates = runs[0]
    if not gates:
        return "The network has no channel gate, so there are no early and late gates to compare."
    if gates[0].between_class_share is None and len(gates[0].mean_excitation) < 2:
        return "The test pixels are of one class, so the gates cannot differ between classes."
    ends = [[run[place] for run in runs] for place in (0, -1)]
    # A gate that never changes has no variance to explain, and treats all classes alike.
    early, late = (np.array([gate.between_class_share or 0.0 for gate in found]) for found in ends)
    if len(gates) == 1:
        return (
            f"The class explains {_spread(early)} of the variance (ω²) of the only gate, at {gates[0]}. "
            "Early and late gates can be compared in a network with two gates or more."
        )
    difference = summarize(late - early, within=SIGNED)
    deviations = [float(np.mean([gate.between_class_std for gate in found])) for found in ends]
    is_alike = early.mean() < _MEDIUM or deviations[0] < _LITTLE
    answer = f"early gates {'treat the classes nearly alike' if is_alike else 'already differ by class'}"
    if difference.low <= 0 <= difference.high or difference.mean == 0:
        answer += ", and no difference from the late gates is shown"
    else:
        answer += f", and late gates differ {'more' if difference.mean > 0 else 'less'}"
        if (deviations[1] - deviations[0]) * difference.mean < 0:
            answer += ", though not by the standard deviation"
    constant = sum(gate.between_class_share is None for found in ends for gate in found)
    text = (
        "Hu et al. (2020) find that early gates treat all classes alike and that late gates differ by class. "
        f"Here the class explains {_spread(early)} of the variance (ω²) at {gates[0]} and {_spread(late)} at "
        f"{gates[-1]}, and the standard deviation between the classes is {deviations[0]:.4f} and "
        f"{deviations[1]:.4f}: {answer}. "
    )
    if constant:
        text += f"A gate that never changes counts as 0 % ({constant} of {2 * len(runs)}). "
    if difference.n == 1:
        return text + "One run gives no interval; hsi-se train --seeds does."
    return f"{text}Late minus early: {_describe_difference(difference)}."


def describe_modes(runs: Sequence[ModeComparison]) -> str:
    """Returns what predicting in training mode would have cost, in one run or over seeds."""
    first = runs[0]
    if not first.causes:
        return "Training mode changes nothing: the network has neither dropout nor batch norm."
    passes = np.array([run.training for run in runs if run.training is not None])
    if not len(passes):
        return "Training mode was not tried: batch norm needs two test pixels or more."
    evaluation = np.array([run.evaluation for run in runs])
    of_modes = [_spread(values, digits=2) for values in (evaluation, *passes.T)]
    pixels = f"{first.num_pixels:,} test pixels"
    if first.num_pixels < first.num_test:
        pixels = f"a stratified sample of {first.num_pixels:,} of {first.num_test:,} test pixels"
    changed = sum(run.num_changed for run in runs) / sum(run.num_pixels for run in runs)
    text = (
        f"In evaluation mode {of_modes[0]} of {pixels} are classified correctly. In training mode "
        f"({' and '.join(first.causes)}, in row order, {first.batch_size} a batch) two passes give "
        f"{of_modes[1]} and {of_modes[2]}, and {100 * changed:.1f} % of the pixels change class in between. "
    )
    if len(runs) > 1:
        difference = summarize(evaluation - passes.mean(axis=1), within=SIGNED)
        text += f"Evaluation minus training mode: {_describe_difference(difference)}. "
    return text + "Call model.eval() before you predict."


def _spread(shares: Floats, *, digits: int = 1) -> str:
    """Returns `61.3 %`, and `[58.0, 64.6]` behind it for several runs."""
    found = summarize(shares, within=SHARE)
    mean, low, high = (f"{100 * value:.{digits}f}" for value in (found.mean, found.low, found.high))
    return f"{mean} %" if found.n == 1 else f"{mean} % [{low}, {high}]"


def _describe_difference(found: Summary) -> str:
    mean, low, high = (f"{100 * value:+.1f}".replace("-", "−") for value in (found.mean, found.low, found.high))
    return f"{mean} points, 95 % interval {low} to {high}, n = {found.n}"
