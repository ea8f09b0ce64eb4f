"""Labels as names, colours, planes, masks and lists: each is read as what it means, or refused with a remedy."""

import itertools
import struct
from pathlib import Path

import numpy as np
import pytest
import rasterio
import scipy.io
from PIL import Image

from hsi_se.config.scene import SceneFiles
from hsi_se.config.yaml_file import load_config
from hsi_se.errors import ConfigError, SceneError
from hsi_se.maps.write import write_map
from hsi_se.scene.loading import load_scene
from hsi_se.workflows.train import train
from tests.conftest import CPU, ROOT

ROWS, COLS = 9, 7
NAMES = ("", "beet", "maize", "soil")
COLOURS = np.array([(0, 0, 0), (255, 0, 0), (0, 0, 255), (255, 255, 0)], dtype=np.uint8)
LABELS = np.random.default_rng(3).integers(0, 4, (ROWS, COLS))
ONE_HOT = LABELS[..., None] == np.arange(1, 4)


@pytest.fixture(autouse=True)
def _in_a_folder_with_a_cube(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("cube.npy", np.random.default_rng(0).random((ROWS, COLS, 5)))


def read(labels, **settings):
    return load_scene(SceneFiles(cube="cube.npy", labels=labels, **settings))


def save_png(pixels, mode, palette=None):
    image = Image.fromarray(pixels.astype(np.uint8), mode)
    if palette is not None:
        image.putpalette(palette.ravel().tolist())
    image.save("labels.png")


def save_tif(planes):
    """Planes `(rows, cols, C)` without a place."""
    with rasterio.open("labels.tif", "w", driver="GTiff", height=ROWS, width=COLS, count=planes.shape[2],
                       dtype=planes.dtype) as file:  # fmt: skip
        file.write(np.moveaxis(planes, 2, 0))


def save_cells(names):
    """A cell array of strings, as MATLAB's categorical labels are saved."""
    cells = np.empty(names.shape, dtype=object)
    cells[:] = names
    scipy.io.savemat("labels.mat", {"gt": cells, "threshold": 0.5})


TEXT = np.array(NAMES)[LABELS]
WITH_ALPHA = np.dstack([np.where(LABELS[..., None] == 0, 9, COLOURS[LABELS]), 255 * (LABELS > 0)])
SHUFFLED = np.array([2, 3, 0, 1])  # places in a palette whose first colour is not black
ENCODINGS = {
    "grey.png": lambda: save_png(LABELS, "L"),
    "palette.png": lambda: save_png(LABELS, "P", COLOURS),
    "shuffled palette.png": lambda: save_png(SHUFFLED[LABELS], "P", COLOURS[np.argsort(SHUFFLED)]),
    "rgb.png": lambda: save_png(COLOURS[LABELS], "RGB"),
    "rgba.png": lambda: save_png(WITH_ALPHA, "RGBA"),
    "rgb.tif": lambda: save_tif(COLOURS[LABELS]),
    "palette.bmp": lambda: Image.fromarray(COLOURS[LABELS]).save("labels.bmp"),
    "one-hot.npy": lambda: np.save("labels.npy", ONE_HOT),
    "one-hot floats.npy": lambda: np.save("labels.npy", ONE_HOT.astype(np.float32)),
    "one-hot of 255.tif": lambda: save_tif(255 * np.dstack([ONE_HOT, ONE_HOT[..., :2] & False]).astype(np.uint8)),
    "planes first.npy": lambda: np.save("labels.npy", np.moveaxis(ONE_HOT, 2, 0)),
    "one-hot.mat": lambda: scipy.io.savemat("labels.mat", {"gt": ONE_HOT.astype(float)}),
    "masks.npz": lambda: np.savez("labels.npz", **{NAMES[n]: n == LABELS for n in (3, 1, 2)}),
    "names.npy": lambda: np.save("labels.npy", TEXT),
    "bytes.npy": lambda: np.save("labels.npy", TEXT.astype("S")),
    "names.npz": lambda: np.savez("labels.npz", gt=TEXT),
    "letters.mat": lambda: scipy.io.savemat("labels.mat", {"gt": np.array(list(" bms"))[LABELS]}),
    "cells.mat": lambda: save_cells(TEXT),
    "nan.npy": lambda: np.save("labels.npy", np.where(LABELS == 0, np.nan, LABELS)),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_encoding_means_the_same_classes(encoding):
    ENCODINGS[encoding]()
    (path,) = Path().glob("labels.*")
    scene = read(path.name)
    np.testing.assert_array_equal(scene.labels > 0, LABELS > 0)
    pairs = {*zip(scene.labels.ravel().tolist(), LABELS.ravel().tolist(), strict=True)}
    assert len(pairs) == 4
    if "palette.bmp" not in encoding and "rgb" not in encoding and "shuffled" not in encoding:
        assert all(one == two for one, two in pairs)
    names = [scene.class_names[label] for label in (1, 2, 3)]
    if encoding.startswith(("names", "bytes", "cells", "masks")):
        assert names == ["beet", "maize", "soil"]
    if encoding.startswith(("rgb", "shuffled", "palette")):
        shown = np.array([scene.palette.get(label, (0, 0, 0)) for label in range(4)])[scene.labels]
        np.testing.assert_array_equal(shown, COLOURS[LABELS])
    assert scene.is_named == encoding.startswith(("names", "bytes", "cells", "masks", "letters", "rgb", "shuffled",
                                                  "palette.bmp"))  # fmt: skip


def test_a_colour_is_the_name_of_its_class_and_any_can_be_unlabelled():
    save_png(COLOURS[LABELS], "RGB")
    scene = read("labels.png")
    assert list(scene.class_names.values()) == ["#0000ff", "#ff0000", "#ffff00"]
    assert scene.notes == (
        'labels.png: each colour is a class, and black is unlabelled; scene.unlabelled: "#rrggbb" sets another',
    )
    scene = read("labels.png", unlabelled="#FF0000")
    assert list(scene.class_names.values()) == ["#000000", "#0000ff", "#ffff00"]
    np.testing.assert_array_equal(scene.labels == 0, LABELS == 1)


def test_masks_are_named_by_their_keys_and_may_be_of_any_kind():
    np.save("soil.npy", LABELS == 3)
    Image.fromarray((255 * (LABELS == 1)).astype(np.uint8)).save("beet.png")
    lines = [f"{row},{col},1" for row, col in np.argwhere(LABELS == 2)]
    Path("maize.csv").write_text("\n".join(["row,col,label", *lines]))
    scene = read({"soil": "soil.npy", "maize": "maize.csv", "beet": "beet.png"})
    np.testing.assert_array_equal(scene.labels, LABELS)
    assert list(scene.class_names.values()) == ["beet", "maize", "soil"]
    np.save("both.npy", (LABELS == 1) | (LABELS == 3))
    number = int((LABELS == 3).sum())
    with pytest.raises(SceneError, match=rf"^scene\.labels: the masks overlap in {number} pixels, the first at row \d"):
        read({"soil": "soil.npy", "beet": "both.npy"})
    np.save("labels.npy", LABELS)
    with pytest.raises(SceneError, match=r"labels\.npy: scene\.labels\.beet: marks 3 classes, not one; give the mask"):
        read({"soil": "soil.npy", "beet": "labels.npy"})


@pytest.mark.parametrize(("pixel_order", "letter"), [("rows", "C"), ("columns", "F")])
@pytest.mark.parametrize("kind", ["column.mat", "row.mat", "flat.npy", "names.npy", "planes.npy"])
def test_a_list_of_pixels_needs_its_order(kind, pixel_order, letter):
    flat, path = LABELS.ravel(order=letter), f"labels.{kind[-3:]}"
    match kind:
        case "column.mat":
            scipy.io.savemat(path, {"gt": flat[:, None]})
        case "row.mat":
            scipy.io.savemat(path, {"gt": flat[None]})
        case "flat.npy":
            np.save(path, flat)
        case "names.npy":
            np.save(path, np.array(NAMES)[flat])
        case "planes.npy":
            np.save(path, flat == np.arange(1, 4)[:, None])
    with pytest.raises(SceneError, match=r"its labels are a list of .*63.* set scene\.labels\.pixel_order to columns"):
        read(path)
    scene = read({"file": path, "pixel_order": pixel_order})
    np.testing.assert_array_equal(scene.labels, LABELS)


@pytest.mark.parametrize(
    ("array", "problem"),
    [
        (ONE_HOT * 0.7, "its planes have values between 0 and 1, such as probabilities; save the class with the "
         r"highest, a\.argmax\(axis=2\) \+ 1"),
        (ONE_HOT | ONE_HOT[..., ::-1], r"\d+ pixels are of several of its 3 planes; give each pixel one class"),
        (np.arange(ROWS * COLS * 3).reshape(ROWS, COLS, 3) / 9, "this may be a cube in place of a label map"),
        (np.arange(ROWS * COLS).reshape(ROWS, COLS) - 0.5, "63 labels are .* up to 65535, the first is -0"),
        (np.array(["x"] * ROWS * COLS).reshape(ROWS, COLS, 1)[:3, ..., 0], r"the labels have 3 × 7"),
    ],
)  # fmt: skip
def test_what_is_no_label_map_is_refused_with_a_remedy(array, problem):
    np.save("labels.npy", array)
    with pytest.raises(SceneError, match=problem):
        read("labels.npy")


def test_the_remedies_for_probabilities_and_smoothed_pictures_work():
    shares = np.random.default_rng(0).dirichlet([1, 1, 1], (ROWS, COLS))
    np.save("labels.npy", shares.argmax(axis=2) + 1)
    assert (read("labels.npy").labels == shares.argmax(axis=2) + 1).all()
    smooth = np.random.default_rng(0).integers(0, 255, (40, 20, 3), dtype=np.uint8)
    np.save("cube.npy", np.zeros((40, 20, 2)) + np.arange(800).reshape(40, 20, 1))
    Image.fromarray(smooth).save("smooth.png")
    with pytest.raises(SceneError, match=r"smooth\.png: has 800 colours, too many to be classes; save the picture"):
        read("smooth.png")


def test_a_name_a_number_or_nan_marks_unlabelled_pixels():
    np.save("labels.npy", TEXT)
    scene = read("labels.npy", unlabelled="soil")
    assert list(scene.class_names.values()) == ["beet", "maize"]
    np.testing.assert_array_equal(scene.labels == 0, np.isin(LABELS, (0, 3)))
    with pytest.raises(SceneError, match=r"scene\.unlabelled = 'sol': no label has this name; choose from beet, maize"):
        read("labels.npy", unlabelled="sol")
    np.save("labels.npy", np.where(LABELS == 3, np.nan, LABELS))
    scene = read("labels.npy")
    assert scene.notes == ("labels.npy: 0 is unlabelled, as NaN is; if 0 is a class, set scene.unlabelled: nan",)
    assert scene.num_classes == 2
    for unlabelled in ("nan", float("nan")):
        scene = read("labels.npy", unlabelled=unlabelled)
        np.testing.assert_array_equal(scene.labels, np.where(LABELS == 3, 0, LABELS + 1))
    np.save("labels.npy", LABELS)
    with pytest.raises(SceneError, match=r"scene\.unlabelled = nan: no pixel has this value"):
        read("labels.npy", unlabelled="nan")


def test_cells_in_cells_without_end_are_refused():
    """Reading them overflows the stack of the process that does it."""
    depth, shape = 20_000, struct.pack("<iiii", 5, 8, ROWS, COLS)
    head = struct.pack("<iiII", 6, 8, 1, 0) + shape + struct.pack("<ii", 1, 0)
    scipy.io.savemat("labels.mat", {"x": 1})
    start = Path("labels.mat").read_bytes()[:128]
    sizes = (min((len(head) + 8) * (depth - level), 2**31) for level in range(depth))
    Path("labels.mat").write_bytes(start + b"".join(struct.pack("<II", 14, size) + head for size in sizes))
    with pytest.raises(SceneError, match=r"labels\.mat: cannot be read as labels .*; get the file again"):
        read("labels.mat")


# -------------------------------------------------------------------------------- names and colours

QML = """<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>
<qgis><pipe><rasterrenderer type="paletted" band="1"><colorPalette>
<paletteEntry value="1" color="#0a0b0c" label="Beet" alpha="255"/><paletteEntry value="3" color="#ff0000" label="Soil"/>
</colorPalette></rasterrenderer></pipe></qgis>"""


def test_a_style_of_qgis_names_and_colours_the_labels_beside_it():
    np.save("labels.npy", LABELS)
    Path("labels.qml").write_text(QML)
    scene = read("labels.npy")
    assert scene.class_names == {1: "Beet", 2: "class 2", 3: "Soil"}
    assert scene.palette == {1: (10, 11, 12), 3: (255, 0, 0)}


@pytest.mark.parametrize(
    "text",
    [
        "<qgis",
        QML.replace("'SYSTEM'>", "'SYSTEM' [<!ENTITY a 'b'>]>"),
        QML + " " * 2**22,
        QML.replace("#0a0b0c", "9" * 5000),
    ],
)
def test_a_style_that_is_damaged_or_dangerous_is_a_note(text):
    np.save("labels.npy", LABELS)
    Path("labels.qml").write_text(text)
    scene = read("labels.npy")
    assert scene.class_names[1] == "class 1"
    assert [note.partition(" (")[0] for note in scene.notes] == ["labels.qml: is not a readable style"]


def test_an_endless_number_in_a_style_is_no_label():
    np.save("labels.npy", LABELS)
    Path("labels.qml").write_text(QML.replace('value="1"', f'value="{"9" * 5000}"'))
    assert read("labels.npy").class_names == {1: "class 1", 2: "class 2", 3: "Soil"}


def test_our_own_map_gives_its_names_and_colours_back():
    np.save("labels.npy", TEXT)
    settings = (
        "scene={cube: cube.npy, labels: labels.npy, palette: [[1, 2, 3], [4, 5, 6], [7, 8, 9]]}",
        "model={name: svm}", "patch.size=3", "split={kind: random, train: 0.5, validation: 0}",
        "reduction.components=2",
    )  # fmt: skip
    train(load_config(ROOT / "configs" / "demo.yaml", settings), out="run", session=CPU)
    (path,) = (path for path in write_map("run", session=CPU) if path.name == "map.tif")
    scene = read(str(path))
    path.with_suffix(".qml").unlink()  # the categories beside the raster say the same
    assert read(str(path)).class_names == scene.class_names
    assert set(scene.class_names.values()) <= {"beet", "maize", "soil"}
    assert scene.num_classes > 1
    assert {scene.class_names[label]: scene.palette[label] for label in scene.class_ids.tolist()} == {
        name: colour for name, colour in zip(NAMES[1:], [(1, 2, 3), (4, 5, 6), (7, 8, 9)], strict=True)
        if name in scene.class_names.values()
    }  # fmt: skip


# ----------------------------------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("labels", "problem"),
    [
        ("{}", "scene.labels: give the masks of two classes or more, {soil: FILE, maize: FILE}, or {file: FILE}"),
        ("{soil: soil.tif}", "scene.labels: give the masks of two classes or more"),
        ("{field: crop}", "scene.labels.file: is missing; add it"),
        ("{file: a.gpkg, feild: crop}", "scene.labels.feild = 'crop': unknown setting; did you mean"),
        ("{file: a.gpkg, all_touched: 3}", "scene.labels.all_touched = 3: "),
        ("{soil: 3, maize: a.tif}", "scene.labels.soil = 3: write the name of a file"),
        ("3", "scene.labels = 3: write the name of a file"),
    ],
)
def test_a_mistake_in_the_labels_is_one_line(labels, problem):
    with pytest.raises(ConfigError) as caught:
        load_config(ROOT / "configs" / "demo.yaml", [f"scene={{cube: a.npy, labels: {labels}}}"])
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_setting_of_the_label_file_can_be_added_to_its_name():
    scene = "scene={cube: a.tif, labels: b.gpkg}"
    config = load_config(ROOT / "configs" / "demo.yaml", [scene, "scene.labels.field=crop"])
    assert config.scene.labels.model_dump(exclude_none=True) == {
        "file": "b.gpkg",
        "field": "crop",
        "all_touched": False,
    }


@pytest.mark.parametrize("setting", ["layer", "field", "all_touched", "crs", "pixel_order"])
def test_a_setting_without_effect_on_the_labels_is_refused(setting):
    np.save("labels.npy", LABELS)
    value = {"all_touched": True, "pixel_order": "rows"}.get(setting, "x")
    with pytest.raises(SceneError, match=rf"labels\.npy: scene\.labels\.{setting}: has no effect"):
        read({"file": "labels.npy", setting: value})


def test_several_masks_in_one_file_are_chosen_by_key_too():
    np.savez("labels.npz", **{NAMES[n]: n == LABELS for n in (1, 2)})
    assert read("labels.npz", labels_key="beet").num_classes == 1
    pairs = itertools.pairwise(read("labels.npz").class_names.values())
    assert list(pairs) == [("beet", "maize")]
