"""Gated convolutions of overlapping patches: as convolving each patch by itself, the way of a CPU and of a GPU."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from hsi_se.prediction import mixing
from hsi_se.prediction.mixing import convolve_gated, convolve_gated_at_once

SIZES = [(5, 11, 20), (5, 10, 3), (5, 9, 12), (5, 4, 6), (9, 23, 4), (3, 6, 4), (2, 9, 5), (1, 4, 4)]


def make_input(span: int, rows: int, cols: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Features, gates, the weight `(o, g, t, 3, 3)` and the bias."""
    torch.manual_seed(0)
    features = torch.randn(4, 2, rows + span + 1, cols + span + 1, dtype=torch.float64)
    gates = torch.rand(rows, cols, 4, dtype=torch.float64)
    return features, gates, torch.randn(3, 4, 2, 3, 3, dtype=torch.float64), torch.randn(3, dtype=torch.float64)


def to_product(weight: Tensor) -> Tensor:
    return weight.flatten(3).permute(1, 2, 3, 0).flatten(1, 2)  # (g, t·9, o)


def check_by_patch(by_pixel: Tensor, features: Tensor, gates: Tensor, weight: Tensor, bias: Tensor) -> None:
    """`by_pixel` is `(rows, cols, o, row in the patch, col in the patch)`."""
    span = by_pixel.shape[-1]
    for row in range(len(gates)):
        for col in range(gates.shape[1]):
            patch = features[:, :, row : row + span + 2, col : col + span + 2]
            gated = (patch * gates[row, col, :, None, None, None]).flatten(0, 1)
            torch.testing.assert_close(by_pixel[row, col], F.conv2d(gated, weight.flatten(1, 2), bias).relu())


@pytest.mark.parametrize("num_cols", [1, 3, 8])
@pytest.mark.parametrize(("span", "rows", "cols"), SIZES)
def test_every_patch_is_convolved_with_its_own_gates(span, rows, cols, num_cols, monkeypatch):
    """Also where a tile is tall enough that locations near its ends are mixed together."""
    monkeypatch.setattr(mixing, "_NUM_COLS", num_cols)
    features, gates, weight, bias = make_input(span, rows, cols)
    spare = [torch.full((1000,), torch.nan, dtype=torch.float64)]  # too small for some
    found = [
        patches.clone().view(span, -1, rows, span, 3)
        for patches in convolve_gated(features, gates, weight=to_product(weight), bias=bias, span=span, spare=spare)
    ]
    by_pixel = torch.cat(found, dim=1).flip(0).permute(2, 1, 4, 3, 0) + bias[:, None, None]
    check_by_patch(by_pixel, features, gates, weight, bias)


@pytest.mark.parametrize("columns_together", [1, 3, 100])
@pytest.mark.parametrize(("span", "rows", "cols"), SIZES)
def test_at_once_too(span, rows, cols, columns_together, monkeypatch):
    monkeypatch.setattr(mixing, "_COLUMNS_TOGETHER", columns_together)
    features, gates, weight, bias = make_input(span, rows, cols)
    parts = convolve_gated_at_once(features, gates, weight=to_product(weight), bias=bias, span=span)
    by_pixel = torch.stack(parts[::-1], -1).permute(1, 0, 3, 2, 4)
    check_by_patch(by_pixel, features, gates, weight, bias)
