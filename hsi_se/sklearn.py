"""The package in the words of scikit-learn: classifiers of images and of spectra, and spatial folds for them.

Axes: rows, cols, bands; n spectra, C classes. Estimators are pickled as bundles are stored: JSON and safetensors.
"""

import copy
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import safetensors.numpy
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from hsi_se.config.experiment import Config, NoReduction, PcaReduction, Sections
from hsi_se.config.model import PixelClassifier as Classical
from hsi_se.config.model import list_models
from hsi_se.config.split import RandomSplit
from hsi_se.config.yaml_file import Override, read_config, read_settings
from hsi_se.errors import HsiError
from hsi_se.evaluation.baselines import hold_out
from hsi_se.evaluation.confidence import TemperatureScaling, to_probabilities
from hsi_se.prediction.bundled import TilePredictor, build_bundled_model, map_target, predict_tiles
from hsi_se.prediction.logits import list_tiles
from hsi_se.prediction.target import Target, open_target
from hsi_se.progress import Silent
from hsi_se.runs.bundle import BundleFacts, ModelBundle
from hsi_se.sampling.reduction import fit_reduction
from hsi_se.sampling.splits import Split, make_split
from hsi_se.scene.folders import Folders
from hsi_se.scene.scene import UNLABELLED, GroundTruth, Scene, make_palette
from hsi_se.system.python_words import speaking_python
from hsi_se.system.session import Session
from hsi_se.training.classical import fit_classical
from hsi_se.version import __version__
from hsi_se.workflows.train import train

Floats = NDArray[np.float64]
Places = NDArray[np.intp]
_DEFAULTS: dict[str, Any] = {
    "reduction": {"kind": "pca", "components": 15, "fit_on": "train"},
    "patch": {"size": 11},
    "model": {"name": "hybridsn"},
    "train": {"epochs": 40},
    "prediction": {"calibration": "none"},
}


class InputError(HsiError, ValueError):
    """An argument of an estimator or of a splitter is wrong."""


class _Bundled(BaseEstimator):  # type: ignore[misc] # scikit-learn has no types
    """An estimator that is fitted once it has a bundle; it is pickled without running code of the bundle."""

    bundle_: ModelBundle

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        if (bundle := state.get("bundle_")) is not None:
            state["bundle_"] = bundle.facts.model_dump_json(), safetensors.numpy.save(bundle.to_arrays())
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        if "bundle_" in state:
            facts, arrays = state["bundle_"]
            bundle = ModelBundle.of(BundleFacts.model_validate_json(facts), safetensors.numpy.load(arrays))
            state = {**state, "bundle_": bundle}
        super().__setstate__(state)


class HSIClassifier(_Bundled):
    """Any classifier of a config, fitted on an image and its labels; see `docs/python.md`.

    `fit` trains on every labelled pixel, with the code of `hsi-se train`; validation pixels choose the epoch. For an
    accuracy to report, train with `hsi_se.train`, which adds the floor, the baseline and the verdict.

    Args:
        model: name of the classifier, or a config's section `model`; by default `hybridsn`.
        attention: block at each point, as in `model.attention`; by default that of the model.
        patch_size: side of a patch in pixels, odd; by default 11.
        reduction: `pca`, `mnf` or `none`, fitted on the training pixels, or a section `reduction`; by default `pca`.
        components: number of components; by default 15.
        epochs: number of passes over the training patches; by default 40.
        seed: of weights, validation pixels and training; by default 0.
        device: `auto`, `cpu` or `cuda`.
        config: everything else, as sections of a config; or a whole one, also from a file, whose scene and split have
            no effect. The arguments above take precedence.

    Attributes:
        classes_: `(C,)` labels, or their names if names were given.
        n_features_in_: number of bands.
        bundle_: the trained model, as `hsi_se.map_scene` takes it.
    """

    def __init__(
        self,
        model: str | Mapping[str, Any] | None = None,
        *,
        attention: Mapping[str, Any] | None = None,
        patch_size: int | None = None,
        reduction: str | Mapping[str, Any] | None = None,
        components: int | None = None,
        epochs: int | None = None,
        seed: int | None = None,
        device: str = "auto",
        config: Any = None,
    ) -> None:
        self.model, self.attention, self.patch_size, self.reduction = model, attention, patch_size, reduction
        self.components, self.epochs, self.seed, self.device, self.config = components, epochs, seed, device, config

    def fit(self, cube: Any, labels: Any) -> Self:
        """Trains on a cube `(rows, cols, bands)` and labels `(rows, cols)`, 0 for none, as for `Scene.from_arrays`.

        HsiError if an argument or a parameter is wrong.
        """
        scene = Scene.from_arrays(cube, labels)
        session = Session(data=replace(Folders.of(None), scene=scene), device=self.device, observer=Silent())
        with speaking_python("commands"), tempfile.TemporaryDirectory() as folder:
            run = train(self._read_config(scene), out=Path(folder, "run"), session=session)
            self.bundle_ = run.read_bundle()
        ids = scene.class_ids
        self.classes_ = np.array([scene.class_names[label] for label in ids.tolist()]) if scene.is_named else ids
        self.n_features_in_ = scene.num_bands
        return self

    def _read_config(self, scene: Scene) -> Config:
        base: Any = self.config
        if base is None or isinstance(base, Mapping):
            base = copy.deepcopy(dict(base or {}))
            for key in ("scene", "split"):
                if key in base:
                    raise InputError(f"config: {key}: has no effect, as fit gets the pixels to train on; leave it out")
            for key, section in _DEFAULTS.items():
                given = base.get(key, {})
                is_other = isinstance(given, Mapping) and {*given} & {"kind", "name"}
                base[key] = given if not isinstance(given, Mapping) or is_other else {**section, **given}
        model = {"name": self.model} if isinstance(self.model, str) else self.model
        reduction = self.reduction
        if isinstance(reduction, str):
            kept = {} if reduction == "none" else {"components": self.components or 15, "fit_on": "train"}
            reduction = {"kind": reduction, **kept}
        changes = {
            "scene": {"arrays": scene.name, "digest": scene.digest},
            "split": {"kind": "all"},
            "model": model,
            "model.attention": self.attention,
            "patch.size": self.patch_size,
            "reduction": reduction,
            "reduction.components": self.components,
            "train.epochs": self.epochs,
            "seed": self.seed,
        }
        given = {key: value for key, value in changes.items() if value is not None}
        return read_config(base, [Override(key, value, {(): "HSIClassifier"}) for key, value in given.items()])

    def _open(self, cube: Any) -> Target:
        check_is_fitted(self)
        return open_target(self.bundle_, Scene.from_arrays(cube, None))

    def predict(self, cube: Any) -> NDArray[Any]:
        """Returns the label of each pixel, `(rows, cols)`; 0, or an empty name, where there is no data."""
        target = self._open(cube)
        found = map_target(self.bundle_, target, session=Session(device=self.device)).labels
        if self.classes_.dtype.kind != "U":
            return found
        return np.array(["", *self.classes_])[found]

    def predict_proba(self, cube: Any) -> Floats:
        """Returns the probability of each class, `(rows, cols, C)`, at the bundle's temperature; NaN without data."""
        target = self._open(cube)
        if self.bundle_.facts.model.name == "svm":
            raise InputError("model = svm: its scores are votes, not probabilities; use predict, or model='lda'")
        predictor, (rows, cols, _) = TilePredictor(self.bundle_, engine="dense", device=self.device), target.image.shape
        found = np.full((rows, cols, len(self.classes_)), np.nan)
        tiles = list_tiles(rows, predictor.choose_tile_rows(cols))
        for tile, logits, missing in predict_tiles(self.bundle_, target.image, predictor, tiles, observer=Silent()):
            part = to_probabilities(logits, temperature=self.bundle_.facts.scaling.temperature)
            found[tile.start : tile.stop] = np.where(missing[..., None], np.nan, part)
        return found

    def score(self, cube: Any, labels: Any) -> float:
        """Returns the fraction of the labelled pixels of an image that are classified correctly."""
        truth, predicted = Scene.from_arrays(cube, labels), self.predict(cube)
        expected = np.array(["", *truth.class_names.values()])[truth.labels] if truth.is_named else truth.labels
        return float((predicted == expected)[truth.labels != UNLABELLED].mean())


def _gives_probabilities(estimator: "PixelClassifier") -> bool:
    model = estimator.model
    return (model.get("name") if isinstance(model, Mapping) else model) != "svm"


class PixelClassifier(ClassifierMixin, _Bundled):  # type: ignore[misc]
    """A classical classifier of single spectra, as `model.name` in a config, for any tool of scikit-learn.

    It is fitted, and an SVM is tuned, with the code of `hsi-se train`, which holds out single spectra, as their pixels
    are unknown. For networks, which need patches, use `HSIClassifier`.

    Args:
        model: `svm`, `lda`, `random_forest` or `extra_trees`, or a section `model` with one of these names; an SVM has
            no `predict_proba`, as its scores are votes.
        components: number of whitened principal components; by default all bands, standardised.
        seed: of the trees, and of the spectra that are held out.

    Attributes:
        classes_: `(C,)` classes.
        n_features_in_: number of bands.
        bundle_: the fitted model, as `hsi_se.map_scene` takes it; its classes are numbered from 1.
    """

    def __init__(self, model: str | Mapping[str, Any] = "svm", *, components: int | None = None, seed: int = 0) -> None:
        self.model, self.components, self.seed = model, components, seed

    def fit(self, X: Any, y: Any) -> Self:  # noqa: N803 - scikit-learn's name
        """Fits spectra `(n, bands)` and their classes `(n,)`; ValueError if they are not such arrays."""
        known = {name: kind for name, kind in list_models().items() if issubclass(kind, Classical)}
        section = self.model if isinstance(self.model, Mapping) else {"name": self.model}
        if (name := section.get("name")) not in known:
            raise InputError(f"model = {name!r}: is not a classifier of spectra; choose from {', '.join(known)}")
        settings: Any = read_settings(known[name], section, name="model")[0]
        X, y = validate_data(self, X, y, dtype=[np.float64, np.float32])  # noqa: N806
        check_classification_targets(y)
        self.classes_, places = np.unique(y, return_inverse=True)
        if len(self.classes_) == 1:
            raise InputError(f"y: contains one class, {self.classes_[0]}; train on two or more")
        ids = range(1, len(self.classes_) + 1)
        truth = GroundTruth(
            "spectra", places[:, None].astype(np.int32) + 1, dict(zip(ids, map(str, self.classes_), strict=True))
        )
        pixels = np.argwhere(truth.labels)
        split = Split(train=pixels, val=pixels[:0], test=pixels[:0])
        kept = self.components
        to = NoReduction(kind="none") if kept is None else PcaReduction(kind="pca", components=kept, fit_on="train")
        reduction = fit_reduction(X[:, None], to, train_pixels=pixels)
        folds, _ = hold_out(truth, split, RandomSplit(kind="random", train=0.5), seed=self.seed)
        sizes = {"num_classes": len(ids), "patch_size": 1}
        model = fit_classical(settings, reduction.apply(X[:, None])[:, 0], folds, **sizes, seed=self.seed)
        facts = BundleFacts(
            plugins={},
            model=settings,
            patch_size=1,
            padding="zero",
            class_ids=tuple(ids),
            class_names=tuple(truth.class_names.values()),
            palette=make_palette(ids),
            wavelengths_nm=None,
            scaling=TemperatureScaling(lack="not measured"),
            split_digest=split.digest,
            versions={"hsi_se": __version__},
        )
        weights = {name: value.numpy() for name, value in model.state_dict().items()}
        # As it is read back: products round differently if arrays lie differently in memory.
        self.bundle_ = ModelBundle.of(facts, ModelBundle(facts, weights, reduction).to_arrays())
        return self

    def _score(self, X: Any) -> Floats:  # noqa: N803
        check_is_fitted(self)
        X = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)  # noqa: N806
        spectra = torch.from_numpy(self.bundle_.reduction.apply(X[:, None])).double()  # so that batches do not matter
        with torch.inference_mode():
            module: Any = build_bundled_model(self.bundle_).double()
            return np.asarray(module.score(spectra[:, 0]).numpy(), dtype=np.float64)

    def predict(self, X: Any) -> NDArray[Any]:  # noqa: N803
        """Returns the class `(n,)` of each spectrum."""
        best = self._score(X).argmax(axis=1)
        return np.asarray(self.classes_[best])

    def decision_function(self, X: Any) -> Floats:  # noqa: N803
        """Returns the scores `(n, C)`; of two classes, `(n,)` the second's less the first's."""
        scores = self._score(X)
        return scores if len(self.classes_) > 2 else scores[:, 1] - scores[:, 0]

    @available_if(_gives_probabilities)  # type: ignore[untyped-decorator]
    def predict_proba(self, X: Any) -> Floats:  # noqa: N803
        """Returns the probability of each class, `(n, C)`."""
        return to_probabilities(self._score(X))


class SpatialFolds:
    """The folds of `split: {kind: folds, …}` as a splitter of scikit-learn, for the labelled pixels of an image.

    The samples are the labelled pixels in the order of rows: `X = cube[labels > 0]`, `y = labels[labels > 0]`.

    Args:
        labels: `(rows, cols)` whole numbers, 0 for pixels without a label, as for `Scene.from_arrays`.
        by: `blocks`, `fields` of a class, or `groups`, which `split` gets for each sample, 0 for those left out.
        folds: number of folds.
        block_size: side of a block in pixels.
        buffer: smallest Chebyshev distance in pixels between training and test pixels; 1 for classifiers of single
            spectra, and for patches half their side + 1.
        seed: of the draw.
    """

    def __init__(
        self,
        labels: Any,
        *,
        by: Literal["blocks", "fields", "groups"] = "blocks",
        folds: int = 5,
        block_size: int = 16,
        buffer: int = 1,
        seed: int = 0,
    ) -> None:
        shape = np.shape(labels) if np.ndim(labels) == 2 else (1, 1)
        truth = Scene.from_arrays(np.zeros((*shape, 1), np.uint8), labels, nodata="none")
        self.labels, self.by, self.folds, self.block_size = truth.labels, by, folds, block_size
        self.buffer, self.seed = buffer, seed
        settings = {
            "kind": "folds", "by": by, "folds": folds, "block_size": block_size, "buffer": buffer, "validation": 0
        }  # fmt: skip
        self._settings: Any = read_settings(Sections, {"split": settings}, name="SpatialFolds")[0].split

    def __repr__(self) -> str:
        rows, cols = self.labels.shape
        return f"SpatialFolds({rows} × {cols} pixels, by={self.by!r}, folds={self.folds}, buffer={self.buffer})"

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:  # noqa: ARG002, N803
        return self.folds

    def split(self, X: Any, y: Any = None, groups: Any = None) -> Iterator[tuple[Places, Places]]:  # noqa: N803
        """Yields the positions of the training and the test samples of each fold; InputError if they do not fit."""
        at, order = np.nonzero(self.labels), "write X = cube[labels > 0] and y = labels[labels > 0]"
        number = np.full(self.labels.shape, -1, dtype=np.intp)
        number[at] = np.arange(len(at[0]))
        for name, values in (("X", X), ("y", y), ("groups", groups)):
            if values is not None and len(values) != len(at[0]):
                problem = f"has {len(values)} samples, but {len(at[0])} pixels have a label"
                raise InputError(f"{name}: {problem}; {order}")
        if y is not None:
            of_each = np.stack([np.unique(y, return_inverse=True)[1], self.labels[at]])
            if len(np.unique(of_each, axis=1).T) != len(np.unique(self.labels[at])):
                raise InputError(f"y: is in another order than the labels; {order}")
        if (groups is None) == (self.by == "groups"):
            lack, idle = "is missing; give the group of each sample", f"has no effect with by={self.by!r}; leave it out"
            raise InputError(f"groups: {lack if groups is None else idle}")
        polygons = None
        if groups is not None:
            polygons = np.zeros(self.labels.shape, dtype=np.int32)
            polygons[at] = np.asarray(groups)
        names = {label: str(label) for label in np.unique(self.labels[at]).tolist()}
        truth = GroundTruth("labels", self.labels, names, polygons=polygons)
        for fold in range(1, self.folds + 1):
            found = make_split(truth, self._settings.model_copy(update={"fold": fold}), seed=self.seed)
            yield number[tuple(found.training_side.T)], number[tuple(found.test.T)]
