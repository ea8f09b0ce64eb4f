"""Files on disk become a `Scene`: known scenes by name, the user's own by path, the demo by its seed."""

import difflib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import scipy.io
from numpy.typing import NDArray

from hsi_se.config import SceneFiles, SyntheticScene
from hsi_se.errors import SceneError
from hsi_se.scene.catalogue import KNOWN_SCENES, KnownScene, find_known_scene
from hsi_se.scene.scene import UNLABELLED, GroundTruth, Scene
from hsi_se.scene.synthetic import make_synthetic_scene

DEFAULT_DATA_DIR = Path("datasets")
_NUMERIC_CLASSES = {"single", "double", "logical", "float32", "float64", "bool"} | {
    f"{u}int{n}" for u in ("", "u") for n in (8, 16, 32, 64)
}
_MAX_DEPTH = 2  # folders below the data folder that are searched


def load_scene(scene: str | SceneFiles | SyntheticScene, data: str | Path | None = None) -> Scene:
    """Returns the scene that a config's `scene` section names.

    Args:
        scene: a known scene's name or alias, a pair of files, or the synthetic scene's seed and size.
        data: a folder searched before `datasets/`; files may lie in it or in its sub-folders, and
            their names match whatever the case.

    Raises:
        SceneError: the name is unknown, a file is missing or no .mat file, the array cannot be
            picked, or the cube and the labels do not fit each other (see `Scene`).
    """
    roots = list_roots(data)
    if isinstance(scene, SyntheticScene):
        return make_synthetic_scene(seed=scene.synthetic, rows=scene.rows, cols=scene.cols, bands=scene.bands)
    if isinstance(scene, SceneFiles):
        setting, file, key, natural_colour = "scene.cube", scene.cube, scene.cube_key, None
    else:
        known = _get_known(scene)
        setting, file, key = f"scene {known.name}", known.cube_file, None
        natural_colour = known.natural_colour
    cube_path = find_file(file, roots, setting=setting)
    truth = load_ground_truth(scene, data)
    return Scene(
        name=truth.name,
        labels=truth.labels,
        class_names=truth.class_names,
        cube=read_array(cube_path, ndim=3, key=key, setting="scene.cube_key"),
        natural_colour=natural_colour,
    )


def load_ground_truth(
    scene: str | SceneFiles | SyntheticScene, data: str | Path | None = None
) -> GroundTruth:
    """Returns the labels of the scene that a config names; its cube need not be there.

    Args:
        scene: as for `load_scene`.
        data: as for `load_scene`.

    Raises:
        SceneError: as `load_scene`, for the labels alone.
    """
    roots = list_roots(data)
    match scene:
        case SyntheticScene():
            return load_scene(scene)
        case SceneFiles():
            path = find_file(scene.labels, roots, setting="scene.labels")
            labels = read_labels(path, key=scene.labels_key, setting="scene.labels_key")
            names = _names_of_files(scene.class_names, labels)
            name = scene.name or Path(scene.cube).stem
        case known_name:
            known = _get_known(known_name)
            path = find_file(known.labels_file, roots, setting=f"scene {known.name}")
            labels = read_labels(path, key=None, setting="scene.labels_key")
            name, names = known.name, known.class_names
    ids = np.unique(labels[labels != UNLABELLED]).tolist()
    return GroundTruth(name, labels, {label: names.get(label, f"class {label}") for label in ids})


def list_roots(data: str | Path | None) -> list[Path]:
    """Returns the folders where files are looked for, in order.

    Raises:
        SceneError: the data folder is not there.
    """
    if data is None:
        return [DEFAULT_DATA_DIR]
    if not Path(data).is_dir():
        raise SceneError(f"--data {data}: no such folder; name the folder that holds the scenes")
    return [Path(data), DEFAULT_DATA_DIR]


def _names_of_files(
    class_names: tuple[str, ...] | str | None, labels: NDArray[np.int32]
) -> Mapping[int, str]:
    if class_names is None:
        return {}
    if isinstance(class_names, str):
        return _get_known(class_names).class_names
    ids = np.unique(labels[labels != UNLABELLED]).tolist()
    if len(class_names) != len(ids):
        raise SceneError(
            f"scene.class_names: {len(class_names)} names for {len(ids)} labels "
            f"({', '.join(map(str, ids))}); give one name for each"
        )
    return dict(zip(ids, class_names, strict=True))


def _get_known(name: str) -> KnownScene:
    known = find_known_scene(name)
    if known is None:
        names = [name for scene in KNOWN_SCENES for name in (scene.name, *scene.aliases)]
        by_lower = {known.casefold(): known for known in names}
        near = [by_lower[match] for match in difflib.get_close_matches(name.casefold(), by_lower, n=3)]
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise SceneError(
            f"scene = {name!r}: no known scene; {hint}known are "
            f"{', '.join(scene.name for scene in KNOWN_SCENES)}; "
            "or give {cube: FILE, labels: FILE}"
        )
    return known


def find_file(name: str | Path, roots: Sequence[Path], *, setting: str) -> Path:
    """Returns the file called `name`: as given, or below a root, without regard to case.

    Raises:
        SceneError: there is none; the message lists the folders that were searched.
    """
    asked = Path(name).expanduser()
    if asked.is_file():
        return asked
    if not asked.is_absolute():
        tail = tuple(part.casefold() for part in asked.parts)
        for root in roots:
            for path in _walk(root):
                if tuple(part.casefold() for part in path.parts[-len(tail) :]) == tail:
                    return path
    searched = "" if asked.is_absolute() else f" nor below {', '.join(str(root) for root in roots)}"
    raise SceneError(
        f"{setting}: no file {name} here{searched}; put it there, or name its folder with --data DIR"
    )


def _walk(root: Path) -> list[Path]:
    files: list[Path] = []
    for folder, subfolders, names in os.walk(root):
        subfolders.sort()
        if len(Path(folder).relative_to(root).parts) >= _MAX_DEPTH:
            subfolders.clear()
        files.extend(Path(folder) / name for name in sorted(names))
    return files


def read_array(path: Path, *, ndim: int, key: str | None, setting: str) -> NDArray[np.generic]:
    """Returns the numeric array called `key`, or the sole one with `ndim` axes, of a .mat (v5) or .npz file.

    Raises:
        SceneError: the file is neither, or the array is absent or one of several; the message lists
            what the file holds and names the `setting` that picks one.
    """
    is_npz = path.suffix.lower() == ".npz"
    contents = _list_npz(path) if is_npz else _list_mat(path)
    listing = ", ".join(f"{name} {'×'.join(map(str, shape))} {kind}" for name, shape, kind in contents)
    fitting = [name for name, shape, kind in contents if len(shape) == ndim and kind in _NUMERIC_CLASSES]
    if key is not None:
        if key not in fitting:
            raise SceneError(
                f"{path}: {setting} = {key!r} is no {ndim}-D numeric array; "
                f"the file holds {listing or 'nothing'}"
            )
    elif len(fitting) == 1:
        key = fitting[0]
    elif fitting:
        raise SceneError(
            f"{path}: {len(fitting)} {ndim}-D arrays ({', '.join(fitting)}); pick one with {setting}"
        )
    else:
        raise SceneError(
            f"{path}: no {ndim}-D numeric array; the file holds {listing or 'nothing'}; give another file"
        )

    try:
        if is_npz:
            with np.load(path, allow_pickle=False) as arrays:
                array: NDArray[np.generic] = arrays[key]
        else:
            array = scipy.io.loadmat(path, variable_names=[key])[key]
    except Exception as error:  # the listing reads headers only; the data can still be cut short
        raise SceneError(f"{path}: {key} cannot be read ({_first_line(error)}); get the file again") from None
    if np.iscomplexobj(array):
        raise SceneError(f"{path}: {key} is complex; give real values")
    return array


def _list_mat(path: Path) -> list[tuple[str, tuple[int, ...], str]]:
    try:
        return [(name, shape, kind) for name, shape, kind in scipy.io.whosmat(path)]
    except NotImplementedError:
        raise SceneError(f"{path}: a MATLAB v7.3 file; save it with -v7") from None
    except Exception as error:  # a foreign file can break the parser in any way
        raise SceneError(f"{path}: no MATLAB .mat file ({_first_line(error)}); give a .mat file") from None


def _list_npz(path: Path) -> list[tuple[str, tuple[int, ...], str]]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return [(name, arrays[name].shape, arrays[name].dtype.name) for name in arrays.files]
    except Exception as error:  # a foreign file can break the parser in any way
        raise SceneError(f"{path}: no .npz file of plain arrays ({_first_line(error)})") from None


def read_labels(path: Path, *, key: str | None, setting: str) -> NDArray[np.int32]:
    """Returns the label map called `key`, or the sole 2-D array, of a .mat or .npz file.

    Raises:
        SceneError: as `read_array`, or a label is no whole number from 0 up.
    """
    array = read_array(path, ndim=2, key=key, setting=setting)
    values = np.asarray(array, dtype=np.float64)
    labels = np.nan_to_num(values, nan=-1).clip(-1, np.iinfo(np.int32).max).astype(np.int32)
    wrong = labels != values
    wrong |= labels < 0
    if wrong.any():
        row, col = np.argwhere(wrong)[0]
        raise SceneError(
            f"{path}: {int(wrong.sum())} labels are no whole number from 0 up, the first "
            f"{values[row, col]:g} at row {row}, col {col}; give a label map"
        )
    return labels


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
