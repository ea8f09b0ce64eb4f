"""Predicts logits for every pixel of a reduced scene, with either engine."""

import math
from collections.abc import Callable
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from hsi_se.errors import ConfigError
from hsi_se.models.classical import CentrePixelClassifier
from hsi_se.models.hybridsn import HybridSN
from hsi_se.models.network import Network
from hsi_se.prediction import patchwise
from hsi_se.prediction.dense import DenseEngine
from hsi_se.sampling.patches import pad_cube

Engine = Literal["dense", "patches"]
ENGINES: tuple[Engine, ...] = get_args(Engine)


def predict_logits(
    model: Network | CentrePixelClassifier,
    cube: NDArray[np.float32],
    *,
    engine: Engine = "dense",
    padding: Literal["zero", "reflect"] = "zero",
    on_batch: Callable[[int], None] | None = None,
    tile_rows: int | None = None,
) -> NDArray[np.float32]:
    """Returns the logits `(rows, cols, C)` of every pixel of a reduced cube `(rows, cols, k)`.

    Args:
        model: a trained classifier; it runs in evaluation mode on its own device, and is not changed.
        cube: the scene's components, from the reduction that was used in training.
        engine: `dense` computes the common features of overlapping patches once; `patches` runs patch by
            patch. They agree up to rounding. Classifiers other than `HybridSN` always run patch by patch.
        padding: as in training.
        on_batch: called with the number of finished pixels after each step.
        tile_rows: rows that the dense engine computes at once; by default as many as fit its memory.

    Raises:
        ConfigError: the engine is unknown.
    """
    if engine not in ENGINES:
        raise ConfigError(f"engine = {engine!r}: choose from {', '.join(ENGINES)}")
    if engine == "patches" or not isinstance(model, HybridSN):
        return patchwise.predict_logits(model, cube, padding=padding, on_batch=on_batch)
    dense = DenseEngine(model)
    rows, cols = cube.shape[:2]
    device = next(model.parameters()).device
    padded = pad_cube(cube, patch_size=model.patch_size, padding=padding)
    logits = []
    for tile in list_tiles(rows, tile_rows or dense.choose_tile_rows(cols)):
        some = dense.predict_rows(padded[tile.start : tile.stop + model.patch_size - 1].to(device))
        logits.append(some.cpu().numpy())
        if on_batch is not None:
            on_batch(len(tile) * cols)
    return np.concatenate(logits)


def list_tiles(rows: int, height: int) -> list[range]:
    """Returns the tiles of a scene as ranges of rows, at most `height` each and as equal as possible."""
    height = math.ceil(rows / math.ceil(rows / height))
    return [range(first, min(first + height, rows)) for first in range(0, rows, height)]
