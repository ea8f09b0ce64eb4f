"""What the page and the figures of a run are made from; of every pixel so little that one HTML page can hold it.

Axes: rows, cols, bands; C classes. A class is its place among the labels counted from 1; 0 is none.
"""

import itertools
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from hsi_se.errors import RunError
from hsi_se.evaluation.assessment import Assessment
from hsi_se.evaluation.confidence import Reliability, to_probabilities
from hsi_se.reports.figures import to_hex
from hsi_se.reports.place import locate_nodes
from hsi_se.runs.bundle import BundleFacts
from hsi_se.runs.folder import RunFolder
from hsi_se.runs.records import Explanation, RunRecord
from hsi_se.runs.report import RunReport
from hsi_se.sampling.disjoint import Side
from hsi_se.sampling.splits import Split
from hsi_se.scene.inspection import stretch
from hsi_se.scene.raster import Floats, Mask, chunk_rows
from hsi_se.scene.scene import Scene, Window, make_palette
from hsi_se.scene.wavelengths import pick_false_colour
from hsi_se.system.forms import Form

NUM_TOP = 3
FULL = 65535  # a probability of 1, and the highest value of a band
# Values of spectra that a page may hold: 2 bytes each and a third more as text, so at most 16 MB.
_MOST_VALUES = 6_000_000

Places = NDArray[np.uint16]


@dataclass(frozen=True, eq=False)
class Explorer:
    """Arrays alone, so that a run folder can hold them."""

    truth: Annotated[Places, Form("rows cols", high="classes")]
    prediction: Annotated[Places, Form("rows cols", high="classes")]
    sides: Annotated[NDArray[np.uint8], Form("rows cols", high=max(Side))]  # as `Split.to_sides` numbers them
    top_classes: Annotated[Places, Form("rows cols top", high="classes")]  # up to three, the likeliest first
    top_probabilities: Annotated[NDArray[np.uint16], Form("rows cols top")]  # after temperature scaling, in 1/65535
    picture: Annotated[NDArray[np.uint8], Form("rows cols 3")]  # as `scene.inspection.stretch` makes it
    picture_bands: Annotated[NDArray[np.int32], Form("3", index_of="bands")]  # 0-based red, green and blue of it
    is_natural_colour: Annotated[NDArray[np.bool_], Form("1")]  # whether those are red, green and blue
    # The spectra (⌈rows / k⌉, ⌈cols / k⌉, bands) of every k-th row and col: a value is low + step × stored.
    # Integers are kept exactly.
    spectra: Annotated[NDArray[np.uint16], Form("some_rows some_cols bands")]
    spectra_low: Annotated[Floats, Form("bands")]
    spectra_step: Annotated[Floats, Form("bands")]
    spectra_every: Annotated[NDArray[np.int32], Form("1", low=1)]  # k
    class_means: Annotated[Floats, Form("classes bands")]  # of a class's labelled pixels
    floor_producers: Annotated[Floats, Form("classes", has_gaps=True)]  # accuracy of the location floor
    calibration: Annotated[Floats, Form("3 bins", has_gaps=True)]  # mean confidence, accuracy, pixels of each bin
    calibration_scaled: Annotated[Floats, Form("3 bins", has_gaps=True)]
    rejection: Annotated[Floats, Form("2 kept", low=0, high=1)]  # coverage and accuracy
    # Coordinates, see `place.locate_nodes`; (0, 0, 2) if unknown.
    nodes: Annotated[Floats, Form("nodes nodes kinds", has_gaps=True)]
    axes: Annotated[NDArray[np.uint8], Form("letters")]  # names of x and y with their units in UTF-8, a line each
    # Folds that predict another class, (rows, cols); (0, 0) of a single run.
    disagreement: Annotated[NDArray[np.uint8], Form("fold_rows fold_cols")]
    # Number of the polygon that labels a pixel, from 1, (rows, cols); (0, 0) unless the labels were drawn as polygons.
    polygons: Annotated[Places, Form("polygon_rows polygon_cols")]


@dataclass(frozen=True, eq=False)
class GateMap:
    """What the gate that tells the classes apart best does to each test pixel, see `Explanation.best_gate`."""

    pixels: Annotated[NDArray[np.int64], Form("n 2", low=0)]
    mean_excitation: Annotated[NDArray[np.float32], Form("n")]  # over the channels


@dataclass(eq=False)
class Likeliest:
    """The likeliest classes of each pixel and their probabilities, `(rows, cols, top)`, as an `Explorer` has them."""

    classes: Places
    probabilities: NDArray[np.uint16]
    valid: Mask
    temperature: float
    seconds: float = 0.0  # that it took to find them

    @classmethod
    def of(cls, scene: Scene, *, temperature: float) -> "Likeliest":
        classes, probabilities = np.zeros((2, *scene.shape, min(NUM_TOP, scene.num_classes)), np.uint16)
        return cls(classes, probabilities, scene.valid, temperature)

    def add(self, window: Window, logits: NDArray[np.float32]) -> None:
        """Adds the logits `(rows, cols, C)` of a part of the scene."""
        start, classes, probabilities = time.perf_counter(), self.classes[window], self.probabilities[window]
        for row, row_logits in enumerate(logits):
            order = np.argsort(-row_logits, axis=1, kind="stable")[:, : classes.shape[2]]
            chances = to_probabilities(row_logits, temperature=self.temperature)
            classes[row] = order + 1
            probabilities[row] = np.rint(FULL * np.take_along_axis(chances, order, axis=1))
        classes[~self.valid[window]] = probabilities[~self.valid[window]] = 0
        self.seconds += time.perf_counter() - start


def count_classes(prediction: Places, num_classes: int) -> NDArray[np.int64]:
    """Returns the number of pixels `(C,)` of a map that have each class."""
    return np.asarray(sum(np.bincount(row, minlength=num_classes + 1)[1:] for row in prediction))


def make_explorer(scene: Scene, split: Split, *, likeliest: Likeliest, assessment: Assessment) -> Explorer:
    """Returns what a page shows of a classified scene, which has the labels of the split (`Split.relabel`)."""
    bands = scene.natural_colour or pick_false_colour(scene.num_bands)
    channels, sums = np.empty((*scene.shape, 3), scene.cube.dtype), np.zeros((scene.num_classes + 1, scene.num_bands))
    num_spectra = _MOST_VALUES // scene.num_bands
    every = next(k for k in itertools.count(1) if np.prod([-(-side // k) for side in scene.shape]) <= num_spectra)
    places, counts = np.zeros(scene.shape, np.uint16), np.zeros(scene.num_classes + 1, np.int64)
    thinned = []
    for part in chunk_rows(len(scene.cube)):
        cube, labels = scene.cube[part], scene.labels[part]
        places[part] = np.where(labels > 0, np.searchsorted(scene.class_ids, labels) + 1, 0)
        counts += np.bincount(places[part].ravel(), minlength=len(counts))
        channels[part] = cube[..., list(bands)]
        thinned.append(cube[-part.start % every :: every, ::every].copy())
        for place in np.unique(places[part]):
            sums[place] += cube[places[part] == place].sum(axis=0, dtype=np.float64)
    spectra, low, step = _quantise(np.concatenate(thinned))
    no_map = np.zeros((0, 0), dtype=np.uint8)
    polygons = no_map if scene.polygons is None else scene.polygons
    nodes, axes = locate_nodes(scene.georeference, shape=scene.shape)
    return Explorer(
        truth=places,
        prediction=likeliest.classes[..., 0].copy(),
        sides=split.to_sides(scene.shape),
        top_classes=likeliest.classes,
        top_probabilities=likeliest.probabilities,
        picture=stretch(channels, ~scene.valid),
        picture_bands=np.array(bands, dtype=np.int32),
        is_natural_colour=np.array([scene.natural_colour is not None]),
        spectra=spectra,
        spectra_low=low,
        spectra_step=step,
        spectra_every=np.array([every], dtype=np.int32),
        class_means=sums[1:] / counts[1:, None],
        nodes=nodes,
        axes=np.frombuffer("\n".join(axes).encode(), dtype=np.uint8),
        disagreement=no_map,
        polygons=polygons.astype(np.uint16) if polygons.max(initial=0) <= FULL else no_map.astype(np.uint16),
        **_list_curves(assessment),
    )


def join_explorers(folds: Iterable[Explorer], *, owner: NDArray[np.integer]) -> Explorer:
    """Returns each pixel `(rows, cols)` as the fold `owner`, from 0, saw it; the folds are in memory one by one."""
    joined, predictions = None, []
    for number, fold in enumerate(folds):
        joined, is_own = joined or fold, owner == number
        predictions.append(fold.prediction.copy())
        for name in ("prediction", "top_classes", "top_probabilities"):
            getattr(joined, name)[is_own] = getattr(fold, name)[is_own]
    assert joined is not None
    others = sum((each != joined.prediction).astype(np.uint8) for each in predictions)
    return replace(joined, disagreement=others)


def show_assessment(explorer: Explorer, assessment: Assessment) -> Explorer:
    """Returns what the page of several folds shows: their maps, all test pixels and the curves of the assessment."""
    sides = np.full(explorer.truth.shape, Side.UNUSED, dtype=np.uint8)
    sides[tuple(assessment.tested.pixels.T)] = Side.TEST
    return replace(explorer, sides=sides, **_list_curves(assessment))


def _list_curves(assessment: Assessment) -> dict[str, Any]:
    return {
        "floor_producers": assessment.audit.location_floor.producers_accuracy,
        "calibration": _to_curve(assessment.calibration),
        "calibration_scaled": _to_curve(assessment.calibration_scaled),
        "rejection": np.stack([assessment.rejection.coverage, assessment.rejection.accuracy]),
    }


def _to_curve(reliability: Reliability) -> Floats:
    return np.stack([reliability.mean_confidence, reliability.accuracy, reliability.count.astype(np.float64)])


def _quantise(values: NDArray[Any]) -> tuple[NDArray[np.uint16], Floats, Floats]:
    """Returns values `(…, bands)` as 16-bit numbers, and each band's lowest value and step."""
    bands = values.shape[-1]
    flat = values.reshape(-1, bands)
    low, high = flat.min(axis=0).astype(np.float64), flat.max(axis=0).astype(np.float64)
    if np.issubdtype(values.dtype, np.integer) and high.max() - low.min() <= FULL:
        low, step = np.full(bands, low.min()), np.ones(bands)
    else:
        step = np.where(high > low, (high - low) / FULL, 1.0)
    return np.rint((values - low) / step).astype(np.uint16), low, step


@dataclass(frozen=True)
class PageClass:
    """One class on the page: its name, its two colours, and how many pixels are predicted as it."""

    label: int
    name: str
    colour: str
    distinct: str
    num_mapped: int


@dataclass(frozen=True, eq=False)
class RunFiles:
    """Everything that the page and the figures of a run are made from."""

    folder: RunFolder
    record: RunRecord
    facts: BundleFacts
    report: RunReport
    explorer: Explorer
    explanation: Explanation | None = None
    gates: GateMap | None = None

    @classmethod
    def read(cls, folder: RunFolder) -> "RunFiles":
        report, model = folder.read_report(), next(iter(folder.folds), folder)
        facts, explanation = model.read_facts(), folder.read_explanation() if folder.explanation.is_file() else None
        lengths = {"classes": len(facts.class_ids)} | facts.lengths
        explorer = folder.read_arrays(Explorer, folder.explorer, lengths)
        report.check_of(facts.class_ids, path=folder.report)
        gates, remedy = None, f"run `hsi-se explain {folder}`"
        if folder.gate_map.is_file():
            gates = folder.read_arrays(GateMap, folder.gate_map, remedy=remedy)
            if not len(gates.pixels) or (gates.pixels >= explorer.truth.shape).any():
                raise RunError(f"{folder.gate_map}: has no pixels, or pixels outside the scene; {remedy}")
        return cls(folder, folder.read_record(), facts, report, explorer, explanation, gates)

    @property
    def positions(self) -> Floats:
        """`(bands,)` wavelengths in nm, or band numbers where the wavelengths are unknown."""
        known = self.facts.wavelengths_nm
        return np.arange(1.0, self.explorer.spectra.shape[2] + 1) if known is None else np.array(known)

    def list_reliability(self) -> list[tuple[str, Floats, Floats]]:
        """Returns the curves of the reliability diagram: name, confidence and accuracy of non-empty bins."""
        found = self.report.calibration.scaling
        curves = {"as trained, not calibrated": self.explorer.calibration}
        if found.is_scaled:
            name = f"after temperature scaling (T = {found.temperature:.2f})"
            curves = {"as trained": self.explorer.calibration, name: self.explorer.calibration_scaled}
        return [(name, x[count > 0], y[count > 0]) for name, (x, y, count) in curves.items()]

    def list_classes(self) -> list[PageClass]:
        ids, names, palette = self.facts.class_ids, self.facts.class_names, self.facts.palette
        distinct = make_palette(ids)
        mapped = count_classes(self.explorer.prediction, len(ids)).tolist()
        return [
            PageClass(label, name, to_hex(palette[label]), to_hex(distinct[label]), count)
            for label, name, count in zip(ids, names, mapped, strict=True)
        ]
