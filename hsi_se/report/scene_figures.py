"""Pictures of a scene: the quick look, and the spectra of its classes."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from hsi_se.report.charts import split_at_gaps
from hsi_se.report.figures import make_map_figure, save_figure, style_class_line
from hsi_se.scene.raster import Colour, Floats

_DPI = 150


def save_quick_look(picture: NDArray[np.uint8], path: Path, *, title: str) -> None:
    """Writes a picture `(rows, cols, 3)` as a PNG with row and column axes."""
    figure, axes = make_map_figure(picture.shape[0], picture.shape[1], title=title)
    axes.imshow(picture, interpolation="nearest")
    save_figure(figure, path)


def save_spectra(
    means: Floats,
    deviations: Floats,
    path: Path,
    *,
    names: Mapping[int, str],
    palette: Mapping[int, Colour],
    wavelengths_nm: Floats | None,
    title: str,
) -> None:
    """Writes the mean spectrum of each class as a PNG, in a band of one standard deviation.

    Args:
        means, deviations: `(C, bands)`, in the order of `names`.
        path: the file to write.
        names: the C classes by label.
        palette: by label.
        wavelengths_nm: `(bands,)`; band numbers are shown where it is unknown.
        title: above the picture.
    """
    bands = means.shape[1]
    positions = np.arange(1, bands + 1.0) if wavelengths_nm is None else wavelengths_nm
    runs = split_at_gaps(positions)
    figure = Figure(figsize=(11, 5.5), dpi=_DPI, layout="constrained")
    axes = figure.add_subplot()
    for place, (mean, deviation, (label, name)) in enumerate(
        zip(means, deviations, names.items(), strict=True)
    ):
        colour, dashes = style_class_line(place, palette[label])
        for number, run in enumerate(runs):
            low, high = mean[run] - deviation[run], mean[run] + deviation[run]
            axes.fill_between(positions[run], low, high, color=colour, alpha=0.12, linewidth=0)
            name_once = None if number else f"{label}  {name}"
            axes.plot(positions[run], mean[run], color=colour, dashes=dashes, linewidth=1.2, label=name_once)
    axes.set_xlabel("band" if wavelengths_nm is None else "wavelength, nm", fontsize=9)
    axes.set_ylabel("value: mean ± standard deviation", fontsize=9)
    axes.set_title(title, fontsize=10)
    axes.tick_params(labelsize=8)
    figure.legend(loc="outside right upper", fontsize=7.5, frameon=False)
    save_figure(figure, path)
