"""A finished run together with the scene it was trained on."""

from dataclasses import dataclass
from pathlib import Path

from hsi_se.config.experiment import Config
from hsi_se.errors import RunError
from hsi_se.runs.bundle import ModelBundle
from hsi_se.runs.folder import RunFolder
from hsi_se.runs.records import RunFacts, RunRecord
from hsi_se.sampling.splits import Split
from hsi_se.scene.cube import Cube
from hsi_se.scene.folders import DEFAULT_DATA_DIR, Data, Folders
from hsi_se.scene.loading import load_scene
from hsi_se.scene.scene import Scene


@dataclass(frozen=True, eq=False)
class OpenedRun:
    """A run and its scene, with the labels of its split and the components that the network received."""

    folder: RunFolder
    record: RunRecord
    config: Config
    split: Split
    bundle: ModelBundle
    scene: Scene
    components: Cube


def open_run(run: str | Path | RunFolder, *, data: Data = None) -> OpenedRun:
    """Returns a run with its scene, which is searched for in `data` or where training found it.

    HsiError if the folder contains no run, or the scene is not the one it was trained on.
    """
    folder = RunFolder.open(run)
    record, config, split = folder.read_record(), folder.read_config(), folder.read_split()
    bundle = folder.read_bundle()
    scene = load_scene(config.scene, find_data(folder, record, data))
    check_edition(folder, record, found=scene.digest)
    scene = split.relabel(scene)
    components = bundle.reduction.apply_to_scene(scene.cube, nodata=scene.nodata)
    return OpenedRun(folder, record, config, split, bundle, scene, components)


def find_data(folder: RunFolder, facts: RunFacts, data: Data, *, is_own_scene: bool = True) -> Folders:
    """Returns the folders to search: those of today, and those in which training found its scene.

    The folder in which training ran is also found if it was moved together with the run. Without `data` it
    comes first. Relative paths of another scene than the run's own begin in the current folder only.
    """
    now = Folders.of(data)
    starts = (Path(facts.start), (folder.path / facts.start_from_run).resolve())
    given = () if facts.data is None else tuple(start / facts.data for start in starts)
    if not is_own_scene:
        return now.then(Folders((), given))
    then = Folders(starts, (*given, *(start / DEFAULT_DATA_DIR for start in starts)))
    return then.then(now) if data is None else now.then(then)


def check_edition(folder: RunFolder, facts: RunFacts, *, found: str, expected: str | None = None) -> None:
    """Raises RunError unless `found` is the digest of the scene, or of its image, that a run was trained on."""
    expected = expected or facts.scene_digest
    if found != expected:
        digests = f"(digest {expected[:8]}, found {found[:8]})"
        problem = f"was trained on another edition of {facts.scene} {digests}"
        raise RunError(f"{folder}: {problem}; name the folder of the right one with --data")
