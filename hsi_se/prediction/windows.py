"""The dense engine for networks other than `HybridSN`: shares the stages whose features patches have in common.

Stages that do not pad their input, among them all that act on single pixels, give the same features for all patches
that overlap. The first such stages, up to the first attention block, run once over the scene (`can_share`). Windows of
their features run through the remaining stages. If none remain, the mean over a patch is a sliding mean (`_pool`).
A padded stage is not shared: it gives every patch features of its own near the border.

Axes: rows, cols of pixels, each of which has one patch; h, w rows and cols of the padded scene or of its features;
c features, d spectral depth; k components; n patches.
"""

import copy
import math
from itertools import takewhile

import torch
from torch import Tensor, nn

from hsi_se.attention.channel_gate import ChannelGate
from hsi_se.models.cost import count_stage_costs
from hsi_se.models.inference import evaluation_mode
from hsi_se.models.network import Network
from hsi_se.prediction.dense import TileEngine
from hsi_se.prediction.shared_features import gate_windows, slide

_LEAST_SHARE = 0.25  # of a patch's MACs in the shared stages; with less, copying windows takes more time than it saves
_TILE_MACS = 2e11  # of windows in one tile on a CPU: some seconds, because progress is reported after each tile


class WindowEngine(TileEngine):
    """Predicts whole scenes with a network whose first stages can be shared; it saves time if it `is_useful`."""

    def __init__(self, model: Network, *, tf32: bool = False) -> None:
        super().__init__(model, tf32=tf32)
        shapes = [(1, model.num_bands, model.patch_size, model.patch_size), *model.shapes.values()]
        inputs = dict(zip(model.stages, shapes, strict=False))
        points = [*takewhile(lambda point: can_share(model.stages[point], inputs[point]), model.early_points)]
        macs = {row.name: row.macs for row in count_stage_costs(model)} if points else {}
        shared = sum(macs[point] for point in points)
        self._window_macs = max(1, sum(macs.values()) - shared)
        self.is_useful = shared > _LEAST_SHARE * sum(macs.values())
        self._shared = (points or [*model.stages])[-1]
        self._stages = nn.Sequential(*(model.stages[point] for point in points))
        is_pooled = (
            len(points) == len(model.stages)
            and isinstance(model.attention[self._shared], nn.Identity | ChannelGate)
            and isinstance(pool := model.head[0], nn.AdaptiveAvgPool2d | nn.AdaptiveAvgPool3d)
            and pool.output_size == 1
            and type(model).classify is Network.classify
        )
        self._finish = self._pool if is_pooled else self._run_windows

    def choose_tile_rows(self, cols: int) -> int:
        rows = super().choose_tile_rows(cols)
        is_slow = self._device.type == "cpu" and self._finish == self._run_windows
        return min(rows, max(1, int(_TILE_MACS / (self._window_macs * cols)))) if is_slow else rows

    def _pool(self, features: Tensor) -> Tensor:
        """Returns the logits `(rows, cols, classes)` from the last features `(d, c, h, w)`, by their mean per patch.

        A channel has one gate per patch, so the mean of a gated channel is the gate times its mean.
        """
        block, shape = self.model.attention[self._shared], self.model.shapes[self._shared]
        is_by_depth = isinstance(block, ChannelGate) and block.gated_dim == 2
        means = features if is_by_depth else features.mean(0, keepdim=True)
        slid = slide(means.flatten(0, 1), window=shape[-1], statistic="mean")
        means = slid.view(*means.shape[:2], *slid.shape[1:]).permute(2, 3, 0, 1)  # (rows, cols, d or 1, c)
        if isinstance(block, ChannelGate):
            means = means * gate_windows(block, features, window=shape[-1], is_flat=len(shape) == 3)
        pooled = means.mean(2)
        return self.model.classify(pooled.view(-1, *shape[:1], *[1] * (len(shape) - 1))).view(*pooled.shape[:2], -1)


def can_share(stage: nn.Module, shape: tuple[int, ...]) -> bool:
    """Returns whether a stage computes the same features for overlapping patches, from inputs `(c, …, side, side)`.

    It is tried with random features in float64, 4 pixels larger than a patch. The output of a window must be a window
    of the output. And a NaN in one pixel, which spreads to all that depends on it whatever the weights, must reach
    only the outputs whose window contains it. Padding, strides, and statistics of the whole patch fail.
    """
    stage = copy.deepcopy(stage).cpu().double()
    size, length = shape[-1], shape[-1] + 4
    x = torch.randn(1, *shape[:-2], length, length, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    marked = x.clone()
    marked[..., length // 2, length // 2] = math.nan
    try:
        with evaluation_mode(stage):
            whole, part, marked = stage(x), stage(x[..., 1 : 1 + size, 2 : 2 + size]), stage(marked)
    except Exception:  # it fits patches alone, as a plugin's block inside it may
        return False
    window, lost = part.shape[-1], size - part.shape[-1]
    if lost < 0 or part.shape[-2] != window or whole.shape[-2:] != (length - lost, length - lost):
        return False
    reached = length // 2 - marked.isnan().flatten(0, -3).any(0).nonzero()
    expected = whole[..., 1 : 1 + window, 2 : 2 + window]
    is_same = torch.allclose(part, expected, rtol=1e-9, atol=1e-9 * float(expected.abs().max()))
    return is_same and bool(((reached >= 0) & (reached <= lost)).all())
