"""What each gate does to each class of pixels (Hu et al. 2020, section 7.2), and what training mode costs."""

from collections.abc import Iterator
from contextlib import ExitStack
from copy import deepcopy
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from hsi_se.attention.cbam import Cbam
from hsi_se.attention.channel_gate import ChannelGate
from hsi_se.attention.scse import ConcurrentSqueezeExcite
from hsi_se.config.model import HybridSN, Network
from hsi_se.errors import RunError
from hsi_se.models.cnn3d import Cnn3d
from hsi_se.models.inference import pick_device, predict_patches, set_tf32
from hsi_se.models.network import Network as NetworkModule
from hsi_se.prediction.bundled import build_bundled_model
from hsi_se.prediction.logits import check_finite_logits
from hsi_se.progress import Observer
from hsi_se.reports.explorer import GateMap
from hsi_se.reports.figures import save_figure
from hsi_se.reports.page import write_page
from hsi_se.reports.run_figures import draw_explanation
from hsi_se.reports.tables import describe_gates, describe_modes
from hsi_se.runs.bundle import ModelBundle
from hsi_se.runs.folder import RunFolder
from hsi_se.runs.opened import OpenedRun, open_run
from hsi_se.runs.records import ClassPixels, Explanation, GateExplanation, ModeComparison, Spectrum
from hsi_se.sampling.patches import PatchDataset, PatchSource, to_targets
from hsi_se.sampling.splits import Pixels
from hsi_se.scene.raster import Floats
from hsi_se.system.session import Session

_MOST_PIXELS = 2000  # that pass through the network in training mode

Gate = ChannelGate | Cbam | ConcurrentSqueezeExcite  # blocks with an `excitation` of channels


class ClassMeans:
    """Sums of excitations `(n, channels)` per class, from which means and variances are computed."""

    def __init__(self, num_classes: int) -> None:
        self.counts = np.zeros(num_classes)
        self.sums: Floats = np.zeros((num_classes, 0))
        self.squares: Floats = np.zeros((num_classes, 0))
        self.of_pixels: list[Floats] = []  # the mean over the channels of each pixel

    def add(self, excitation: Floats, classes: NDArray[np.int64]) -> None:
        if not self.sums.size:
            self.sums, self.squares = np.zeros((2, len(self.counts), excitation.shape[1]))
        np.add.at(self.sums, classes, excitation)
        np.add.at(self.squares, classes, excitation**2)
        self.counts += np.bincount(classes, minlength=len(self.counts))
        self.of_pixels.append(excitation.mean(axis=1))

    @property
    def means(self) -> Floats:
        """`(C', channels)` means of the classes that have pixels."""
        return self.sums[self.counts > 0] / self.counts[self.counts > 0, None]

    @property
    def between_class_std(self) -> float:
        """See `GateExplanation`."""
        return float(np.sqrt(self.means.var(axis=0).mean()))

    @property
    def between_class_share(self) -> float | None:
        """See `GateExplanation`: the variances are summed over the channels.

        With equal weights, the class means have the variance that the class explains, and (C - 1) / C of the
        mean of s² / n, which is the noise of a mean. A class of one pixel has the s² of the others.
        """
        present = self.counts > 0
        counts = self.counts[present]
        deviations = (self.squares[present] - counts[:, None] * self.means**2).sum(axis=1)
        if len(counts) < 2 or counts.max() < 2:
            return None
        within = np.where(counts > 1, deviations / np.maximum(counts - 1, 1), np.nan)
        within = np.where(counts > 1, within, np.nanmean(within)).clip(min=0)
        noise = (1 - 1 / len(counts)) * (within / counts).mean()
        between = max(0.0, float(self.means.var(axis=0).sum() - noise))
        total = between + float(within.mean())
        return between / total if total > 1e-12 * self.sums.shape[1] else None


def explain(run: str | Path | RunFolder, *, session: Session = Session()) -> Explanation:
    """Returns what a run's gates do to each class of its test pixels, and what training mode would cost.

    Writes both to the run folder, with a figure for channel gates, and the page of an evaluated run again. HsiError
    as in `assess_run`, or for no network.
    """
    opened = open_run(run, data=session.data)
    settings = opened.bundle.facts.model
    if not isinstance(settings, Network):
        problem = f"{settings.name} has neither gates nor a training mode"
        raise RunError(f"{opened.folder}: {problem}; explain a network's run")
    model = build_bundled_model(opened.bundle).to(pick_device(session.device))
    assert isinstance(model, NetworkModule)
    blocks = model.list_blocks()
    gates = {point: block for point, block in blocks.items() if isinstance(block, Gate)}
    scene = opened.scene
    if not len(opened.split.test):
        raise RunError(f"{opened.folder}: is trained on every label and has no test pixels; explain a fold's run")
    classes = to_targets(scene.labels, opened.split.test, scene.class_ids)
    means, predicted = measure_gates(model, gates, opened, classes, session.observer)
    found = tuple(_describe(point, gate, means[point], model, opened.bundle) for point, gate in gates.items())
    modes = compare_modes(model, opened, classes, predicted, session.observer)
    labels, counts = np.unique(scene.class_ids[classes], return_counts=True)
    explanation = Explanation(
        name=opened.record.name,
        scene=opened.record.scene,
        pixels="test",
        classes=tuple(
            ClassPixels(label=label, name=scene.class_names[label], num_pixels=count)
            for label, count in zip(labels.tolist(), counts.tolist(), strict=True)
        ),
        palette=tuple(opened.bundle.facts.palette[label] for label in labels.tolist()),
        gates=found,
        skipped=tuple(f"{point}: {block.why_skipped}" for point, block in blocks.items() if point not in gates),
        modes=modes,
        gates_in_words=describe_gates([found]),
        modes_in_words=describe_modes([modes]),
    )
    opened.folder.write(opened.folder.explanation, explanation)
    opened.folder.explanation_figure.unlink(missing_ok=True)
    opened.folder.gate_map.unlink(missing_ok=True)
    if (best := explanation.best_gate) is not None:
        excitation = np.concatenate(means[best.point].of_pixels).astype(np.float32)
        opened.folder.write_arrays(opened.folder.gate_map, vars(GateMap(opened.split.test, excitation)))
        save_figure(draw_explanation(explanation), opened.folder.explanation_figure)
    if opened.folder.is_evaluated:
        write_page(opened.folder)
    return explanation


def measure_gates(
    model: nn.Module, gates: dict[str, Gate], opened: OpenedRun, classes: NDArray[np.int64], observer: Observer
) -> tuple[dict[str, ClassMeans], NDArray[np.int64]]:
    """Returns the sums of each gate's excitations over the test pixels, and the predicted classes `(n,)`."""
    patches = _make_patches(model, opened, opened.split.test)
    means = {point: ClassMeans(len(opened.bundle.facts.class_ids)) for point in gates}

    def record(point: str, _: nn.Module, inputs: tuple[Tensor]) -> None:
        excitation = gates[point].excitation(inputs[0]).double().cpu().numpy()  # (n, channels)
        num_done = int(means[point].counts.sum())
        means[point].add(excitation, classes[num_done : num_done + len(excitation)])

    observer.start("measuring the gates", total=len(patches), unit="patches")
    with ExitStack() as hooks:
        for point, gate in gates.items():
            hooks.enter_context(gate.register_forward_pre_hook(partial(record, point)))
        logits = predict_patches(model, patches, on_batch=observer.advance)
    check_finite_logits(logits.cpu().numpy())
    return means, logits.argmax(1).cpu().numpy()


def _make_patches(model: nn.Module, opened: OpenedRun, pixels: Pixels) -> PatchDataset:
    facts = opened.bundle.facts
    size, padding, windows = facts.patch_size, facts.padding, opened.scene.windows
    device = next(model.parameters()).device
    source = PatchSource(opened.components, patch_size=size, padding=padding, windows=windows, device=device)
    return source.cut(pixels)


def compare_modes(
    model: nn.Module, opened: OpenedRun, classes: NDArray[np.int64], predicted: NDArray[np.int64], observer: Observer
) -> ModeComparison:
    """Returns the accuracy in evaluation mode and in two passes in training mode; the model stays as it is.

    `classes` and `predicted` `(n,)` are of the test pixels, in 0..C-1; of many a sample is drawn.
    """
    causes = {
        "dropout is active": any(isinstance(each, _DropoutNd) and each.p > 0 for each in model.modules()),
        "batch norm uses each batch": any(isinstance(each, _BatchNorm) for each in model.modules()),
    }
    sample = draw_stratified(classes, most=_MOST_PIXELS)
    truth, batch_size = classes[sample], opened.config.train.batch_size
    training, num_changed = None, 0
    if any(causes.values()) and len(sample) > 1:
        patches = _make_patches(model, opened, opened.split.test[sample])
        observer.start("comparing training mode", total=2 * len(sample), unit="patches")
        first, second = _predict_in_training_mode(model, patches, batch_size, opened.record.seed, observer)
        training = (float((first == truth).mean()), float((second == truth).mean()))
        num_changed = int((first != second).sum())
    return ModeComparison(
        num_pixels=len(sample),
        num_test=len(classes),
        batch_size=batch_size,
        causes=tuple(cause for cause, is_there in causes.items() if is_there),
        evaluation=float((predicted[sample] == truth).mean()),
        training=training,
        num_changed=num_changed,
    )


def draw_stratified(classes: NDArray[np.int64], *, most: int) -> NDArray[np.int64]:
    """Returns ascending positions in `classes`: all, or at most `most` with the same share of each class."""
    if len(classes) <= most:
        return np.arange(len(classes))
    return np.sort(np.argsort(classes, kind="stable")[np.arange(most) * len(classes) // most])


def _predict_in_training_mode(
    model: nn.Module, patches: PatchDataset, batch_size: int, seed: int, observer: Observer
) -> Iterator[NDArray[np.int64]]:
    """Yields the predicted classes `(n,)` of two passes; a copy of the model keeps its running statistics."""
    copy = deepcopy(model).train()
    num_batches = -(-len(patches) // max(batch_size, 2))
    devices = [patches.device] if patches.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), torch.no_grad(), set_tf32(False):
        torch.manual_seed(seed)
        for _ in range(2):
            picks = []
            # Equal parts: batch norm refuses a last batch of one pixel.
            for index in torch.arange(len(patches)).tensor_split(num_batches):
                picks.append(copy(patches.gather(index)).argmax(1))
                observer.advance(len(index))
            yield torch.cat(picks).cpu().numpy()


def _describe(point: str, gate: Gate, means: ClassMeans, model: nn.Module, bundle: ModelBundle) -> GateExplanation:
    is_band = isinstance(gate, ChannelGate) and gate.gated_dim == 2
    profile = to_depths(point, means.means, model, bundle, is_band=is_band)
    spectrum = None
    if isinstance(profile, np.ndarray):
        nm = bundle.facts.wavelengths_nm
        rows = to_bands(profile, bundle.reduction.components).tolist()
        spectrum = Spectrum(
            unit="band" if nm is None else "nm",
            positions=tuple(range(1, bundle.reduction.num_bands + 1)) if nm is None else nm,
            mean_excitation=tuple(map(tuple, rows)),
        )
    return GateExplanation(
        point=point,
        block=gate.extra_repr(),
        axis="band" if is_band else "feature",
        between_class_std=means.between_class_std,
        between_class_share=means.between_class_share,
        mean_excitation=tuple(map(tuple, means.means.tolist())),
        spectrum=spectrum,
        no_spectrum="" if isinstance(profile, np.ndarray) else profile,
    )


def to_depths(point: str, means: Floats, model: nn.Module, bundle: ModelBundle, *, is_band: bool) -> Floats | str:
    """Returns mean excitations `(C, channels)` by spectral depth `(C, d)`, or why there are none.

    A gate on the `band` axis has one depth per channel. After HybridSN's fold the channels are features ×
    depths, so the mean over the features is taken.
    """
    settings = bundle.facts.model
    is_first_3d = isinstance(model, Cnn3d) or (isinstance(settings, HybridSN) and settings.order == "3d-2d")
    if is_band and is_first_3d:
        return means
    if isinstance(settings, HybridSN) and point == "fold":
        if settings.order == "2d-3d":
            return means
        depth = bundle.reduction.num_components - 12
        return np.asarray(means.reshape(len(means), -1, depth).mean(axis=1))
    if is_band:
        return "the depth at this point counts features or is strided, so it does not correspond to bands"
    return "it gates features, which do not correspond to bands"


def to_bands(profile: Floats, components: Floats) -> Floats:
    """Returns excitations `(C, d)` at spectral depths as `(C, bands)` of the scene.

    With valid convolutions, depth j sees the components j to j + K - d. A component gets the mean of the
    depths that see it. A band gets the mean of the components, weighted by its squared loadings `(K, bands)`: by
    what each contributes to the squared response to a change of this band alone, with equal noise in all (see
    `Reduction`). Without a reduction that is its own component. A band that no component uses gets NaN.
    """
    num_components, depth = len(components), profile.shape[1]
    reach = num_components - depth
    sees = np.subtract.outer(np.arange(num_components), np.arange(depth))  # (K, d)
    weights = ((sees >= 0) & (sees <= reach)).astype(np.float64)
    of_components = profile @ (weights / weights.sum(axis=1, keepdims=True)).T  # (C, K)
    loadings = components**2
    totals = loadings.sum(axis=0)
    return np.asarray(of_components @ loadings / np.where(totals > 0, totals, np.nan))
