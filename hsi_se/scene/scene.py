"""A label map (rows, cols) and a cube (rows, cols, bands), and what the two mean."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hsi_se.errors import SceneError

UNLABELLED = 0


@dataclass(frozen=True, eq=False)
class GroundTruth:
    """A label map without its image: all that a split needs; the constructor proves it usable.

    Attributes:
        name: what reports call the scene.
        labels: `(rows, cols)` int32; 0 is unlabelled, other ids need not be contiguous.
        class_names: a name for every id that `labels` holds, in ascending order of id.

    Raises:
        SceneError: the labels are no map, or nothing is labelled.
    """

    name: str
    labels: NDArray[np.int32]
    class_names: Mapping[int, str]

    def __post_init__(self) -> None:
        if self.labels.ndim != 2:
            raise SceneError(
                f"scene {self.name}: the labels have shape {self.labels.shape}; give a map (rows, cols)"
            )
        if not (self.labels != UNLABELLED).any():
            raise SceneError(
                f"scene {self.name}: all {self.labels.size} labels are 0, which means unlabelled; "
                "give a label map with at least one class"
            )

    @cached_property
    def class_ids(self) -> NDArray[np.int32]:
        """`(C,)` the ids present, ascending, without the unlabelled 0."""
        return np.setdiff1d(self.labels, [UNLABELLED]).astype(np.int32)

    @property
    def num_classes(self) -> int:
        return len(self.class_ids)

    @property
    def shape(self) -> tuple[int, int]:
        rows, cols = self.labels.shape
        return rows, cols


@dataclass(frozen=True, eq=False)
class Scene(GroundTruth):
    """A hyperspectral image with its ground truth; the constructor proves that the two fit.

    Attributes:
        cube: `(rows, cols, bands)`, any real dtype, finite everywhere.
        wavelengths_nm: `(bands,)` band centres in nanometres, where known.
        natural_colour: 0-based red, green and blue bands for a natural-colour picture, where known.

    Raises:
        SceneError: the shapes disagree, nothing is labelled, or a value is NaN or infinite.
    """

    cube: NDArray[np.generic]
    wavelengths_nm: NDArray[np.float64] | None = None
    natural_colour: tuple[int, int, int] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.cube.ndim != 3:
            raise SceneError(
                f"scene {self.name}: the cube has shape {self.cube.shape}; give (rows, cols, bands)"
            )
        if self.cube.shape[:2] != self.labels.shape:
            raise SceneError(
                f"scene {self.name}: the cube is {_size(self.cube)} pixels and the labels are "
                f"{_size(self.labels)}; give two files of one scene (rows × cols)"
            )
        if np.issubdtype(self.cube.dtype, np.inexact):
            finite = np.isfinite(self.cube)
            if not finite.all():
                row, col, band = np.argwhere(~finite)[0]
                raise SceneError(
                    f"scene {self.name}: {int((~finite).sum())} values of the cube are NaN or "
                    f"infinite, the first at row {row}, col {col}, band {band}; "
                    "replace them or cut the scene"
                )

    @property
    def num_bands(self) -> int:
        return int(self.cube.shape[2])

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the cube's and the labels' shapes, dtypes and bytes: equal scenes share it."""
        digest = hashlib.sha256()
        for array in (self.cube, self.labels):
            digest.update(f"{array.shape}{array.dtype.str}".encode())
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()


def _size(array: NDArray[np.generic]) -> str:
    return f"{array.shape[0]} × {array.shape[1]}"
