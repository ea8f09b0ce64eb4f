"""Applies a trained bundle to whole scenes, in tiles of rows and in bounded memory."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from hsi_se.config.scene import SceneFiles
from hsi_se.prediction.bundled import load_bundle, make_predictor, make_source, pick_classes
from hsi_se.prediction.class_map import ClassMap
from hsi_se.prediction.logits import Engine, list_tiles
from hsi_se.prediction.target import Target, is_known_name, open_target
from hsi_se.prediction.tiles import Prediction, TilePredictor
from hsi_se.progress import Observer
from hsi_se.runs.bundle import ModelBundle
from hsi_se.runs.folder import RunFolder
from hsi_se.scene.image import Image
from hsi_se.scene.loading import SceneSettings
from hsi_se.scene.scene import Scene
from hsi_se.system.session import Session


def map_scene(
    bundle: ModelBundle | RunFolder | str | Path,
    scene: Scene | SceneSettings | Path,
    *,
    engine: Engine = "dense",
    tile_rows: int | None = None,
    session: Session = Session(),
) -> ClassMap:
    """Returns the class map of a whole scene, which can differ from the training scene.

    Args:
        bundle: a trained bundle, or the folder of its run.
        scene: a loaded scene, the name of a known scene, a file, or the `scene` section of a config. Its
            labels are ignored.
        session: the folder of scenes, the device and the observer.
        engine: `dense` or `patches`; see `predict_logits`.
        tile_rows: rows per tile; by default as many as fit into the engine's memory.

    Returns:
        The map `(rows, cols)`; 0 where the scene has no data.

    Raises:
        HsiError: the scene cannot be read or does not fit the bundle.
    """
    if not isinstance(bundle, ModelBundle):
        bundle = load_bundle(bundle)
    if isinstance(scene, Path) or (isinstance(scene, str) and not is_known_name(scene)):
        scene = SceneFiles(cube=str(scene), labels=str(scene))
    target = open_target(bundle, scene, data=session.data)
    for note in target.notes:
        session.observer.note(note)
    return map_target(bundle, target, engine=engine, tile_rows=tile_rows, session=session)


def map_target(
    bundle: ModelBundle,
    target: Target,
    *,
    engine: Engine = "dense",
    tile_rows: int | None = None,
    session: Session = Session(),
) -> ClassMap:
    """Returns the class map of a checked image; arguments as for `map_scene`."""
    predictor = make_predictor(bundle, engine=engine, device=session.device)
    rows, cols, _ = target.image.shape
    labels = np.zeros((rows, cols), np.int32)
    session.observer.start("mapping", total=labels.size * bundle.facts.prediction.num_passes, unit="pixels")
    tiles = list_tiles(rows, tile_rows or predictor.choose_tile_rows(cols))
    for tile, logits, missing in predict_tiles(
        bundle, target.image, predictor, tiles, observer=session.observer
    ):
        labels[tile.start : tile.stop] = pick_classes(bundle, logits, missing)
    return ClassMap(labels, bundle.class_names, bundle.facts.palette)


def predict_tiles(
    bundle: ModelBundle, image: Image, predictor: TilePredictor, tiles: Sequence[range], *, observer: Observer
) -> Iterator[Prediction]:
    """Yields rows, logits `(rows, cols, C)` and nodata mask `(rows, cols)` of each tile."""
    source = make_source(bundle, image)
    for tile in tiles:
        read = source.read(tile)
        yield tile, predictor.predict(read, on_batch=observer.advance), read.missing[read.inner]
