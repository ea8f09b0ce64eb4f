"""Describes the coordinate system and the position of a raster."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hsi_se.errors import SceneError
from hsi_se.scene.guards import blaming
from hsi_se.system.files import fill_template

_NEGLIGIBLE = 0.1  # pixels: rounding in the files


@dataclass(frozen=True)
class Georeference:
    """The coordinate reference system of a raster, as WKT or `EPSG:n`, and its affine transform.

    With the transform `(a, b, c, d, e, f)`, the upper left corner of a pixel is at x = a·col + b·row + c and
    y = d·col + e·row + f.
    """

    crs: str | None
    transform: tuple[float, float, float, float, float, float] | None

    @property
    def pixel_area_m2(self) -> float | None:
        """Returns the area of a pixel in m²; None if the coordinate system is unknown or in degrees.

        Without rasterio, only UTM on WGS 84 (`EPSG:326xx` and `EPSG:327xx`) is recognised.
        """
        known = parse_crs(self.crs or "")
        is_metric = known.is_projected if known else re.fullmatch(r"EPSG:32[67]\d\d", self.crs or "")
        if not is_metric or self.transform is None:
            return None
        metres = known.linear_units_factor[1] if known else 1
        a, b, _, d, e, _ = self.transform
        return float(abs(a * e - b * d) * metres**2)

    def check_grid(self, other: "Georeference | None", *, shape: tuple[int, int], path: Path, like: str) -> None:
        """Checks that a raster of `shape`, in the file `path`, lies on this grid, that of the file `like`.

        SceneError if both have a transform, and pixels are more than a tenth of a pixel apart.
        """
        if self.transform is None or other is None or other.transform is None:
            return
        a, b, c, d, e, f = self.transform
        other_a, other_b, other_c, other_d, other_e, other_f = other.transform
        if a * e == b * d:
            return  # pixels without an area
        rows, cols = shape
        corners = np.array([(0, 0), (cols, 0), (0, rows), (cols, rows)], dtype=float)  # (col, row)
        x, y = np.array([[other_a, other_b], [other_d, other_e]]) @ corners.T + [[other_c], [other_f]]
        crs, other_crs = parse_crs(self.crs or ""), parse_crs(other.crs or "")
        is_same_crs = not (crs and other_crs) or crs == other_crs
        if not is_same_crs:
            from rasterio.warp import transform

            with blaming(path, "cannot be placed in the scene's system", remedy="correct its georeference"):
                x, y = (np.array(values) for values in transform(other_crs, crs, x, y))
        places = np.linalg.solve([[a, b], [d, e]], [x - c, y - f]).T  # (col, row) on this grid
        if np.abs(places - corners).max() <= _NEGLIGIBLE:
            return
        col, row = places[0].round(6) + 0.0  # not -0
        what = fill_template(
            "hsi_se.scene",
            "off_grid.txt",
            row=row,
            col=col,
            is_same_crs=is_same_crs,
            crs=crs,
            other_crs=other_crs,
            own=self.transform,
            other=other.transform,
            is_stretched=np.abs(places - places[0] - corners).max() > _NEGLIGIBLE,
        )
        command = shlex.join(["rio", "warp", str(path), "aligned.tif", "--like", like])
        raise SceneError(f"{path}: not on the scene's grid: {what}; resample it, e.g. {command}")


def parse_crs(crs: str) -> Any:
    """Returns rasterio's coordinate system; None if it does not know the name or is not installed."""
    try:
        from rasterio.crs import CRS

        return CRS.from_user_input(crs)
    except (ImportError, ValueError):  # rasterio's CRSError is a ValueError
        return None
