"""The assembly: one config in, one run folder out, and the evaluation of such a folder."""

import datetime
import platform
import time
from pathlib import Path

import numpy as np
import sklearn
import torch

import hsi_se
from hsi_se.config import Config
from hsi_se.config_model import Network as NetworkSettings
from hsi_se.config_model import RandomForest, Svm
from hsi_se.errors import RunError, TrainingError
from hsi_se.evaluation.assessment import Assessment, assess
from hsi_se.evaluation.metrics import Evaluation
from hsi_se.mapping.class_map import classify
from hsi_se.mapping.logits import predict_logits
from hsi_se.models import build_model
from hsi_se.models.classical import CentrePixelClassifier, ForestOfTrees, SupportVectorMachine
from hsi_se.models.cost import count_macs, count_parameters
from hsi_se.models.network import Network
from hsi_se.records import BundleFacts, ModelBundle, RunFolder, RunRecord, Versions, check_free, new_run
from hsi_se.report.confidence_figures import save_rejection, save_reliability
from hsi_se.report.explorer import make_explorer
from hsi_se.report.figures import save_confusion, save_map, save_split
from hsi_se.report.page import write_page
from hsi_se.report.tables import render_report
from hsi_se.sampling.patches import PatchDataset, pad_cube, to_targets
from hsi_se.sampling.reduction import fit_reduction
from hsi_se.sampling.splits import Pixels, make_split
from hsi_se.scene.palette import make_palette
from hsi_se.scene.readers import load_scene
from hsi_se.training.adapt import adapt_norms
from hsi_se.training.classical import fit_classical
from hsi_se.training.fit import FitResult, fit
from hsi_se.training.history import Observer, Silent

RUNS = Path("runs")
Classifier = Network | CentrePixelClassifier  # both are modules from patches (n, 1, k, p, p) to logits


def train(
    config: Config,
    *,
    data: str | Path | None = None,
    run: str | Path | None = None,
    device: str = "auto",
    overwrite: bool = False,
    observer: Observer | None = None,
) -> RunFolder:
    """Trains the network that a config describes and returns the run folder it has written.

    Everything that can be wrong with the config or the scene is found before training starts, and
    the folder appears only when it is complete.

    Args:
        config: from `load_config`.
        data: a folder searched for scenes before `datasets/`.
        run: the folder to write; by default `runs/DATE-NAME-DIGEST`.
        device: `auto`, `cpu` or `cuda`.
        overwrite: whether a run that is already there is replaced, once the new one is complete.
        observer: told of progress.

    Raises:
        HsiError: a mistake in the config, the scene or the run folder; nothing has been written.
    """
    observer = observer or Silent()
    path = Path(run) if run is not None else default_run(config)
    check_free(path, overwrite=overwrite)
    torch_device = pick_device(device)

    scene = load_scene(config.scene, data)
    split = make_split(scene, config.split, seed=config.seed, data=data)
    scene_digest, scene = scene.digest, split.relabel(scene)
    notes = scene.notes + split.notes
    if not isinstance(config.model, NetworkSettings):
        notes += (f"model.name = {config.model.name}: is fitted at once; the train section has no effect",)
    elif config.train.norm_statistics == "scene":
        notes += (
            "batch norm goes by patches of the whole scene, test pixels included, without their labels",
        )
    for note in notes:
        observer.note(note)
    reduction = fit_reduction(scene.cube, config.reduction, train_pixels=split.train, nodata=scene.nodata)
    components = reduction.apply(scene.cube, nodata=scene.nodata)
    padded = pad_cube(components, patch_size=config.patch.size, padding=config.patch.padding).to(torch_device)

    def make_patches(pixels: Pixels) -> PatchDataset:
        targets = to_targets(scene.labels, pixels, scene.class_ids)
        return PatchDataset(padded, pixels, patch_size=config.patch.size, targets=targets)

    start = time.perf_counter()
    sizes = {"patch_size": config.patch.size, "num_classes": scene.num_classes, "seed": config.seed}
    model: Classifier
    if isinstance(config.model, Svm | RandomForest):
        known = split.training_side
        x, y = components[known[:, 0], known[:, 1]], to_targets(scene.labels, known, scene.class_ids)
        model = fit_classical(config.model, x, y, **sizes).to(torch_device)
        result = FitResult(best_epoch=0, history=())
    else:
        model = build_model(config.model, num_bands=reduction.num_components, **sizes).to(torch_device)
        result = fit(
            model,
            train=make_patches(split.train),
            val=make_patches(split.val),
            num_classes=scene.num_classes,
            settings=config.train,
            seed=config.seed,
            observer=observer,
        )
        if config.train.norm_statistics == "scene":
            pixels = np.argwhere(scene.valid)
            adapt_norms(model, PatchDataset(padded, pixels, patch_size=config.patch.size), seed=config.seed)
    versions = _list_versions()
    record = RunRecord(
        name=config.name or "run",
        seed=config.seed,
        config_digest=config.digest,
        scene=scene.name,
        scene_digest=scene_digest,
        split_digest=split.digest,
        data=None if data is None else str(Path(data).resolve()),
        device=_describe_device(torch_device),
        notes=notes,
        num_train=len(split.train),
        num_val=len(split.val),
        num_parameters=count_parameters(model),
        macs_per_patch=count_macs(model),
        best_epoch=result.best_epoch,
        history=result.history,
        training_s=time.perf_counter() - start,
        versions=versions,
    )
    trained_on = scene.cube[split.train[:, 0], split.train[:, 1]]
    facts = BundleFacts(
        model=config.model,
        patch_size=config.patch.size,
        padding=config.patch.padding,
        class_ids=tuple(scene.class_ids.tolist()),
        class_names=tuple(scene.class_names[label] for label in scene.class_ids.tolist()),
        palette=make_palette(scene.class_ids, given=scene.palette),
        wavelengths_nm=None if scene.wavelengths_nm is None else tuple(scene.wavelengths_nm.tolist()),
        dropped_bands=dict(scene.dropped_bands),
        value_range=(float(trained_on.min()), float(trained_on.max())),
        split_digest=split.digest,
        versions=versions,
    )
    weights = {name: value.cpu().numpy() for name, value in model.state_dict().items()}
    with new_run(path, overwrite=overwrite) as folder:
        folder.write_run(
            config=config, record=record, split=split, bundle=ModelBundle(facts, weights, reduction)
        )
    return RunFolder(path)


def evaluate(
    run: str | Path | RunFolder,
    *,
    data: str | Path | None = None,
    device: str = "auto",
    observer: Observer | None = None,
) -> Evaluation:
    """Returns the accuracies of a run on its test pixels, and writes its reports and maps.

    Args:
        run: a folder that `train` wrote.
        data: where to look for the scene; by default where training found it.
        device: `auto`, `cpu` or `cuda`.
        observer: told of progress.

    Raises:
        HsiError: the folder holds no run, or the scene is not the one it was trained on.
    """
    return assess_run(run, data=data, device=device, observer=observer).evaluation


def assess_run(
    run: str | Path | RunFolder,
    *,
    data: str | Path | None = None,
    device: str = "auto",
    observer: Observer | None = None,
) -> Assessment:
    """As `evaluate`, and returns what stands beside the accuracies too: floor, leakage, calibration."""
    observer = observer or Silent()
    folder = RunFolder.open(run)
    record, config, split = folder.read_record(), folder.read_config(), folder.read_split()
    bundle = folder.read_bundle()
    torch_device = pick_device(device)
    if data is None and record.data is not None and Path(record.data).is_dir():
        data = record.data
    scene = load_scene(config.scene, data)
    if scene.digest != record.scene_digest:
        raise RunError(
            f"{folder}: was trained on another edition of {scene.name} (digest {record.scene_digest[:8]}, "
            f"found {scene.digest[:8]}); name the folder of the first with --data"
        )
    scene = split.relabel(scene)
    components = bundle.reduction.apply(scene.cube, nodata=scene.nodata)

    observer.start("mapping", total=scene.labels.size, unit="pixels")
    logits = predict_logits(
        build_bundled_model(bundle).to(torch_device),
        components,
        padding=bundle.facts.padding,
        on_batch=observer.advance,
    )
    assessment = assess(scene, split, logits=logits, components=components, config=config)
    class_map = classify(
        logits,
        class_ids=bundle.class_ids,
        class_names=bundle.class_names,
        palette=bundle.facts.palette,
    ).where(scene.valid)

    title = f"{record.scene}, {record.name}: OA {100 * assessment.evaluation.overall_accuracy:.2f} %"
    save_map(class_map, folder.map_figure, title=title)
    save_map(class_map.where(scene.labels > 0), folder.labelled_map_figure, title=f"{title}, labelled pixels")
    save_confusion(assessment.evaluation, folder.confusion_figure)
    save_split(
        split.to_sides(scene.shape), folder.split_figure, title=f"{record.scene}: {config.split.kind} split"
    )
    save_reliability(
        assessment.calibration,
        assessment.calibration_scaled,
        assessment.temperature,
        folder.reliability_figure,
    )
    save_rejection(
        assessment.rejection,
        folder.rejection_figure,
        overall_accuracy=assessment.evaluation.overall_accuracy,
    )
    folder.write_report(assessment, record, text=render_report(assessment, record, folder))
    explorer = make_explorer(scene, split, logits=logits, assessment=assessment)
    folder.write_explorer(explorer.to_arrays())
    write_page(folder)
    return assessment


def load_bundle(run: str | Path | RunFolder) -> ModelBundle:
    """Returns what a run has learned: weights, reduction, classes; see `build_bundled_model`."""
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


def pick_device(name: str) -> torch.device:
    """Returns the device to work on; `auto` is the GPU where there is one.

    Raises:
        TrainingError: `cuda` is asked for and not there, or the name is unknown.
    """
    choices = ("auto", "cpu", "cuda")
    if name not in choices:
        raise TrainingError(f"--device {name}: choose from {', '.join(choices)}")
    if name == "cuda" and not torch.cuda.is_available():
        raise TrainingError("--device cuda: this torch sees no GPU; write --device cpu")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def default_run(config: Config, *, suffix: str = "") -> Path:
    """Returns `runs/DATE-NAME-DIGEST`, with a word behind it for what is more than one run."""
    today = datetime.date.today().isoformat()
    return RUNS / f"{today}-{config.name or 'run'}-{config.digest[:8]}{suffix}"


def _describe_device(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"cpu, {torch.get_num_threads()} threads"


def _list_versions() -> Versions:
    return Versions(
        hsi_se=hsi_se.__version__,
        torch=str(torch.__version__),
        numpy=np.__version__,
        sklearn=sklearn.__version__,
        python=platform.python_version(),
    )
