"""Applies the trained model of a run (its bundle) to whole scenes."""

import functools
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from hsi_se.config.model import RandomForest, Svm
from hsi_se.errors import RunError
from hsi_se.models import build_model
from hsi_se.models.classical import CentrePixelClassifier, ForestOfTrees, SupportVectorMachine
from hsi_se.models.device import pick_device
from hsi_se.models.network import Network
from hsi_se.prediction.logits import Engine, predict_logits
from hsi_se.prediction.smoothing import smooth_logits
from hsi_se.prediction.symmetries import average_symmetries
from hsi_se.prediction.tiles import TilePredictor, TileSource
from hsi_se.progress import Observer
from hsi_se.runs.bundle import ModelBundle
from hsi_se.runs.folder import RunFolder
from hsi_se.scene.image import Image, Mask
from hsi_se.scene.scene import UNLABELLED

Classifier = Network | CentrePixelClassifier  # both are modules from patches (n, 1, k, p, p) to logits


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
            case RandomForest():
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

    Args:
        bundle: the trained model; its `prediction` settings apply.
        components: `(rows, cols, k)` the scene after the bundle's reduction.
        missing: `(rows, cols)`, true where there is no data.
        device: device to compute on.
        observer: receives progress events.
    """
    facts = bundle.facts
    model = build_bundled_model(bundle).to(device)
    observer.start("mapping", total=missing.size * facts.prediction.num_passes, unit="pixels")
    predict = functools.partial(predict_logits, model, padding=facts.padding, on_batch=observer.advance)
    plain = average_symmetries(predict, components, num_passes=facts.prediction.num_passes)
    if facts.prediction.smoothing is None:
        return plain, plain
    scale = np.array(facts.guide_scale)
    smoothed = smooth_logits(
        plain, components=components, missing=missing, settings=facts.prediction.smoothing, scale=scale
    )
    return smoothed, plain


def make_predictor(bundle: ModelBundle, *, engine: Engine, device: str = "auto") -> TilePredictor:
    """Returns a predictor for tiles with a bundle's classifier, which stays in evaluation mode."""
    return TilePredictor(
        build_bundled_model(bundle).eval().to(pick_device(device)),
        engine=engine,
        prediction=bundle.facts.prediction,
        guide_scale=bundle.facts.guide_scale,
    )


def make_source(bundle: ModelBundle, image: Image) -> TileSource:
    """Returns a source of an image's tiles, reduced and padded for a bundle's classifier."""
    facts = bundle.facts
    return TileSource(image, bundle.reduction, facts.patch_size, facts.padding, facts.prediction.reach)


def pick_classes(bundle: ModelBundle, logits: NDArray[np.float32], missing: Mask) -> NDArray[np.int32]:
    """Returns the ids `(rows, cols)` of the largest logits `(rows, cols, C)`; 0 where `missing` is true."""
    return np.where(missing, UNLABELLED, bundle.class_ids[logits.argmax(axis=2)])
