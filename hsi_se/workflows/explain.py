"""The role of excitation (Hu et al. 2018, section 7.2): what each gate does to each class of pixels."""

from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from hsi_se.attention import AttentionBlock
from hsi_se.attention.cbam import Cbam
from hsi_se.attention.channel_gate import ChannelGate
from hsi_se.config.model import HybridSN
from hsi_se.errors import RunError
from hsi_se.evaluation.metrics import number_or_none
from hsi_se.models.cnn3d import Cnn3d
from hsi_se.models.device import pick_device
from hsi_se.models.inference import predict_patches
from hsi_se.prediction.bundled import build_bundled_model
from hsi_se.progress import Observer
from hsi_se.report.explanation_figure import draw_explanation
from hsi_se.report.figures import save_figure
from hsi_se.runs.bundle import ModelBundle
from hsi_se.runs.explanation import ClassPixels, Explanation, GateExplanation, Spectrum
from hsi_se.runs.folder import RunFolder
from hsi_se.runs.opened import OpenedRun, open_run
from hsi_se.sampling.patches import PatchDataset, pad_cube, to_targets
from hsi_se.scene.raster import Floats
from hsi_se.system.session import Session


class ClassMeans:
    """Sums of excitations `(n, channels)` per class, from which means and variances are computed."""

    def __init__(self, num_classes: int) -> None:
        self.counts = np.zeros(num_classes)
        self.sums: Floats = np.zeros((num_classes, 0))
        self.squares: Floats = np.zeros(0)

    def add(self, excitation: Floats, classes: NDArray[np.int64]) -> None:
        if not self.sums.size:
            self.sums = np.zeros((len(self.counts), excitation.shape[1]))
            self.squares = np.zeros(excitation.shape[1])
        np.add.at(self.sums, classes, excitation)
        self.counts += np.bincount(classes, minlength=len(self.counts))
        self.squares += (excitation**2).sum(axis=0)

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
        """See `GateExplanation`."""
        total_mean = self.sums.sum(axis=0) / self.counts.sum()
        counts = self.counts[self.counts > 0, None]
        between = float((counts * (self.means - total_mean) ** 2).sum())
        total = float((self.squares - self.counts.sum() * total_mean**2).sum())
        return between / total if total > 1e-12 * self.counts.sum() else None


def explain(run: str | Path | RunFolder, *, session: Session = Session()) -> Explanation:
    """Returns what a run's gates do to each class of its test pixels, and writes it into the run folder.

    Raises:
        HsiError: as `evaluate`; or the network has no channel gate.
    """
    opened = open_run(run, data=session.data)
    model = build_bundled_model(opened.bundle).to(pick_device(session.device))
    blocks = _list_blocks(model)
    gates = {point: block for point, block in blocks.items() if isinstance(block, ChannelGate | Cbam)}
    skipped = [f"{point}: {type(block).__name__}" for point, block in blocks.items() if point not in gates]
    if not gates:
        found = f"only {', '.join(skipped)}" if skipped else "no attention"
        raise RunError(
            f"{opened.folder}: the network has no channel gate ({found}); train one with "
            '--set "model.attention={fold: {kind: se}}"'
        )
    scene, split = opened.scene, opened.split
    classes = to_targets(scene.labels, split.test, scene.class_ids)
    means = measure_gates(model, gates, opened, classes, session.observer)
    counts = np.bincount(classes, minlength=scene.num_classes).tolist()
    present = [(label, count) for label, count in zip(scene.class_ids.tolist(), counts, strict=True) if count]
    explanation = Explanation(
        name=opened.record.name,
        scene=opened.record.scene,
        pixels="test",
        classes=tuple(
            ClassPixels(label=label, name=scene.class_names[label], num_pixels=count)
            for label, count in present
        ),
        palette=tuple(opened.bundle.facts.palette[label] for label, _ in present),
        gates=tuple(
            _describe(point, gate, means[point], model, opened.bundle) for point, gate in gates.items()
        ),
        skipped=tuple(skipped),
    )
    opened.folder.write(opened.folder.explanation, explanation)
    save_figure(draw_explanation(explanation), opened.folder.explanation_figure)
    return explanation


def _list_blocks(model: nn.Module) -> dict[str, AttentionBlock]:
    """Returns the attention blocks by their point, in the order of the network."""
    return {
        name.removeprefix("attention.").removeprefix("stages."): module
        for name, module in model.named_modules()
        if isinstance(module, AttentionBlock)
    }


def measure_gates(
    model: nn.Module,
    gates: dict[str, ChannelGate | Cbam],
    opened: OpenedRun,
    classes: NDArray[np.int64],
    observer: Observer,
) -> dict[str, ClassMeans]:
    """Returns the sums of each gate's excitations over the test pixels; `classes` `(n,)` are 0..C-1."""
    facts = opened.bundle.facts
    padded = pad_cube(opened.components, patch_size=facts.patch_size, padding=facts.padding)
    patches = PatchDataset(
        padded.to(next(model.parameters()).device), opened.split.test, patch_size=facts.patch_size
    )
    means = {point: ClassMeans(len(facts.class_ids)) for point in gates}
    num_done = 0

    def record(point: str, _: nn.Module, inputs: tuple[Tensor]) -> None:
        excitation = gates[point].excitation(inputs[0]).double().cpu().numpy()  # (n, channels)
        means[point].add(excitation, classes[num_done : num_done + len(excitation)])

    def advance(count: int) -> None:
        nonlocal num_done
        num_done += count
        observer.advance(count)

    observer.start("measuring the gates", total=len(patches), unit="patches")
    with ExitStack() as hooks:
        for point, gate in gates.items():
            hooks.enter_context(gate.register_forward_pre_hook(partial(record, point)))
        predict_patches(model, patches, on_batch=advance)
    return means


def _describe(
    point: str, gate: ChannelGate | Cbam, means: ClassMeans, model: nn.Module, bundle: ModelBundle
) -> GateExplanation:
    is_band = isinstance(gate, ChannelGate) and gate.gated_dim == 2
    profile = to_depths(point, means.means, model, bundle, is_band=is_band)
    spectrum = None
    if isinstance(profile, np.ndarray):
        nm = bundle.facts.wavelengths_nm
        num_bands = bundle.reduction.num_bands
        spectrum = Spectrum(
            unit="band" if nm is None else "nm",
            positions=tuple(range(1, num_bands + 1)) if nm is None else nm,
            mean_excitation=tuple(
                tuple(map(number_or_none, row))
                for row in to_bands(profile, bundle.reduction.components).tolist()
            ),
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


def to_depths(
    point: str, means: Floats, model: nn.Module, bundle: ModelBundle, *, is_band: bool
) -> Floats | str:
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
    depths that see it. A band gets the mean of the components, weighted by its squared loadings `(K, bands)`;
    without a reduction that is its own component. A band that no component uses gets NaN.
    """
    num_components, depth = len(components), profile.shape[1]
    reach = num_components - depth
    sees = np.subtract.outer(np.arange(num_components), np.arange(depth))  # (K, d)
    weights = ((sees >= 0) & (sees <= reach)).astype(np.float64)
    of_components = profile @ (weights / weights.sum(axis=1, keepdims=True)).T  # (C, K)
    loadings = components**2
    totals = loadings.sum(axis=0)
    return np.asarray(of_components @ loadings / np.where(totals > 0, totals, np.nan))
