"""Defines a scene: a label map (rows, cols), a cube (rows, cols, bands) and their metadata."""

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from hsi_se.errors import SceneError
from hsi_se.scene.cube import Cube, check_finite
from hsi_se.scene.georeference import Georeference
from hsi_se.scene.guards import explain_sizes, refuse, to_printable
from hsi_se.scene.in_memory import read_arrays
from hsi_se.scene.inspection import stretch
from hsi_se.scene.raster import HIGHEST_LABEL as HIGHEST_LABEL
from hsi_se.scene.raster import UNLABELLED as UNLABELLED
from hsi_se.scene.raster import Colour, chunk_rows, digest_values
from hsi_se.scene.wavelengths import pick_false_colour
from hsi_se.system.files import read_facts
from hsi_se.system.notebook import draw_html, thin
from hsi_se.system.python_words import speaking_python, to_python

_CLOSE = 32  # of 255, the difference of two colours in every channel


Window = tuple[slice, slice]  # rows and cols


@dataclass(frozen=True)
class PlacedImage:
    """One of several images of a scene: its name, its upper left pixel and its size on the scene's canvas."""

    name: str
    top: int
    left: int
    rows: int
    cols: int
    georeference: Georeference | None

    @property
    def window(self) -> Window:
        return slice(self.top, self.top + self.rows), slice(self.left, self.left + self.cols)


@dataclass(frozen=True, eq=False, repr=False)
class GroundTruth:
    """A label map without its image, which is all that a split needs; checked on construction.

    Attributes:
        labels: `(rows, cols)` int32; 0 is unlabelled, other ids need not be contiguous.
        class_names: name of every id present in `labels`, in ascending order of id.
        palette: 8-bit RGB colours of some ids, from the scene's files or its config.
        nodata: `(rows, cols)` mask of pixels without data, which are unlabelled; None if there are none.
        images: where each of several images lies; empty if there is one.
        notes: how the files were read, where the user should know, one sentence each.
        polygons: `(rows, cols)` number of the polygon that labels a pixel, from 1, and 0 elsewhere; None unless the
            labels were drawn as polygons.
        is_named: whether the ids were given to the names of the labels, so that a class is its name.
        is_part: whether this is one of several images, which may have no labels.

    Raises:
        SceneError: the labels are not two-dimensional, or every pixel is unlabelled.
    """

    name: str
    labels: NDArray[np.int32]
    class_names: Mapping[int, str]
    palette: Mapping[int, Colour] = field(default_factory=dict, kw_only=True)
    nodata: NDArray[np.bool_] | None = field(default=None, kw_only=True)
    georeference: Georeference | None = field(default=None, kw_only=True)
    images: tuple[PlacedImage, ...] = field(default=(), kw_only=True)
    notes: tuple[str, ...] = field(default=(), kw_only=True)
    polygons: NDArray[np.int32] | None = field(default=None, kw_only=True)
    is_named: bool = field(default=False, kw_only=True)
    is_part: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        names = {label: to_printable(name).strip() or f"class {label}" for label, name in self.class_names.items()}
        if names != self.class_names:
            note = "control characters in names of classes are replaced by spaces"
            object.__setattr__(self, "notes", (*self.notes, note))
        object.__setattr__(self, "class_names", names)
        object.__setattr__(self, "name", to_printable(self.name))
        if self.labels.ndim != 2:
            raise SceneError(f"scene {self.name}: the labels have shape {self.labels.shape}; give a map (rows, cols)")
        if not self.is_part and not (self.labels != UNLABELLED).any():
            raise refuse(f"scene {self.name}", "unlabelled", count=self.labels.size)

    @cached_property
    def class_ids(self) -> NDArray[np.int32]:
        """Returns the ids present in `labels`, `(C,)`, in ascending order and without 0."""
        return np.setdiff1d(self.labels, [UNLABELLED]).astype(np.int32)

    @cached_property
    def valid(self) -> NDArray[np.bool_]:
        """Returns the mask of pixels with data, `(rows, cols)`."""
        return np.ones(self.labels.shape, dtype=bool) if self.nodata is None else ~self.nodata

    @property
    def windows(self) -> tuple[Window, ...]:
        """Returns the rows and cols of each image; those of the scene if it is one."""
        return tuple(image.window for image in self.images) or ((slice(0, self.shape[0]), slice(0, self.shape[1])),)

    @property
    def pixel_area_m2(self) -> float | None:
        """Returns the area of a pixel in m², if it is known and the same in every image."""
        places = [image.georeference for image in self.images] or [self.georeference]
        areas = {None if place is None else place.pixel_area_m2 for place in places}
        return areas.pop() if len(areas) == 1 else None

    @property
    def num_classes(self) -> int:
        return len(self.class_ids)

    @property
    def shape(self) -> tuple[int, int]:
        rows, cols = self.labels.shape
        return rows, cols

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._describe()})"

    def _describe(self) -> str:
        sizes = (*self.shape, *getattr(self, "cube", self.labels).shape[2:])
        size = " × ".join(map(str, sizes[:2])) + " pixels" + (f", {sizes[2]} bands" if sizes[2:] else "")
        nm = getattr(self, "wavelengths_nm", None)
        size += "" if nm is None else f" from {nm.min():.0f} to {nm.max():.0f} nm"
        labelled = f"{np.count_nonzero(self.labels):,} labelled pixels of {self.num_classes} classes"
        return f"{self.name}: {size}, {labelled}"


@dataclass(frozen=True, eq=False, repr=False)
class Scene(GroundTruth):
    """A hyperspectral image with its ground truth; checked on construction.

    Attributes:
        cube: `(rows, cols, bands)`, any real dtype, finite everywhere, zero at nodata pixels; a large one stays in its
            files.
        wavelengths_nm, fwhm_nm: `(bands,)` band centres and widths at half maximum in nanometres, if known.
        natural_colour: 0-based red, green and blue bands for a natural-colour picture, if known.
        dropped_bands: bands of the file that `cube` excludes, counted from 1, each with the reason.
        grid: one band of the xarray DataArray that the cube was given as, whose coordinates a class map has; or None.

    Raises:
        SceneError: the shapes disagree, every pixel is unlabelled, or a value is NaN or infinite.
    """

    cube: Cube
    wavelengths_nm: NDArray[np.float64] | None = None
    fwhm_nm: NDArray[np.float64] | None = None
    natural_colour: tuple[int, int, int] | None = None
    dropped_bands: Mapping[int, str] = field(default_factory=dict)
    grid: Any = None

    @classmethod
    def from_arrays(
        cls,
        cube: Any,
        labels: Any,
        *,
        name: str = "scene",
        class_names: Sequence[str] | Mapping[int, str] | None = None,
        wavelengths_nm: Sequence[float] | None = None,
        nodata: float | Literal["none"] | None = None,
        crs: Any = None,
        transform: Sequence[float] | None = None,
    ) -> Self:
        """Returns the scene of arrays in memory, checked as files are; neither of them is written to.

        The cube is not copied, unless it has nodata pixels, which become 0; a copy of over 256 MB is made by rows.

        Args:
            cube: `(rows, cols, bands)` numbers; or a DataArray with the dimensions y, x and band in any order, or
                with other usual names, whose wavelengths, CRS, transform and nodata value are read too.
            labels: `(rows, cols)` whole numbers, 0 or NaN for unlabelled pixels, or names of classes; a DataArray is
                brought onto the grid of the cube. None for a scene that is only mapped.
            name: name in reports.
            class_names: of the labels in ascending order, or by label; by default those of the labels, or numbers.
            wavelengths_nm: `(bands,)` band centres in nanometres; by default a coordinate of the cube.
            nodata: value of pixels without data, which may be NaN; `"none"` if every pixel has data.
            crs: coordinate system, such as `EPSG:32633`; by default that of the cube.
            transform: affine transform `(a, b, c, d, e, f)` as in `Georeference`; by default that of the cube.

        Raises:
            SceneError: an argument is wrong, the shapes disagree, a value is NaN or infinite, a label is negative or
                no whole number, every pixel is unlabelled, or pixels contain fill that `nodata` does not say.
        """
        with speaking_python("arrays"):
            fields = read_arrays(
                cube, labels, name=name, class_names=class_names, wavelengths_nm=wavelengths_nm, nodata=nodata,
                crs=crs, transform=transform,
            )  # fmt: skip
            notes = tuple(to_python(note, "arrays") for note in fields["notes"])
            return cls(**fields | {"notes": notes})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.cube.ndim != 3:
            raise SceneError(f"scene {self.name}: the cube has shape {self.cube.shape}; give (rows, cols, bands)")
        check_same_size(self.name, self.cube.shape, self.labels.shape)
        if isinstance(self.cube, np.ndarray):
            check_finite(self.name, self.cube)  # others are checked once, when they are opened

    @property
    def num_bands(self) -> int:
        return int(self.cube.shape[2])

    def _repr_html_(self) -> str:
        bands, shown = list(self.natural_colour or pick_false_colour(self.num_bands)), thin(self.shape)
        parts = (self.cube[part][..., bands] for part in chunk_rows(len(self.cube)))
        picture = stretch(np.concatenate([*parts]).astype(float)[shown], ~self.valid[shown])
        palette, ids = make_palette(self.class_ids, given=self.palette), self.class_ids.tolist()
        rows = [(self.class_names[label], str(label), f"{(self.labels == label).sum():,}") for label in ids]
        colours, kind = [palette[label] for label in ids], "Natural" if self.natural_colour else "False"
        headings, text = ("class", "label", "pixels"), f"{kind} colour: bands {', '.join(str(b + 1) for b in bands)}."
        return draw_html(self._describe(), picture=picture, headings=headings, rows=rows, colours=colours, text=text)

    @cached_property
    def digest(self) -> str:
        """Returns the SHA-256 of shapes, dtypes and bytes of the cube, the labels and any nodata mask."""
        digest = hashlib.sha256()
        for array in (self.cube, self.labels, self.nodata):
            if array is not None:
                digest.update(f"{array.shape}{array.dtype.str}".encode())
                for part in chunk_rows(len(array)):  # the cube may be too large for a second copy
                    digest.update(np.ascontiguousarray(array[part]).data)
        return digest.hexdigest()

    @property
    def image_digests(self) -> tuple[str, ...]:
        """Returns the SHA-256 of the values of each image, as `digest_values`: those of its file, in any scene."""

        def read(rows: slice, cols: slice) -> Iterator[tuple[NDArray[Any], NDArray[np.bool_]]]:
            for part in chunk_rows(rows.stop - rows.start):
                here = slice(rows.start + part.start, rows.start + part.stop)
                yield self.cube[here][:, cols], ~self.valid[here, cols]

        sizes = [(rows.stop - rows.start, cols.stop - cols.start, self.num_bands) for rows, cols in self.windows]
        return tuple(digest_values(size, read(*window)) for size, window in zip(sizes, self.windows, strict=True))


def check_same_size(name: str, cube: tuple[int, ...], labels: tuple[int, ...], *, stored: tuple[int, ...] = ()) -> None:
    """Raises SceneError unless a cube `(rows, cols, bands)` has the size of the labels `(rows, cols)`.

    `stored` is the shape of the array that the cube is read from, if its file does not state the order of the axes.
    """
    if cube[:2] != labels:
        remedy = explain_sizes(cube, labels, stored)
        raise refuse(f"scene {name}", "unlike", cube=cube, labels=labels, remedy=remedy)


def make_palette(class_ids: Iterable[int], *, given: Mapping[int, Colour] | None = None) -> dict[int, Colour]:
    """Returns an 8-bit RGB colour for unlabelled pixels and for each label, by label.

    Colours in `given` take precedence. The other labels take, in ascending order, the colours of `palette.toml`, which
    are distinct for colour-blind readers too, without those close to a given one. Beyond the end the colours repeat.
    """
    known, ids = {UNLABELLED: (0, 0, 0)} | dict(given or {}), sorted(int(label) for label in class_ids)
    colours = [parse_colour(text) for text in read_facts("hsi_se.scene", "palette.toml")["colours"]]
    taken = np.array([known[label] for label in (UNLABELLED, *ids) if label in known])  # (n, 3)
    others = itertools.cycle([each for each in colours if np.abs(taken - each).max(axis=1).min() >= _CLOSE] or colours)
    return {label: known[label] if label in known else next(others) for label in (UNLABELLED, *ids)}


def parse_colour(text: str) -> Colour:
    """Returns the 8-bit colour `rrggbb`, with or without # before it."""
    red, green, blue = bytes.fromhex(text.removeprefix("#"))
    return red, green, blue
