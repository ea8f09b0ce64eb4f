"""The assembly of maps: a trained bundle and a scene in, every format of a map out, in bounded memory."""

import hashlib
import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import entr, softmax

from hsi_se.bundled import load_bundle, make_predictor
from hsi_se.cluster import connect, predict_on_cluster
from hsi_se.config import SceneFiles
from hsi_se.config_file import load_config
from hsi_se.config_model import Svm
from hsi_se.errors import ConfigError, SceneError
from hsi_se.map_folder import MapFolder
from hsi_se.mapping.class_map import ClassMap
from hsi_se.mapping.logits import ENGINES, Engine
from hsi_se.mapping.tiles import TilePredictor, TileSource, read_finite_rows
from hsi_se.mapping.writers import Classes, Layer, has_rasterio, is_north_up, write_envi_header, write_geotiff
from hsi_se.records import ModelBundle, RunFolder
from hsi_se.report.figures import save_map
from hsi_se.scene.catalogue import find_known_scene
from hsi_se.scene.image import Image, describe_bands
from hsi_se.scene.matching import compare_wavelengths
from hsi_se.scene.raster import ROWS_PER_CHUNK
from hsi_se.scene.readers import SceneSettings, open_scene_image
from hsi_se.scene.scene import UNLABELLED, Scene
from hsi_se.training.history import Observer, Silent

_LONGEST_FIGURE = 2000  # pixels of a scene's side in the picture
_LEAST_OVERLAP = 0.01  # of the wider of two value ranges
_NO_SHARE = -1.0  # stored where there is no probability

Predictions = tuple[range, NDArray[np.float32], NDArray[np.bool_]]  # rows, logits, where there is no data


@dataclass(frozen=True, eq=False)
class Target:
    """An image that a bundle can map.

    Attributes:
        image: of the bundle's bands.
        digest: SHA-256 over its values.
        num_missing: pixels without data.
        notes: what the user should know of it, one sentence each.
    """

    image: Image
    digest: str
    num_missing: int
    notes: tuple[str, ...]


def map_scene(
    bundle: ModelBundle | RunFolder | str | Path,
    scene: Scene | SceneSettings | Path,
    *,
    data: str | Path | None = None,
    engine: Engine = "dense",
    device: str = "auto",
    tile_rows: int | None = None,
    observer: Observer | None = None,
) -> ClassMap:
    """Returns the classes of a whole scene, which need not be the one of the training.

    Args:
        bundle: what a run has learned, or the run's folder.
        scene: one that is loaded, a known scene's name, a file, or a config's `scene` section. Its labels
            are not looked at.
        data: a folder searched for scenes before `datasets/`.
        engine: `dense` or `patches`; see `predict_logits`.
        device: `auto`, `cpu` or `cuda`.
        tile_rows: rows that are worked on at a time; as many as fit the engine's memory unless given.
        observer: told of progress.

    Returns:
        0 where the scene holds no data.

    Raises:
        HsiError: the scene cannot be read, or does not fit the bundle.
    """
    observer = observer or Silent()
    if not isinstance(bundle, ModelBundle):
        bundle = load_bundle(bundle)
    if isinstance(scene, Path) or (isinstance(scene, str) and find_known_scene(scene) is None):
        scene = SceneFiles(cube=str(scene), labels=str(scene))
    target = open_target(bundle, scene, data=data)
    for note in target.notes:
        observer.note(note)
    predictor = make_predictor(bundle, engine=engine, device=device)
    rows, cols, _ = target.image.shape
    labels = np.zeros((rows, cols), np.int32)
    observer.start("mapping", total=labels.size * bundle.facts.prediction.num_passes, unit="pixels")
    tiles = list_tiles(rows, tile_rows or predictor.choose_tile_rows(cols))
    for tile, logits, missing in predict_tiles(bundle, target.image, predictor, tiles, observer=observer):
        labels[tile.start : tile.stop] = _pick_classes(bundle, logits, missing)
    return ClassMap(labels, bundle.class_names, bundle.facts.palette)


def write_map(
    run: str | Path | RunFolder,
    *,
    scene: str | Path | None = None,
    overrides: Sequence[str] = (),
    out: str | Path | None = None,
    probabilities: bool = False,
    engine: Engine = "dense",
    data: str | Path | None = None,
    device: str = "auto",
    scheduler: str | None = None,
    tile_rows: int | None = None,
    observer: Observer | None = None,
) -> list[Path]:
    """Maps a scene with what a run has learned, and returns the files that hold the map.

    The map is made in a hidden folder. If it is there already, of the same bundle, values and settings,
    the tiles that are done in it are kept.

    Args:
        run: a folder that `train` wrote.
        scene: a file, or a known scene's name; the run's own scene unless given.
        overrides: settings of the `scene` section, `scene.key=value`.
        out: the folder to write; by default `map` in the run folder, with another scene's name behind it.
        probabilities: whether a layer of each class's probability and one of their entropy are written.
        engine, data, device, tile_rows, observer: as for `map_scene`.
        scheduler: the address of a Dask scheduler, `tcp://host:8786`, whose workers take the tiles.

    Raises:
        HsiError: as `map_scene`, or something else is in the way of the files.
    """
    observer = observer or Silent()
    folder = RunFolder.open(run)
    bundle, record = folder.read_bundle(), folder.read_record()
    if probabilities and isinstance(bundle.facts.model, Svm):
        raise ConfigError("--probabilities: the scores of model.name = svm are votes; map it without")
    if max(bundle.facts.class_ids) >= 2**16:
        raise SceneError(
            f"label {max(bundle.facts.class_ids)}: a map holds labels up to 65535; renumber them"
        )
    if data is None and record.data is not None and Path(record.data).is_dir():
        data = record.data
    settings = _find_scene(folder, scene, overrides)
    target = open_target(bundle, settings, data=data, is_own=scene is None)
    name = record.scene if scene is None else Path(scene).stem
    client = None if scheduler is None else connect(scheduler)
    result = MapFolder(out if out is not None else folder.path / ("map" if scene is None else f"map-{name}"))
    # With a cluster the one here works on no tile: it knows how many rows a tile has.
    predictor = make_predictor(bundle, engine=engine, device=device if client is None else "cpu")
    rows, cols, _ = target.image.shape
    digest = _digest(bundle, target, engine, probabilities, tile_rows)
    with result.open_draft() as unfinished:
        if unfinished.list_published() and MapDraft.read_journal(unfinished)[0].get("digest") == digest:
            observer.note("the map was complete, and only its files are moved into place")
            return result.publish(unfinished)
        draft = MapDraft.open(
            unfinished,
            bundle,
            shape=(rows, cols),
            has_probabilities=probabilities,
            digest=digest,
            tile_rows=tile_rows or predictor.choose_tile_rows(cols),
        )
        for note in target.notes:
            observer.note(note)
        todo = draft.list_todo()
        num_left = sum(map(len, todo))
        if num_left < rows:
            observer.note(f"going on with a map of which {rows - num_left:,} of {rows:,} rows are done")
        start = time.perf_counter()
        num_passes = bundle.facts.prediction.num_passes
        observer.start("mapping", total=num_left * cols * num_passes, unit="pixels")
        if client is None:
            done = predict_tiles(bundle, target.image, predictor, todo, observer=observer)
        else:
            done = predict_on_cluster(
                bundle,
                make_source(bundle, target.image),
                todo,
                engine=engine,
                device=device,
                client=client,
                observer=observer,
            )
        for tile, logits, missing in done:
            draft.write(tile, bundle, logits, missing)
        elapsed = time.perf_counter() - start
        observer.note(
            f"{num_left * cols:,} pixels in {elapsed:.1f} s, {num_left * cols / elapsed:,.0f} pixels/s"
        )
        del predictor, done  # whose weights the pictures need not wait beside
        notes = draft.finish(bundle, target, title=f"{name}, mapped by {record.name}", engine=engine)
        for note in notes:
            observer.note(note)
        return result.publish(draft.folder)


def parse_engine(name: str) -> Engine:
    """Returns the engine of a name.

    Raises:
        ConfigError: there is none.
    """
    for engine in ENGINES:
        if name == engine:
            return engine
    raise ConfigError(f"--engine {name}: choose from {', '.join(ENGINES)}")


def _find_scene(folder: RunFolder, scene: str | Path | None, overrides: Sequence[str]) -> SceneSettings:
    for override in overrides:
        if not override.startswith("scene"):
            raise ConfigError(
                f"--set {override}: a map has no settings but the scene's; write scene.key=value"
            )
    changes = list(overrides)
    if scene is not None:
        is_known = find_known_scene(str(scene)) is not None and not Path(scene).is_file()
        value = str(scene) if is_known else {"cube": str(scene), "labels": str(scene)}
        changes.insert(0, f"scene={json.dumps(value)}")
    return load_config(folder.config, changes).scene


# ------------------------------------------------------------------------------ the scene and the bundle


def open_target(
    bundle: ModelBundle, scene: Scene | SceneSettings, *, data: str | Path | None = None, is_own: bool = False
) -> Target:
    """Returns the image of a scene, proved to be one that a bundle can map.

    Args:
        bundle: what is applied.
        scene: as for `load_scene`, or one that is loaded.
        data: as for `load_scene`.
        is_own: whether it is the scene of the training, whose values need not be compared.

    Raises:
        SceneError: it has other bands or wavelengths, or values out of the training's range.
    """
    image, notes = _pick_bands(bundle, scene, data)
    notes += compare_wavelengths(
        bundle.facts.wavelengths_nm,
        None if image.wavelengths_nm is None else image.wavelengths_nm.tolist(),
        name=str(image.raster.path),
        bands=(image.bands + 1).tolist(),
    )
    digest, low, high, num_missing, num_odd = _scan(image)
    path, (rows, cols, _) = image.raster.path, image.shape
    if num_missing == rows * cols:
        raise SceneError(f"{path}: all {num_missing:,} pixels hold no data in some band; give another scene")
    trained = bundle.facts.value_range
    if trained is not None and not is_own:
        shared = min(high, trained[1]) - max(low, trained[0])
        widest = max(high - low, trained[1] - trained[0])
        if shared < 0 or shared < _LEAST_OVERLAP * widest:
            raise SceneError(
                f"{path}: its values lie in {low:g} to {high:g}, those of the training pixels in "
                f"{trained[0]:g} to {trained[1]:g}; bring them to one scale with --set scene.scale=…, "
                "or name scene.nodata"
            )
    if num_odd:
        notes += (f"{num_odd:,} pixels hold values that are not finite, and stay nodata",)
    return Target(image, digest, num_missing, notes)


def _pick_bands(
    bundle: ModelBundle, scene: Scene | SceneSettings, data: str | Path | None
) -> tuple[Image, tuple[str, ...]]:
    """The scene's image of the bundle's bands: of as many bands in the file the same are left out."""
    dropped, num_bands = bundle.facts.dropped_bands, bundle.reduction.num_bands
    image = open_scene_image(scene, data)
    path, in_file = image.raster.path, image.raster.shape[2]
    if in_file == num_bands + len(dropped):
        keep = [band for band in range(in_file) if band + 1 not in dropped]
    elif in_file == num_bands:
        keep = list(range(in_file))
    elif len(image.bands) == num_bands:
        keep = image.bands.tolist()
    else:
        left_out = [band - 1 for band in dropped]
        also = f" of {num_bands + len(dropped)}, without {describe_bands(left_out)}" if dropped else ""
        raise SceneError(
            f"{path}: the scene has {in_file} bands and the model was trained on {num_bands}{also}; "
            "give a scene of the same sensor"
        )
    wanted = {band: reason for band, reason in image.dropped.items() if band in keep}
    notes: tuple[str, ...] = ()
    if wanted:
        reasons = ", ".join(dict.fromkeys(wanted.values()))
        notes += (
            f"bands {describe_bands(wanted)} of {path.name} are used, as in training, though {reasons}",
        )
    if keep != image.bands.tolist():
        image = open_scene_image(scene, data, keep=keep)
    if len(keep) < in_file:
        left_out = [band for band in range(in_file) if band not in set(keep)]
        notes += (f"bands {describe_bands(left_out)} of {path.name} are left out, as in training",)
    return image, notes


def _scan(image: Image) -> tuple[str, float, float, int, int]:
    """Digest, lowest and highest value, pixels without data, and those of them that are not finite."""
    digest = hashlib.sha256(f"{image.shape}".encode())
    low, high, num_missing, num_odd = math.inf, -math.inf, 0, 0
    for first in range(0, image.shape[0], ROWS_PER_CHUNK):
        last = min(first + ROWS_PER_CHUNK, image.shape[0])
        cube, missing, num_odd_here = read_finite_rows(image, first, last)
        digest.update(cube.dtype.str.encode())
        digest.update(np.ascontiguousarray(cube).data)
        digest.update(missing.data)
        num_missing += int(missing.sum())
        num_odd += num_odd_here
        if not missing.all():
            values = cube[~missing] if missing.any() else cube
            low, high = min(low, float(values.min())), max(high, float(values.max()))
    return digest.hexdigest(), low, high, num_missing, num_odd


# ----------------------------------------------------------------------------------------- the tiles


def list_tiles(rows: int, height: int) -> list[range]:
    """Returns the tiles of a scene, of equal height as far as the rows allow."""
    height = math.ceil(rows / math.ceil(rows / height))
    return [range(first, min(first + height, rows)) for first in range(0, rows, height)]


def predict_tiles(
    bundle: ModelBundle, image: Image, predictor: TilePredictor, tiles: Sequence[range], *, observer: Observer
) -> Iterator[Predictions]:
    """Yields the rows, the logits `(rows, cols, C)` and the nodata `(rows, cols)` of each tile."""
    source = make_source(bundle, image)
    for tile in tiles:
        read = source.read(tile)
        yield tile, predictor.predict(read, on_batch=observer.advance), read.missing[read.inner]


def make_source(bundle: ModelBundle, image: Image) -> TileSource:
    facts = bundle.facts
    return TileSource(image, bundle.reduction, facts.patch_size, facts.padding, facts.prediction.reach)


def _pick_classes(
    bundle: ModelBundle, logits: NDArray[np.float32], missing: NDArray[np.bool_]
) -> NDArray[np.int32]:
    return np.where(missing, UNLABELLED, bundle.class_ids[logits.argmax(axis=2)])


# -------------------------------------------------------------------------------------------- the files


class MapDraft:
    """A map that is being made: its layers in a hidden folder, and a journal of the tiles that are done.

    The journal's first line says of what the map is, each other one names a tile's rows. A tile is on the
    disk before its line is; a line that was torn names none.
    """

    def __init__(
        self, folder: MapFolder, layers: Sequence[Layer], tiles: Sequence[range], done: set[str]
    ) -> None:
        self.folder = folder
        self._layers, self._tiles, self._done = layers, tiles, done

    @classmethod
    def open(
        cls,
        folder: MapFolder,
        bundle: ModelBundle,
        *,
        shape: tuple[int, int],
        has_probabilities: bool,
        digest: str,
        tile_rows: int,
    ) -> "MapDraft":
        """Returns the draft in a folder: the one that is there if it has the same digest, else a new one."""
        dtype = "uint8" if max(bundle.facts.class_ids) < 2**8 else "uint16"
        layers = [Layer(folder.image, (*shape, 1), dtype, UNLABELLED, ("class",))]
        if has_probabilities:
            names = bundle.facts.class_names
            layers += [
                Layer(folder.probabilities, (*shape, len(names)), "float32", _NO_SHARE, names),
                Layer(folder.entropy, (*shape, 1), "float32", _NO_SHARE, ("entropy in nats",)),
            ]
        earlier, lines = cls.read_journal(folder)
        if earlier.get("digest") == digest and all(layer.path.is_file() for layer in layers):
            tiles = list_tiles(shape[0], earlier["tile_rows"])
            return cls(folder, layers, tiles, done=set(lines))
        folder.journal.unlink(missing_ok=True)
        for path in folder.list_files():
            path.unlink(missing_ok=True)
        for layer in layers:
            layer.create()
        folder.log(json.dumps({"digest": digest, "tile_rows": tile_rows}))
        return cls(folder, layers, list_tiles(shape[0], tile_rows), set())

    @staticmethod
    def read_journal(folder: MapFolder) -> tuple[dict[str, Any], list[str]]:
        """Returns what a draft says that it is of, and its other lines; nothing of what is no journal."""
        try:
            head, *lines = folder.journal.read_text(encoding="utf-8").splitlines()
            return dict(json.loads(head)), lines
        except (FileNotFoundError, TypeError, ValueError):
            return {}, []

    def list_todo(self) -> list[range]:
        return [tile for tile in self._tiles if str(tile) not in self._done]

    def write(
        self, tile: range, bundle: ModelBundle, logits: NDArray[np.float32], missing: NDArray[np.bool_]
    ) -> None:
        values: list[NDArray[Any]] = [_pick_classes(bundle, logits, missing)[..., None]]
        if len(self._layers) > 1:
            shares = softmax(logits.astype(np.float64), axis=2)
            values += [shares, entr(shares).sum(axis=2, keepdims=True)]
            for stored in values[1:]:
                stored[missing] = _NO_SHARE
        for layer, rows in zip(self._layers, values, strict=True):
            layer.write(tile.start, rows)
        self.folder.log(str(tile))
        self._done.add(str(tile))

    def finish(self, bundle: ModelBundle, target: Target, *, title: str, engine: str) -> tuple[str, ...]:
        """Writes what stands beside the layers; returns what could not be written, one sentence each."""
        assert not self.list_todo(), "a map is finished when all its tiles are"
        georeference = target.image.raster.georeference
        classes = Classes(bundle.class_names, bundle.facts.palette)
        for layer, about in zip(self._layers, (classes, None, None), strict=False):
            write_envi_header(layer, georeference, classes=about)
            if has_rasterio():
                write_geotiff(layer, layer.path.with_suffix(".tif"), georeference, classes=about)
        notes: tuple[str, ...] = ()
        if georeference is None or georeference.transform is None:
            notes += (f"{target.image.raster.path.name} has no place on the ground, and so the map has none",)
        elif not is_north_up(georeference):
            notes += ("the scene is rotated, which an ENVI header cannot say; its place is in the GeoTIFF",)
        if not has_rasterio():
            notes += ("no GeoTIFF is written without rasterio; pip install 'hsi-se[geo]'",)
        labels = self._layers[0]
        counts = np.zeros(max(bundle.facts.class_ids) + 1, np.int64)
        step = math.ceil(max(labels.shape[:2]) / _LONGEST_FIGURE)
        picture = []
        for first, block in labels.blocks():
            counts += np.bincount(block.ravel(), minlength=len(counts))
            picture.append(block[-first % step :: step, ::step, 0])
        small = ClassMap(np.concatenate(picture).astype(np.int32), bundle.class_names, bundle.facts.palette)
        save_map(small, self.folder.figure, title=title if step == 1 else f"{title}, every {step}th pixel")
        facts = {
            "scene": str(target.image.raster.path),
            "scene_digest": target.digest,
            "split_digest": bundle.facts.split_digest,
            "engine": engine,
            "num_nodata": int(counts[UNLABELLED]),
            "classes": [
                {"label": label, "name": name, "num_pixels": int(counts[label])}
                for label, name in bundle.class_names.items()
            ],
        }
        self.folder.facts.write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        return notes


def _digest(bundle: ModelBundle, target: Target, *settings: object) -> str:
    """SHA-256 over all that decides a map."""
    digest = hashlib.sha256(bundle.facts.model_dump_json().encode())
    reduction = bundle.reduction
    arrays = {
        **bundle.weights,
        "mean": reduction.mean,
        "components": reduction.components,
        "scale": reduction.scale,
    }
    for name, array in sorted(arrays.items()):
        digest.update(f"{name}{array.shape}{array.dtype.str}".encode())
        digest.update(np.ascontiguousarray(array).data)
    digest.update(f"{target.digest}{settings}".encode())
    return digest.hexdigest()
