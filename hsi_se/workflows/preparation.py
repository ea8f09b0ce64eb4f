"""Everything a training starts from: the scene, its split, the reduction and the untrained classifier."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch

from hsi_se.config.experiment import NO_VALIDATION, Config
from hsi_se.config.model import PixelClassifier
from hsi_se.config.registry import list_plugins
from hsi_se.errors import ConfigError, SceneError
from hsi_se.evaluation.baselines import hold_out
from hsi_se.evaluation.confidence import TemperatureScaling
from hsi_se.models import build_model
from hsi_se.models.network import Network
from hsi_se.prediction.logits import Classifier
from hsi_se.progress import Observer
from hsi_se.runs.bundle import BundleFacts, ModelBundle
from hsi_se.sampling.folds import measure_distances
from hsi_se.sampling.patches import PatchDataset, PatchSource, to_targets
from hsi_se.sampling.reduction import Reduction, fit_reduction, measure
from hsi_se.sampling.splits import Pixels, Split, make_split
from hsi_se.scene.cube import Cube, StoredCube
from hsi_se.scene.folders import Data, Folders
from hsi_se.scene.images import GAP
from hsi_se.scene.loading import load_scene
from hsi_se.scene.scene import UNLABELLED, Scene, make_palette
from hsi_se.training.adapt import adapt_norms
from hsi_se.training.fit import fit
from hsi_se.training.step import warn_of_emulation
from hsi_se.workflows.start import Start


@dataclass(frozen=True, eq=False)
class Prepared:
    """The input of a training run: config, scene, split, reduction and untrained network."""

    config: Config
    scene_digest: str  # of the files, before the split changed labels
    scene: Scene
    split: Split
    reduction: Reduction
    components: Cube
    patches: PatchSource
    network: Network | None  # on the device, untrained; None for a classical classifier
    start: Start | None  # the run that training starts from
    notes: tuple[str, ...]

    def make_patches(self, pixels: Pixels) -> PatchDataset:
        return self.patches.cut(pixels, targets=to_targets(self.scene.labels, pixels, self.scene.class_ids))

    @cached_property
    def guide_scale(self) -> tuple[float, ...]:
        """Returns the standard deviation `(k,)` of each component over the scene."""
        components, valid = self.components, self.scene.valid
        if isinstance(components, StoredCube):
            stats = measure(components, np.flatnonzero(valid))
            variance = np.diag(stats.cov) * (1 - 1 / stats.nsamples)
            return tuple(np.sqrt(variance).tolist())
        return tuple(components[valid].std(axis=0, dtype=np.float64).tolist())

    def build(self, *, seed: int) -> Network:
        """Returns an untrained network, on the device; one that starts from another run has its weights."""
        depth, config = self.reduction.num_components, self.config
        sizes = {"patch_size": config.patch.size, "num_classes": self.scene.num_classes, "seed": seed}
        assert not isinstance(config.model, PixelClassifier)
        network = build_model(config.model, num_bands=depth, **sizes)
        if self.start is not None:
            self.start.load_into(network, self.scene)
        return network.to(self.patches.device)

    def fit_again(
        self, pixels: Pixels, *, epochs: int, seed: int, observer: Observer, val: Pixels | None = None
    ) -> Classifier:
        """Returns another classifier with the same settings, trained on some pixels of the training set.

        A network is trained for `epochs`. If the settings may end training early, the schedule remains that of theirs.
        With `val`, validation pixels, it is trained exactly as the run's own; a classical classifier takes them too.
        """
        config, device = self.config, self.patches.device
        if isinstance(config.model, PixelClassifier):
            from hsi_se.training.classical import fit_classical  # imports much of scikit-learn

            pixels = pixels if val is None else np.concatenate([pixels, val])
            split = replace(self.split, train=pixels, val=pixels[:0])
            folds, _ = hold_out(self.scene, split, config.split, seed=seed)
            x = self.components[pixels[:, 0], pixels[:, 1]]
            sizes = {"patch_size": config.patch.size, "num_classes": self.scene.num_classes}
            return fit_classical(config.model, x, folds, **sizes, seed=seed).to(device)
        network, may_stop = self.build(seed=seed), config.train.early_stopping or config.train.max_minutes
        never = {"early_stopping": None, "max_minutes": None} if val is None else {}
        shortened = {} if may_stop else {"epochs": epochs}
        fit(
            network,
            train=self.make_patches(pixels),
            val=self.make_patches(pixels[:0] if val is None else val),
            num_classes=self.scene.num_classes,
            settings=config.train.model_copy(update=never | shortened),
            seed=seed,
            observer=observer,
            last_epoch=epochs,
        )
        self.adapt(network)
        return network

    def pack(self, model: Classifier, *, versions: dict[str, str]) -> ModelBundle:
        """Returns a trained classifier with everything needed to map a scene, not calibrated yet."""
        config, scene, split = self.config, self.scene, self.split
        trained_on, class_ids = scene.cube[split.train[:, 0], split.train[:, 1]], scene.class_ids.tolist()
        facts = BundleFacts(
            plugins=list_plugins(config.model),
            model=config.model,
            patch_size=config.patch.size,
            padding=config.patch.padding,
            class_ids=tuple(class_ids),
            class_names=tuple(scene.class_names[label] for label in class_ids),
            palette=make_palette(scene.class_ids, given=scene.palette),
            wavelengths_nm=None if scene.wavelengths_nm is None else tuple(scene.wavelengths_nm.tolist()),
            fwhm_nm=None if scene.fwhm_nm is None else tuple(scene.fwhm_nm.tolist()),
            dropped_bands=dict(scene.dropped_bands),
            value_range=(float(trained_on.min()), float(trained_on.max())),
            prediction=config.prediction,
            scaling=TemperatureScaling(lack="not measured yet"),
            guide_scale=self.guide_scale,
            split_digest=split.digest,
            versions=versions,
        )
        weights = {name: value.cpu().numpy() for name, value in model.state_dict().items()}
        return ModelBundle(facts, weights, self.reduction)

    def adapt(self, network: Classifier) -> None:
        """Gives the batch norms of a trained network the statistics of the scene, if the config asks."""
        if self.config.train.norm_statistics == "scene":
            adapt_norms(network, self.patches, self.scene.valid, seed=self.config.seed)


def prepare(
    config: Config, *, data: Data, device: torch.device, split: Split | None = None, hides_test: bool = False
) -> Prepared:
    """Reads and reduces the scene, draws the split unless given, and builds the network.

    With `hides_test`, the labels of the test pixels are removed and, where no training patch or smoothing reaches them,
    their spectra too: they count as nodata.
    """
    start = Start.open(config, Folders.of(data))
    scene = load_scene(config.scene, data)
    split = split or make_split(scene, config.split, seed=config.seed, data=data)
    scene_digest, scene = scene.digest, split.relabel(scene)
    if hides_test:
        scene = _hide(scene, split, reach=config.window_size // 2 + config.train.shift)
    if scene.num_classes < 2:
        raise SceneError(f"scene {scene.name}: has one class, but a classifier needs two; check its labels")
    shapes = [(image.rows, image.cols) for image in scene.images] or [scene.shape]
    if config.patch.size > min(map(min, shapes)):
        smallest, what = " × ".join(map(str, min(shapes, key=min))), "an image" if scene.images else "the scene"
        raise ConfigError(f"patch.size = {config.patch.size}: is larger than {what}, {smallest}; use a smaller one")
    if scene.images and config.patch.size > GAP + 1:
        problem = f"would reach from one image to the next, as they lie {GAP} pixels apart"
        raise ConfigError(f"patch.size = {config.patch.size}: {problem}; use at most {GAP + 1}")
    if config.train.early_stopping and not len(split.val):
        raise ConfigError(f"train.early_stopping: {NO_VALIDATION}")
    notes = scene.notes + split.notes
    if start is None:
        reduction = fit_reduction(scene.cube, config.reduction, train_pixels=split.train, nodata=scene.nodata)
    else:
        notes, reduction = (*notes, start.check(scene, split, digest=scene_digest)), start.bundle.reduction
    components = reduction.apply_to_scene(scene.cube, nodata=scene.nodata)
    sizes = {"patch_size": config.patch.size, "reach": config.train.shift}
    patches = PatchSource(components, padding=config.patch.padding, windows=scene.windows, device=device, **sizes)
    setting = Prepared(config, scene_digest, scene, split, reduction, components, patches, None, start, notes)
    if isinstance(config.model, PixelClassifier):
        notes += (f"model.name = {config.model.name}: is not trained in epochs; the train section has no effect",)
        return replace(setting, notes=notes)
    if config.train.norm_statistics == "scene":
        notes += ("batch norm uses patches of the whole scene, including test pixels, without their labels",)
    notes += warn_of_emulation(config.train.precision, device)
    return replace(setting, network=setting.build(seed=config.seed), notes=notes)


def _hide(scene: Scene, split: Split, *, reach: int) -> Scene:
    at = tuple(split.test.T)
    labels, nodata, notes = scene.labels.copy(), ~scene.valid, scene.notes
    labels[at] = UNLABELLED
    if measure_distances(split.test, split.training_side).min() > reach:
        nodata[at] = True
    else:
        notes = (*notes, "training patches or smoothing reach test pixels, whose spectra, but no labels, take part")
    return replace(scene, labels=labels, nodata=nodata, notes=notes)
