"""Writes the map of a scene in every format, from a trained bundle and in bounded memory, here or on a Dask cluster.

On a cluster, reduced and padded rows go out and logits come back: the workers need this package, not the scene's files.
"""

import functools
import hashlib
import importlib.util
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from pydantic import PositiveInt

from hsi_se.config.arguments import checked, show
from hsi_se.config.model import Svm
from hsi_se.config.scene import OF_LABELS, LabelFile, SceneFiles
from hsi_se.errors import ClusterError, ConfigError, SceneError, how_to_install
from hsi_se.maps.folder import MapDraft, MapFolder, Wishes
from hsi_se.maps.layers import list_classes
from hsi_se.maps.products import ENDINGS
from hsi_se.prediction.bundled import Prediction, Tile, TilePredictor, TileSource, predict_tiles
from hsi_se.prediction.logits import Engine
from hsi_se.prediction.target import Target, find_scene, open_target, read_finite_rows
from hsi_se.runs.bundle import ModelBundle
from hsi_se.runs.folder import RunFolder
from hsi_se.runs.opened import check_edition, find_data
from hsi_se.runs.records import RunRecord
from hsi_se.scene.encodings import Wanted
from hsi_se.scene.georeference import parse_crs
from hsi_se.scene.images import list_images
from hsi_se.scene.labels import read_label_map
from hsi_se.scene.loading import SceneSettings
from hsi_se.scene.raster import Image, Mask, Raster, chunk_rows
from hsi_se.scene.scene import HIGHEST_LABEL, Scene
from hsi_se.scene.vectors import OF_LAYER, find_vector
from hsi_se.system.cluster import Call, run_tasks, share, start_cluster
from hsi_se.system.session import Session


@checked("run", "scene", "session")
def write_map(
    run: str | Path | RunFolder,
    *,
    scene: str | Path | Scene | None = None,
    overrides: Sequence[str] = (),
    out: str | Path | None = None,
    probabilities: bool = False,
    min_probability: float | None = None,
    mask: str | Path | None = None,
    polygons: str | Path | None = None,
    stac: bool = False,
    engine: Engine = "dense",
    scheduler: str | None = None,
    tile_rows: PositiveInt | None = None,
    session: Session = Session(),
) -> list[Path]:
    """Maps a scene with the classifier of a run and returns the files of the map, or of the map of each image.

    The map is made in a hidden folder. Finished tiles in it are kept if they belong to the same bundle, values and
    settings.

    Args:
        run: a folder that `train` wrote.
        scene: a known name, a config or a file, as `hsi-se map --scene` takes it, or a scene in memory; by default the
            run's own scene.
        overrides: changes of its section `scene`, as `scene.scale=10000`.
        out: the folder to write; by default `map` in the run folder, or `map-NAME` for another scene; it contains a
            folder for each of several images.
        probabilities: whether to write the probability of each class and the entropy, at the bundle's temperature.
        min_probability: in (0, 1); pixels whose likeliest class has less get a label of their own, above the classes.
        mask: polygons, or a raster that is not 0 inside; pixels outside are nodata. See `read_area`.
        polygons: a vector file to write the areas of the classes to, `.gpkg`, `.geojson` or `.shp`.
        stac: whether to write a STAC item.
        engine: as for `map_scene`.
        scheduler: address of a Dask scheduler, `tcp://host:8786`, whose workers compute the tiles.
        tile_rows: as for `map_scene`.
        session: as for `map_scene`.

    Raises:
        HsiError: as `map_scene`, or the files cannot be written.
    """
    folder = RunFolder.open(run)
    bundle, record = folder.read_bundle(), folder.read_record()
    area, vectors = (None if path is None else Path(path) for path in (mask, polygons))
    wishes = Wishes(probabilities, min_probability, area, vectors, stac)
    _check_wishes(wishes, bundle)
    is_own = scene is None and not overrides
    data = find_data(folder, record, session.data, is_own_scene=scene is None)
    source: Scene | SceneSettings
    if isinstance(scene, Scene):
        if overrides:
            raise ConfigError(f"overrides = {show(overrides)}: have no effect on a scene in memory; leave them out")
        source, name = scene, scene.name
    else:
        source = find_scene(folder, scene, overrides, data=data, unread=(*OF_LABELS, "name"))
        name = record.scene if scene is None else Path(scene).stem
    images = list_images(source, data) if isinstance(source, SceneFiles) else (source,)
    path = Path(out) if out is not None else folder.path / ("map" if scene is None else f"map-{name}")
    if len(images) > 1 and wishes.polygons is not None:
        problem = f"the scene has {len(images)} images, and their polygons would be in one file"
        raise ConfigError(f"--polygons {wishes.polygons}: {problem}; map them one at a time with --scene")
    written: list[Path] = []
    for number, image in enumerate(images):
        target = open_target(bundle, image, data=data, is_own=is_own)
        if is_own:
            own = record.image_digests[number] if len(images) == len(record.image_digests) else "of others"
            check_edition(folder, record, found=target.digest, expected=own)
        _check_place(wishes, target.image.raster)
        result, title = MapFolder(path), name
        if len(images) > 1 and isinstance(image, SceneFiles):
            session.observer.note(f"mapping {image.name}")
            result, title = MapFolder(path / str(image.name)), str(image.name)
        elif out is None and scene is not None and not isinstance(scene, Scene):
            result.refuse_other(target.image.raster.path)
        written += _map_image(
            bundle, record, target, result, wishes, is_own=is_own, title=title, engine=engine, scheduler=scheduler,
            tile_rows=tile_rows, session=session, is_part=len(images) > 1,
        )  # fmt: skip
    if not written:
        problem = f"no pixel of the {len(images)} images is inside"
        raise ConfigError(f"--mask {mask}: {problem}; give an area that overlaps them")
    return written


def read_area(name: str, image: Image, *, is_needed: bool = True) -> tuple[Mask, list[str]]:
    """Returns the mask `(rows, cols)` of the pixels of an image whose centres lie inside an area, and notes.

    `name` is a vector file or a raster with one band, on the same grid or anywhere else with a georeference (nearest
    neighbour); `FILE|layername=NAME` names one of several layers or arrays. HsiError if the file cannot be read or
    placed, has no polygons or several layers, or, with `is_needed`, contains no pixel with data.
    """
    file, _, layer = name.partition(OF_LAYER)
    path, ground, place = Path(file), image.raster.ground, image.raster.place
    shape = image.shape[:2] if ground is None else ground.shape
    if not path.is_file():
        raise ConfigError(f"--mask {path}: no such file; check the path")
    is_vector = find_vector(path) is not None
    if is_vector and place.transform is None:
        problem = f"{image.raster.path} has no georeference, so that polygons cannot be placed on it"
        raise ConfigError(f"--mask {name}: {problem}; give a raster mask of the same size")
    setting, key = f'--mask "{path}{OF_LAYER}NAME"', layer or None
    options = LabelFile(file=file, layer=key if is_vector else None)
    wanted = Wanted(options, shape=shape, place=place, is_part=True, is_mask=True, is_outline=True)
    try:
        found = read_label_map(path, wanted, key=None if is_vector else key, setting=setting)
    except SceneError as error:
        raise ConfigError(f"--mask {error}") from None
    inside = found.labels > 0
    if inside.shape != shape:
        size, other = (" × ".join(map(str, each)) for each in (inside.shape, shape))
        problem = f"has {size} pixels and the scene {other} (rows × cols), and not both have a georeference"
        raise ConfigError(f"--mask {path}: {problem}; give a mask of the same size, or polygons")
    if ground is not None:
        inside = ground.take_from_ground(inside, shape=image.shape[:2], fill=False)
    missing = (read_finite_rows(image, part.start, part.stop)[1] | ~inside[part] for part in chunk_rows(len(inside)))
    if is_needed and (not inside.any() or all(each.all() for each in missing)):
        problem = f"no pixel of {image.raster.path} {'that has data ' if inside.any() else ''}is inside"
        raise ConfigError(f"--mask {name}: {problem}; give an area that overlaps the scene")
    outside = f"{(~inside).sum():,} of {inside.size:,} pixels are outside {name}"
    return inside, [*found.notes, f"{outside} and are nodata in the map"]


def _map_image(
    bundle: ModelBundle,
    record: RunRecord,
    target: Target,
    result: MapFolder,
    wishes: Wishes,
    *,
    is_own: bool,
    title: str,
    is_part: bool,
    engine: Engine,
    scheduler: str | None,
    tile_rows: int | None,
    session: Session,
) -> list[Path]:
    area, min_probability = wishes.mask, wishes.min_probability
    inside, about_area = (None, []) if area is None else read_area(str(area), target.image, is_needed=not is_part)
    if inside is not None and not inside.any():
        session.observer.note(f"{title}: no pixel is inside {area}, so it is not mapped")
        return []
    # With a cluster, the local predictor only tells how many rows a tile has.
    predictor = TilePredictor(bundle, engine=engine, device=session.device if scheduler is None else "cpu")
    rows, cols, _ = target.image.shape
    is_soft = wishes.probabilities or min_probability is not None
    about = _describe_probabilities(bundle, is_own=is_own) if is_soft else ""
    of_area = None if inside is None else hashlib.sha256(np.packbits(inside).data).hexdigest()
    digest = _digest(bundle, target, engine, about, tile_rows, wishes, of_area)
    if wishes.polygons is not None:
        result.refuse_polygons(wishes.polygons, digest=digest)
    with start_cluster(None, scheduler) as client, result.open_draft() as unfinished:
        if unfinished.list_published() and unfinished.read_journal()[0].get("digest") == digest:
            session.observer.note("the map was complete, and only its files are moved into place")
            return result.publish(unfinished)
        draft = MapDraft.open(
            unfinished,
            bundle,
            wishes=wishes,
            shape=(rows, cols),
            about_probabilities=about,
            digest=digest,
            tile_rows=tile_rows or predictor.choose_tile_rows(cols),
        )
        for note in filter(None, (*target.notes, about, *about_area)):
            session.observer.note(note)
        if inside is not None:
            for tile in [tile for tile in draft.todo if not inside[tile.start : tile.stop].any()]:
                size = len(tile), cols
                draft.write(tile, np.zeros((*size, len(bundle.class_ids)), np.float32), np.ones(size, bool))
        todo = tuple(draft.todo)
        num_left = sum(map(len, todo))
        if num_left < rows:
            session.observer.note(f"going on with a map of which {rows - num_left:,} of {rows:,} rows are done")
        start = time.perf_counter()
        num_passes = bundle.facts.prediction.num_passes
        session.observer.start("mapping", total=num_left * cols * num_passes, unit="pixels")
        if client is None:
            done = predict_tiles(bundle, target.image, predictor, todo, observer=session.observer)
        else:
            done = predict_on_cluster(bundle, target.image, todo, engine=engine, client=client, session=session)
        for tile, logits, missing in done:
            draft.write(tile, logits, missing if inside is None else missing | ~inside[tile.start : tile.stop])
        elapsed = time.perf_counter() - start
        session.observer.note(
            f"{num_left * cols:,} pixels in {elapsed:.1f} s, {num_left * cols / elapsed:,.0f} pixels/s"
        )
        del predictor, done  # frees the weights before pictures are drawn
        for note in draft.finish(target, name=title, mapped_by=record.name, engine=engine):
            session.observer.note(note)
        return result.publish(unfinished)


def predict_on_cluster(
    bundle: ModelBundle, image: Image, tiles: Sequence[range], *, engine: Engine, client: Any, session: Session
) -> Iterator[Prediction]:
    """Yields the rows, the logits and the nodata of each tile, in the order in which they are done.

    The device of `session` is that of each worker of `client`, from `start_cluster`; its observer is told here.
    ClusterError if the scheduler gives a tile up or is lost, or the cluster stays without workers.
    """
    source, shared = TileSource(image, bundle), share(client, bundle)

    def read_tiles() -> Iterator[Call[tuple[range, Mask]]]:
        for tile in tiles:
            read = source.read(tile)
            yield (tile, read.missing[read.inner]), _predict, (shared, engine, session.device, read)

    for (tile, missing), logits in run_tasks(client, read_tiles(), per_slot=2):
        if isinstance(logits, BaseException):
            raise ClusterError(
                f"--scheduler {client.scheduler.address}: gave up rows {tile.start}-{tile.stop - 1} "
                f"({logits!r}); look into the workers' logs"
            )
        session.observer.advance(missing.size * bundle.facts.prediction.num_passes)
        yield tile, logits, missing


@functools.lru_cache(maxsize=1)
def _prepare(bundle: ModelBundle, engine: Engine, device: str) -> TilePredictor:
    """Made once per worker. Its network stays in evaluation mode, as tiles may run side by side."""
    return TilePredictor(bundle, engine=engine, device=device)


def _predict(bundle: ModelBundle, engine: Engine, device: str, tile: Tile) -> NDArray[np.float32]:
    return _prepare(bundle, engine, device).predict(tile)[0]


def _check_wishes(wishes: Wishes, bundle: ModelBundle) -> None:
    """Raises HsiError if the files of a map cannot store what a bundle predicts, or a wish cannot be met."""
    is_of_votes, least, polygons = isinstance(bundle.facts.model, Svm), wishes.min_probability, wishes.polygons
    for option, is_wished in (("--probabilities", wishes.probabilities), ("--min-probability", least is not None)):
        if is_wished and is_of_votes:
            raise ConfigError(f"{option}: the scores of model.name = svm are votes; map it without")
    if least is not None and not 0 < least < 1:
        raise ConfigError(f"--min-probability {least:g}: must lie between 0 and 1, both excluded; write 0.6 or so")
    if least is not None and least * len(bundle.class_ids) <= 1:
        problem = f"has no effect, as the likeliest of {len(bundle.class_ids)} classes never has less"
        raise ConfigError(f"--min-probability {least:g}: {problem}; write more than {1 / len(bundle.class_ids):.3g}")
    if polygons is not None and polygons.suffix.casefold() not in ENDINGS:
        raise ConfigError(f"--polygons {polygons}: name a file that ends in {', '.join(ENDINGS)}")
    if polygons is not None and not polygons.parent.is_dir():
        raise ConfigError(f"--polygons {polygons}: there is no folder {polygons.parent}; make it first")
    if (highest := max(list_classes(bundle, min_probability=least).names)) > HIGHEST_LABEL:
        raise SceneError(f"label {highest}: a map can store labels up to 65535; renumber them")


def _check_place(wishes: Wishes, raster: Raster) -> None:
    """Raises ConfigError if what is asked for needs a georeference, or a library, that is missing."""
    place = raster.place
    for option, is_wished, library in (("--polygons", wishes.polygons, "geopandas"), ("--stac", wishes.stac, "pystac")):
        if is_wished and importlib.util.find_spec(library) is None:
            raise ConfigError(f"{option}: needs {library}; {how_to_install('geo')}")
        if is_wished and (place.transform is None or parse_crs(place.crs or "") is None):
            problem = f"{raster.path} has no georeference in a known coordinate system"
            raise ConfigError(f"{option}: {problem}; add it to the file, or leave {option} out")


def _describe_probabilities(bundle: ModelBundle, *, is_own: bool) -> str:
    """Returns how far the probabilities of a map can be trusted, for the user and for the files."""
    scaling = bundle.facts.scaling
    if not scaling.is_scaled:
        return f"the probabilities are {scaling.about}"
    place = "" if is_own else "; it was fitted on the scene of the training and may not hold on this one"
    return f"the probabilities use {scaling.about}{place}"


def _digest(bundle: ModelBundle, target: Target, *settings: object) -> str:
    """Returns the SHA-256 of everything that determines a map."""
    digest = hashlib.sha256(safetensors.numpy.save({**bundle.weights, **vars(bundle.reduction)}))
    facts, place = bundle.facts.model_dump_json(), target.image.raster.georeference
    digest.update(f"{facts}{target.digest}{place}{settings}".encode())
    return digest.hexdigest()
