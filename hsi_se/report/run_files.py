"""What the page and the figures of a run are made from, read from its folder."""

from dataclasses import dataclass

import numpy as np

from hsi_se.evaluation.confidence import Rejection
from hsi_se.evaluation.metrics import Evaluation
from hsi_se.report.explorer import Explorer
from hsi_se.report.palette import make_distinct_palette, to_hex
from hsi_se.runs.bundle import BundleFacts
from hsi_se.runs.explanation import Explanation
from hsi_se.runs.folder import RunFolder
from hsi_se.runs.records import RunRecord
from hsi_se.runs.report import RunReport
from hsi_se.scene.raster import Floats


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
