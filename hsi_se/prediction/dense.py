"""The dense engine, which computes exact logits of `HybridSN` for a whole scene without repeated work.

All convolutions are valid (unpadded), and padding is applied once, to the scene. A stage before the first
attention block therefore gives the same features for all patches that overlap. These stages run once over
the scene. The rest of the network depends on the attention, and one of four methods computes it:

- No attention: the first dense layer is a convolution over the scene, computed by FFT if its kernel is large
  enough (`DenseHead.of_scene`).
- At most a channel gate after the last stage: the gates of all patches are computed at once, and the head
  runs on the gated patches (`_gate_head`).
- Channel gates at `conv3d_3` or `fold`, order `3d-2d`: the gated 2-D convolution is computed as in
  `mixing.py`, and any block may follow it (`_mix`).
- Anything else: windows of the shared features run through the remaining stages (`_run_windows`).

Each method computes the same function as the network patch by patch, up to float32 rounding.

Axes: rows, cols of pixels, each of which has one patch; h, w rows and cols of the padded scene or of its
features; d spectral depth, c features; k components; p patch size.
"""

import functools
import math
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hsi_se.attention.channel_gate import ChannelGate
from hsi_se.models.hybridsn import HybridSN
from hsi_se.models.inference import evaluation_mode
from hsi_se.models.network import Network
from hsi_se.prediction.dense_head import DenseHead
from hsi_se.prediction.mixing import convolve_gated, convolve_gated_at_once
from hsi_se.prediction.shared_features import fold_norm, gate_windows

FLOAT_BYTES = 4
_GPU_FRACTION = 4  # of a GPU's free memory, one part in this many is used
_NUM_COPIES = 12  # of the largest features: the slices of a convolution, its output, norm and ReLU
_SMALLEST_TILE = 2**24  # bytes below which less memory would not help
_MAX_WORKERS = 4  # concurrent tiles; with more, tiles get so small that their margins cost too much
_NARROWEST = 16  # fewest columns of a tile if there are several workers


@dataclass(frozen=True)
class Budget:
    """The memory that the engine uses: as much as stays in a processor's cache, or as fills a GPU."""

    tile_bytes: int  # of all tiles in progress, without the weights
    batch_bytes: int  # of windows copied at once; on a CPU, larger blocks return to the system after every use
    most_windows: int  # copied at once
    most_transforms: int  # tiles of `DenseHead.of_scene` transformed at once

    @classmethod
    def choose(cls, device: torch.device) -> "Budget":
        """Returns the budget of a device: constants on a CPU, on a GPU from the memory that is free."""
        if device.type == "cpu":
            return cls(320 * 2**20, 24 * 2**20, most_windows=512, most_transforms=16)
        return cls(0, 0, most_windows=2**16, most_transforms=2**10).resize(
            torch.cuda.mem_get_info(device)[0] // _GPU_FRACTION
        )

    def resize(self, tile_bytes: int) -> "Budget":
        return replace(self, tile_bytes=tile_bytes, batch_bytes=tile_bytes // 16)


class TileEngine:
    """Predicts rows of a scene tile by tile, within a budget of memory: the base class of both dense engines.

    The engine uses the weights that the model has now, in any mode and on any device. If they change,
    build a new engine. The model itself is not changed.
    """

    _shared: str  # the last point that is computed for all patches at once
    _stages: nn.Module  # computes its features
    _finish: Callable[[Tensor], Tensor]  # returns the logits (rows, cols, classes) of these features (d, c, h, w)

    def __init__(self, model: Network, *, tf32: bool = False) -> None:
        self.model, self._tf32 = model, tf32
        self._device = next(model.parameters()).device
        self.budget = Budget.choose(self._device)
        self._most_floats = max(model.num_bands, *(math.prod(shape[:-2]) for shape in model.shapes.values()))

    def _count_bytes(self, rows: int, cols: int) -> int:
        """Returns the approximate peak memory of a tile in bytes."""
        margin = self.model.patch_size - 1
        return FLOAT_BYTES * (rows + margin) * (cols + margin) * _NUM_COPIES * self._most_floats

    def _predict_tile(self, padded: Tensor) -> Tensor:
        """Returns the logits `(rows, cols, classes)` of a padded tile `(h, w, k)`."""
        x = self._stages(padded.permute(2, 0, 1)[None, None].contiguous())  # (1, c, h, w) or (1, c, d, h, w)
        return self._finish(x[0].transpose(0, 1) if x.ndim == 5 else x)

    def predict_rows(self, padded: Tensor) -> Tensor:
        """Returns the logits of some rows of a scene.

        Args:
            padded: `(rows + p - 1, cols + p - 1, k)` the rows and the margin that their patches cover, on
                the model's device.

        Returns:
            `(rows, cols, classes)`. As with single patches, the logits are NaN where a patch contains a
            value that is not finite.
        """
        try:
            return self._predict_rows(padded)
        except torch.OutOfMemoryError:
            if self.budget.tile_bytes <= _SMALLEST_TILE:
                raise
        torch.cuda.empty_cache()
        self.budget = self.budget.resize(self.budget.tile_bytes // 2)
        return self.predict_rows(padded)

    def _predict_rows(self, padded: Tensor) -> Tensor:
        margin = self.model.patch_size - 1
        rows, cols = (length - margin for length in padded.shape[:2])
        num_workers = self._count_workers(cols)
        num_tiles = num_workers
        most_bytes = self.budget.tile_bytes / num_workers
        while num_tiles < cols and self._count_bytes(rows, math.ceil(cols / num_tiles)) > most_bytes:
            num_tiles += num_workers
        tile_cols = math.ceil(cols / num_tiles)
        is_finite = padded.isfinite().all(2)
        # Zeros instead: matrix products and FFTs would spread NaN to patches that do not contain it.
        padded = padded.where(is_finite[..., None], 0)
        tiles = [padded[:, first : first + tile_cols + margin] for first in range(0, cols, tile_cols)]
        with evaluation_mode(self.model, tf32=self._tf32):
            logits = torch.cat(_map_in_threads(self._predict_tile, tiles, num_workers), dim=1)
        reached = F.max_pool2d((~is_finite).float()[None], margin + 1, stride=1)[0]  # (rows, cols)
        return logits.masked_fill(reached[..., None] > 0, math.nan)

    def choose_tile_rows(self, cols: int) -> int:
        """Returns the number of rows per `predict_rows` call that repeats the least work in the budget.

        Neighbouring tiles overlap by p - 1 rows and cols, and this part is computed for both.
        """
        margin = self.model.patch_size - 1
        num_workers = self._count_workers(cols)

        def fit(tile_cols: int) -> int:
            size = functools.partial(self._count_bytes, cols=tile_cols)
            return max(1, bisect_right(range(2**10), self.budget.tile_bytes / num_workers, key=size) - 1)

        def repeated(tile_cols: int) -> float:
            return (1 + margin / fit(tile_cols)) * (1 + margin / tile_cols)

        most_tiles = math.ceil(cols / _NARROWEST) * num_workers
        widths = {math.ceil(cols / n) for n in range(num_workers, 1 + most_tiles, num_workers)}
        return fit(min(widths, key=repeated))

    def _count_workers(self, cols: int) -> int:
        """Returns the number of tiles to compute concurrently.

        On a CPU, one thread per tile uses the cores better than threads inside each operation, because
        most operations are too small to be divided.
        """
        if self._device.type != "cpu":
            return 1
        return max(1, min(torch.get_num_threads(), _MAX_WORKERS, cols // _NARROWEST))

    def _run_windows(self, features: Tensor) -> Tensor:
        """Returns the logits from shared features `(d, c, h, w)` by running their windows on their own."""
        points = list(self.model.shapes)
        points = points[points.index(self._shared) :]
        shapes = [self.model.shapes[point] for point in points]
        window = shapes[0][-1]
        windows = features.unfold(2, window, 1).unfold(3, window, 1).permute(2, 3, 1, 0, 4, 5)

        def run(some: tuple[slice, slice]) -> Tensor:
            batch = windows[some]
            x = self.model.attention[self._shared](batch.reshape(-1, *shapes[0]))
            for point in points[1:]:
                x = self.model.attention[point](self.model.stages[point](x))
            return self.model.classify(x).view(*batch.shape[:2], -1)

        return self._in_batches(windows.shape[0], windows.shape[1], max(map(math.prod, shapes)), run)

    def _in_batches(
        self, rows: int, cols: int, num_floats: int, run: Callable[[tuple[slice, slice]], Tensor]
    ) -> Tensor:
        """Returns the logits `(rows, cols, classes)` of all patches, computed in batches.

        `run` maps slices of rows and cols to the logits of these patches, each of `num_floats` floats.
        """
        size = min(self.budget.most_windows, max(16, self.budget.batch_bytes // (FLOAT_BYTES * num_floats)))
        num_cols = math.ceil(cols / math.ceil(cols / size))
        num_rows = max(1, size // num_cols)
        some_rows = [slice(row, row + num_rows) for row in range(0, rows, num_rows)]
        some_cols = [slice(col, col + num_cols) for col in range(0, cols, num_cols)]
        return torch.cat([torch.cat([run((row, col)) for col in some_cols], dim=1) for row in some_rows])


class DenseEngine(TileEngine):
    """Predicts whole scenes with a trained `HybridSN`; see `TileEngine`."""

    model: HybridSN

    def __init__(self, model: HybridSN, *, tf32: bool = False) -> None:
        super().__init__(model, tf32=tf32)
        self._last = list(model.stages)[-1]
        self._spare: list[Tensor] = []  # buffers of finished tiles, for reuse
        blocks = {name: each for name, each in model.attention.items() if not isinstance(each, nn.Identity)}
        with evaluation_mode(model):
            folded = {point: fold_norm(stage) for point, stage in model.stages.items()}
            self._head = DenseHead(model, is_shared=not blocks)
        early = {point: block for point, block in blocks.items() if point != self._last}
        if not blocks and self._head.can_share:
            of_scene = functools.partial(self._head.of_scene, num_together=self.budget.most_transforms)
            self._shared, self._finish = self._last, of_scene
        elif not early and isinstance(model.attention[self._last], ChannelGate | nn.Identity):
            self._shared, self._finish = self._last, self._gate_head
        elif (
            model.order == "3d-2d"
            and early.keys() <= {"conv3d_3", "fold"}
            and early
            and all(isinstance(block, ChannelGate) for block in early.values())
        ):
            self._shared, self._finish = "fold", self._mix
        else:
            self._shared, self._finish = next(iter(blocks)), self._run_windows
        self._conv2d = cast(nn.Conv2d, folded["conv2d"].conv)
        points = list(model.stages)
        # Features are not folded before a block at `fold`: `_mix` needs their depths.
        shared = points[: points.index(self._shared) + (self._shared != "fold")]
        self._stages = nn.Sequential(*(folded[point] for point in shared))

    def _count_bytes(self, rows: int, cols: int) -> int:
        num_bytes = super()._count_bytes(rows, cols)
        if self._finish == self._mix:
            (out, taps), span = self._conv2d.weight.shape[:2], self._head.span
            if self._device.type == "cpu":  # buffers that are reused from tile to tile
                num_bytes += FLOAT_BYTES * rows * ((span + 7) * span**2 * out + taps * out)
            else:
                margin = self.model.patch_size - 1
                num_bytes += FLOAT_BYTES * (rows + margin) * (cols + margin) * span * (span + 1) * out
        return num_bytes

    def _gate_head(self, features: Tensor) -> Tensor:
        """Returns the logits from the last features `(d, c, h, w)`, scaled by each patch's gate, if any."""
        d, c, h, w = features.shape
        span = self._head.span
        rows, cols = h - span + 1, w - span + 1
        gates = features.new_ones(rows, cols, 1, 1)
        block = self.model.attention[self._last]
        if isinstance(block, ChannelGate):
            is_flat = len(self.model.shapes[self._last]) == 3
            gates = gate_windows(block, features, window=span, is_flat=is_flat)
        gates = gates.expand(rows, cols, d, c).flatten(2).unsqueeze(2)  # (rows, cols, 1, d·c)
        pixels = features.permute(3, 2, 0, 1).flatten(2).contiguous()  # (w, h, d·c)
        windows = pixels.unfold(0, span, 1).unfold(1, span, 1)  # (cols, rows, d·c, x, y)
        windows = windows.permute(3, 1, 0, 4, 2)  # (x, rows, cols, y, d·c)

        def run(some: tuple[slice, slice]) -> Tensor:
            factor = gates[some]
            num_rows, num_cols = factor.shape[:2]
            patches = features.new_empty(span, num_rows, num_cols, span, d * c)
            for x in range(span):
                torch.mul(windows[x][some], factor, out=patches[span - 1 - x])
            return self._head(patches.flatten(1, 2)).view(num_rows, num_cols, -1)

        return self._in_batches(rows, cols, d * c * span**2, run)

    def _mix(self, features: Tensor) -> Tensor:
        """Returns the logits from the features `(d, c, h, w)` before the 2-D convolution.

        Channel gates act before the convolution. Any block may follow it.
        """
        window, span = self.model.shapes["fold"][-1], self._head.span
        gates: Tensor | None = None
        for point in ("conv3d_3", "fold"):
            block = self.model.attention[point]
            if isinstance(block, ChannelGate):
                more = gate_windows(block, features, window=window, is_flat=point == "fold", earlier=gates)
                gates = more if gates is None else gates * more
        assert gates is not None
        rows = len(gates)
        depth, num_features = features.shape[:2]
        bias = cast(Tensor, self._conv2d.bias)
        weight = self._conv2d.weight.view(-1, num_features, depth, 9).transpose(1, 2)  # (o, d, c, taps)
        # Channels with a common gate form a group g: all features of a depth, all depths of a feature,
        # or a single channel.
        match features.shape[:2]:
            case (d, _) if gates.shape[2:] == (d, 1):
                pass
            case (_, c) if gates.shape[2:] == (1, c):
                features, weight = features.transpose(0, 1), weight.transpose(1, 2)
            case shape:
                gates = gates.expand(*gates.shape[:2], *shape)
                features, weight = features.flatten(0, 1).unsqueeze(1), weight.flatten(1, 2).unsqueeze(2)
        weight = weight.permute(1, 2, 3, 0).flatten(1, 2)  # (g, t·9, o)
        gates = gates.flatten(2)
        convolved: Iterable[Sequence[Tensor] | Tensor]
        missing = bias
        if self._device.type == "cpu":
            convolved = convolve_gated(features, gates, weight=weight, bias=bias, span=span, spare=self._spare)
        else:
            convolved = [convolve_gated_at_once(features, gates, weight=weight, bias=bias, span=span)]
            missing = torch.zeros_like(missing)
        logits = [self._finish_patches(parts, missing) for parts in convolved]  # of some cols each
        return torch.cat([some.view(-1, rows, some.shape[1]) for some in logits]).transpose(0, 1)

    def _finish_patches(self, parts: Sequence[Tensor] | Tensor, bias: Tensor) -> Tensor:
        """Returns the logits `(n, classes)` of patches from their last features f.

        `patches` contains f - b, that is f without the bias b of the convolution. At every location y of a patch b is
        the same. With gates s (1 without a gate), the first dense layer W therefore adds b as one offset per patch:

            Σ_y W(y) (s · f(y)) = Σ_y W(y) (s · (f(y) - b)) + (Σ_y W(y)) (s · b)

        Blocks other than channel gates need f itself, so b is added before them.

        Args:
            parts: f - b, `(n, span, c)` for each col in the patch in reverse order, as `mixing.py` returns it.
            bias: `(c,)` b; zeros if it is not missing.
        """
        block = self.model.attention[self._last]
        if isinstance(block, ChannelGate):
            reduce = torch.mean if block.squeeze == "mean" else torch.amax
            of_cols = reduce(parts, -2) if isinstance(parts, Tensor) else torch.stack([reduce(p, -2) for p in parts])
            gates = block.gate(reduce(of_cols, 0).flatten(0, -2) + bias)
            return self._head(parts, gates=gates, offset=(gates * bias) @ self._head.summed.T)
        if isinstance(block, nn.Identity):
            return self._head(parts, offset=self._head.summed @ bias)
        features = torch.stack([*parts][::-1], -2).flatten(0, -4).add_(bias).permute(0, 3, 1, 2)  # (n, c, row, col)
        return self._head(block(features).permute(3, 0, 2, 1).flip(0))


def _map_in_threads(run: Callable[[Tensor], Tensor], tiles: list[Tensor], num_workers: int) -> list[Tensor]:
    """Returns `run(tile)` of each tile, in order; the workers share torch's threads equally."""
    if num_workers == 1:
        return [run(tile) for tile in tiles]
    num_threads = torch.get_num_threads()

    def run_without_gradients(tile: Tensor) -> Tensor:
        with torch.inference_mode():  # set per thread
            return run(tile)

    try:
        with ThreadPoolExecutor(
            num_workers, initializer=torch.set_num_threads, initargs=(num_threads // num_workers,)
        ) as pool:
            return list(pool.map(run_without_gradients, tiles))
    finally:
        torch.set_num_threads(num_threads)  # the workers' setting also applies to threads created later
