"""Class probabilities averaged over neighbours of a like spectrum: fields whole, their borders kept.

Kang, Li, Benediktsson: Spectral-Spatial Hyperspectral Image Classification With Edge-Preserving
Filtering, IEEE TGRS 52(5), 2014: the joint bilateral filter. Departures: probabilities are filtered
and not the classes picked from them, several components guide the filter and not the first one, and
neighbours outside the scene or without data have no weight.
Axes: rows, cols of pixels; k components; C classes.
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray

from hsi_se.config import Smoothing


def smooth_logits(
    logits: NDArray[np.float32],
    *,
    components: NDArray[np.float32],
    missing: NDArray[np.bool_],
    settings: Smoothing,
    scale: NDArray[np.float64],
) -> NDArray[np.float32]:
    """Returns logarithms of the smoothed probabilities `(rows, cols, C)`.

    The probability at p is Σ_q w(p, q) P(q) / Σ_q w(p, q) over the window of `settings.radius` around p,
    w = exp(-|p - q|² / 2 spatial² - d² / 2 range²), with d² the mean over the guiding components of the
    squared difference, each in units of `scale`.

    Args:
        logits: `(rows, cols, C)`.
        components: `(rows, cols, k)` of the same pixels; the first `settings.components` guide.
        missing: `(rows, cols)`, true where there is no data.
        settings: the config's `prediction.smoothing`.
        scale: `(k,)` standard deviation of each component over the training's scene.
    """
    num_guides = min(settings.components, components.shape[2])
    factor = 1 / (scale[:num_guides] * settings.range * math.sqrt(2 * num_guides))
    guide = torch.from_numpy((components[..., :num_guides] * factor).astype(np.float32))  # (rows, cols, g)
    weightless = torch.from_numpy(missing)
    shares = torch.from_numpy(logits).softmax(2).masked_fill(weightless[..., None], 0)
    total, weights = torch.zeros_like(shares), torch.zeros(missing.shape)
    steps = range(-settings.radius, settings.radius + 1)
    for row, here_rows, there_rows in ((step, *_overlap(step, missing.shape[0])) for step in steps):
        for col, here_cols, there_cols in ((step, *_overlap(step, missing.shape[1])) for step in steps):
            here, there = (here_rows, here_cols), (there_rows, there_cols)
            distance = (guide[here] - guide[there]).square_().sum(2)
            distance += (row**2 + col**2) / (2 * settings.spatial**2)
            weight = distance.neg_().exp_().masked_fill_(weightless[there], 0)
            total[here] += weight[..., None] * shares[there]
            weights[here] += weight
    smallest = torch.finfo(torch.float32).tiny
    smoothed = total.clamp_(min=smallest).log_() - weights.clamp_(min=smallest).log_()[..., None]
    return np.where(missing[..., None], logits, smoothed.numpy())


def _overlap(step: int, length: int) -> tuple[slice, slice]:
    """The places whose neighbour at `step` lies in `range(length)`, and these neighbours."""
    return slice(max(0, -step), max(0, length - max(0, step))), slice(
        max(0, step), max(0, length + min(0, step))
    )
