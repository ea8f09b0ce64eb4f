"""Describes the coordinate system and the position of a raster."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsi_se.errors import SceneError
from hsi_se.scene.guards import blaming, import_extra, tell, to_printable
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

    def drop_unusable(self) -> tuple["Georeference", tuple[str, ...]]:
        """Returns the parts that can be used: a transform to places of their own, and a coordinate system of PROJ.

        Also returns a note on each part that cannot. Without rasterio, every coordinate system is kept.
        """
        place, notes = self, tuple[str, ...]()
        a, b, _, d, e, _ = self.transform or (1, 0, 0, 0, 1, 0)
        if not np.isfinite([*(self.transform or ()), a * e - b * d]).all() or a * e == b * d:
            why = "its numbers are not finite, or give pixels no area"
            place, notes = Georeference(self.crs, None), (tell("unplaced", what="position", why=why),)
        if self.crs and parse_crs("EPSG:4326") and parse_crs(self.crs) is None:
            why = f"PROJ does not know {to_printable(self.crs)[:60]!r}"
            return Georeference(None, None), (*notes, tell("unplaced", what="coordinate system", why=why))
        return place, notes

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

    def align(
        self, values: NDArray[np.int32], other: "Georeference | None", *, shape: tuple[int, int], path: Path
    ) -> tuple[NDArray[np.int32], tuple[str, ...]]:
        """Returns values `(rows, cols)` on this grid of `shape`, and a note if `other` is another grid.

        A pixel gets the value at its centre, or 0 if there is none. Nothing changes if a transform is unknown. `path`
        is the file of the values. SceneError if no pixel has a value.
        """
        if self.transform is None or other is None or other.transform is None:
            return values, ()
        own, others = (np.array([each[:3], each[3:], (0, 0, 1)]) for each in (self.transform, other.transform))
        if np.linalg.det(own) * np.linalg.det(others) == 0:
            return values, ()  # pixels without an area
        rows, cols = values.shape
        corners = np.array([(0, 0, 1), (cols, 0, 1), (0, rows, 1), (cols, rows, 1)], dtype=float).T  # (3, 4)
        x, y, one = others @ corners
        crs, other_crs = parse_crs(self.crs or ""), parse_crs(other.crs or "")
        is_same_crs = not (crs and other_crs) or crs == other_crs
        with blaming(path, "cannot be placed in the scene's system", remedy="correct its georeference"):
            if not is_same_crs:
                from rasterio.warp import transform

                x, y = transform(other_crs, crs, x, y)
            places = np.linalg.solve(own, [x, y, one])
            if values.shape == shape and np.abs(places - corners).max() <= _NEGLIGIBLE:
                return values, ()
            warp, affine = import_extra("rasterio.warp", path=path), import_extra("affine", path=path).Affine
            aligned, some_crs = np.empty(shape, dtype=np.int32), crs or other_crs or "EPSG:3857"
            warp.reproject(
                values.astype(np.int32), aligned, dst_nodata=-1, dst_crs=some_crs,
                src_crs=some_crs if is_same_crs else other_crs,
                src_transform=affine(*other.transform), dst_transform=affine(*self.transform),
            )  # fmt: skip
        col, row = places[:2, 0].round(6) + 0.0  # not -0
        is_stretched = np.abs(places - places[:, :1] - corners + corners[:, :1]).max() > _NEGLIGIBLE
        what = fill_template(
            "hsi_se.scene", "off_grid.txt", row=row, col=col, crs=crs, other_crs=other_crs, is_same_crs=is_same_crs,
            own=self.transform, other=other.transform, is_stretched=is_stretched,
        )  # fmt: skip
        if (aligned < 0).all():
            raise SceneError(f"{path}: lies nowhere on the scene: {what}; give a file of the same ground")
        note = f"{path.name}: resampled onto the scene's grid by nearest neighbour, as {what}"
        return np.maximum(aligned, 0), (note,)


def parse_crs(crs: str) -> Any:
    """Returns rasterio's coordinate system; None if it does not know the name or is not installed."""
    try:
        from rasterio.crs import CRS

        known = CRS.from_user_input(crs)
        known.to_wkt(version="WKT1_ESRI")  # GDAL takes some that PROJ cannot write
        return known
    except (ImportError, ValueError):  # rasterio's CRSError is a ValueError
        return None
