"""The page of one run: a single HTML file that works offline, made from the run folder alone."""

import base64
import io
import json
import shlex
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsi_se.config.yaml_file import dump_config
from hsi_se.evaluation.confidence import Rejection
from hsi_se.evaluation.metrics import Evaluation
from hsi_se.report.charts import Axis, Line, draw_lines, find_lower_end, split_at_gaps
from hsi_se.report.explorer import Explorer
from hsi_se.report.palette import SIDE_COLOURS, make_distinct_palette, to_hex
from hsi_se.report.tables import describe_leakage, kappa_text, percent, render_template
from hsi_se.runs.bundle import Arrays, BundleFacts
from hsi_se.runs.explanation import Explanation, GateExplanation
from hsi_se.runs.folder import RunFolder
from hsi_se.runs.records import RunRecord
from hsi_se.runs.report import RunReport
from hsi_se.sampling.disjoint import Side
from hsi_se.scene.raster import Floats
from hsi_se.system.files import replacing


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

    @classmethod
    def read(cls, folder: RunFolder) -> "RunFiles":
        report = folder.read_report()
        arrays = folder.read_explorer(needed=Explorer.names())
        facts = folder.read_facts()
        explanation = folder.read_explanation() if folder.explanation.is_file() else None
        return cls(folder, folder.read_record(), facts, report, Explorer.from_arrays(arrays), explanation)

    @property
    def evaluation(self) -> Evaluation:
        return self.report.evaluation

    @property
    def positions(self) -> Floats:
        """`(bands,)` wavelengths in nm, or band numbers where the wavelengths are unknown."""
        known = self.facts.wavelengths_nm
        return np.arange(1.0, self.explorer.spectra.shape[2] + 1) if known is None else np.array(known)

    @property
    def rejection(self) -> Rejection:
        return Rejection(*self.explorer.rejection).steady

    def list_reliability(self) -> list[tuple[str, Floats, Floats]]:
        """Returns the curves of the reliability diagram: name, confidence and accuracy of non-empty bins."""
        found = self.report.calibration
        curves = [("as trained, not calibrated", self.explorer.calibration)]
        if found.is_scaled:
            name = f"after temperature scaling (T = {found.temperature:.2f})"
            scaled = (name, self.explorer.calibration_scaled)
            curves = [("as trained", self.explorer.calibration), scaled]
        return [
            (name, confidence[count > 0], accuracy[count > 0])
            for name, (confidence, accuracy, count) in curves
        ]

    def list_classes(self) -> list[PageClass]:
        distinct = make_distinct_palette(self.facts.class_ids)
        mapped = np.bincount(self.explorer.prediction.ravel(), minlength=len(self.facts.class_ids) + 1)
        return [
            PageClass(
                label, name, to_hex(self.facts.palette[label]), to_hex(distinct[label]), int(mapped[place])
            )
            for place, (label, name) in enumerate(
                zip(self.facts.class_ids, self.facts.class_names, strict=True), start=1
            )
        ]


def write_page(folder: RunFolder) -> None:
    """Writes `report.html` into the folder of an evaluated run.

    Raises:
        RunError: the run has not been evaluated, or one of its files cannot be read.
    """
    text = render_page(RunFiles.read(folder))
    with replacing(folder.page) as draft:
        draft.write_text(text, encoding="utf-8")


def render_page(run: RunFiles) -> str:
    report, record, explorer, evaluation = run.report, run.record, run.explorer, run.evaluation
    maps = {
        name: getattr(explorer, name)
        for name in ("truth", "prediction", "top_classes", "top_probabilities", "sides", "picture")
    }
    spectra = {"spectra": explorer.spectra}
    classes = run.list_classes()
    sides = [
        {"name": name, "colour": colour, "count": int((explorer.sides == side).sum())}
        for side, (name, colour) in SIDE_COLOURS.items()
    ]
    layers = {
        "picture": "Natural colour" if explorer.is_natural_colour[0] else "False colour",
        **{name: name.capitalize() for name in ("prediction", "truth", "errors", "certainty", "split")},
    }
    facts = {
        "rows": explorer.truth.shape[0],
        "cols": explorer.truth.shape[1],
        "classes": [vars(each) for each in classes],
        "sides": sides,
        "layers": list(layers),
        "test": int(Side.TEST),
        "maps": _describe_arrays(maps),
        "spectra": _describe_arrays(spectra),
        "every": explorer.every,
        "low": _to_json(explorer.spectra_low),
        "step": _to_json(explorer.spectra_step),
        "means": _to_json(explorer.class_means),
        "positions": run.positions.tolist(),
        "runs": [part.tolist() for part in split_at_gaps(run.positions)],
        "unit": "band" if run.facts.wavelengths_nm is None else "nm",
    }
    return render_template(
        "report.html",
        every=explorer.every,
        explanation=run.explanation,
        record=record,
        report=report,
        evaluation=evaluation,
        headline=_list_headline(report),
        classes=classes,
        sides=[side for side in sides if side["count"]],
        layers=layers,
        bands=", ".join(_name_band(run, band) for band in explorer.picture_bands.tolist()),
        aspect=f"{explorer.truth.shape[1]} / {explorer.truth.shape[0]}",
        rows=zip(
            report.per_class,
            [row.num_train for row in report.split_per_class],
            explorer.floor_producers.tolist(),
            strict=True,
        ),
        shares=evaluation.shares,
        leakage_sentence=describe_leakage(report.leakage),
        training=_chart_training(record),
        draw_gate=_draw_gate,
        confidence=_chart_confidence(run),
        config=dump_config(run.folder.read_config()),
        command=reproduce(run),
        facts=json.dumps(facts, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c"),
        maps=pack(maps),
        spectra=pack(spectra),
    )


def reproduce(run: RunFiles) -> str:
    """Returns the commands that train and evaluate the same run again in a new folder."""
    again = f"{run.folder}-again"
    given = run.record.data
    data = [] if given is None else ["--data", str(Path(run.record.start) / given)]
    train = ["hsi-se", "train", str(run.folder.config), *data, "--out", again]
    return f"{shlex.join(train)}\n{shlex.join(['hsi-se', 'eval', again])}"


def pack(arrays: Arrays) -> str:
    """Returns 8-bit and 16-bit arrays as text: their bytes, one array after the other, in zlib and base64.

    Of an array of 16-bit numbers all high bytes come first and then all low bytes, which compresses better.
    """
    return base64.b64encode(zlib.compress(b"".join(map(_to_bytes, arrays.values())))).decode("ascii")


def _to_bytes(array: NDArray[Any]) -> bytes:
    if array.dtype.itemsize == 1:
        return array.tobytes()
    return array.astype(">u2").reshape(-1, 1).view(np.uint8).T.tobytes()


def _describe_arrays(arrays: Arrays) -> list[dict[str, Any]]:
    return [
        {"name": name, "shape": array.shape, "width": array.dtype.itemsize} for name, array in arrays.items()
    ]


def _list_headline(report: RunReport) -> list[tuple[str, str, str]]:
    """Returns the numbers at the top of the page: name, value, and an explanation."""
    floor, baseline = report.location_floor, report.spectral_baseline
    return [
        ("OA", f"{percent(report.overall_accuracy)} %", "fraction of test pixels classified correctly"),
        ("AA", f"{percent(report.average_accuracy)} %", "mean producer's accuracy of the classes"),
        ("κ", kappa_text(report.kappa), "Cohen's kappa"),
        ("location floor", f"{percent(floor.overall_accuracy)} %", "OA from row and column alone"),
        (
            "spectral baseline",
            f"{percent(baseline.overall_accuracy)} %",
            "OA of a support vector machine on single pixels",
        ),
        (
            "test patches with training pixels",
            f"{100 * report.leakage.test_patches_with_train_pixels:.1f} %",
            "fraction of test patches that contain at least one training or validation pixel",
        ),
    ]


def _chart_training(record: RunRecord) -> list[str]:
    if not record.history:
        return []
    values = np.array(
        [
            (epoch.epoch, epoch.loss, epoch.validation_loss or np.nan, epoch.validation_accuracy)
            for epoch in record.history
        ],
        dtype=np.float64,
    )
    epochs, loss, _, _ = values.T
    when, _, validation_loss, accuracy = values[~np.isnan(values[:, 3])].T
    x = Axis("epoch", epochs[0], epochs[-1], is_whole=True)
    losses = [Line("training loss", epochs, loss)]
    losses += [Line("validation loss", when, validation_loss)] if len(when) else []
    highest = max(float(np.nanmax(line.y)) for line in losses)
    charts = [draw_lines("Loss", losses, x=x, y=Axis("cross-entropy", 0, 1.05 * highest))]
    if len(when):
        y = Axis("OA", max(0.0, accuracy.min() - 0.05), 1, is_percent=True)
        charts.append(draw_lines("Validation accuracy", [Line("validation OA", when, accuracy)], x=x, y=y))
    return charts


def _chart_confidence(run: RunFiles) -> list[str]:
    ends = np.array([0.0, 1.0])
    reliability = draw_lines(
        "Reliability",
        [
            Line("perfectly calibrated", ends, ends, is_reference=True),
            *(Line(*curve) for curve in run.list_reliability()),
        ],
        x=Axis("confidence", 0, 1, is_percent=True),
        y=Axis("accuracy", 0, 1, is_percent=True),
    )
    shown = run.rejection
    rejection = draw_lines(
        "Accuracy after rejecting the least certain pixels",
        [
            Line("all test pixels", ends, np.full(2, shown.accuracy[-1]), is_reference=True),
            Line("pixels kept", shown.coverage, shown.accuracy),
        ],
        x=Axis("test pixels kept, most certain first", 0, 1, is_percent=True),
        y=Axis("accuracy", find_lower_end(shown.accuracy), 1, is_percent=True),
    )
    return [reliability, rejection]


def _draw_gate(gate: GateExplanation) -> str:
    """Returns the mean excitations as a PNG in an address: one row per class, one column per channel."""
    from matplotlib.image import imsave  # most pages have no gates, and matplotlib is slow to load

    values = np.array(gate.mean_excitation)  # (C, channels)
    low, high = float(values.min()), float(values.max())
    file = io.BytesIO()
    imsave(file, values, vmin=low, vmax=max(high, low + 1e-6), cmap="viridis", format="png")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode('ascii')}"


def _name_band(run: RunFiles, band: int) -> str:
    return f"{band + 1}" if run.facts.wavelengths_nm is None else f"{run.facts.wavelengths_nm[band]:.0f} nm"


def _to_json(values: Floats) -> list[Any]:
    """Returns nested lists of numbers with six digits, which is more than a picture shows."""
    return [_to_json(row) for row in values] if values.ndim > 1 else [float(f"{v:.6g}") for v in values]
