"""The `ClassMap`: a label for every pixel of a scene, in the ids of its ground truth."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hsi_se.scene.palette import Colour
from hsi_se.scene.scene import UNLABELLED


@dataclass(frozen=True, eq=False)
class ClassMap:
    """A classified scene.

    Attributes:
        labels: `(rows, cols)` int32, ids of the ground truth; 0 where there is no prediction.
        class_names: by id.
        palette: 8-bit RGB by id.
    """

    labels: NDArray[np.int32]
    class_names: Mapping[int, str]
    palette: Mapping[int, Colour]

    def where(self, mask: NDArray[np.bool_]) -> "ClassMap":
        """The same map with the pixels outside `mask` `(rows, cols)` unlabelled."""
        labels = np.where(mask, self.labels, UNLABELLED).astype(np.int32)
        return ClassMap(labels, self.class_names, self.palette)

    def to_rgb(self) -> NDArray[np.uint8]:
        """Returns the picture `(rows, cols, 3)`, one pixel a pixel."""
        lookup = np.zeros((int(self.labels.max(initial=0)) + 1, 3), dtype=np.uint8)
        for label, colour in self.palette.items():
            if label < len(lookup):
                lookup[label] = colour
        return lookup[self.labels]


def classify(
    logits: NDArray[np.float32],
    *,
    class_ids: NDArray[np.int32],
    class_names: Mapping[int, str],
    palette: Mapping[int, Colour],
) -> ClassMap:
    """Returns the map of the largest logit `(rows, cols, C)`; class `i` becomes the id `class_ids[i]`."""
    return ClassMap(class_ids[logits.argmax(axis=2)].astype(np.int32), class_names, palette)
