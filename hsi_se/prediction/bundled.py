"""Applies the trained model of a run (its bundle) to whole scenes, large ones in tiles of some rows each.

Axes: rows, cols of pixels; k components; p the patch's size.
"""

import functools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from hsi_se.config.arguments import checked
from hsi_se.config.model import PixelClassifier
from hsi_se.config.scene import SceneFiles
from hsi_se.errors import RunError
from hsi_se.models import build_model
from hsi_se.models.classical import find_class
from hsi_se.models.inference import pick_device
from hsi_se.prediction.class_map import ClassMap, pick_classes
from hsi_se.prediction.logits import Classifier, Engine, RowPredictor, average_symmetries, list_tiles, predict_logits
from hsi_se.prediction.smoothing import smooth_logits
from hsi_se.prediction.target import Target, is_known_name, open_targets, read_finite_rows
from hsi_se.progress import Observer
from hsi_se.runs.bundle import BundleFacts, ModelBundle
from hsi_se.runs.folder import RunFolder
from hsi_se.sampling.splits import Pixels
from hsi_se.scene.cube import Cube, StoredCube
from hsi_se.scene.images import place
from hsi_se.scene.loading import SceneSettings
from hsi_se.scene.raster import Image, Mask
from hsi_se.scene.scene import Scene, Window
from hsi_se.system.forms import check_arrays
from hsi_se.system.session import Session

Item = TypeVar("Item")
Result = TypeVar("Result")
Part = tuple[Window, NDArray[np.float32], NDArray[np.float32]]  # of a scene; its logits, and those before smoothing
Prediction = tuple[range, NDArray[np.float32], Mask]  # rows, their logits, true where there is no data

# Of values read at once: a tile that fills a GPU would not fit the memory of its computer.
_HOST_BYTES, _BYTES_PER_VALUE = 2**29, 8
_PATCHWISE_ROWS = 16  # few rows are enough: reading some twice takes little time compared to the patches


@checked()
def load_bundle(run: str | Path | RunFolder) -> ModelBundle:
    """Returns the trained model of a run: weights, reduction and classes; see `build_bundled_model`."""
    return RunFolder.open(run).read_bundle()


def build_bundled_model(bundle: ModelBundle) -> Classifier:
    """Returns the trained classifier of a bundle, on the CPU."""
    facts = bundle.facts
    tensors = {name: torch.from_numpy(array) for name, array in bundle.weights.items()}
    try:
        if isinstance(facts.model, PixelClassifier):
            kind, lengths = find_class(facts.model), {"components": bundle.reduction.num_components}
            check_arrays(kind, bundle.weights, {**lengths, "classes": len(facts.class_ids)})
            classical = kind(tensors, patch_size=facts.patch_size)
            classical.score(torch.zeros(1, lengths["components"]))
            return classical
        model = build_model(
            facts.model,
            num_bands=bundle.reduction.num_components,
            patch_size=facts.patch_size,
            num_classes=len(facts.class_ids),
        )
        model.load_state_dict(tensors)
    except (LookupError, RuntimeError, TypeError, ValueError, MemoryError) as error:
        problem = (str(error).splitlines() or [type(error).__name__])[:2][-1].strip()
        raise RunError(f"bundle: the weights do not fit the architecture ({problem}); train again") from None
    return model


def predict_bundled(
    bundle: ModelBundle,
    components: Cube,
    pixels: Pixels,
    *,
    missing: Mask,
    windows: Sequence[Window],
    device: torch.device,
    observer: Observer,
    see: Callable[[Window, NDArray[np.float32]], None] | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Returns the final logits `(n, C)` of some pixels of a scene, and the logits before smoothing.

    `components` are `(rows, cols, k)`, the scene after the bundle's reduction, and `missing` `(rows, cols)`
    is true where there is no data. The bundle's `prediction` settings apply. Each of several images on one canvas,
    `windows`, is predicted as if it were alone; a large scene in tiles of some rows. `see` receives the final logits
    `(rows, cols, C)` of each part of the scene; without it, tiles that contain none of the pixels are left out.
    """
    facts = bundle.facts
    total = sum(missing[window].size for window in windows) * facts.prediction.num_passes
    observer.start("mapping", total=total, unit="pixels")
    found = np.empty((2, len(pixels), len(facts.class_ids)), np.float32)

    def predict_images(components: NDArray[np.float32]) -> Iterator[Part]:
        model, settings = build_bundled_model(bundle).to(device), facts.prediction
        predict = functools.partial(
            predict_logits, model, padding=facts.padding, on_batch=observer.advance, precision=settings.precision
        )
        for window in windows:
            cube, empty = components[window], missing[window]
            plain = average_symmetries(predict, cube, num_passes=settings.num_passes)
            yield window, smooth_bundled(facts, plain, components=cube, missing=empty), plain

    def predict_stored(components: StoredCube) -> Iterator[Part]:
        predictor = TilePredictor(bundle, engine="dense", device=device)
        for down, right in windows:
            (top, bottom, _), image = down.indices(len(missing)), (down, right)
            read = functools.partial(_read_components, components, missing, image)
            for tile in list_tiles(bottom - top, predictor.choose_tile_rows(missing[image].shape[1])):
                here = slice(top + tile.start, top + tile.stop)
                if see is not None or ((pixels[:, 0] >= here.start) & (pixels[:, 0] < here.stop)).any():
                    padded = read_tile(tile, facts=facts, num_rows=bottom - top, read=read)
                    yield (here, right), *predictor.predict(padded, on_batch=observer.advance)

    parts = predict_stored(components) if isinstance(components, StoredCube) else predict_images(components)
    for window, *both in parts:
        row, col = (pixels - [part.start for part in window]).T
        inside = (row >= 0) & (row < both[0].shape[0]) & (col >= 0) & (col < both[0].shape[1])
        found[:, inside] = [logits[row[inside], col[inside]] for logits in both]
        if see is not None:
            see(window, both[0])
    return found[0], found[1]


def _read_components(
    components: StoredCube, missing: Mask, image: Window, first: int, last: int
) -> tuple[NDArray[np.float32], Mask]:
    rows = slice(image[0].start + first, image[0].start + last)
    return components[rows][:, image[1]], missing[rows, image[1]]


def smooth_bundled(
    facts: BundleFacts, logits: NDArray[np.float32], *, components: NDArray[np.float32], missing: Mask
) -> NDArray[np.float32]:
    """Returns logits smoothed as in a bundle's settings, or as they are; see `smooth_logits`."""
    settings, scale = facts.prediction.smoothing, np.array(facts.guide_scale)
    if settings is None:
        return logits
    return smooth_logits(logits, components=components, missing=missing, settings=settings, scale=scale)


@dataclass(frozen=True, eq=False)
class Tile:
    """Some rows of a scene with all data that their prediction depends on.

    `padded` contains the components of the rows, of the rows around them that smoothing uses, and of the
    margin that the patches of both cover.
    """

    padded: NDArray[np.float32]  # (rows + p - 1, cols + p - 1, k)
    missing: Mask  # (rows, cols), true where there is no data
    inner: slice  # of the requested rows, without those added for smoothing


@dataclass(frozen=True, eq=False)
class TileSource:
    """Reads the components of an image some rows at a time, padded like a whole scene by `pad_cube`.

    The image has the bands that the bundle's reduction was fitted on.
    """

    image: Image
    bundle: ModelBundle

    def read(self, asked: range) -> Tile:
        """Returns the tile of the rows `asked`; pixels with a value that is not finite count as nodata."""

        def read(first: int, last: int) -> tuple[NDArray[np.float32], Mask]:
            cube, missing, _ = read_finite_rows(self.image, first, last)
            return self.bundle.reduction.apply(cube, nodata=missing), missing

        return read_tile(asked, facts=self.bundle.facts, num_rows=self.image.shape[0], read=read)


def read_tile(
    asked: range, *, facts: BundleFacts, num_rows: int, read: Callable[[int, int], tuple[NDArray[np.float32], Mask]]
) -> Tile:
    """Returns a tile of an image of `num_rows`, whose components and nodata mask `read` returns by rows."""
    margin, reach = facts.patch_size // 2, facts.prediction.reach
    tile = range(max(0, asked.start - reach), min(num_rows, asked.stop + reach))
    mode = {"zero": "constant", "reflect": "reflect"}[facts.padding]
    outside = {"constant_values": -1} if mode == "constant" else {}
    places = np.pad(np.arange(num_rows), margin, mode=mode, **outside)  # type: ignore[call-overload]
    places = places[tile.start : tile.stop + 2 * margin]
    first, last = int(places[places >= 0].min()), int(places.max()) + 1
    components, missing = read(first, last)
    components = components[np.maximum(places - first, 0)]
    components[places < 0] = 0
    widths = ((0, 0), (margin, margin), (0, 0))
    padded = np.pad(components, widths, mode=mode)  # type: ignore[call-overload]
    inner = slice(asked.start - tile.start, asked.stop - tile.start)
    return Tile(padded, missing[tile.start - first : tile.stop - first], inner)


class TilePredictor:
    """Predicts tiles with a bundle's classifier, which stays in evaluation mode."""

    def __init__(self, bundle: ModelBundle, *, engine: Engine, device: str | torch.device = "auto") -> None:
        self.device = pick_device(device) if isinstance(device, str) else device
        model = build_bundled_model(bundle).eval().to(self.device)
        self._facts, self._num_bands = bundle.facts, bundle.reduction.num_bands
        self._rows = RowPredictor(model, engine=engine, precision=self._facts.prediction.precision)

    def choose_tile_rows(self, cols: int) -> int:
        """Returns the recommended number of rows in a tile of a scene with `cols` cols."""
        most = max(1, _HOST_BYTES // (_BYTES_PER_VALUE * cols * self._num_bands))
        return min(most, self._rows.choose_tile_rows(cols) or _PATCHWISE_ROWS)

    def predict(
        self, tile: Tile, *, on_batch: Callable[[int], None] | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Returns the logits `(rows, cols, C)` of the rows that were asked for, and the logits before smoothing."""
        predict = functools.partial(self._rows.predict, on_batch=on_batch)
        logits = average_symmetries(predict, tile.padded, num_passes=self._facts.prediction.num_passes)
        margin = self._facts.patch_size // 2
        inside = slice(margin, -margin or None)
        components = tile.padded[inside, inside]
        smoothed = smooth_bundled(self._facts, logits, components=components, missing=tile.missing)
        return smoothed[tile.inner], logits[tile.inner]


def map_scene(
    bundle: ModelBundle | RunFolder | str | Path,
    scene: Scene | SceneSettings | Path,
    *,
    engine: Engine = "dense",
    tile_rows: int | None = None,
    session: Session = Session(),
) -> ClassMap:
    """Returns the class map `(rows, cols)` of a scene, which can differ from the training scene; 0 without data.

    Several images lie on one canvas, as in `load_scene`. HsiError if the scene cannot be read or does not fit.

    Args:
        bundle: a trained bundle, or the folder of its run.
        scene: a loaded scene, the name of a known scene, a file, or the `scene` section of a config. Its
            labels are ignored.
        session: the folder of scenes, the device and the observer.
        engine: `dense` or `patches`; see `predict_logits`.
        tile_rows: rows per tile; by default as many as fit into the engine's memory.
    """
    if not isinstance(bundle, ModelBundle):
        bundle = load_bundle(bundle)
    if isinstance(scene, Path) or (isinstance(scene, str) and not is_known_name(scene)):
        scene = SceneFiles(cube=str(scene), labels=str(scene))
    targets = open_targets(bundle, scene, data=session.data)
    for note in [note for target in targets for note in target.notes]:
        session.observer.note(note)
    return map_targets(bundle, targets, engine=engine, tile_rows=tile_rows, session=session)


def map_targets(
    bundle: ModelBundle,
    targets: Sequence[Target],
    *,
    engine: Engine = "dense",
    tile_rows: int | None = None,
    session: Session = Session(),
) -> ClassMap:
    """Returns the class map of checked images, several of them on one canvas; arguments as for `map_scene`."""
    corners, shape = place([target.image.shape[:2] for target in targets])
    labels = np.zeros(shape, np.int32)
    for target, (top, left) in zip(targets, corners, strict=True):
        found = map_target(bundle, target, engine=engine, tile_rows=tile_rows, session=session).labels
        labels[top : top + found.shape[0], left : left + found.shape[1]] = found
    return ClassMap(labels, bundle.class_names, bundle.facts.palette)


def map_target(
    bundle: ModelBundle,
    target: Target,
    *,
    engine: Engine = "dense",
    tile_rows: int | None = None,
    session: Session = Session(),
) -> ClassMap:
    """Returns the class map of a checked image; arguments as for `map_scene`."""
    predictor = TilePredictor(bundle, engine=engine, device=session.device)
    rows, cols, _ = target.image.shape
    labels = np.zeros((rows, cols), np.int32)
    session.observer.start("mapping", total=labels.size * bundle.facts.prediction.num_passes, unit="pixels")
    tiles = list_tiles(rows, tile_rows or predictor.choose_tile_rows(cols))
    for tile, logits, missing in predict_tiles(bundle, target.image, predictor, tiles, observer=session.observer):
        labels[tile.start : tile.stop] = pick_classes(logits, class_ids=bundle.class_ids, missing=missing)
    return ClassMap(labels, bundle.class_names, bundle.facts.palette)


def predict_tiles(
    bundle: ModelBundle, image: Image, predictor: TilePredictor, tiles: Sequence[range], *, observer: Observer
) -> Iterator[Prediction]:
    """Yields rows, logits `(rows, cols, C)` and nodata mask `(rows, cols)` of each tile."""
    source = TileSource(image, bundle)

    def predict(read: Tile) -> tuple[NDArray[np.float32], Mask]:
        return predictor.predict(read, on_batch=observer.advance)[0], read.missing[read.inner]

    order = _work_ahead if predictor.device.type == "cuda" else map
    for tile, (logits, missing) in zip(tiles, order(predict, order(source.read, tiles)), strict=True):
        yield tile, logits, missing


def _work_ahead(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Yields `function(item)` of each item, computed in a thread while the caller works with the one before."""
    pending: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(1) as pool:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) == 2:
                yield pending.popleft().result()
        yield from (future.result() for future in pending)
