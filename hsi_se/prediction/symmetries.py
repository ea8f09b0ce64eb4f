"""A prediction's mean over the eight flips and transposes of a scene, which have no up and no left.

Axes: rows, cols of pixels; k components; C classes.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Cube = NDArray[np.float32]


def average_symmetries(predict: Callable[[Cube], Cube], cube: Cube, *, num_passes: int) -> Cube:
    """Returns the mean of what `predict` makes of the first `num_passes` symmetries, each turned back.

    Args:
        predict: from `(rows, cols, k)` to `(rows', cols', C)`, where both sides lose the same length.
        cube: `(rows, cols, k)`.
        num_passes: 1, the identity alone, to 8.
    """
    total: Cube | None = None
    for symmetry in range(num_passes):
        turned = _turn(predict(np.ascontiguousarray(_turn(cube, symmetry))), symmetry, back=True)
        total = np.array(turned) if total is None else total + turned
    assert total is not None
    return total / np.float32(num_passes) if num_passes > 1 else total


def _turn(cube: Cube, symmetry: int, *, back: bool = False) -> Cube:
    """Symmetry 0 to 3 flips cols and rows by its two bits; 4 to 7 transpose first."""
    flips = (slice(None, None, -1 if symmetry & 2 else 1), slice(None, None, -1 if symmetry & 1 else 1))
    if not back:
        return (cube.transpose(1, 0, 2) if symmetry & 4 else cube)[flips]
    return cube[flips].transpose(1, 0, 2) if symmetry & 4 else cube[flips]
