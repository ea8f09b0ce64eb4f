"""The assembly of maps: a trained bundle and a scene in, every format of a map out, in bounded memory."""

import hashlib
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import numpy as np

from hsi_se.config.model import Svm
from hsi_se.errors import ConfigError, SceneError
from hsi_se.evaluation.confidence import is_scaled
from hsi_se.maps.cluster import predict_on_cluster
from hsi_se.maps.draft import MapDraft
from hsi_se.maps.folder import MapFolder
from hsi_se.prediction.bundled import make_predictor
from hsi_se.prediction.logits import Engine
from hsi_se.prediction.target import Target, find_scene, open_target
from hsi_se.prediction.whole_scene import predict_tiles
from hsi_se.runs.bundle import ModelBundle
from hsi_se.runs.folder import RunFolder
from hsi_se.runs.opened import find_data
from hsi_se.system.cluster import connect
from hsi_se.system.session import Session


def write_map(
    run: str | Path | RunFolder,
    *,
    scene: str | Path | None = None,
    overrides: Sequence[str] = (),
    out: str | Path | None = None,
    probabilities: bool = False,
    engine: Engine = "dense",
    scheduler: str | None = None,
    tile_rows: int | None = None,
    session: Session = Session(),
) -> list[Path]:
    """Maps a scene with what a run has learned, and returns the files that hold the map.

    The map is made in a hidden folder. If it is there already, of the same bundle, values and settings,
    the tiles that are done in it are kept.

    Args:
        run: a folder that `train` wrote.
        scene, overrides: as for `find_scene`; the run's own scene unless given.
        out: the folder to write; by default `map` in the run folder, with another scene's name behind it.
        probabilities: whether a layer of each class's probability and one of their entropy are written, at
            the temperature that `evaluate` has fitted.
        engine, session, tile_rows: as for `map_scene`.
        scheduler: the address of a Dask scheduler, `tcp://host:8786`, whose workers take the tiles.

    Raises:
        HsiError: as `map_scene`, or something else is in the way of the files.
    """
    folder = RunFolder.open(run)
    bundle, record = folder.read_bundle(), folder.read_record()
    _check_storable(bundle, probabilities=probabilities)
    is_own = scene is None and not overrides
    data = find_data(record, session.data)
    target = open_target(bundle, find_scene(folder, scene, overrides, data=data), data=data, is_own=is_own)
    name = record.scene if scene is None else Path(scene).stem
    result = MapFolder(out if out is not None else folder.path / ("map" if scene is None else f"map-{name}"))
    if out is None and scene is not None:
        result.refuse_other(target.image.raster.path)
    # With a cluster the one here works on no tile: it knows how many rows a tile has.
    predictor = make_predictor(bundle, engine=engine, device=session.device if scheduler is None else "cpu")
    rows, cols, _ = target.image.shape
    temperature, about = _find_temperature(folder) if probabilities else (None, "")
    digest = _digest(bundle, target, engine, temperature, tile_rows)
    with (
        nullcontext() if scheduler is None else connect(scheduler) as client,
        result.open_draft() as unfinished,
    ):
        if unfinished.list_published() and unfinished.read_journal()[0].get("digest") == digest:
            session.observer.note("the map was complete, and only its files are moved into place")
            return result.publish(unfinished)
        draft = MapDraft.open(
            unfinished,
            bundle,
            shape=(rows, cols),
            temperature=temperature,
            digest=digest,
            tile_rows=tile_rows or predictor.choose_tile_rows(cols),
        )
        for note in filter(None, (*target.notes, about)):
            session.observer.note(note)
        todo = tuple(draft.todo)
        num_left = sum(map(len, todo))
        if num_left < rows:
            session.observer.note(
                f"going on with a map of which {rows - num_left:,} of {rows:,} rows are done"
            )
        start = time.perf_counter()
        num_passes = bundle.facts.prediction.num_passes
        session.observer.start("mapping", total=num_left * cols * num_passes, unit="pixels")
        if client is None:
            done = predict_tiles(bundle, target.image, predictor, todo, observer=session.observer)
        else:
            done = predict_on_cluster(
                bundle, target.image, todo, engine=engine, client=client, session=session
            )
        for tile, logits, missing in done:
            draft.write(tile, logits, missing)
        elapsed = time.perf_counter() - start
        session.observer.note(
            f"{num_left * cols:,} pixels in {elapsed:.1f} s, {num_left * cols / elapsed:,.0f} pixels/s"
        )
        del predictor, done  # whose weights the pictures need not wait beside
        for note in draft.finish(target, title=f"{name}, mapped by {record.name}", engine=engine):
            session.observer.note(note)
        return result.publish(unfinished)


def _check_storable(bundle: ModelBundle, *, probabilities: bool) -> None:
    """Raises HsiError if a map's files cannot hold what a bundle predicts."""
    if probabilities and isinstance(bundle.facts.model, Svm):
        raise ConfigError("--probabilities: the scores of model.name = svm are votes; map it without")
    if max(bundle.facts.class_ids) >= 2**16:
        raise SceneError(
            f"label {max(bundle.facts.class_ids)}: a map holds labels up to 65535; renumber them"
        )


def _find_temperature(folder: RunFolder) -> tuple[float, str]:
    """The temperature of a run's probabilities, and where it is from, in words."""
    if not folder.report.is_file():
        return 1.0, (
            "the probabilities are the network's own: the run is not evaluated; "
            f"`hsi-se eval {folder}` fits them a temperature"
        )
    temperature = folder.read_report().calibration.temperature
    if not is_scaled(temperature):
        return temperature, "the probabilities are the network's own: its evaluation could fit no temperature"
    return temperature, f"the probabilities are at temperature {temperature:.2f}, as in {folder.report}"


def _digest(bundle: ModelBundle, target: Target, *settings: object) -> str:
    """SHA-256 over all that decides a map."""
    digest = hashlib.sha256(bundle.facts.model_dump_json().encode())
    arrays = bundle.weights | vars(bundle.reduction)
    for name, array in sorted(arrays.items()):
        digest.update(f"{name}{array.shape}{array.dtype.str}".encode())
        digest.update(np.ascontiguousarray(array).data)
    place = target.image.raster.georeference
    digest.update(f"{target.digest}{place}{settings}".encode())
    return digest.hexdigest()
