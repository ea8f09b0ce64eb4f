"""Windows on one padded cube, never materialised; n patches, k components, p × p pixels.

A patch exists only inside a batch: the dataset holds the padded cube once, and a batch gathers its
windows by index on the device where the cube lies.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hsi_se.sampling.splits import Pixels

NUM_SYMMETRIES = 8  # of a square: the identity, three rotations, four reflections


def pad_cube(components: NDArray[np.float32], *, patch_size: int, padding: str) -> Tensor:
    """Returns `(rows + p - 1, cols + p - 1, k)`: every pixel, corners too, is the centre of a patch.

    Args:
        components: `(rows, cols, k)`.
        patch_size: p, odd.
        padding: `zero`, or `reflect` (mirrored without repeating the edge, as often as it takes).
    """
    margin = patch_size // 2
    widths = ((margin, margin), (margin, margin), (0, 0))
    mode = {"zero": "constant", "reflect": "reflect"}[padding]
    return torch.from_numpy(np.pad(components, widths, mode=mode))  # type: ignore[call-overload]


class PatchDataset:
    """The patches around some pixels of a scene, with classes as 0..C-1.

    Args:
        padded: `(rows + p - 1, cols + p - 1, k)` from `pad_cube`, on any device.
        pixels: `(n, 2)` of (row, col) in the scene before padding.
        patch_size: p, odd.
        targets: `(n,)` classes as 0..C-1; zeros where there is nothing to learn or compare.
    """

    def __init__(
        self, padded: Tensor, pixels: Pixels, *, patch_size: int, targets: NDArray[np.int64] | None = None
    ) -> None:
        self.patch_size = patch_size
        self.padded = padded
        self.device = padded.device
        self._pixels = torch.from_numpy(pixels)  # (n, 2): in `padded`, the corners; on the CPU
        self.targets = torch.from_numpy(np.zeros(len(pixels), np.int64) if targets is None else targets)
        self.targets = self.targets.to(self.device)
        self._flat = padded.view(-1, padded.shape[2])  # (pixels, k)
        self._offsets = _window_offsets(patch_size, padded.shape[1]).to(self.device)

    def __len__(self) -> int:
        return len(self._pixels)

    def __getitem__(self, position: int) -> Tensor:
        """The patch `(k, p, p)` at a position: a view on the padded cube."""
        row, col = self._pixels[position].tolist()
        size = self.patch_size
        return self.padded[row : row + size, col : col + size].permute(2, 0, 1)

    def find_corners(self, index: Tensor, *, shifts: Tensor | None = None) -> Tensor:
        """Returns the upper left pixels `(n, 2)` of patches in `padded`, on the CPU; see `gather`."""
        corners = self._pixels[index]
        if shifts is not None:
            last = [length - self.patch_size for length in self.padded.shape[:2]]
            corners = (corners + shifts).clamp(min=0).minimum(torch.tensor(last))
        return corners

    def gather(
        self, index: Tensor, *, symmetries: Tensor | None = None, shifts: Tensor | None = None
    ) -> Tensor:
        """Returns the patches `(n, 1, k, p, p)` at positions `index` `(n,)` of the dataset.

        Args:
            index: int64 positions in 0..len-1, on the CPU as the next two.
            symmetries: `(n,)` int64 in 0..7: which flip or transpose each patch is turned by; 0 is none.
            shifts: `(n, 2)` int64 rows and cols by which each patch is moved, as far as the scene goes.
        """
        size = self.patch_size
        rows, cols = self.find_corners(index, shifts=shifts).unbind(1)
        first = (rows * self.padded.shape[1] + cols).to(self.device, non_blocking=True)
        offsets = self._offsets[0]  # (p²) or (n, p²)
        if symmetries is not None:
            offsets = self._offsets[symmetries.to(self.device, non_blocking=True)]
        windows = first[:, None] + offsets  # (n, p²)
        pixels = self._flat.index_select(0, windows.flatten())  # (n·p², k)
        return pixels.view(len(index), size, size, -1).permute(0, 3, 1, 2).unsqueeze(1)  # (n, 1, k, p, p)


def to_targets(labels: NDArray[np.int32], pixels: Pixels, class_ids: NDArray[np.int32]) -> NDArray[np.int64]:
    """Returns `(n,)` classes as 0..C-1: class `i` is the label `class_ids[i]`, gaps in the ids closed."""
    return np.searchsorted(class_ids, labels[pixels[:, 0], pixels[:, 1]])


def _window_offsets(patch_size: int, padded_cols: int) -> Tensor:
    """`(8, p²)`: the window's pixels relative to its corner, under the eight symmetries of a square."""
    steps = torch.arange(patch_size)
    window = steps[:, None] * padded_cols + steps  # (p, p)
    symmetries = []
    for base in (window, window.T):
        symmetries += [base.flip(axes).flatten() for axes in ((), (0,), (1,), (0, 1))]
    return torch.stack(symmetries)
