"""Edge-preserving smoothing: averages class probabilities over neighbours with similar spectra.

Kang, Li, Benediktsson: Spectral-Spatial Hyperspectral Image Classification With Edge-Preserving
Filtering, IEEE TGRS 52(5), 2014: the joint bilateral filter. Departures from the paper:

- Probabilities are filtered, not the predicted classes.
- Several components guide the filter, not only the first one.
- Neighbours outside the scene or without data have no weight.
- The filter may run more than once.

Axes: rows, cols of pixels; k components, g of them as guides; C classes.
"""

import itertools
import math
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from hsi_se.config.prediction import Smoothing

Window = tuple[slice, slice]


def smooth_logits(
    logits: NDArray[np.float32],
    *,
    components: NDArray[np.float32],
    missing: NDArray[np.bool_],
    settings: Smoothing,
    scale: NDArray[np.float64],
) -> NDArray[np.float32]:
    """Returns the logarithms of the smoothed probabilities, `(rows, cols, C)` like the logits.

    The smoothed probability at pixel p is a weighted mean over the pixels q in the window of `settings.radius` around
    p:

        Σ_q w(p, q) P(q) / Σ_q w(p, q)        w(p, q) = exp(-|p - q|² / (2 spatial²) - d² / (2 range²))

    d² is the mean over the guiding components of the squared difference between p and q, each in units of `scale`. P is
    the softmax of the logits, or the result of the previous pass. Pixels without data keep their logits.

    Args:
        components: `(rows, cols, k)` of the same pixels; the first `settings.components` are the guides.
        missing: `(rows, cols)`, true where there is no data.
        scale: `(k,)` standard deviation of each component over the training scene.
    """
    num_guides = min(settings.components, components.shape[2])
    unit = scale[:num_guides] * settings.range * math.sqrt(2 * num_guides)
    factor = np.divide(1, unit, out=np.zeros_like(unit), where=unit > 0)  # constant components have no effect
    guide = torch.from_numpy((components[..., :num_guides] * factor).astype(np.float32))  # (rows, cols, g)
    weightless = torch.from_numpy(missing)
    shares = torch.from_numpy(logits).softmax(2).masked_fill_(weightless[..., None], 0)
    smallest = torch.finfo(torch.float32).tiny
    for _ in range(settings.passes):
        total, weights = torch.zeros_like(shares), torch.zeros(missing.shape)
        for here, there, off_square in _list_steps(settings.radius, missing.shape):
            distance = (guide[here] - guide[there]).square_().sum(2)
            distance += off_square / (2 * settings.spatial**2)
            weight = distance.neg_().exp_().masked_fill_(weightless[there], 0)
            total[here] += weight[..., None] * shares[there]
            weights[here] += weight
        shares = total.div_(weights.clamp_(min=smallest)[..., None])
    smoothed = shares.clamp_(min=smallest).log_()
    return np.where(missing[..., None], logits, smoothed.numpy())


def _list_steps(radius: int, shape: tuple[int, ...]) -> Iterator[tuple[Window, Window, int]]:
    """Yields the pixels whose neighbour at an offset lies in the scene, these neighbours, and distance²."""
    for row, col in itertools.product(range(-radius, radius + 1), repeat=2):
        here_rows, there_rows = _overlap(row, shape[0])
        here_cols, there_cols = _overlap(col, shape[1])
        yield (here_rows, here_cols), (there_rows, there_cols), row**2 + col**2


def _overlap(step: int, length: int) -> tuple[slice, slice]:
    """Returns the positions whose neighbour at offset `step` lies in `range(length)`, and the neighbours."""
    here = slice(max(0, -step), max(0, length - max(0, step)))
    return here, slice(max(0, step), max(0, length + min(0, step)))
