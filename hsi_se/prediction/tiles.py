"""Predicts large images in bounded memory, in tiles of some rows each.

Axes: rows, cols of pixels; k components; p the patch's size.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from hsi_se.prediction.logits import Classifier, Engine, RowPredictor, average_symmetries
from hsi_se.prediction.smoothing import smooth_logits
from hsi_se.runs.bundle import BundleFacts, ModelBundle
from hsi_se.scene.raster import Image, Mask

Prediction = tuple[range, NDArray[np.float32], Mask]  # rows, their logits, true where there is no data

_PATCHWISE_ROWS = 16  # few rows are enough: reading some twice takes little time compared to the patches


@dataclass(frozen=True, eq=False)
class Tile:
    """Some rows of a scene with all data that their prediction depends on.

    `padded` contains the components of the rows, of the rows around them that smoothing uses, and of the
    margin that the patches of both cover.
    """

    padded: NDArray[np.float32]  # (rows + p - 1, cols + p - 1, k)
    missing: Mask  # (rows, cols), true where there is no data
    inner: slice  # of the requested rows, without those added for smoothing


@dataclass(frozen=True, eq=False)
class TileSource:
    """Reads the components of an image some rows at a time, padded like a whole scene by `pad_cube`.

    The image has the bands that the bundle's reduction was fitted on.
    """

    image: Image
    bundle: ModelBundle

    def read(self, asked: range) -> Tile:
        """Returns the tile of the rows `asked`; pixels with a value that is not finite count as nodata."""
        facts, rows = self.bundle.facts, self.image.shape[0]
        margin, reach = facts.patch_size // 2, facts.prediction.reach
        tile = range(max(0, asked.start - reach), min(rows, asked.stop + reach))
        mode = {"zero": "constant", "reflect": "reflect"}[facts.padding]
        outside = {"constant_values": -1} if mode == "constant" else {}
        places = np.pad(np.arange(rows), margin, mode=mode, **outside)  # type: ignore[call-overload]
        places = places[tile.start : tile.stop + 2 * margin]
        first, last = places[places >= 0].min(), places.max() + 1
        cube, missing, _ = read_finite_rows(self.image, first, last)
        components = self.bundle.reduction.apply(cube, nodata=missing)[np.maximum(places - first, 0)]
        components[places < 0] = 0
        widths = ((0, 0), (margin, margin), (0, 0))
        padded = np.pad(components, widths, mode=mode)  # type: ignore[call-overload]
        inner = slice(asked.start - tile.start, asked.stop - tile.start)
        return Tile(padded, missing[tile.start - first : tile.stop - first], inner)


def read_finite_rows(image: Image, first: int, last: int) -> tuple[NDArray[np.generic], Mask, int]:
    """Returns rows like `Image.read_rows`, with pixels that are not finite as nodata, and their number."""
    cube, empty = image.read_rows(first, last)
    missing = np.zeros(cube.shape[:2], dtype=bool) if empty is None else empty
    num_odd = 0
    if cube.dtype.kind == "f":
        is_finite = np.isfinite(cube).all(axis=2)
        if not is_finite.all():
            num_odd = int((~missing & ~is_finite).sum())
            missing = missing | ~is_finite
            cube = np.where(missing[..., None], cube.dtype.type(0), cube)
    return cube, missing, num_odd


class TilePredictor:
    """Predicts tiles with a bundle's classifier; the arguments are as for `predict_logits`."""

    def __init__(self, model: Classifier, facts: BundleFacts, *, engine: Engine) -> None:
        self._rows, self._facts = RowPredictor(model, engine=engine), facts

    def choose_tile_rows(self, cols: int) -> int:
        """Returns the recommended number of rows in a tile of a scene with `cols` cols."""
        return self._rows.choose_tile_rows(cols) or _PATCHWISE_ROWS

    def predict(self, tile: Tile, *, on_batch: Callable[[int], None] | None = None) -> NDArray[np.float32]:
        """Returns the logits `(rows, cols, C)` of the rows that were asked of a `TileSource`."""
        predict = partial(self._rows.predict, on_batch=on_batch)
        logits = average_symmetries(predict, tile.padded, num_passes=self._facts.prediction.num_passes)
        margin = self._facts.patch_size // 2
        inside = slice(margin, -margin or None)
        components = tile.padded[inside, inside]
        return smooth_bundled(self._facts, logits, components=components, missing=tile.missing)[tile.inner]


def smooth_bundled(
    facts: BundleFacts, logits: NDArray[np.float32], *, components: NDArray[np.float32], missing: Mask
) -> NDArray[np.float32]:
    """Returns logits smoothed as in a bundle's settings, or as they are; see `smooth_logits`."""
    settings, scale = facts.prediction.smoothing, np.array(facts.guide_scale)
    if settings is None:
        return logits
    return smooth_logits(logits, components=components, missing=missing, settings=settings, scale=scale)
