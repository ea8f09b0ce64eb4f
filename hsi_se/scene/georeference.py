"""Describes the coordinate system and the position of a raster."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hsi_se.errors import SceneError
from hsi_se.scene.guards import blaming

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

        Raises:
            SceneError: both have a transform, and pixels are more than a tenth of a pixel apart.
        """
        if self.transform is None or other is None or other.transform is None:
            return
        a, b, c, d, e, f = self.transform
        if a * e == b * d:
            return  # pixels without an area
        rows, cols = shape
        corners = np.array([(0, 0), (cols, 0), (0, rows), (cols, rows)], dtype=float)  # (col, row)
        x, y = _apply(other.transform, corners)
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
        east, north = np.subtract(_apply(other.transform, corners), _apply(self.transform, corners))[:, 0]
        unit = crs.linear_units.replace("metre", "m") if crs and crs.is_projected else "units"
        what = f"it is offset by {row:+.4g} rows and {col:+.4g} columns"
        if is_same_crs:
            what += f" ({east:+.6g} {unit} in x, {north:+.6g} {unit} in y)"
            if e * other.transform[4] < 0:
                what += ", with rows in the opposite direction"
            elif np.abs(places - places[0] - corners).max() > _NEGLIGIBLE:
                what += f", with pixels of {other.transform[0]:g} × {other.transform[4]:g}, not {a:g} × {e:g}"
        else:
            what += f" and is in {other_crs.to_string()[:40]}, not {crs.to_string()[:40]}"
        command = shlex.join(["rio", "warp", str(path), "aligned.tif", "--like", like])
        raise SceneError(f"{path}: not on the scene's grid: {what}; resample it, e.g. {command}")


def _apply(transform: tuple[float, ...], points: Any) -> Any:
    """Returns x and y, `(2, n)`, of points `(n, 2)`, each a column and a row."""
    a, b, c, d, e, f = transform
    return np.array([[a, b], [d, e]]) @ points.T + [[c], [f]]


def parse_crs(crs: str) -> Any:
    """Returns rasterio's coordinate system; None if it does not know the name or is not installed."""
    try:
        import rasterio.crs
        import rasterio.errors
    except ImportError:
        return None
    try:
        return rasterio.crs.CRS.from_user_input(crs)
    except rasterio.errors.CRSError:
        return None
