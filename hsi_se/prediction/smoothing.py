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

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from hsi_se.config.training import Smoothing


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
    radius, (rows, cols) = settings.radius, missing.shape
    around = (radius,) * 4  # of rows and cols
    padded_guide, is_weightless = F.pad(guide, (0, 0, *around)), F.pad(weightless, around, value=True)
    for _ in range(settings.passes):
        total, weights = torch.zeros_like(shares), torch.zeros(missing.shape)
        padded_shares = F.pad(shares, (0, 0, *around))
        for row, col in itertools.product(range(2 * radius + 1), repeat=2):
            there = slice(row, row + rows), slice(col, col + cols)  # the neighbour of each pixel at one offset
            distance = (guide - padded_guide[there]).square_().sum(2)
            distance += ((row - radius) ** 2 + (col - radius) ** 2) / (2 * settings.spatial**2)
            weight = distance.neg_().exp_().masked_fill_(is_weightless[there], 0)
            total += weight[..., None] * padded_shares[there]
            weights += weight
        shares = total.div_(weights.clamp_(min=smallest)[..., None])
    smoothed = shares.clamp_(min=smallest).log_()
    return np.where(missing[..., None], logits, smoothed.numpy())
