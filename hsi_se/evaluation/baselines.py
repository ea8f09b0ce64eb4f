"""Fits two baselines for the network: one uses only a pixel's position, one only its spectrum."""

import itertools
import math
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.utils.parallel import Parallel, delayed
from threadpoolctl import threadpool_info

from hsi_se.config.experiment import Config, NoReduction
from hsi_se.config.model import Forest, Lda, PixelClassifier, Svm
from hsi_se.config.split import RandomSplit, SplitSettings
from hsi_se.sampling.folds import Folds, divide_into_folds
from hsi_se.sampling.reduction import fit_reduction
from hsi_se.sampling.splits import Split
from hsi_se.scene.cube import Cube
from hsi_se.scene.scene import GroundTruth, Scene

_CANDIDATES = (Svm(name="svm"), Forest(name="extra_trees"), Lda(name="lda"))
_NAMES = {"svm": "SVM", "extra_trees": "extra trees", "lda": "shrinkage LDA"}
# The powers usually searched in SVM papers of this field; gamma is relative to scikit-learn's `scale`.
_GRID = ((10.0, 30.0, 100.0, 1000.0), (0.25, 1.0, 4.0))
_UNTUNED = ((100.0,), (1.0,))
_MOST_PIXELS = 1000  # fitted, and held out, in each fold
_FEWEST = 3  # held-out pixels of a class, as many as folds
_SINGLE_PIXELS = (
    "spectral baseline: too few areas of the training set can be held out to choose the classifier, so single pixels "
    "are held out, which favours classifiers that need training pixels nearby"
)
_UNCHOSEN = "spectral baseline: the training pixels are too few for cross-validation, so it is an SVM that is not tuned"


def predict_by_location(truth: GroundTruth, split: Split) -> NDArray[np.int32]:
    """Returns the labels `(n,)` that the location floor predicts at the test pixels.

    It is a 1-nearest-neighbour classifier on (row, col) alone, fitted on the training and validation pixels,
    and sees no spectra. `truth` holds the labels used by the split (`Split.relabel`).
    """
    known = split.training_side
    neighbour = KNeighborsClassifier(n_neighbors=1).fit(known, truth.labels[known[:, 0], known[:, 1]])
    return np.asarray(neighbour.predict(split.test))


@dataclass(frozen=True)
class Candidate:
    """A pixel classifier, its input, and the fraction of held-out training pixels that it classifies correctly."""

    classifier: Annotated[str, Field(pattern=f"^({'|'.join(_NAMES)}|constant)$")]  # `constant` for a single class
    reduction: str  # `none` for standardised bands, otherwise the kind of the config's reduction
    num_features: int
    parameters: dict[str, float]  # as in the `model` section of a config
    accuracy: float | None  # None if no pixels could be held out
    chosen_by: str = ""  # of several folds, those that chose it, unless all did: `4 of 5 folds`

    @property
    def name(self) -> str:
        if self.classifier == "constant":
            return "the only class of the training set"
        unit = "standardised bands" if self.reduction == "none" else f"{self.reduction.upper()} components"
        name = f"{_NAMES[self.classifier]} on {self.num_features} {unit}"
        return f"{name} in {self.chosen_by}" if self.chosen_by else name

    @property
    def description(self) -> str:
        """Returns the name with parameters, such as `SVM on 20 MNF components (penalty = 100, gamma = 0.05)`."""
        values = ", ".join(f"{name} = {value:.4g}" for name, value in self.parameters.items())
        return f"{self.name} ({values})" if values else self.name


@dataclass(frozen=True, eq=False)
class SpectralBaseline:
    """Labels `(n,)` that the best pixel classifier predicts at the test pixels, and what it was chosen from."""

    labels: NDArray[np.int32]
    chosen: Candidate
    candidates: tuple[Candidate, ...]
    notes: tuple[str, ...] = ()


def fit_spectral_baseline(scene: Scene, split: Split, components: Cube, *, config: Config) -> SpectralBaseline:
    """Returns the predictions of the best classifier of single pixels, which sees no neighbours.

    The candidates are SVM, extra trees and shrinkage LDA, each on standardised bands and on the components
    `(rows, cols, k)`, the network's input. The scene has the labels used by the split (`Split.relabel`).
    Cross-validation on the training and validation pixels chooses one (`hold_out`, `choose_parameters`), which is
    then fitted on all of them. If they contain a single class, every test pixel is predicted as that class.
    """
    num_known, pixels = len(split.training_side), np.concatenate([split.training_side, split.test])
    at, kind = tuple(pixels.T), config.reduction.kind
    labels = scene.labels[at][:num_known]
    if len(np.unique(labels)) == 1:
        constant = Candidate("constant", "none", scene.num_bands, {}, None)
        return SpectralBaseline(np.full(len(split.test), labels[0]), constant, (constant,))
    inputs: dict[str, NDArray[np.float32]] = {kind: components[at]}
    if kind != "none":
        bands = fit_reduction(scene.cube, NoReduction(kind="none"), train_pixels=split.train)
        inputs = {"none": bands.apply(scene.cube[at][:, None])[:, 0], **inputs}
    folds, notes = hold_out(scene, split, config.split, seed=config.seed)
    tried = []
    for settings, reduction in itertools.product(_CANDIDATES, inputs):
        x = inputs[reduction][:num_known]
        best, accuracy = choose_parameters(settings, x, folds, seed=config.seed)
        parameters = best.model_dump(exclude={"name"}, exclude_defaults=True)
        tried.append((best, Candidate(best.name, reduction, x.shape[1], parameters, accuracy)))
    best, chosen = max(tried, key=lambda each: each[1].accuracy or 0.0)  # the first of equals
    x, asked = np.split(inputs[chosen.reduction], [num_known])
    predicted = fit_pixel_classifier(best, x, folds.classes, seed=config.seed).predict(asked)
    return SpectralBaseline(scene.class_ids[predicted], chosen, tuple(candidate for _, candidate in tried), notes)


def pool_baselines(folds: Sequence[SpectralBaseline]) -> SpectralBaseline:
    """Returns the baselines of several folds as one: what most folds chose, with the mean accuracies of candidates."""
    kinds = Counter((each.chosen.classifier, each.chosen.reduction) for each in folds)
    kind, count = kinds.most_common(1)[0]
    found: dict[tuple[str, str], list[Candidate]] = {}
    for each in itertools.chain.from_iterable(fold.candidates for fold in folds):
        found.setdefault((each.classifier, each.reduction), []).append(each)
    pooled = {}
    for key, same in found.items():
        known = [each.accuracy for each in same if each.accuracy is not None]
        pooled[key] = replace(same[0], parameters={}, accuracy=float(np.mean(known)) if known else None)
    chosen = replace(pooled[kind], chosen_by="" if count == len(folds) else f"{count} of {len(folds)} folds")
    return SpectralBaseline(np.concatenate([each.labels for each in folds]), chosen, tuple(pooled.values()))


def hold_out(truth: GroundTruth, split: Split, settings: SplitSettings, *, seed: int) -> tuple[Folds, tuple[str, ...]]:
    """Returns folds of the training set on which pixel classifiers are compared, and notes for the user.

    They hold out whole areas where the split is spatial (`divide_into_folds`), or single pixels if too few areas can
    be held out. The result has no parts where two folds and two classes with three held-out pixels are not reached.
    """
    for kind, notes in ((settings, ()), (RandomSplit(kind="random", train=0.5), (_SINGLE_PIXELS,))):
        folds = divide_into_folds(truth, split, kind, seed=seed)
        if len(folds.parts) > 1:
            held = np.any([held for _, held in folds.parts], axis=0)
            if np.count_nonzero(np.bincount(folds.classes[held]) >= _FEWEST) > 1:
                return folds, notes
    return replace(folds, parts=()), (_UNCHOSEN,)


def choose_parameters(
    settings: PixelClassifier, x: NDArray[np.float32], folds: Folds, *, seed: int
) -> tuple[PixelClassifier, float | None]:
    """Returns the settings that classify most held-out pixels correctly, and the fraction of these pixels.

    Only an SVM is tuned, in what its settings leave open. gamma is searched around scikit-learn's `scale`, 1 over the
    number of values in a spectrum times their variance; without folds it is that, and C is 100.
    To bound the cost, at most about 1000 pixels are fitted in each fold and as many held out, with the same shares
    of the classes, and forests have 100 trees.

    Args:
        x: `(n, k)` spectra or components of the pixels of `folds`.
        seed: determines the trees, and the pixels that are used of a fold with more than 1000.
    """
    options = [settings]
    if isinstance(settings, Svm):
        grid = itertools.product(*(_GRID if folds.parts else _UNTUNED))
        scale = float(1 / (x.shape[1] * (x.var() or 1)))
        values = [(settings.penalty or c, settings.gamma or factor * scale) for c, factor in grid]
        options = [settings.model_copy(update={"penalty": c, "gamma": gamma}) for c, gamma in dict.fromkeys(values)]
    if not folds.parts:
        return options[0], None
    quick = [each.model_copy(update={"trees": 100}) if isinstance(each, Forest) else each for each in options]
    rng, y = np.random.default_rng(seed), folds.classes
    parts = [[_thin(pixels, y, rng=rng) for pixels in part] for part in folds.parts]

    def count_correct(option: PixelClassifier, fit: NDArray[np.int64], held: NDArray[np.int64]) -> int:
        machine = fit_pixel_classifier(option, x[fit], y[fit], seed=seed)
        return int(np.count_nonzero(machine.predict(x[held]) == y[held]))

    trials = (delayed(count_correct)(option, *part) for part in parts for option in quick)
    num_threads = 1
    if isinstance(settings, Svm):  # it releases the interpreter; LDA changes filters of warnings, which threads share
        num_threads = max((pool["num_threads"] for pool in threadpool_info()), default=1)
    correct = np.reshape(Parallel(num_threads, prefer="threads")(trials), (len(parts), -1)).sum(0)
    return options[int(correct.argmax())], float(correct.max() / sum(len(held) for _, held in parts))


def fit_pixel_classifier(
    settings: PixelClassifier, x: NDArray[np.float32], y: NDArray[np.integer], *, seed: int
) -> Any:
    """Returns scikit-learn's classifier, fitted on spectra or components `(n, k)` and classes `(n,)`.

    An SVM has both parameters set, and takes its input as it is: the scale of MNF components tells signal from noise.
    LDA takes it with zero mean and unit variance.
    """
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis  # both take long to import
    from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier

    if isinstance(settings, Svm):
        return SVC(C=settings.penalty, gamma=settings.gamma, break_ties=True).fit(x, y)
    if isinstance(settings, Lda):
        shrinkage = "auto" if settings.shrinkage is None else settings.shrinkage
        lda = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Only one sample", UserWarning)  # of a class with a single pixel
            return make_pipeline(StandardScaler(), lda).fit(x, y)
    assert isinstance(settings, Forest)
    kind = ExtraTreesClassifier if settings.name == "extra_trees" else RandomForestClassifier
    return kind(settings.trees, min_samples_leaf=settings.min_leaf, random_state=seed % 2**32).fit(x, y)


def _thin(part: NDArray[np.bool_], classes: NDArray[np.int64], *, rng: np.random.Generator) -> NDArray[np.int64]:
    """Returns the indices of about `_MOST_PIXELS` pixels of a part, or of all, at least one of each class."""
    chosen = np.flatnonzero(part)
    share = min(1.0, _MOST_PIXELS / len(chosen))
    of_class = [rng.permutation(chosen[classes[chosen] == label]) for label in np.unique(classes[chosen])]
    return np.concatenate([some[: math.ceil(share * len(some))] for some in of_class])
