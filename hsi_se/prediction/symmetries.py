"""Averages predictions over the eight flips and transposes of a scene (test-time augmentation).

Axes: rows, cols of pixels; k components; C classes.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Cube = NDArray[np.float32]


def average_symmetries(predict: Callable[[Cube], Cube], cube: Cube, *, num_passes: int) -> Cube:
    """Returns the mean prediction over the first `num_passes` symmetries of a cube, each turned back.

    Args:
        predict: maps `(rows, cols, k)` to `(rows - m, cols - m, C)`, with the same m for both axes.
        cube: `(rows, cols, k)`.
        num_passes: number of symmetries, 1 (only the identity) to 8.

    Returns:
        `(rows - m, cols - m, C)`.
    """
    total: Cube | None = None
    for symmetry in range(num_passes):
        turned = _turn(predict(np.ascontiguousarray(_turn(cube, symmetry))), symmetry, back=True)
        total = np.array(turned) if total is None else total + turned
    assert total is not None
    return total / np.float32(num_passes) if num_passes > 1 else total


def _turn(cube: Cube, symmetry: int, *, back: bool = False) -> Cube:
    """Applies a symmetry, or with `back` its inverse.

    Bit 0 of the number flips the cols, bit 1 the rows; symmetries 4 to 7 transpose before that.
    """
    flips = (slice(None, None, -1 if symmetry & 2 else 1), slice(None, None, -1 if symmetry & 1 else 1))
    if not back:
        return (cube.transpose(1, 0, 2) if symmetry & 4 else cube)[flips]
    return cube[flips].transpose(1, 0, 2) if symmetry & 4 else cube[flips]
