"""The page of one run: a single HTML file that works offline, made from the run folder alone."""

import base64
import io
import json
import shlex
import zlib
from dataclasses import dataclass, replace
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
from hsi_se.report.tables import describe_leakage, render_template
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
        report, model = folder.read_report(), next(iter(folder.folds), folder)
        arrays = folder.read_explorer(needed=Explorer.names())
        explorer = Explorer(**{name: arrays[name] for name in Explorer.names()})
        explanation = folder.read_explanation() if folder.explanation.is_file() else None
        return cls(folder, folder.read_record(), model.read_facts(), report, explorer, explanation)

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
        curves = {"as trained, not calibrated": self.explorer.calibration}
        if found.is_scaled:
            name = f"after temperature scaling (T = {found.temperature:.2f})"
            curves = {"as trained": self.explorer.calibration, name: self.explorer.calibration_scaled}
        return [
            (name, confidence[count > 0], accuracy[count > 0]) for name, (confidence, accuracy, count) in curves.items()
        ]

    def list_classes(self) -> list[PageClass]:
        ids, names, palette = self.facts.class_ids, self.facts.class_names, self.facts.palette
        distinct = make_distinct_palette(ids)
        mapped = np.bincount(self.explorer.prediction.ravel(), minlength=len(ids) + 1)[1:].tolist()
        return [
            PageClass(label, name, to_hex(palette[label]), to_hex(distinct[label]), count)
            for label, name, count in zip(ids, names, mapped, strict=True)
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
    names = ("truth", "prediction", "top_classes", "top_probabilities", "sides", "picture")
    maps = {name: getattr(explorer, name) for name in names}
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
        classes=classes,
        sides=[side for side in sides if side["count"]],
        layers=layers,
        bands=", ".join(_name_band(run, band) for band in explorer.picture_bands.tolist()),
        aspect=f"{explorer.truth.shape[1]} / {explorer.truth.shape[0]}",
        rows=zip(report.per_class, report.split_per_class, explorer.floor_producers.tolist(), strict=True),
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
    return [{"name": name, "shape": array.shape, "width": array.dtype.itemsize} for name, array in arrays.items()]


def _chart_training(record: RunRecord) -> list[str]:
    if not record.history:
        return []
    rows = [
        (epoch.epoch, epoch.loss, epoch.validation_loss or np.nan, epoch.validation_accuracy)
        for epoch in record.history
    ]
    values = np.array(rows, dtype=np.float64)
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
    perfect = Line("perfectly calibrated", ends, ends, is_reference=True)
    curves = [perfect, *(Line(*curve) for curve in run.list_reliability())]
    x, y = Axis("confidence", 0, 1, is_percent=True), Axis("accuracy", 0, 1, is_percent=True)
    reliability = draw_lines("Reliability", curves, x=x, y=y)
    shown = run.rejection
    of_all = Line("all test pixels", ends, np.full(2, shown.accuracy[-1]), is_reference=True)
    curves = [of_all, Line("pixels kept", shown.coverage, shown.accuracy)]
    x = replace(x, title="test pixels kept, most certain first")
    y = replace(y, low=find_lower_end(shown.accuracy))
    return [reliability, draw_lines("Accuracy after rejecting the least certain pixels", curves, x=x, y=y)]


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
