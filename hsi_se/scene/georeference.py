"""Describes the coordinate system and the position of a raster."""

import re
from dataclasses import dataclass
from typing import Any


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
