"""Predicts every pixel of a scene patch by patch: the reference for the dense engine."""

import itertools
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from hsi_se.models.classical import CentrePixelClassifier
from hsi_se.models.inference import predict_patches
from hsi_se.models.network import Network
from hsi_se.sampling.patches import PatchDataset, pad_cube


def predict_logits(
    model: Network | CentrePixelClassifier,
    cube: NDArray[np.float32],
    *,
    padding: str,
    on_batch: Callable[[int], None] | None = None,
) -> NDArray[np.float32]:
    """Returns the logits `(rows, cols, C)` of every pixel of a reduced cube `(rows, cols, k)`.

    Args:
        model: a trained classifier; it runs in evaluation mode on its own device.
        cube: the scene's components, from the reduction that was used in training.
        padding: `zero` or `reflect`, as in training.
        on_batch: called with the number of finished pixels after each batch.
    """
    device = next(itertools.chain(model.parameters(), model.buffers())).device
    padded = pad_cube(cube, patch_size=model.patch_size, padding=padding).to(device)
    return predict_rows(model, padded, on_batch=on_batch).cpu().numpy()


def predict_rows(
    model: Network | CentrePixelClassifier, padded: Tensor, *, on_batch: Callable[[int], None] | None = None
) -> Tensor:
    """Returns the logits `(rows, cols, C)` of some rows of a padded scene.

    Args:
        model: as for `predict_logits`.
        padded: `(rows + p - 1, cols + p - 1, k)` the rows and the margin that their patches cover, on the
            model's device.
        on_batch: as for `predict_logits`.
    """
    rows, cols = (length - model.patch_size + 1 for length in padded.shape[:2])
    pixels = np.argwhere(np.ones((rows, cols), dtype=bool))
    patches = PatchDataset(padded, pixels, patch_size=model.patch_size)
    return predict_patches(model, patches, on_batch=on_batch).float().view(rows, cols, -1)
