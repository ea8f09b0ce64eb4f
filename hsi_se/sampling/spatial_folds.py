"""Deals whole blocks, fields, groups or images of labelled pixels to the folds of a spatial cross-validation."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from hsi_se.config.nearest import find_nearest
from hsi_se.config.split import FoldsSplit
from hsi_se.errors import SplitError
from hsi_se.sampling.disjoint import Side, SideMap, _given, number_blocks, number_fields
from hsi_se.sampling.masks import read_mask
from hsi_se.scene.folders import Folders
from hsi_se.scene.scene import UNLABELLED, GroundTruth

Numbers = NDArray[np.int32]


def divide_by_fold(
    truth: GroundTruth, settings: FoldsSplit, *, rng: np.random.Generator, folders: Folders
) -> tuple[SideMap, Numbers, tuple[str, ...]]:
    """Returns the partition map `(rows, cols)` of one fold, the group of each pixel, and notes.

    The fold's pixels are the test set. The others train, unless a test pixel is closer than `buffer` (Chebyshev
    distance, in pixels). With the same generator, every fold belongs to the same draw. SplitError if there are fewer
    blocks, fields or groups than folds, or the fold has no training pixels.
    """
    buffer, numbers, fold_of = _given(settings.buffer), *deal_folds(truth, settings, rng=rng, folders=folders)
    if settings.fold is None:
        raise SplitError(f"split.fold: is missing; choose one of the folds, from 1 to {settings.folds}")
    is_test, is_used, sides = fold_of == settings.fold, fold_of > 0, np.zeros(truth.shape, np.uint8)
    is_near = ndimage.distance_transform_cdt(~is_test, metric="chessboard") < buffer
    for side, mask in ((Side.TRAIN, is_used), (Side.BUFFER, is_used & is_near), (Side.TEST, is_test)):
        sides[mask] = side
    fold = f"fold {settings.fold} of {settings.folds}"
    if not (sides == Side.TRAIN).any():
        larger = ", or raise split.block_size" if settings.by == "blocks" else ""
        problem = f"leaves no training pixels in {fold}, as every other labelled pixel is closer to a test pixel"
        raise SplitError(f"split.buffer = {buffer}: {problem}; lower split.buffer{larger}")
    lost = np.setdiff1d(truth.labels[is_test], truth.labels[sides == Side.TRAIN])
    counts = [f"{truth.class_names[label]} ({int((truth.labels[is_test] == label).sum())})" for label in lost.tolist()]
    notes = [f"{fold}: no training pixels for the test pixels of {', '.join(counts)}"] if counts else []
    if num_unused := int((~is_used & (truth.labels != UNLABELLED)).sum()):
        group = f"group of {settings.groups}" if settings.groups else "polygon"
        notes.append(f"{num_unused:,} labelled pixels are in no {group} and are not used")
    return sides, numbers, tuple(notes)


def deal_folds(
    truth: GroundTruth, settings: FoldsSplit, *, rng: np.random.Generator, folders: Folders
) -> tuple[Numbers, Numbers]:
    """Returns the block, field, group or image of each pixel, and its fold from 1, both `(rows, cols)`.

    The fold is 0 where a pixel has no label, or is in no group.
    """
    numbers, fold_of = np.zeros((2, *truth.shape), np.int32)
    is_used = truth.labels != UNLABELLED
    match settings.by:
        case "blocks":
            numbers[is_used] = number_blocks(np.argwhere(is_used), block_size=settings.block_size, rng=rng)
        case "fields":
            numbers = number_fields(truth)
        case "groups":
            if settings.groups is not None:
                numbers = read_mask(truth, settings.groups, settings.groups_key, "groups", folders)
            elif truth.polygons is not None:
                numbers = truth.polygons
            else:
                problem = "the labels were not drawn as polygons, which would be the groups"
                raise SplitError(f"split.by = groups: {problem}; give a map of group numbers with groups: FILE")
            is_used &= numbers > 0
        case "images":
            numbers = number_images(truth)
    groups = np.unique(numbers[is_used])
    if len(groups) < settings.folds:
        smaller = ", or lower split.block_size" if settings.by == "blocks" else ""
        problem = f"only {len(groups)} {settings.by} contain labelled pixels"
        raise SplitError(f"split.folds = {settings.folds}: {problem}; use at most {len(groups)} folds{smaller}")
    if settings.by in ("groups", "images") and len(groups) == settings.folds:
        fold_of[is_used] = np.searchsorted(groups, numbers[is_used]) + 1
    else:
        classes = np.searchsorted(truth.class_ids, truth.labels[is_used])
        fold_of[is_used] = deal(numbers[is_used], classes, num_folds=settings.folds, rng=rng) + 1
    return numbers, fold_of


def divide_by_image(truth: GroundTruth, names: Sequence[str]) -> SideMap:
    """Returns the partition map `(rows, cols)` that tests the images of these names and trains on the others.

    SplitError if there is no such image, or none is left to train on.
    """
    known = [image.name for image in truth.images]
    for name in names:
        if name not in known:
            near = find_nearest(name, known)
            hint = f"did you mean {near}? " if near else ""
            problem = f"no such image; {hint}choose from {', '.join(known)}" if known else "the scene is a single image"
            raise SplitError(f"split.test = {name}: {problem}")
    is_test = np.isin(number_images(truth), [known.index(name) + 1 for name in names])
    is_used = truth.labels != UNLABELLED
    return np.where(is_used, np.where(is_test, np.uint8(Side.TEST), np.uint8(Side.TRAIN)), np.uint8(Side.UNUSED))


def number_images(truth: GroundTruth) -> Numbers:
    """Returns the image of each pixel `(rows, cols)`, from 1; 0 between images."""
    numbers = np.zeros(truth.shape, dtype=np.int32)
    for number, window in enumerate(truth.windows, start=1):
        numbers[window] = number
    return numbers


def deal(
    groups: NDArray[np.integer], classes: NDArray[np.integer], *, num_folds: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Returns the fold `(n,)` of each pixel, from 0: whole groups, with every class spread over the folds.

    The groups are dealt in a random order, large ones earlier. Each goes to the fold that has the smallest share of
    its classes, and of all pixels, so far. No fold is empty if there are as many groups as folds.
    (`StratifiedGroupKFold` of scikit-learn deals groups of different sizes in the same way at every draw.)
    """
    number_of, every = np.unique(groups, return_inverse=True)[1], classes.max() + 1
    shares = np.zeros((number_of.max() + 1, every + 1))  # (groups, C + 1) of each class's pixels, and of all
    np.add.at(shares, (number_of, classes), 1 / np.bincount(classes)[classes])
    shares[:, every] = np.bincount(number_of) / len(classes)
    fold_of, held = np.zeros(len(shares), dtype=np.int64), np.zeros((num_folds, every + 1))
    for group in np.argsort(-shares.sum(axis=1) * rng.uniform(0.5, 1, len(shares))):
        fold_of[group] = (held @ shares[group]).argmin()
        held[fold_of[group]] += shares[group]
    return fold_of[number_of]
