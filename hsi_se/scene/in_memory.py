"""Reads a scene from arrays in memory: NumPy arrays, or xarray's DataArrays with their coordinates and their place.

Axes: rows, cols, bands. Nothing is written into the arrays that are given.
"""

import os
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsi_se.config.scene import LabelFile
from hsi_se.errors import how_to_install
from hsi_se.scene.cube import read_cube
from hsi_se.scene.encodings import LabelMap, Wanted, decode
from hsi_se.scene.georeference import Georeference, parse_crs
from hsi_se.scene.guards import blaming, explain_sizes, list_orders, refuse, tell
from hsi_se.scene.inspection import list_notes
from hsi_se.scene.labels import exclude_nodata, finish, list_ids, one_each
from hsi_se.scene.raster import UNLABELLED, Raster, make_image
from hsi_se.scene.styles import Style
from hsi_se.scene.wavelengths import pick_natural_colour, to_nanometres, to_widths
from hsi_se.system.files import read_facts

_NOWHERE = Georeference(None, None)


@dataclass(frozen=True, eq=False)
class Given:
    """An argument: its values, a view that cannot be written to, and what a DataArray knows besides."""

    values: NDArray[Any]
    grid: Any = None  # the DataArray, its dimensions in the order of rows, cols and bands
    place: Georeference = _NOWHERE
    nodata: float | None = None
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, argument: str, value: Any, *, axes: tuple[str, ...]) -> "Given":
        if isinstance(value, str | os.PathLike):
            raise refuse(f"{argument} = {str(value)!r}", "text")
        if isinstance(value, np.ma.MaskedArray):
            raise refuse(argument, "masked")
        given = _read_data_array(argument, value, axes) if is_data_array(value) else None
        try:
            values = np.asarray(value if given is None else given["grid"].values).view()
        except Exception as error:  # of any library that a value comes from
            problem = next(iter(str(error).splitlines()), "") or type(error).__name__
            raise refuse(argument, "no_array", kind=type(value).__name__, problem=problem) from None
        values.flags.writeable = False
        if values.size == 0 or (values.ndim != len(axes) and (values.ndim, len(axes)) != (1, 2)):
            wanted = "(rows, cols)" if len(axes) == 2 else "(rows, cols, bands)"
            raise refuse(argument, "no_pixels", shape=values.shape, wanted=f"{wanted} with at least one pixel")
        if values.dtype.kind not in ("iuf" if len(axes) == 3 else "biufU"):
            raise refuse(argument, "no_numbers", dtype=values.dtype)
        return cls(values, **given or {})


def is_data_array(value: object) -> bool:
    """Returns whether a value is a DataArray, for which xarray need not be imported."""
    xarray = sys.modules.get("xarray")
    return xarray is not None and isinstance(value, xarray.DataArray)


def _read_data_array(argument: str, array: Any, axes: tuple[str, ...]) -> dict[str, Any]:
    """Returns the fields of `Given` that a DataArray knows; dimensions of size 1 that have no meaning are dropped."""
    names = read_facts("hsi_se.scene", "axes.toml")
    known = [dim for axis in axes for dim in array.dims if str(dim).casefold() in names[axis]]
    grid = array.squeeze([dim for dim in array.dims if dim not in known and array.sizes[dim] == 1], drop=True)
    if len(known) != len(axes) or {*known} != {*grid.dims}:
        others = [dim for dim in grid.dims if dim not in known] or ["old"]
        missing = [axis for axis in axes if not {str(dim).casefold() for dim in known} & {*names[axis]}] or ["new"]
        dims = ", ".join(map(str, array.dims)) or "none"
        raise refuse(argument, "dimensions", dims=dims, wanted=", ".join(axes), old=others[0], new=missing[0])
    y, x, *_ = known
    grid = grid.transpose(*known)
    fields: dict[str, Any] = {"grid": grid, "nodata": array.attrs.get("_FillValue")}
    try:
        import rioxarray  # noqa: F401 - gives arrays their attribute `rio`
    except ImportError:
        if "spatial_ref" in array.coords:
            fields["notes"] = (f"{argument}: {tell('no_rioxarray', remedy=how_to_install('xarray'))}",)
        return fields
    remedy = "correct them, or drop them with drop_vars"
    with blaming(Path(argument), "its coordinates cannot be read", remedy=remedy), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of rioxarray, about its own libraries
        rio = grid.rio.set_spatial_dims(x_dim=x, y_dim=y).rio
        transform = rio.transform(recalc={y, x} <= {*grid.coords} and min(grid.sizes[y], grid.sizes[x]) > 1)
        crs, fields["nodata"] = rio.crs, rio.nodata
    ends: Any = None if transform.is_identity else tuple(map(float, transform[:6]))
    return fields | {"place": Georeference(None if crs is None else crs.to_string(), ends)}


def read_arrays(
    cube: Any, labels: Any, *, name: Any, class_names: Any, wavelengths_nm: Any, nodata: Any, crs: Any, transform: Any
) -> dict[str, Any]:
    """Returns the fields of a `Scene`; the arguments and the errors are those of `Scene.from_arrays`."""
    if not isinstance(name, str) or not name.strip():
        raise refuse(f"name = {name!r}", "no_name_given")
    given = Given.of("cube", cube, axes=("y", "x", "band"))
    fill, place = given.nodata, _read_place(crs, transform, given.place)
    if nodata is not None:
        try:
            fill = None if nodata == "none" else float(nodata)
        except (TypeError, ValueError):
            raise refuse(f"nodata = {nodata!r}", "no_value") from None
    values = given.values
    raster = Raster(
        path=Path("cube"),
        shape=values.shape,
        dtype=values.dtype,
        rows_of=lambda first, last: values[first:last],
        nodata=fill,
        georeference=None if place == _NOWHERE else place,
        **_read_wavelengths(wavelengths_nm, given),
    )
    image = make_image(raster, drop={}, is_suspect=nodata != "none")
    is_used_as_it_is = image.is_whole and not image.has_nodata
    kept, missing = (values, None) if is_used_as_it_is else read_cube(image, name=name)
    label_map = _read_labels(labels, shape=values.shape, place=place)
    found, missing, about_nodata = exclude_nodata(label_map.labels, missing)
    notes = (*label_map.notes, *about_nodata, *list_notes(image, kept, missing, labels=found, name="the cube"))
    names, about_names = _name_classes(class_names, label_map, found)
    return {
        "name": name,
        "labels": found,
        "class_names": names,
        "nodata": missing,
        "georeference": raster.georeference,
        "notes": (*notes, *about_names),
        "is_named": label_map.is_named,
        "is_part": labels is None,
        "cube": kept,
        "wavelengths_nm": image.wavelengths_nm,
        "fwhm_nm": image.fwhm_nm,
        "natural_colour": pick_natural_colour(image.wavelengths_nm),
        "dropped_bands": {band + 1: reason for band, reason in image.dropped.items()},
        "grid": None if given.grid is None else given.grid.isel({given.grid.dims[2]: 0}, drop=True),
    }


def _read_place(crs: Any, transform: Any, known: Georeference) -> Georeference:
    """Returns the place that the arguments give; where one is None, that of the cube."""
    if crs is not None:
        crs = f"EPSG:{crs}" if isinstance(crs, int) else getattr(crs, "to_wkt", lambda: str(crs))()
        if parse_crs(crs) is None and parse_crs("EPSG:4326") is not None:
            raise refuse(f"crs = {crs!r}", "no_crs")
    if transform is not None:
        try:
            numbers = np.array([*transform][:6], dtype=float)
            (a, b, _), (d, e, _) = numbers.reshape(2, 3).tolist()
            has_area = np.isfinite(numbers).all() and a * e != b * d
        except (TypeError, ValueError):
            has_area = False
        if not has_area:
            raise refuse(f"transform = {transform!r}", "no_transform")
        transform = tuple(numbers.tolist())
    return Georeference(crs or known.crs, transform or known.transform)


def _read_wavelengths(values: Any, cube: Given) -> dict[str, Any]:
    """Returns wavelengths and widths of the bands, from the argument or else from coordinates, and all notes."""
    bands, notes = cube.values.shape[2], cube.notes
    if values is not None:
        try:
            listed = np.array(values, dtype=float)
        except (TypeError, ValueError):
            raise refuse(
                f"wavelengths_nm = {values!r}", "no_wavelengths", what="are not numbers", bands=bands
            ) from None
        nm = to_nanometres(listed.tolist(), unit="nm", bands=bands)[0] if listed.shape == (bands,) else None
        if nm is None:
            what = f"{listed.min():g} to {listed.max():g} are not wavelengths in nm"
            what = what if listed.shape == (bands,) else f"has {listed.size} numbers"
            raise refuse("wavelengths_nm", "no_wavelengths", what=what, bands=bands)
        return {"wavelengths_nm": nm, "notes": notes}
    if cube.grid is None:
        return {"notes": notes}
    names, of_bands = read_facts("hsi_se.scene", "axes.toml"), cube.grid.dims[2:]
    along = {str(key).casefold(): each for key, each in cube.grid.coords.items() if each.dims == of_bands}
    key = next((key for key in names["wavelengths"] if key in along), None) or next(
        (key for key in along if to_nanometres([1], unit=along[key].attrs.get("units", "no"), bands=1)[1] == ()), None
    )
    if key is None:
        return {"notes": notes}
    listed, unit = along[key].values.tolist(), along[key].attrs.get("units", "nm" if key.endswith("_nm") else None)
    nm, about = to_nanometres(listed, unit=unit, bands=bands)
    widths: list[float] = next((along[key].values.tolist() for key in names["widths"] if key in along), [])
    return {
        "wavelengths_nm": nm,
        "fwhm_nm": to_widths(widths, wavelengths=listed, nanometres=nm),
        "notes": notes + about,
    }


def _read_labels(labels: Any, *, shape: tuple[int, int, int], place: Georeference) -> LabelMap:
    """Returns checked labels of the size of the cube; None stands for a scene without any."""
    if labels is None:
        return LabelMap(labels=np.zeros(shape[:2], dtype=np.int32))
    given, path = Given.of("labels", labels, axes=("y", "x")), Path("labels")
    values = given.values
    if given.nodata is not None and not np.isnan(given.nodata):
        values = np.where(values == given.nodata, UNLABELLED, values)
    found = finish(
        path, decode(path, values, Wanted(LabelFile(file="labels"))), Style(), setting="labels", unlabelled=0
    )
    on_grid, notes = place.align(found.labels, given.place, shape=shape[:2], path=path)
    if on_grid.shape != shape[:2]:
        size = on_grid.shape if on_grid.ndim == 2 else (*on_grid.shape, 1)
        order = next((each.split("-") for each in list_orders(shape, size, bands=(0, 1))), None)
        remedy = explain_sizes(shape, size, ()).replace("two files", "arrays")
        if order is not None:
            axes = ", ".join(str(order.index(axis)) for axis in ("rows", "cols", "bands"))
            remedy = f"bring the axes into order, cube.transpose({axes})"
        raise refuse("labels", "other_size", cube=shape, labels=" × ".join(map(str, on_grid.shape)), remedy=remedy)
    attributes = {} if given.grid is None else given.grid.attrs  # as of the CF conventions
    ids, meanings = np.ravel(attributes.get("flag_values", [])), str(attributes.get("flag_meanings", "")).split()
    if len(ids) == len(meanings):
        names = [meaning.replace("_", " ") for meaning in meanings]
        found = replace(found, class_names=dict(zip(ids.tolist(), names, strict=True)) | dict(found.class_names))
    return replace(found, labels=on_grid, notes=(*found.notes, *given.notes, *notes))


def _name_classes(given: Any, label_map: LabelMap, labels: NDArray[np.int32]) -> tuple[dict[int, str], tuple[str, ...]]:
    """Returns the name of every label, and a note on names that no pixel has."""
    ids = list_ids(labels)
    notes: tuple[str, ...] = ()
    names: Mapping[Any, Any] = label_map.class_names
    if given is not None:
        if isinstance(given, str) or not isinstance(given, Mapping | list | tuple | np.ndarray):
            raise refuse(f"class_names = {given!r}", "no_class_names")
        names = dict(given) if isinstance(given, Mapping) else one_each(tuple(given), labels, "class_names", "names")
        texts = [str(name).strip() for name in names.values()]
        if wrong := next((name for name in texts if not name or texts.count(name) > 1), None) or ("" in texts and " "):
            raise refuse("class_names", "name_twice", name=wrong.strip())
        if unnamed := [label for label in ids if label not in names]:
            raise refuse("class_names", "unnamed", labels=", ".join(map(str, unnamed)))
        if idle := [str(label) for label in names if label not in ids]:
            notes = (tell("idle_names", labels=", ".join(idle)),)
    return {label: str(names.get(label, f"class {label}")) for label in ids}, notes
