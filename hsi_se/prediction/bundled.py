"""Applies the trained model of a run (its bundle) to whole scenes."""

import functools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from hsi_se.config.model import Forest, Lda, Svm
from hsi_se.config.scene import SceneFiles
from hsi_se.errors import RunError
from hsi_se.models import build_model
from hsi_se.models.classical import ForestOfTrees, LinearDiscriminant, SupportVectorMachine
from hsi_se.models.device import pick_device
from hsi_se.prediction.class_map import ClassMap, pick_classes
from hsi_se.prediction.logits import Classifier, Engine, average_symmetries, list_tiles, predict_logits
from hsi_se.prediction.target import Target, is_known_name, open_target
from hsi_se.prediction.tiles import Prediction, TilePredictor, TileSource, smooth_bundled
from hsi_se.progress import Observer
from hsi_se.runs.bundle import ModelBundle
from hsi_se.runs.folder import RunFolder
from hsi_se.scene.loading import SceneSettings
from hsi_se.scene.raster import Image
from hsi_se.scene.scene import Scene
from hsi_se.system.session import Session


def load_bundle(run: str | Path | RunFolder) -> ModelBundle:
    """Returns the trained model of a run: weights, reduction and classes; see `build_bundled_model`."""
    return RunFolder.open(run).read_bundle()


def build_bundled_model(bundle: ModelBundle) -> Classifier:
    """Returns the trained classifier of a bundle, on the CPU."""
    facts = bundle.facts
    tensors = {name: torch.from_numpy(array) for name, array in bundle.weights.items()}
    try:
        match facts.model:
            case Svm():
                return SupportVectorMachine(tensors, patch_size=facts.patch_size)
            case Lda():
                return LinearDiscriminant(tensors, patch_size=facts.patch_size)
            case Forest():
                return ForestOfTrees(tensors, patch_size=facts.patch_size)
        model = build_model(
            facts.model,
            num_bands=bundle.reduction.num_components,
            patch_size=facts.patch_size,
            num_classes=len(facts.class_ids),
        )
        model.load_state_dict(tensors)
    except (RuntimeError, TypeError, ValueError, MemoryError) as error:
        problem = (str(error).splitlines() or [type(error).__name__])[:2][-1].strip()
        raise RunError(f"bundle: the weights do not fit the architecture ({problem}); train again") from None
    return model


def predict_bundled(
    bundle: ModelBundle,
    components: NDArray[np.float32],
    *,
    missing: NDArray[np.bool_],
    device: torch.device,
    observer: Observer,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Returns the final logits `(rows, cols, C)` of a scene, and the logits before smoothing.

    `components` are `(rows, cols, k)`, the scene after the bundle's reduction, and `missing` `(rows, cols)`
    is true where there is no data. The bundle's `prediction` settings apply.
    """
    facts = bundle.facts
    model = build_bundled_model(bundle).to(device)
    observer.start("mapping", total=missing.size * facts.prediction.num_passes, unit="pixels")
    predict = functools.partial(predict_logits, model, padding=facts.padding, on_batch=observer.advance)
    plain = average_symmetries(predict, components, num_passes=facts.prediction.num_passes)
    return smooth_bundled(facts, plain, components=components, missing=missing), plain


def make_predictor(bundle: ModelBundle, *, engine: Engine, device: str = "auto") -> TilePredictor:
    """Returns a predictor for tiles with a bundle's classifier, which stays in evaluation mode."""
    model = build_bundled_model(bundle).eval().to(pick_device(device))
    return TilePredictor(model, bundle.facts, engine=engine)


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
    for tile, logits, missing in predict_tiles(bundle, target.image, predictor, tiles, observer=session.observer):
        labels[tile.start : tile.stop] = pick_classes(logits, class_ids=bundle.class_ids, missing=missing)
    return ClassMap(labels, bundle.class_names, bundle.facts.palette)


def predict_tiles(
    bundle: ModelBundle, image: Image, predictor: TilePredictor, tiles: Sequence[range], *, observer: Observer
) -> Iterator[Prediction]:
    """Yields rows, logits `(rows, cols, C)` and nodata mask `(rows, cols)` of each tile."""
    source = TileSource(image, bundle)
    for tile in tiles:
        read = source.read(tile)
        yield tile, predictor.predict(read, on_batch=observer.advance), read.missing[read.inner]
