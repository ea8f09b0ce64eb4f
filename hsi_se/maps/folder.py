"""The folder of a map, and the draft in which it is made: hidden layers and a journal of the finished tiles."""

import json
import math
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import entr

from hsi_se.errors import RunError, how_to_install
from hsi_se.evaluation.confidence import to_probabilities
from hsi_se.maps import layers as formats
from hsi_se.maps.layers import NODATA_NAME, Classes, Layer, has_rasterio, list_classes
from hsi_se.maps.products import write_item, write_polygons
from hsi_se.prediction.class_map import ClassMap, pick_classes
from hsi_se.prediction.logits import list_tiles
from hsi_se.prediction.target import Target
from hsi_se.reports.figures import save_map, to_hex
from hsi_se.runs.bundle import ModelBundle
from hsi_se.scene.georeference import Georeference
from hsi_se.scene.scene import UNLABELLED
from hsi_se.system.files import Folder, fill_template, sync_folder, to_csv
from hsi_se.system.locks import hold

_LONGEST_FIGURE = 2000  # side of the picture in pixels
_NO_SHARE = -1.0  # stored where there is no probability
_PUBLISHED = "published "  # in a journal, before the names of files


@dataclass(frozen=True)
class Wishes:
    """What is asked of a map besides the class of each pixel; see `write_map`."""

    probabilities: bool
    min_probability: float | None
    mask: Path | None
    polygons: Path | None
    stac: bool


class MapFolder(Folder):
    """A folder with the map of a scene, in every format that could be written."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(path)
        self.facts = self.path / "map.json"
        self.image = self.path / "map.img"
        self.header = self.path / "map.hdr"
        self.geotiff = self.path / "map.tif"
        self.geotiff_facts = self.path / "map.tif.aux.xml"
        self.style = self.path / "map.qml"
        self.table = self.path / "classes.csv"
        self.item = self.path / "map.stac.json"
        self.figure = self.path / "map.png"
        self.probabilities = self.path / "probabilities.img"
        self.entropy = self.path / "entropy.img"
        self.draft = self.path / ".unfinished"
        self.journal = self.path / "journal"  # only in a draft

    def refuse_other(self, scene: Path) -> None:
        """Raises RunError if a map of `scene` would replace the map of another file."""
        try:
            mapped = Path(json.loads(self.facts.read_text(encoding="utf-8"))["scene"])
        except (OSError, KeyError, TypeError, ValueError):
            return
        if mapped != scene.resolve():
            raise RunError(f"{self}: contains the map of {mapped}; choose another folder with --out DIR")

    def list_files(self) -> list[Path]:
        """Returns every file that a map may have, in the order of writing: a header comes after its data."""
        layers = (self.probabilities, self.entropy, self.image)
        endings = (".img", ".hdr", ".tif", ".tif.aux.xml")
        others = (self.style, self.table, self.figure, self.item, self.facts)
        return [*(layer.with_suffix(end) for layer in layers for end in endings), *others]

    def refuse_polygons(self, path: Path, *, digest: str) -> None:
        """Raises RunError if a vector file exists that is not of the map here, finished or with this digest."""
        with suppress(OSError, KeyError, TypeError, ValueError):
            if json.loads(self.facts.read_text(encoding="utf-8"))["polygons"] == str(path.resolve()):
                return
        if path.exists() and MapFolder(self.draft).read_journal()[0].get("digest") != digest:
            raise RunError(f"--polygons {path}: already exists; name another file")

    def log(self, line: str) -> None:
        """Appends a line to the journal and syncs it to the disk."""
        with self.journal.open("a", encoding="utf-8") as stream:
            stream.write(f"{line}\n")
            stream.flush()
            os.fsync(stream.fileno())

    @contextmanager
    def open_draft(self) -> Iterator["MapFolder"]:
        """Yields the hidden folder in which the map is made; a later start finds what is done in it.

        RunError if another process is making a map here, a file in the way is not of a map, or the disk is full.
        """
        with hold(self.path, "making a map"):
            draft = MapFolder(self.draft)
            if not self.facts.is_file() and not draft.path.is_dir():
                for path in self.list_files():
                    if path.exists():
                        raise RunError(
                            f"{path}: already exists but is not part of a finished map; choose another "
                            "folder with --out DIR"
                        )
            draft.path.mkdir(exist_ok=True)
            try:
                yield draft
            except OSError as error:
                if error.errno is None:  # of a network connection, not of a file
                    raise
                raise RunError(
                    f"{error.filename or draft.path}: {error.strerror}; check its rights and the room on the "
                    "disk, then rerun the same command to resume (finished work is kept)"
                ) from None

    def publish(self, draft: "MapFolder") -> list[Path]:
        """Moves the files of a finished draft here and returns them. All files of an earlier map are removed.

        The draft's journal names the files first, so that a later start can finish the moves.
        """
        made = draft.list_published()
        if not made:
            made = [path.name for path in draft.list_files() if path.exists()]
            for name in made:
                with (draft.path / name).open("rb+") as stream:
                    os.fsync(stream.fileno())
            draft.log(_PUBLISHED + json.dumps(made))
        self.facts.unlink(missing_ok=True)
        for path in self.list_files():
            if path.name not in made:
                path.unlink(missing_ok=True)
        for name in made:
            if (draft.path / name).exists():
                (draft.path / name).replace(self.path / name)
        sync_folder(self.path)
        shutil.rmtree(draft.path)
        return [self.path / name for name in made]

    def read_journal(self) -> tuple[dict[str, Any], list[str]]:
        """Returns the journal's header and its other lines; empty if there is no valid journal."""
        try:
            head, *lines = self.journal.read_text(encoding="utf-8").splitlines()
            return dict(json.loads(head)), lines
        except (FileNotFoundError, TypeError, ValueError):
            return {}, []

    def list_published(self) -> list[str]:
        """Returns the names of the files that a complete draft was about to move; empty before that."""
        _, lines = self.read_journal()
        with suppress(ValueError):
            if lines and lines[-1].startswith(_PUBLISHED):
                return [str(name) for name in json.loads(lines[-1].removeprefix(_PUBLISHED))]
        return []


@dataclass(frozen=True, eq=False)
class MapDraft:
    """The layers of a map and the tiles that are still to do.

    The journal's first line identifies the map. Each other line names the rows of a tile, and is written
    when the tile is on the disk. A torn line names no tile. `todo` lists the tiles without a line.
    `about_probabilities` says how they are calibrated; empty where none are used.
    """

    folder: MapFolder
    bundle: ModelBundle
    wishes: Wishes
    classes: Classes
    layers: Sequence[Layer]
    todo: list[range]
    about_probabilities: str

    @classmethod
    def open(
        cls,
        folder: MapFolder,
        bundle: ModelBundle,
        *,
        wishes: Wishes,
        shape: tuple[int, int],
        about_probabilities: str,
        digest: str,
        tile_rows: int,
    ) -> Self:
        """Returns the draft in a folder; an existing one is kept if its digest is the same, else replaced."""
        classes = list_classes(bundle, min_probability=wishes.min_probability)
        dtype = "uint8" if max(classes.names) < 2**8 else "uint16"
        layers = [Layer(folder.image, (*shape, 1), dtype, UNLABELLED, ("class",))]
        if wishes.probabilities:
            names = bundle.facts.class_names
            layers += [
                Layer(folder.probabilities, (*shape, len(names)), "float32", _NO_SHARE, names),
                Layer(folder.entropy, (*shape, 1), "float32", _NO_SHARE, ("entropy in nats",)),
            ]
        head, done = folder.read_journal()
        if head.get("digest") != digest or not all(layer.is_there() for layer in layers):
            head, done = {"digest": digest, "tile_rows": tile_rows}, []
            for path in (folder.journal, *folder.list_files()):
                path.unlink(missing_ok=True)
            for layer in layers:
                layer.create()
            folder.log(json.dumps(head))
        todo = [tile for tile in list_tiles(shape[0], head["tile_rows"]) if str(tile) not in done]
        return cls(folder, bundle, wishes, classes, layers, todo, about_probabilities)

    def write(self, tile: range, logits: NDArray[np.float32], missing: NDArray[np.bool_]) -> None:
        """Writes a tile from its logits `(rows, cols, C)`. It is on the disk afterwards."""
        labels = pick_classes(logits, class_ids=self.bundle.class_ids, missing=missing)[..., None]
        values: list[NDArray[Any]] = [labels]
        if self.about_probabilities:
            shares = to_probabilities(logits, temperature=self.bundle.facts.scaling.temperature)
            if self.wishes.min_probability is not None:
                is_doubtful = shares.max(axis=2) < self.wishes.min_probability
                labels[is_doubtful & ~missing] = max(self.classes.names)
            values += [shares, entr(shares).sum(axis=2, keepdims=True)] if self.wishes.probabilities else []
            for stored in values[1:]:
                stored[missing] = _NO_SHARE
        for layer, rows in zip(self.layers, values, strict=True):
            layer.write(tile.start, rows)
        self.folder.log(str(tile))
        self.todo.remove(tile)

    def finish(self, target: Target, *, name: str, mapped_by: str, engine: str) -> list[str]:
        """Writes all but the layers themselves; returns a sentence on each thing not written.

        `name` is the scene's, `mapped_by` that of the run.
        """
        assert not self.todo, "tiles are missing"
        layers, notes = list(self.layers), []
        if (ground := target.image.raster.ground) is not None:
            layers = [formats.put_on_ground(layer, ground) for layer in layers]
            rows_and_cols = "not in the rows and columns of the swath"
            notes = [f"the map is on the ground grid of the scene's lookup table, {rows_and_cols}"]
        scene, place = target.image.raster.path, target.image.raster.place
        facts, wishes, folder, classes = self.bundle.facts, self.wishes, self.folder, self.classes
        for layer in layers:
            about = classes if layer is layers[0] else self.about_probabilities
            formats.write_envi_header(layer, place, about=about)
            if has_rasterio():
                formats.write_geotiff(layer, place, about=about)
        if place.transform is None:
            notes.append(f"{scene.name} has no georeference, so the map has none")
        elif formats.find_rotation(place) is None:
            problem = "the scene is sheared or mirrored, which an ENVI header cannot express"
            notes.append(f"{problem}; the GeoTIFF is georeferenced")
        if not has_rasterio():
            notes.append(f"no GeoTIFF was written because rasterio is missing; {how_to_install('geo')}")
        counts = self._save_figure(layers[0], f"{name}, mapped by {mapped_by}", place)
        hectare, colours = place.pixel_area_m2 and place.pixel_area_m2 / 10_000, classes.palette
        rows = [(label, text, to_hex(colours[label]), int(counts[label])) for label, text in classes.names.items()]
        folder.style.write_text(fill_template("hsi_se.maps", "map.qml", rows=rows), encoding="utf-8")
        areas = ((*row, None if hectare is None else round(row[-1] * hectare, 6)) for row in rows)
        folder.table.write_text(to_csv(("label", "name", "colour", "pixels", "hectares"), areas), encoding="utf-8")
        about_map = {
            "scene": str(scene.resolve()),
            "scene_digest": target.digest,
            "split_digest": facts.split_digest,
            "engine": engine,
            "probabilities": self.about_probabilities or None,
            "temperature": facts.scaling.temperature if self.about_probabilities else None,
            "min_probability": wishes.min_probability,
            "mask": wishes.mask and str(wishes.mask),
            "polygons": wishes.polygons and str(wishes.polygons.resolve()),
            "num_nodata": int(counts[UNLABELLED]),
            "classes": [{"label": label, "name": name, "num_pixels": count} for label, name, _, count in rows],
        }
        text = json.dumps(about_map, indent=2, ensure_ascii=False)
        folder.facts.write_text(f"{text}\n", encoding="utf-8")
        if wishes.polygons is not None:
            write_polygons(folder.geotiff, wishes.polygons, classes=classes, place=place)
        if wishes.stac:
            title = f"{name}, mapped by {mapped_by} ({facts.model.name})"
            write_item(folder.item, title=title, scene=scene, layer=layers[0], place=place, classes=classes)
        return notes

    def _save_figure(self, labels: Layer, title: str, place: Georeference) -> NDArray[np.int64]:
        """Writes the picture; returns the number of pixels of each label."""
        classes = self.classes
        counts = np.zeros(max(classes.names) + 1, np.int64)
        step = math.ceil(max(labels.shape[:2]) / _LONGEST_FIGURE)
        picture = []
        for first, block in labels.blocks():
            counts += np.bincount(block.ravel(), minlength=len(counts))
            picture.append(block[-first % step :: step, ::step, 0])
        names = {UNLABELLED: NODATA_NAME, **classes.names} if counts[UNLABELLED] else classes.names
        small = ClassMap(np.concatenate(picture).astype(np.int32), names, classes.palette)
        title = title if step == 1 else f"{title}, 1 pixel in {step}"
        if place.transform is not None:
            a, b, c, d, e, f = place.transform
            place = Georeference(place.crs, (step * a, step * b, c, step * d, step * e, f))
        save_map(small, self.folder.figure, title=title, place=place)
        return counts
