"""Patches as windows on one padded cube; n patches, k components, p × p pixels."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hsi_se.sampling.splits import Pixels
from hsi_se.scene.cube import Cube, StoredCube
from hsi_se.scene.scene import Window

WHOLE = (slice(0, None), slice(0, None))  # the window of a scene of one image
NUM_SYMMETRIES = 8  # of a square: the identity, three rotations, four reflections
_BLOCK_SIDES = (1, 8, 32, 128)  # pixels


def pad_cube(
    components: NDArray[np.float32], *, patch_size: int, padding: str, windows: Sequence[Window] = (WHOLE,)
) -> Tensor:
    """Returns the padded cube `(rows + p - 1, cols + p - 1, k)`, in which every pixel is a patch's centre.

    `components` is `(rows, cols, k)`, the patch size p odd, and `padding` either `zero` or `reflect`
    (mirrored without repeating the edge, more than once in small scenes). Several images on one canvas, `windows`, are
    padded as if each were alone; they lie at least p - 1 pixels apart.
    """
    margin = patch_size // 2
    widths = ((margin, margin), (margin, margin), (0, 0))
    mode = {"zero": "constant", "reflect": "reflect"}[padding]
    images = [np.pad(components[window], widths, mode=mode) for window in windows]  # type: ignore[call-overload]
    if len(images) == 1:
        return torch.from_numpy(images[0])
    rows, cols, depth = components.shape
    padded = torch.zeros(rows + 2 * margin, cols + 2 * margin, depth)
    for (down, right), image in zip(windows, images, strict=True):
        padded[down.start :, right.start :][: image.shape[0], : image.shape[1]] = torch.from_numpy(image)
    return padded


class PatchDataset:
    """A dataset of the patches around given pixels of a scene, with classes 0..C-1.

    The padded cube is stored once. Patches are copied only when a batch is gathered, on its device.

    Args:
        padded: `(rows + p - 1, cols + p - 1, k)` from `pad_cube`, on any device.
        pixels: `(n, 2)` of (row, col) in the scene before padding.
        patch_size: p, odd.
        targets: `(n,)` classes 0..C-1; zeros by default.
        windows: the images on the canvas, which a shifted patch's centre does not leave.
        bounds: the first and the last (row, col) of each patch's corner, `(2, n, 2)`; by default those of its image.
    """

    def __init__(
        self,
        padded: Tensor,
        pixels: Pixels,
        *,
        patch_size: int,
        targets: NDArray[np.int64] | None = None,
        windows: Sequence[Window] = (WHOLE,),
        bounds: NDArray[np.int64] | None = None,
    ) -> None:
        self.patch_size = patch_size
        self.padded = padded
        self.device = padded.device
        self._pixels = torch.from_numpy(pixels)  # (n, 2), on the CPU; also the patch corners in `padded`
        if bounds is None:
            bounds = _find_bounds(pixels, windows, [n - patch_size + 1 for n in padded.shape[:2]])
        self._first, self._last = torch.from_numpy(bounds)
        self.targets = torch.from_numpy(np.zeros(len(pixels), np.int64) if targets is None else targets)
        self.targets = self.targets.to(self.device)
        steps = torch.arange(patch_size)
        window = steps[:, None] * padded.shape[1] + steps  # (p, p) flat offsets of a window's pixels from its corner
        bases = [base.flip(axes) for base in (window, window.T) for axes in ((), (0,), (1,), (0, 1))]
        self._offsets = torch.stack([base.flatten() for base in bases]).to(self.device)  # (8, p²), one per symmetry

    def __len__(self) -> int:
        return len(self._pixels)

    def __getitem__(self, position: int) -> Tensor:
        """Returns the patch `(k, p, p)` at an index, as a view on the padded cube."""
        row, col = self._pixels[position].tolist()
        size = self.patch_size
        return self.padded[row : row + size, col : col + size].permute(2, 0, 1)

    def find_corners(self, index: Tensor, *, shifts: Tensor | None = None) -> Tensor:
        """Returns the upper-left corners `(n, 2)` of patches in `padded`, on the CPU; see `gather`."""
        corners = self._pixels[index]
        if shifts is not None:
            corners = (corners + shifts).maximum(self._first[index]).minimum(self._last[index])
        return corners

    def find_places(self, index: Tensor, *, shifts: Tensor | None = None) -> Tensor:
        """Returns the positions `(n,)` of the patches' upper-left corners in the flat padded scene, on the CPU."""
        rows, cols = self.find_corners(index, shifts=shifts).unbind(1)
        return rows * self.padded.shape[1] + cols

    def gather(self, index: Tensor, *, symmetries: Tensor | None = None, shifts: Tensor | None = None) -> Tensor:
        """Returns the patches `(n, 1, k, p, p)` at the given indices of the dataset.

        Args:
            index: `(n,)` int64 in 0..len-1; all three arguments are on the CPU.
            symmetries: `(n,)` int64 in 0..7, the symmetry of the square applied to each patch; 0 is none.
            shifts: `(n, 2)` int64 rows and cols to move each patch by, limited to the padded scene.
        """
        places = self.find_places(index, shifts=shifts).to(self.device, non_blocking=True)
        if symmetries is not None:
            symmetries = symmetries.to(self.device, non_blocking=True)
        return self.cut(self.padded, places, symmetries=symmetries)

    def cut(self, padded: Tensor, places: Tensor, *, symmetries: Tensor | None = None) -> Tensor:
        """Returns the patches `(n, 1, k, p, p)` at `places` of a padded scene, with components innermost in memory.

        All arguments are on the dataset's device.
        """
        size = self.patch_size
        offsets = self._offsets[0 if symmetries is None else symmetries]  # (p²) or (n, p²)
        windows = places[:, None] + offsets  # (n, p²)
        pixels = padded.view(-1, padded.shape[2]).index_select(0, windows.flatten())  # (n·p², k)
        return pixels.view(len(places), size, size, -1).permute(0, 3, 1, 2).unsqueeze(1)  # (n, 1, k, p, p)


def _find_bounds(pixels: Pixels, windows: Sequence[Window], shape: Sequence[int]) -> NDArray[np.int64]:
    """Returns the first and the last (row, col) of the image of each pixel, `(2, n, 2)`."""
    bounds = np.zeros((2, *pixels.shape), np.int64)
    for window in windows:
        ends = np.array([part.indices(length)[:2] for part, length in zip(window, shape, strict=True)]).T  # (2, 2)
        inside = ((pixels >= ends[0]) & (pixels < ends[1])).all(axis=1)
        bounds[:, inside] = (ends - [[0], [1]])[:, None]
    return bounds


class PatchSource:
    """A reduced scene from which patches are cut: padded once in memory; of a large one, what they cover is read.

    `reach` is the most pixels that a patch is moved by; for the other arguments, see `pad_cube`.
    """

    def __init__(
        self, components: Cube, *, patch_size: int, padding: str, windows: Sequence[Window], device: torch.device,
        reach: int = 0,
    ) -> None:  # fmt: skip
        self.components, self.device, self._reach = components, device, reach
        self._size, self._padding, self._windows = patch_size, padding, windows
        self._padded: Tensor | None = None
        if not isinstance(components, StoredCube):
            self._padded = pad_cube(components, patch_size=patch_size, padding=padding, windows=windows).to(device)

    def cut(self, pixels: Pixels, *, targets: NDArray[np.int64] | None = None) -> PatchDataset:
        """Returns the patches around pixels `(n, 2)`, with classes `(n,)` if they are known."""
        if self._padded is None and len(pixels):
            return self._cut_blocks(pixels, targets)
        padded = self._padded
        if padded is None:
            padded = torch.zeros(self._size, self._size, self.components.shape[2], device=self.device)
        return PatchDataset(padded, pixels, patch_size=self._size, targets=targets, windows=self._windows)

    def _cut_blocks(self, pixels: Pixels, targets: NDArray[np.int64] | None) -> PatchDataset:
        """Returns patches of square blocks of the padded scene, one below the other, of the size that takes least."""
        margin, extra = self._size // 2, 2 * (self._size // 2 + self._reach)
        windows = np.array([[(part.start, part.stop) for part in window] for window in self._windows])  # (images, 2, 2)
        is_in = (pixels[:, None] >= windows[..., 0]) & (pixels[:, None] < windows[..., 1])  # (n, images, 2)
        image_of = is_in.all(axis=2).argmax(axis=1)
        place, lengths = pixels - windows[image_of, :, 0], windows[..., 1] - windows[..., 0]

        def lay_out(side: int) -> tuple[NDArray[np.int64], NDArray[np.intp]]:
            corners = place // side * side - self._reach  # in the padded image
            blocks, block_of = np.unique(np.c_[image_of, corners], axis=0, return_inverse=True)
            return blocks, block_of.reshape(-1)

        side = min(_BLOCK_SIDES, key=lambda each: len(lay_out(each)[0]) * (each + extra) ** 2)
        (blocks, block_of), size = lay_out(side), side + extra
        how: Any = {"mode": "reflect"} if self._padding == "reflect" else {"mode": "constant", "constant_values": -1}
        sources = []  # (blocks, size) rows, and then cols, of the scene that a block has; -1 for none
        for axis in (0, 1):
            padded = [np.pad(np.pad(np.arange(n), margin, **how), size, constant_values=-1) for n in lengths[:, axis]]
            here = np.stack([padded[block[0]][block[1 + axis] + size :][:size] for block in blocks])
            sources.append(np.where(here < 0, -1, here + windows[blocks[:, 0], axis, :1]))
        rows, cols = np.broadcast_arrays(sources[0][:, :, None], sources[1][:, None])  # (blocks, size, size)
        values = self.components[rows.clip(0), cols.clip(0)]
        values[(rows < 0) | (cols < 0)] = 0
        scene = torch.from_numpy(values.reshape(-1, size, values.shape[-1])).to(self.device)
        corners = place - blocks[block_of, 1:]
        corners[:, 0] += block_of * size
        bounds = np.stack([corners - place, corners - place + lengths[image_of] - 1])
        return PatchDataset(scene, corners, patch_size=self._size, targets=targets, bounds=bounds)


def to_targets(labels: NDArray[np.int32], pixels: Pixels, class_ids: NDArray[np.int32]) -> NDArray[np.int64]:
    """Returns the classes `(n,)` in 0..C-1 of pixels; class `i` stands for the label `class_ids[i]`."""
    return np.searchsorted(class_ids, labels[pixels[:, 0], pixels[:, 1]])
