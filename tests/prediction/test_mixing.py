"""Gated convolutions of overlapping patches: as convolving each patch by itself."""

import pytest
import torch
from torch.nn import functional as F

from hsi_se.prediction import mixing
from hsi_se.prediction.mixing import convolve_gated


@pytest.mark.parametrize("num_cols", [1, 3, 8])
@pytest.mark.parametrize(
    ("span", "rows", "cols"),
    [(5, 11, 20), (5, 10, 3), (5, 9, 12), (5, 4, 6), (9, 23, 4), (3, 6, 4), (2, 9, 5), (1, 4, 4)],
)
def test_every_patch_is_convolved_with_its_own_gates(span, rows, cols, num_cols, monkeypatch):
    """Also where a tile is tall enough that locations near its ends are mixed together."""
    monkeypatch.setattr(mixing, "_NUM_COLS", num_cols)
    torch.manual_seed(0)
    features = torch.randn(4, 2, rows + span + 1, cols + span + 1, dtype=torch.float64)
    gates = torch.rand(rows, cols, 4, dtype=torch.float64)
    weight, bias = torch.randn(3, 4, 2, 3, 3, dtype=torch.float64), torch.randn(3, dtype=torch.float64)
    spare = [torch.full((1000,), torch.nan, dtype=torch.float64)]  # too small for some
    found = [
        patches.clone().view(span, -1, rows, span, 3)
        for patches in convolve_gated(
            features,
            gates,
            weight=weight.flatten(3).permute(1, 2, 3, 0).flatten(1, 2),
            bias=bias,
            span=span,
            spare=spare,
        )
    ]
    by_pixel = torch.cat(found, dim=1).flip(0).permute(2, 1, 4, 3, 0) + bias[:, None, None]
    for row in range(rows):
        for col in range(cols):
            patch = features[:, :, row : row + span + 2, col : col + span + 2]
            gated = (patch * gates[row, col, :, None, None, None]).flatten(0, 1)
            torch.testing.assert_close(by_pixel[row, col], F.conv2d(gated, weight.flatten(1, 2), bias).relu())
