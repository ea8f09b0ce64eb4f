"""Defines `ClassMap`: a scene with one class id of its ground truth for every pixel."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hsi_se.scene.raster import Colour, Mask
from hsi_se.scene.scene import UNLABELLED


@dataclass(frozen=True, eq=False)
class ClassMap:
    """A classified scene.

    Attributes:
        labels: `(rows, cols)` int32 class ids of the ground truth; 0 where there is no prediction.
        class_names: class name of each id.
        palette: 8-bit RGB colour of each id.
    """

    labels: NDArray[np.int32]
    class_names: Mapping[int, str]
    palette: Mapping[int, Colour]

    def to_rgb(self) -> NDArray[np.uint8]:
        """Returns the map as an 8-bit RGB image `(rows, cols, 3)`; unlabelled pixels are black."""
        lookup = np.zeros((int(self.labels.max(initial=0)) + 1, 3), dtype=np.uint8)
        for label, colour in self.palette.items():
            if label < len(lookup):
                lookup[label] = colour
        return lookup[self.labels]


def pick_classes(logits: NDArray[np.float32], *, class_ids: NDArray[np.int32], missing: Mask) -> NDArray[np.int32]:
    """Returns the ids `(rows, cols)` of the largest logits `(rows, cols, C)`; 0 where `missing` is true."""
    return np.where(missing, np.int32(UNLABELLED), class_ids[logits.argmax(axis=2)])
