"""Reads splits from files: label maps of the training and test sets, or one partition map."""

from pathlib import Path

import numpy as np
import scipy.io
from numpy.typing import NDArray

from hsi_se.config.scene import LabelFile
from hsi_se.config.split import MasksSplit
from hsi_se.errors import SplitError
from hsi_se.sampling.disjoint import Side, SideMap
from hsi_se.scene.encodings import Wanted, renumber
from hsi_se.scene.folders import Folders, find_file
from hsi_se.scene.labels import read_label_map
from hsi_se.scene.scene import UNLABELLED, GroundTruth

PARTITIONS = (".mat", ".npz")  # file formats of partition maps


def read_masks(
    truth: GroundTruth, settings: MasksSplit, *, folders: Folders
) -> tuple[SideMap, NDArray[np.int32], tuple[str, ...]]:
    """Returns the partition `(rows, cols)`, the labels `(rows, cols)`, and notes for the user.

    The masks' labels take precedence over the scene's. Files are searched for in `folders`; SceneError if one is
    missing or contains no label map. SplitError if one differs in size from the scene, the masks overlap, a label is
    not in the scene, or a partition map contains an unknown number or assigns unlabelled pixels.
    """
    if settings.partition is not None:
        sides = read_mask(truth, settings.partition, settings.partition_key, "partition", folders)
        _check_partition(truth, sides, settings.partition)
        return sides.astype(np.uint8), truth.labels, ()

    train = read_mask(truth, str(settings.train), settings.train_key, "train", folders)
    test = read_mask(truth, str(settings.test), settings.test_key, "test", folders)
    both = (train != UNLABELLED) & (test != UNLABELLED)
    if both.any():
        problem = f"{_count_and_first(both)} are also in the training mask"
        raise SplitError(f"split.test = {settings.test}: {problem}; give masks that do not overlap")
    labels, disagreeing = truth.labels, []
    for mask in (train, test):
        labels = np.where(mask != UNLABELLED, mask, labels)
        disagreeing.append(int(((mask != UNLABELLED) & (mask != truth.labels)).sum()))
    sides = np.select([train != UNLABELLED, test != UNLABELLED], [Side.TRAIN, Side.TEST], Side.UNUSED)
    where = f"{disagreeing[0]} training and {disagreeing[1]} test pixels"
    note = f"the masks disagree with the scene's labels at {where}; the masks take precedence"
    return sides.astype(np.uint8), labels, (note,) if any(disagreeing) else ()


def read_mask(truth: GroundTruth, file: str, key: str | None, setting: str, folders: Folders) -> NDArray[np.int32]:
    """Returns a map `(rows, cols)` of numbers from 0 that `split.SETTING` names; 0 where the scene has no data."""
    path = find_file(file, folders, setting=f"split.{setting}")
    grid = Wanted(LabelFile(file=file), shape=truth.shape, place=truth.georeference, setting=f"split.{setting}_key")
    label_map = read_label_map(path, grid, key=key, setting=grid.setting)
    mask, names = label_map.labels, dict[int, str]()
    if mask.shape != truth.shape:
        found, wanted = (" × ".join(map(str, shape)) for shape in (mask.shape, truth.shape))
        problem = f"is {found} pixels, but the scene is {wanted}"
        raise SplitError(f"split.{setting} = {file}: {problem}; give a mask of the same size")
    mask = np.where(truth.valid, mask, UNLABELLED).astype(np.int32)
    if setting in ("train", "test"):  # partitions have numbers of their own
        if label_map.is_named:
            mask, names = renumber(mask, label_map.class_names, like=truth.class_names)
        what, known = ("classes", truth.class_names.values()) if names else ("labels", map(str, truth.class_ids))
        unknown = np.setdiff1d(mask, [UNLABELLED, *truth.class_ids]).tolist()
        if unknown:
            told = ", ".join(names.get(label, str(label)) for label in unknown)
            problem = f"{what} {told} are not in the scene ({', '.join(known)})"
            raise SplitError(f"split.{setting} = {file}: {problem}; give a mask with the scene's {what}")
    return mask


def _check_partition(truth: GroundTruth, partition: NDArray[np.int32], file: str) -> None:
    meaning = ", ".join(f"{side.value} {side.name.lower()}" for side in Side)
    unknown = np.setdiff1d(partition, list(Side))
    if len(unknown):
        raise SplitError(f"split.partition = {file}: contains {', '.join(map(str, unknown[:5]))}; use only {meaning}")
    unlabelled = (partition != Side.UNUSED) & (truth.labels == UNLABELLED)
    if unlabelled.any():
        problem = f"{_count_and_first(unlabelled)} are assigned to a set but have no label in the scene"
        raise SplitError(f"split.partition = {file}: {problem}; set them to 0")


def _count_and_first(mask: NDArray[np.bool_]) -> str:
    row, col = np.argwhere(mask)[0]
    return f"{int(mask.sum())} pixels, the first at row {row}, col {col},"


def write_partition(sides: SideMap | NDArray[np.int32], path: Path) -> None:
    """Writes a map `(rows, cols)` to a .mat or .npz file, for `split.partition` or, of fold numbers, `split.groups`."""
    if path.suffix.casefold() == ".mat":
        scipy.io.savemat(path, {"partition": sides}, do_compression=True)
    else:
        np.savez_compressed(path, partition=sides)
