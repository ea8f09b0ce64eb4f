"""Defines `ClassMap`: a scene with one class id of its ground truth for every pixel."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsi_se.scene.raster import Colour, Mask
from hsi_se.scene.scene import UNLABELLED
from hsi_se.system.notebook import draw_html, thin


@dataclass(frozen=True, eq=False, repr=False)
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

    def __repr__(self) -> str:
        return f"ClassMap({' × '.join(map(str, self.labels.shape))} pixels, {len(self.class_names)} classes)"

    def _repr_html_(self) -> str:
        rows = [(name, f"{(self.labels == label).mean():.1%}") for label, name in self.class_names.items()]
        colours, shown = [self.palette[label] for label in self.class_names], self.to_rgb()[thin(self.labels.shape)]
        return draw_html(repr(self), picture=shown, headings=("class", "share"), rows=rows, colours=colours)

    def to_data_array(self, grid: Any) -> Any:
        """Returns the map as a DataArray with the coordinates of `grid`, another one of its size `(rows, cols)`.

        Its attributes name the classes: `flag_values` and `flag_meanings` as of the CF conventions, and `class_names`,
        `1: wheat; 2: bare soil`.
        """
        names, found = self.class_names, grid.copy(data=self.labels)
        found.name, found.encoding = "class", {}
        for dim, axis in zip(found.dims, "YX", strict=True):  # so that rioxarray knows them, whatever their names
            if dim in found.coords:
                found.coords[dim].attrs["axis"] = axis
        found.attrs = {
            "long_name": "class",
            "class_names": "; ".join(f"{label}: {name}" for label, name in names.items()),
            "flag_values": np.array(list(names), dtype=np.int32),
            "flag_meanings": " ".join("_".join(name.split()) for name in names.values()),
            "_FillValue": UNLABELLED,
        }
        return found


def pick_classes(logits: NDArray[np.float32], *, class_ids: NDArray[np.int32], missing: Mask) -> NDArray[np.int32]:
    """Returns the ids `(rows, cols)` of the largest logits `(rows, cols, C)`; 0 where `missing` is true."""
    return np.where(missing, np.int32(UNLABELLED), class_ids[logits.argmax(axis=2)])
