"""The public functions: what the commands do, for configs and scenes that are files, mappings or objects in memory."""

import functools
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import PositiveInt

from hsi_se.ablation import run as ablations
from hsi_se.ablation.file import PlannedRun, load_ablation
from hsi_se.ablation.record import AblationFolder, AblationReport
from hsi_se.ablation.tables import write_reports
from hsi_se.cli.terminal import show_progress
from hsi_se.config.arguments import checked, show
from hsi_se.config.base import Seed, Settings
from hsi_se.config.experiment import Config, Sections
from hsi_se.config.yaml_file import Override, read_config, read_settings
from hsi_se.errors import ConfigError, RunError, SceneError
from hsi_se.maps import write as maps
from hsi_se.prediction import bundled
from hsi_se.prediction.logits import Engine
from hsi_se.progress import Observer, Silent, Undecided
from hsi_se.reports.page import write_page
from hsi_se.runs.bundle import ModelBundle
from hsi_se.runs.folder import RunFolder
from hsi_se.runs.opened import find_data
from hsi_se.runs.records import Explanation
from hsi_se.runs.report import RunReport
from hsi_se.sampling import splits
from hsi_se.scene import loading
from hsi_se.scene.folders import Folders
from hsi_se.scene.in_memory import is_data_array
from hsi_se.scene.scene import GroundTruth, Scene
from hsi_se.system.python_words import speaking_python
from hsi_se.system.session import Session
from hsi_se.workflows import evaluate as evaluation
from hsi_se.workflows import explain as explanation
from hsi_se.workflows import train as training
from hsi_se.workflows.gap import Gap, measure_gap

AnyConfig = Config | Mapping[str, Any] | str | os.PathLike[str]
AnyRun = RunFolder | str | os.PathLike[str]
_MAKE = "hsi_se.Scene.from_arrays(cube, labels)"


@contextmanager
def _begin(
    session: Session | None, scene: Scene | None = None, *, run: object = None, takes_data: bool = False
) -> Iterator[Session]:
    """Yields a session that knows the scene, by default that of `run`, and shows progress; errors speak Python."""
    session = session or Session()
    scene = getattr(run, "scene", None) if scene is None else scene
    with ExitStack() as stack:
        words = {"scene": "" if scene is None else ", scene=scene"} | ({"data": "data=…"} if takes_data else {})
        stack.enter_context(speaking_python("commands", **words))
        if scene is not None:
            if not isinstance(scene, Scene) or scene.num_classes == 0:
                problem = "has no labels" if isinstance(scene, Scene) else f"{type(scene).__name__} is not a Scene"
                raise SceneError(f"scene: {problem}; make one with {_MAKE}")
            session = replace(session, data=replace(Folders.of(session.data), scene=scene))
        if isinstance(session.observer, Undecided):
            session = replace(session, observer=stack.enter_context(show_progress(elsewhere=Silent)))
        yield session


def _record(scene: Scene | None) -> list[Override]:
    """Returns the change of a config that records a scene in memory; it trains with it."""
    if scene is None:
        return []
    return [Override("scene", {"arrays": scene.name, "digest": scene.digest}, {(): "scene"})]


def _open(run: object) -> RunFolder:
    if not isinstance(run, str | os.PathLike):
        raise RunError(f"run = {show(run)}: is not a run; give what hsi_se.train returned, or the path of a run folder")
    return run if isinstance(run, RunFolder) else RunFolder(run)


def _read_split(split: Any, scene: GroundTruth) -> tuple[Any, int]:
    """Returns the settings of a split and the seed of the config that they are from, or 0."""
    if isinstance(split, Settings) and not isinstance(split, Config):
        return split, 0
    if isinstance(split, Mapping) and "kind" in split:
        return read_settings(Sections, {"split": split}, name="split")[0].split, 0
    config = read_config(split, _record(scene if isinstance(scene, Scene) else None))
    return config.split, config.seed


@checked("scene")
def load_scene(scene: Any, data: str | Path | None = None) -> Scene:
    """Returns the scene of a config, or of its section `scene`: a known name, a mapping or an object.

    `data` is a folder that is searched before `datasets/`. SceneError if the name is unknown, a file is missing or
    cannot be read, or the cube and the labels do not fit each other.
    """
    with _begin(None, takes_data=True):
        found = _read_scene(scene)
        return found if isinstance(found, Scene) else loading.load_scene(found, data)


def _read_scene(scene: Any) -> Any:
    """Returns what `prediction.bundled.map_scene` takes as a scene."""
    if isinstance(scene, np.ndarray) or is_data_array(scene):
        return Scene.from_arrays(scene, None)
    if isinstance(scene, Mapping):
        return read_settings(Sections, {"scene": scene}, name="scene")[0].scene
    if not isinstance(scene, str | Path | Settings | Scene):
        problem = "is not a scene; write a known name, or {'cube': FILE, 'labels': FILE}"
        raise SceneError(f"scene = {show(scene)}: {problem}")
    return scene.scene if isinstance(scene, Config) else scene


@checked("scene", "split")
def make_split(
    scene: GroundTruth, split: Any, *, seed: Seed | None = None, data: str | Path | None = None
) -> splits.Split:
    """Returns the training, validation and test pixels of a scene, as a config describes them.

    Args:
        scene: a scene, from files or in memory.
        split: a config (an object, a mapping or a YAML file), or its section `split` (an object or a mapping).
        seed: of the draw, unless the section has its own; by default that of the config, or else 0.
        data: folder searched for mask files before `datasets/`.

    Raises:
        HsiError: the labels cannot be split like this, or a setting is wrong.
    """
    with _begin(None, takes_data=True):
        if not isinstance(scene, GroundTruth):
            raise SceneError(f"scene: {type(scene).__name__} is not a Scene; make one with {_MAKE}")
        settings, own_seed = _read_split(split, scene)
        return splits.make_split(scene, settings, seed=own_seed if seed is None else seed, data=data)


@checked("config", "scene")
def train(
    config: AnyConfig,
    *,
    scene: Scene | None = None,
    out: str | Path | None = None,
    overwrite: bool = False,
    session: Session | None = None,
) -> RunFolder:
    """Trains the classifier that a config describes, and returns its run.

    A config with folds trains one classifier for each; `evaluate` pools them.

    Args:
        config: an object from `load_config`, a mapping of settings, or a YAML file.
        scene: a scene in memory, in place of the config's section `scene`. Its arrays are not saved: the run records
            their digest, and the run that is returned remembers them; a run that is opened again needs `scene=`.
        out: the run folder, by default `runs/DATE-NAME-DIGEST`.
        overwrite: whether to replace a run that is there.
        session: device, folder of scenes and observer; by default a GPU where there is one, and progress is shown on
            a terminal and in a notebook.

    Raises:
        HsiError: a mistake in the config, the scene or the run folder; nothing is left of the run.
    """
    with _begin(session, scene) as session:
        settings = read_config(config, _record(scene))
        if len(settings.list_folds()) > 1:
            if getattr(settings.split, "repeats", 1) > 1 or overwrite:
                name = "overwrite" if overwrite else "split.repeats"
                raise ConfigError(f"{name}: has no effect on folds, which are trained once and kept; leave it out")
            run = training.train_folds(settings, out=out, session=session)
        else:
            run = training.train(settings, out=out, overwrite=overwrite, session=session)
        run.scene = scene
        return run


@checked("run", "scene")
def resume(run: AnyRun, *, scene: Scene | None = None, session: Session | None = None) -> RunFolder:
    """Finishes a training that was interrupted, and returns its run; `scene` as for `evaluate`."""
    with _begin(session, scene, run=run) as session:
        found = training.resume(_open(run), session=session)
        found.scene = getattr(run, "scene", None) if scene is None else scene
        return found


@checked("run", "scene")
def evaluate(run: AnyRun, *, scene: Scene | None = None, session: Session | None = None) -> RunReport:
    """Returns everything that the report of a run says, and writes its reports and its map.

    Args:
        run: what `train` returned, or the path of a run folder; folds are pooled.
        scene: the scene of a run that was trained on arrays in memory, unless `run` remembers it.
        session: as for `train`.

    Raises:
        HsiError: there is no finished run, or the scene is not the one that it was trained on.
    """
    with _begin(session, scene, run=run) as session:
        evaluation.assess_run(_open(run), session=session)
        return _open(run).read_report()


@checked("run", "scene", "engine")
def map_scene(
    run: ModelBundle | AnyRun,
    scene: Any = None,
    *,
    engine: Engine = "dense",
    tile_rows: PositiveInt | None = None,
    session: Session | None = None,
) -> Any:
    """Returns the `ClassMap` of a scene, which can be another than that of the training; 0 without data.

    Where the scene is, or was made of, an xarray DataArray, so is the map: with its coordinates and its CRS, and the
    class names in its attributes.

    Args:
        run: a run, the path of its folder, or a bundle.
        scene: a loaded scene, a cube as for `Scene.from_arrays`, a known name, a file, or a section `scene`; by
            default that of the run. Labels are ignored. Several images lie on one canvas.
        engine: `dense` or `patches`; see `predict_logits`.
        tile_rows: rows of a tile; by default as many as fit into memory.
        session: as for `train`.

    Raises:
        HsiError: there is no finished run, or the scene cannot be read or has other bands or values.
    """
    with _begin(session) as session:
        if scene is None and isinstance(run, ModelBundle):
            raise SceneError("scene = None: a bundle has no scene of its own; give one")
        scene = getattr(run, "scene", None) if scene is None else scene
        if scene is None:
            folder = RunFolder.open(_open(run))
            scene, data = folder.read_config().scene, find_data(folder, folder.read_record(), session.data)
            session = replace(session, data=data)
        scene = _read_scene(scene)
        bundle = run if isinstance(run, ModelBundle) else bundled.load_bundle(_open(run))
        found = bundled.map_scene(bundle, scene, engine=engine, tile_rows=tile_rows, session=session)
        return found if getattr(scene, "grid", None) is None else found.to_data_array(scene.grid)


@functools.wraps(maps.write_map)
@checked("run", "scene", "settings")
def write_map(run: AnyRun, *, scene: Any = None, session: Session | None = None, **settings: Any) -> list[Path]:
    folder = _open(run)
    is_own = isinstance(scene, Scene) and RunFolder.open(folder).read_record().scene_digest == scene.digest
    with _begin(session, scene if is_own else None, run=run if scene is None else None) as session:
        return maps.write_map(folder, scene=None if is_own else scene, session=session, **settings)


@checked("run", "scene")
def explain(run: AnyRun, *, scene: Scene | None = None, session: Session | None = None) -> Explanation:
    """Returns how attention gates treat the classes of the test pixels; arguments and errors as for `evaluate`."""
    with _begin(session, scene, run=run) as session:
        return explanation.explain(_open(run), session=session)


@checked("config", "scene")
def gap(
    config: AnyConfig, *, scene: Scene | None = None, out: str | Path | None = None, session: Session | None = None
) -> Gap:
    """Trains a config on spatial folds and on a random split of the same size, and returns both assessments.

    `out` is the folder of the runs, by default below `runs/`; finished runs in it are kept. The other arguments and
    the errors are those of `train`.
    """
    with _begin(session, scene) as session:
        return measure_gap(read_config(config, _record(scene)), out=out, session=session)


@checked("ablation", "scene")
def ablate(
    ablation: Mapping[str, Any] | str | os.PathLike[str],
    *,
    scene: Scene | None = None,
    out: str | Path | None = None,
    workers: PositiveInt | None = None,
    scheduler: str | None = None,
    session: Session | None = None,
) -> tuple[AblationFolder, AblationReport]:
    """Trains every variant of an ablation with every seed; returns its folder and its report.

    Args:
        ablation: a YAML file, or a mapping with its settings, in which `base` is a config of any kind.
        scene: as for `train`.
        out: the folder, by default `runs/ablation-NAME-DIGEST`; finished runs in it are kept.
        workers: number of processes on this machine; not with a scene in memory.
        scheduler: address of a Dask cluster; not with a scene in memory.
        session: as for `train`.

    Raises:
        HsiError: as `train`, or a run failed; the results of the others are in the folder.
    """
    with _begin(session, scene) as session:
        if scene is not None and (workers, scheduler) != (None, None):
            name = "scheduler" if workers is None else "workers"
            raise ConfigError(f"{name}: other processes do not have a scene in memory; leave it out, or use files")
        planned = load_ablation(ablation, _record(scene))
        session.observer.start(planned.name, total=len(planned.parts), unit="runs")
        watcher, session = _Runs(session.observer), replace(session, observer=Silent())
        folder, found = ablations.run_ablation(
            planned, out=out, workers=workers, scheduler=scheduler, watcher=watcher, session=session
        )
        if found.failed:
            first, count = found.failed[0], f"{len(found.failed)} of {len(planned.parts)} runs"
            problem = f"{count} failed, the first of {first}: {first.error}"
            raise RunError(f"{folder}: {problem}; correct this, and call hsi_se.ablate again to train what is missing")
        return folder, found


class _Runs:
    """A watcher of an ablation that tells an observer about each run."""

    def __init__(self, observer: Observer) -> None:
        self._observer, self.note = observer, observer.note

    def change(self, run: PlannedRun, state: ablations.State, *, accuracy: float | None = None) -> None:
        if accuracy is not None:
            self._observer.note(f"{run}: OA {100 * accuracy:.2f} %")
        if state in ("finished", "failed") and run.parts == (run,):
            self._observer.advance(1)


def report(run: AnyRun) -> Path:
    """Writes the report of an evaluated run, or of an ablation, and returns the path of its HTML page."""
    with _begin(None):
        folder = AblationFolder(_open(run) if not isinstance(run, AblationFolder) else run)
        if folder.is_one:
            write_reports(AblationFolder.open(folder).read_report(), folder)
            return folder.page
        found = RunFolder.open(_open(run), pooled=True)
        write_page(found)
        return found.page
