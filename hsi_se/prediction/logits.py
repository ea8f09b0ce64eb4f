"""Predicts logits for every pixel of a reduced scene: by either engine, for one of its symmetries or several.

Axes: rows, cols of pixels; k components; p patch size; C classes.
"""

import itertools
import math
from collections.abc import Callable
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import PositiveInt

from hsi_se.config.arguments import checked, show
from hsi_se.config.training import Precision
from hsi_se.errors import ConfigError, RunError
from hsi_se.models.classical import CentrePixelClassifier
from hsi_se.models.hybridsn import HybridSN
from hsi_se.models.inference import predict_patches
from hsi_se.models.insertion import is_plain
from hsi_se.models.network import Network
from hsi_se.prediction.dense import DenseEngine, TileEngine
from hsi_se.prediction.windows import WindowEngine
from hsi_se.sampling.patches import PatchDataset, pad_cube

Classifier = Network | CentrePixelClassifier  # both are modules from patches (n, 1, k, p, p) to logits
Engine = Literal["dense", "patches"]
Cube = NDArray[np.float32]


class RowPredictor:
    """Predicts rows of a padded scene; arguments as for `predict_logits`."""

    def __init__(self, model: Classifier, *, engine: Engine, precision: Precision = "float32") -> None:
        if engine not in get_args(Engine):
            raise ConfigError(f"engine = {engine!r}: choose from {', '.join(get_args(Engine))}")
        self._model, self._tf32 = model, precision == "tf32"
        self._device = next(itertools.chain(model.parameters(), model.buffers())).device
        self._dense: TileEngine | None = None
        if engine == "dense" and isinstance(model, HybridSN) and is_plain(model):
            self._dense = DenseEngine(model, tf32=self._tf32)
        elif engine == "dense" and isinstance(model, Network) and is_plain(model, has_known_layers=False):
            windows = WindowEngine(model, tf32=self._tf32)
            self._dense = windows if windows.is_useful else None

    def choose_tile_rows(self, cols: int) -> int | None:
        """Returns how many rows the dense engine best computes at once; None for single patches."""
        return None if self._dense is None else self._dense.choose_tile_rows(cols)

    def predict(self, padded: torch.Tensor | Cube, *, on_batch: Callable[[int], None] | None = None) -> Cube:
        """Returns the logits `(rows, cols, C)` of some rows.

        `padded` are `(rows + p - 1, cols + p - 1, k)`, the rows and the margin that their patches cover.
        """
        padded = torch.as_tensor(padded, device=self._device)
        rows, cols = (length - self._model.patch_size + 1 for length in padded.shape[:2])
        if self._dense is not None:
            logits = self._dense.predict_rows(padded)
            if on_batch is not None:
                on_batch(rows * cols)
        else:
            pixels = np.argwhere(np.ones((rows, cols), dtype=bool))
            patches = PatchDataset(padded, pixels, patch_size=self._model.patch_size)
            logits = (
                predict_patches(self._model, patches, on_batch=on_batch, tf32=self._tf32).float().view(rows, cols, -1)
            )
        return logits.cpu().numpy()


@checked("model", "cube", "engine", "on_batch")
def predict_logits(
    model: Classifier,
    cube: NDArray[np.float32],
    *,
    engine: Engine = "dense",
    padding: Literal["zero", "reflect"] = "zero",
    on_batch: Callable[[int], None] | None = None,
    tile_rows: PositiveInt | None = None,
    precision: Precision = "float32",
) -> NDArray[np.float32]:
    """Returns the logits `(rows, cols, C)` of every pixel of a reduced cube `(rows, cols, k)`.

    Args:
        model: a trained classifier; it runs in evaluation mode on its own device, and is not changed.
        cube: the scene's components, from the reduction that was used in training.
        engine: `dense` computes the common features of overlapping patches once; `patches` runs patch by
            patch. They agree up to rounding. Classical classifiers, networks with nothing to share, and any that
            was altered (as by `insert_attention`) always run patch by patch.
        padding: as in training.
        on_batch: called with the number of finished pixels after each step.
        tile_rows: rows that the dense engine computes at once; by default as many as fit its memory.
        precision: `tf32` lets a GPU that has TF32 round the factors of products to it.
    """
    if not isinstance(model, torch.nn.Module) or not hasattr(model, "patch_size"):
        raise ConfigError(f"model = {show(model)}: is not a classifier of hsi_se; give one of hsi_se.build_model")
    num_bands = getattr(model, "num_bands", np.shape(cube)[-1])
    if np.ndim(cube) != 3 or np.shape(cube)[-1] != num_bands:
        raise ConfigError(f"cube = {show(cube)}: must be (rows, cols, {num_bands}), as the classifier was built")
    predictor = RowPredictor(model, engine=engine, precision=precision)
    rows, cols = cube.shape[:2]
    padded = pad_cube(cube, patch_size=model.patch_size, padding=padding)
    most_rows = predictor.choose_tile_rows(cols)
    tiles = [range(rows)] if most_rows is None else list_tiles(rows, tile_rows or most_rows)
    margin = model.patch_size - 1
    parts = [predictor.predict(padded[tile.start : tile.stop + margin], on_batch=on_batch) for tile in tiles]
    return np.concatenate(parts) if len(parts) > 1 else parts[0]


def list_tiles(rows: int, height: int) -> list[range]:
    """Returns the tiles of a scene as ranges of rows, at most `height` each and as equal as possible."""
    height = math.ceil(rows / math.ceil(rows / height))
    return [range(first, min(first + height, rows)) for first in range(0, rows, height)]


def average_symmetries(predict: Callable[[Cube], Cube], cube: Cube, *, num_passes: int) -> Cube:
    """Returns the mean prediction over the first `num_passes` of the eight symmetries of a cube.

    Each prediction is turned back. `predict` maps `(rows, cols, k)` to `(rows - m, cols - m, C)`, with the
    same m for both axes.
    """
    total = np.array(predict(np.ascontiguousarray(cube)))
    for symmetry in range(1, num_passes):
        total = total + _turn(predict(np.ascontiguousarray(_turn(cube, symmetry))), symmetry, back=True)
    check_finite_logits(total)
    return total / np.float32(num_passes) if num_passes > 1 else total


def check_finite_logits(logits: Cube) -> None:
    """Raises RunError if a value is NaN or infinite, as with damaged weights."""
    if not np.isfinite(logits).all():
        raise RunError("the run: its classifier gives NaN or infinite values on this scene; train it again")


def _turn(cube: Cube, symmetry: int, *, back: bool = False) -> Cube:
    """Applies a symmetry, or with `back` its inverse.

    Bit 0 of the number flips the cols, bit 1 the rows; symmetries 4 to 7 transpose before that.
    """
    flips = (slice(None, None, -1 if symmetry & 2 else 1), slice(None, None, -1 if symmetry & 1 else 1))
    if not back:
        return (cube.transpose(1, 0, 2) if symmetry & 4 else cube)[flips]
    return cube[flips].transpose(1, 0, 2) if symmetry & 4 else cube[flips]
