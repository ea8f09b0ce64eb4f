"""Trains what a config describes and writes a run folder; resumes an interrupted run."""

import datetime
import hashlib
import os
import platform
import time
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import sklearn
import torch

from hsi_se.config.experiment import Config
from hsi_se.config.model import Network as NetworkSettings
from hsi_se.config.registry import list_plugins
from hsi_se.config.split import AllSplit
from hsi_se.errors import RunError, TrainingError
from hsi_se.models.cost import count_macs, count_parameters
from hsi_se.models.inference import pick_device
from hsi_se.prediction.logits import Classifier
from hsi_se.progress import EpochRecord, Observer
from hsi_se.runs.folder import RunFolder
from hsi_se.runs.lifecycle import Logged, begin_run, check_free, open_unfinished, until_finished
from hsi_se.runs.opened import check_edition, find_data
from hsi_se.runs.records import RunFacts, RunRecord, RunStart, flatten
from hsi_se.scene.folders import Data
from hsi_se.system.locks import hold
from hsi_se.system.memory import Meter
from hsi_se.system.processes import Stop, listening
from hsi_se.system.session import Session
from hsi_se.training.checkpoint import Checkpoints
from hsi_se.training.distributed import World, join, together
from hsi_se.training.fit import FitResult, fit
from hsi_se.training.step import choose_precision, warn_of_emulation
from hsi_se.version import __version__
from hsi_se.workflows.calibration import calibrate
from hsi_se.workflows.pool import find_folds_of
from hsi_se.workflows.preparation import Prepared, prepare

RUNS = Path("runs")


def train(
    config: Config, *, out: str | Path | None = None, overwrite: bool = False, session: Session = Session()
) -> RunFolder:
    """Trains the network described by a config and returns its run folder.

    Everything that can be wrong with the config or the scene is found before training starts. The folder `out`, by
    default `runs/DATE-NAME-DIGEST`, then appears with what is known, gains a line an epoch, and is finished with its
    record. `overwrite` replaces a run that is already there. HsiError if there is a mistake in the config, the scene or
    the run folder; nothing is left of it.
    """
    today = datetime.date.today().isoformat()
    path = RUNS / f"{today}-{config.label}" if out is None else Path(out)
    torch_device = pick_device(session.device)
    with listening() as stop, join(torch_device) as world:
        with stop.at_once("interrupted before training began; rerun the same command"):
            if world.is_first:
                check_free(path, overwrite=overwrite)
            if isinstance(config.split, AllSplit) and config.split.folds is not None:
                find_folds_of(config)
            setting = prepare(config, data=session.data, device=torch_device)
            start = _describe_start(setting, path, data=session.data)
        with ExitStack() as stack:
            folder, observer = RunFolder(path), session.observer
            if world.is_first:
                for note in setting.notes:
                    observer.note(note)
                begun = begin_run(path, overwrite=overwrite, start=start, config=config, split=setting.split)
                folder = stack.enter_context(begun)
                observer = Logged(observer, folder)
            _train_into(folder, setting, start=start, observer=observer, world=world, stop=stop)
        stop.check(f"interrupted; the run {path} is finished")
    return RunFolder(path)


def resume(run: str | Path | RunFolder, *, session: Session = Session()) -> RunFolder:
    """Finishes a run that `train` began with its own config, split and device, and returns its folder.

    On a CPU, with as many threads as before, the weights are those of a run that was never interrupted. The device of
    the session has no effect. HsiError if there is no unfinished run, another process trains it, or its config, its
    scene, its split or its checkpoints are not what they were.
    """
    folder, observer = open_unfinished(run), session.observer
    with listening() as stop:
        with ExitStack() as stack:
            start, _ = folder.read_progress()
            torch_device = pick_device(start.device_kind)
            world = stack.enter_context(join(torch_device))
            if world.is_first:
                stack.enter_context(hold(folder.path, "training"))
            with stop.at_once(f"interrupted; {folder.how_to_resume}"):
                config, split = folder.read_config(), folder.read_split()
                if config.digest != start.config_digest:
                    raise RunError(f"{folder.config}: changed since the run began; train into another folder")
                if split.digest != start.split_digest:
                    raise RunError(f"{folder.split}: changed since the run began; train again with --overwrite")
                data = find_data(folder, start, session.data)
                setting = prepare(config, data=data, device=torch_device, split=split)
                check_edition(folder, start, found=setting.scene_digest)
                if start.class_ids != tuple(setting.scene.class_ids.tolist()):
                    raise RunError(f"{folder.progress}: names other classes than the scene; train again")
            if world.is_first:
                for note in warn_of_emulation(start.precision, torch_device):
                    observer.note(note)
                if not folder.has_checkpoint:
                    observer.note(f"{folder}: has no checkpoint yet; starting from the beginning")
                stack.enter_context(until_finished(folder))
                observer = Logged(observer, folder)
            _train_into(folder, setting, start=start, observer=observer, world=world, stop=stop)
        stop.check(f"interrupted; the run {folder} is finished")
    return folder


def train_unless_finished(config: Config, path: Path, *, session: Session) -> None:
    """Trains into `path`, unless a run with the same settings is there: that is kept, or resumed.

    RunError if `path` contains a run with other settings.
    """
    if not path.exists():
        train(config, out=path, session=session)
        return
    folder = RunFolder(path)
    facts = folder.read_progress()[0] if folder.is_unfinished else RunFolder.open(path).read_record()
    if facts.config_digest != config.digest:
        raise RunError(f"{path}: contains a run with other settings; choose another folder with --out DIR")
    if folder.is_unfinished:
        session.observer.note(f"{path}: resuming")
        resume(path, session=session)
    else:
        session.observer.note(f"{path}: already finished")


def train_folds(config: Config, *, out: str | Path | None, session: Session) -> RunFolder:
    """Trains a classifier on each fold of a config, unless it is finished, and returns the folder of all folds."""
    config = config.with_fold(None)
    parts = config.list_folds()
    folder = RunFolder(out if out is not None else RUNS / f"folds-{config.name or 'run'}-{config.digest[:8]}")
    for number, part in enumerate(parts, start=1):
        session.observer.note(f"fold {number} of {len(parts)}")
        train_unless_finished(part, folder.fold(number).path, session=session)
    return folder


def _describe_start(setting: Prepared, run: Path, *, data: Data) -> RunStart:
    config, scene, split = setting.config, setting.scene, setting.split
    device = setting.patches.device
    threads = torch.get_num_threads()
    cpu = f"cpu, {threads} thread{'' if threads == 1 else 's'}"
    class_ids = scene.class_ids.tolist()
    return RunStart(
        name=config.name or "run",
        seed=config.seed,
        config_digest=config.digest,
        scene=scene.name,
        scene_digest=setting.scene_digest,
        image_digests=scene.image_digests,
        split_digest=split.digest,
        data=str(data) if isinstance(data, str | Path) else None,
        start=str(Path.cwd()),
        start_from_run=os.path.relpath(Path.cwd(), run.resolve()),
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else cpu,
        precision=choose_precision(config.train.precision, device),
        notes=setting.notes,
        num_train=len(split.train),
        num_val=len(split.val),
        images=scene.images,
        versions={"hsi_se": __version__, "python": platform.python_version()}
        | {module.__name__: str(module.__version__) for module in (torch, np, sklearn)},
        plugins=list_plugins(config.model),
        started=datetime.datetime.now(datetime.UTC),
        device_kind=device.type,
        epochs=config.train.epochs if isinstance(config.model, NetworkSettings) else 0,
        class_ids=tuple(class_ids),
        class_names=tuple(scene.class_names[label] for label in class_ids),
    )


def _train_into(
    folder: RunFolder, setting: Prepared, *, start: RunStart, observer: Observer, world: World, stop: Stop
) -> None:
    """Trains the classifier; the first process writes bundle and record into the run folder."""
    config, scene, split, device = setting.config, setting.scene, setting.split, setting.patches.device
    same = f"{start.config_digest}{split.digest}{start.scene_digest}{start.precision}"
    if not world.agree(hashlib.sha256(same.encode()).hexdigest()):
        different = "settings, scenes or, with train.precision: auto, processors"
        raise RunError(f"{folder}: the processes of this training have different {different}")
    meter = Meter(device)
    model: Classifier

    def begin(history: Sequence[EpochRecord]) -> None:
        if world.is_first:
            folder.rewind(history)
            observer.begin_run(config.label, flatten(config.model_dump(mode="json")), epoch=len(history))

    if setting.network is None:
        if not world.is_alone:
            problem = f"model.name = {config.model.name}: is fitted by one process"
            raise TrainingError(f"{problem}; start it without torchrun")
        begin(())
        began = time.perf_counter()
        with stop.at_once("interrupted"):
            model = setting.fit_again(split.training_side, epochs=0, seed=config.seed, observer=observer)
        result = FitResult(best_epoch=0, history=(), training_s=time.perf_counter() - began)
    else:
        model = setting.network
        with together():
            result = fit(
                setting.network,
                train=setting.make_patches(split.train),
                val=setting.make_patches(split.val),
                num_classes=scene.num_classes,
                settings=config.train.model_copy(update={"precision": start.precision}),
                seed=config.seed,
                observer=observer,
                keeper=Checkpoints(
                    folder=folder.checkpoints,
                    run=start.config_digest,
                    every_s=config.train.checkpoint_every_s,
                    stop=stop,
                    note=observer.note,
                    rewind=begin,
                    world=world,
                    saves_last=config.prediction.calibration != "none",
                ),
                world=world,
            )
        if not world.is_first:
            return
        with stop.at_once("interrupted"):
            setting.adapt(model)
    record = RunRecord(
        **{name: getattr(start, name) for name in RunFacts.model_fields} | {"notes": start.notes + result.notes},
        num_parameters=count_parameters(model),
        macs_per_patch=count_macs(model),
        best_epoch=result.best_epoch,
        history=result.history,
        stopped=result.stopped,
        training_s=result.training_s,
        peak_memory_bytes=meter.stop().peak_bytes,
    )
    bundle = setting.pack(model, versions=start.versions)
    is_quick = config.prediction.calibration == "none"
    with nullcontext() if is_quick else stop.at_once("interrupted during calibration"):
        # By this process alone: others have left by now.
        scaling = calibrate(bundle, setting, epochs=result.best_epoch, observer=observer)
    facts = bundle.facts.model_copy(update={"scaling": scaling})
    folder.write_result(record, bundle=replace(bundle, facts=facts))
    observer.end_run({"training/best_epoch": result.best_epoch, "training/seconds": result.training_s}, page=None)
