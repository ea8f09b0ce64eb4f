"""Several images as one scene: which files belong together, and where each lies on the canvas."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import spectral.io.envi
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from hsi_se.config.scene import SceneFiles
from hsi_se.config.split import FoldsSplit, ImagesSplit
from hsi_se.errors import SceneError, SplitError
from hsi_se.sampling.patches import PatchDataset, pad_cube
from hsi_se.sampling.splits import make_split
from hsi_se.scene.folders import Folders
from hsi_se.scene.images import GAP, join_truths, list_images, place
from hsi_se.scene.loading import load_ground_truth, load_scene
from hsi_se.scene.scene import GroundTruth

Save = Callable[..., None]


@pytest.fixture
def save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Save:
    """Writes images of the given sizes, `a.npy` and `a_labels.npy` and so on, into the current folder."""
    monkeypatch.chdir(tmp_path)

    def write(*shapes: tuple[int, int], bands: int = 5, low: int = 0) -> None:
        for name, (rows, cols) in zip("abcdef", shapes, strict=False):
            rng = np.random.default_rng(rows * cols)
            np.save(f"{name}.npy", rng.integers(1, 1000, (rows, cols, bands)).astype(np.int16))
            np.save(f"{name}_labels.npy", rng.integers(low, 4, (rows, cols)).astype(np.uint8))

    return write


def name_files(files: SceneFiles) -> list[tuple[object, object, object]]:
    return [(each.cube, each.labels, each.name) for each in list_images(files, Folders.of(None))]


@given(shapes=st.lists(st.tuples(st.integers(1, 60), st.integers(1, 60)), min_size=1, max_size=9))
def test_images_lie_on_the_canvas_apart_from_each_other(shapes: list[tuple[int, int]]) -> None:
    corners, (rows, cols) = place(shapes)
    taken = np.zeros((rows + GAP, cols + GAP), int)
    for (top, left), (height, width) in zip(corners, shapes, strict=True):
        taken[top : top + height + GAP, left : left + width + GAP] += 1
        assert top + height <= rows
        assert left + width <= cols
    assert taken.max() == 1


@pytest.mark.parametrize(
    ("cube", "labels"),
    [
        (["a.npy", "b.npy"], ["a_labels.npy", "b_labels.npy"]),
        ("[ab].npy", ["a_labels.npy", "b_labels.npy"]),
        ("?.npy", "*_labels.npy"),
        ("[ab].npy", "[ab]_labels.npy"),
    ],
)
def test_images_are_listed_or_matched_by_a_pattern(save: Save, cube: object, labels: object) -> None:
    save((4, 3), (5, 6))
    files = SceneFiles.model_validate({"cube": cube, "labels": labels})
    assert name_files(files) == [("a.npy", "a_labels.npy", "a"), ("b.npy", "b_labels.npy", "b")]


def test_names_of_labels_decide_and_not_their_order(save: Save) -> None:
    save((4, 3))
    for name in ("tile1.npy", "tile10.npy"):
        Path(name).write_bytes(Path("a.npy").read_bytes())
        Path(name.replace(".", "_gt.")).write_bytes(Path("a_labels.npy").read_bytes())
    cubes = SceneFiles(cube="tile*[0-9].npy", labels="tile*[0-9]_gt.npy")
    assert [cube.replace(".", "_gt.") for cube, _, _ in name_files(cubes)] == [file for _, file, _ in name_files(cubes)]


def test_one_file_of_labels_may_serve_all_images(save: Save) -> None:
    save((4, 3), (5, 6))
    files = SceneFiles(cube="?.npy", labels="fields.gpkg")
    assert [labels for _, labels, _ in name_files(files)] == ["fields.gpkg", "fields.gpkg"]


def test_equal_file_names_are_told_apart_by_their_folders() -> None:
    files = SceneFiles(cube=("x/cube.npy", "y/cube.npy"), labels=("x/gt.npy", "y/gt.npy"))
    assert [name for _, _, name in name_files(files)] == ["x-cube", "y-cube"]


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"cube": ["a.npy", "b.npy"], "labels": ["x", "y", "z"]}, "scene.labels: 3 files for 2 images; list one for"),
        ({"cube": "a.npy", "labels": ["x", "y"]}, "scene.labels: 2 files for 1 images; list one for each"),
        ({"cube": "q*.npy", "labels": "x"}, r"scene.cube = q\*.npy: no file matches; correct it"),
        ({"cube": ["a.npy", "b.npy", "c.npy"], "labels": "[ab]_labels.npy"}, "scene.labels: 2 files for 3 images"),
        ({"cube": "[abc].npy", "labels": "[bde]_labels.npy"}, r"no file of \[bde\]_labels.npy belongs to a.npy, by"),
        ({"cube": ["a.npy", "a.npy"], "labels": "x"}, "two images are called a; give each a name: images:"),
    ],
)
def test_files_that_do_not_belong_together_are_refused(save: Save, settings: dict, problem: str) -> None:
    save((4, 3), (5, 6), (5, 6), (5, 6))
    files = SceneFiles.model_validate(settings)
    with pytest.raises(SceneError, match=problem):
        name_files(files)


def load_two(**settings: object) -> SceneFiles:
    return SceneFiles.model_validate({"cube": "?.npy", "labels": "?_labels.npy", **settings})


def test_every_pixel_of_every_image_is_on_the_canvas_with_its_label(save: Save) -> None:
    save((33, 7), (20, 50), (41, 3))
    scene = load_scene(load_two())
    assert scene.name == "3 images"
    assert [image.name for image in scene.images] == ["a", "b", "c"]
    at = np.zeros(scene.shape, bool)
    for image in scene.images:
        cube, labels = np.load(f"{image.name}.npy"), np.load(f"{image.name}_labels.npy")
        down, right = image.window
        np.testing.assert_array_equal(scene.cube[down][:, right], cube)
        np.testing.assert_array_equal(scene.labels[image.window], labels)
        at[image.window] = True
    np.testing.assert_array_equal(scene.valid, at)
    assert not scene.cube[0 : len(scene.cube)][~at].any()
    np.testing.assert_array_equal(load_ground_truth(load_two()).labels, scene.labels)


def test_a_band_that_one_image_lacks_is_dropped_in_all(save: Save) -> None:
    save((6, 5), (7, 4))
    cube = np.load("b.npy")
    cube[..., 2] = -1
    np.save("b.npy", cube)
    scene = load_scene(load_two(nodata=-1, drop_bands=[5]))
    assert scene.dropped_bands == {3: "nodata in every pixel", 5: "dropped by the config"}
    down, right = scene.images[0].window
    np.testing.assert_array_equal(scene.cube[down][:, right], np.load("a.npy")[..., [0, 1, 3]])


def test_bands_are_picked_by_wavelength(save: Save) -> None:
    save((6, 5), bands=3)
    for name, order in (("a", [0, 1, 2]), ("b", [2, 1, 0])):
        cube = np.load("a.npy")[..., order]
        centres = np.array([500.0, 600, 700])[order]
        header = {"wavelength": centres.tolist(), "wavelength units": "nm"}
        spectral.io.envi.save_image(f"{name}.hdr", cube, metadata=header, ext="img")
    files = SceneFiles(cube=("a.img", "b.img"), labels=("a_labels.npy", "a_labels.npy"))
    scene = load_scene(files)
    for image in scene.images:
        np.testing.assert_array_equal(scene.cube[image.window[0]][:, image.window[1]], np.load("a.npy"))


def test_images_of_different_sensors_are_refused(save: Save) -> None:
    save((6, 5), bands=5)
    np.save("b.npy", np.ones((6, 5, 4)))
    np.save("b_labels.npy", np.ones((6, 5), int))
    with pytest.raises(SceneError, match=r"b\.npy: has 4 bands, and a.npy has 5; give images with the same bands"):
        load_scene(load_two())


def test_class_names_and_colours_are_those_of_all_images_together(save: Save) -> None:
    save((6, 5), (7, 4), low=1)
    np.save("a_labels.npy", np.ones((6, 5), int))
    colours = [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
    truth = load_ground_truth(load_two(class_names=["corn", "beet", "woods"], palette=colours, name="farm"))
    assert truth.class_names == {1: "corn", 2: "beet", 3: "woods"}
    assert truth.palette == {1: (1, 2, 3), 2: (4, 5, 6), 3: (7, 8, 9)}
    assert truth.name == load_scene(load_two(name="farm")).name == "farm"


def test_a_note_on_several_images_is_made_once(save: Save) -> None:
    save((6, 8), (7, 4), (9, 8))
    scene = load_scene(load_two(drop_bands=[5]))
    assert scene.notes == ("a: bands 5 of a.npy are excluded: dropped by the config; likewise in 2 other images",)


def make_truth(name: str, labels: Sequence[Sequence[int]], names: dict[int, str], **facts: object) -> GroundTruth:
    return GroundTruth(name, np.array(labels, np.int32), names, **facts)


def test_classes_that_files_name_are_united_by_name() -> None:
    one = make_truth("one", [[1, 2]], {1: "corn", 2: "woods"}, is_named=True, palette={2: (9, 9, 9)})
    two = make_truth("two", [[2, 1]], {1: "beet", 2: "corn"}, is_named=True)
    both = join_truths([one, two], share_labels=False)
    assert both.class_names == {1: "beet", 2: "corn", 3: "woods"}
    assert [both.labels[image.window].tolist() for image in both.images] == [[[2, 3]], [[2, 1]]]
    assert both.palette == {3: (9, 9, 9)}


def test_numbers_with_two_names_are_refused() -> None:
    one, two = make_truth("one", [[1]], {1: "corn"}), make_truth("two", [[1]], {1: "beet"})
    with pytest.raises(SceneError, match="scene: label 1 is corn in one and beet in two; give labels with"):
        join_truths([one, two], share_labels=False)


@pytest.mark.parametrize("name", ["../elsewhere", "a/b", "a\\b", "..", ".", "", " "])
def test_a_name_that_leads_out_of_the_folder_of_maps_is_refused(name: str) -> None:
    image = {"cube": "a.npy", "labels": "gt.npy", "name": name}
    with pytest.raises(ValidationError, match="a folder is named after the image; write a name without / and"):
        SceneFiles.model_validate({"images": [image]})
    assert SceneFiles.model_validate({"images": [image | {"name": "tile 2, north"}]}).images


@pytest.mark.parametrize("padding", ["zero", "reflect"])
def test_patches_are_those_of_each_image_alone(padding: str) -> None:
    rng = np.random.default_rng(0)
    shapes = [(12, 9), (20, 31), (11, 14)]
    corners, shape = place(shapes)
    cubes = [rng.normal(size=(*each, 3)).astype(np.float32) for each in shapes]
    canvas, windows = np.zeros((*shape, 3), np.float32), []
    for cube, (top, left), (rows, cols) in zip(cubes, corners, shapes, strict=True):
        windows.append((slice(top, top + rows), slice(left, left + cols)))
        canvas[windows[-1]] = cube
    padded = pad_cube(canvas, patch_size=7, padding=padding, windows=windows)
    for cube, (top, left), each in zip(cubes, corners, shapes, strict=True):
        pixels, index = np.argwhere(np.ones(each)), torch.arange(each[0] * each[1])
        shifts = torch.from_numpy(rng.integers(-3, 4, (len(index), 2)))
        alone = PatchDataset(pad_cube(cube, patch_size=7, padding=padding), pixels, patch_size=7)
        here = PatchDataset(padded, pixels + np.array([top, left]), patch_size=7, windows=windows)
        for shift in (None, shifts):
            torch.testing.assert_close(
                here.gather(index, shifts=shift), alone.gather(index, shifts=shift), rtol=0, atol=0
            )


def test_folds_test_whole_images(save: Save) -> None:
    save((6, 5), (7, 4), (5, 5), low=1)
    truth = load_ground_truth(load_two())
    settings = FoldsSplit(kind="folds", by="images", folds=3, buffer=0, validation=0)
    for number, image in enumerate(truth.images, start=1):
        split = make_split(truth, settings.model_copy(update={"fold": number}))
        assert len(split.test) == image.rows * image.cols
        assert len(split.test) + len(split.train) == np.count_nonzero(truth.labels)
        tested = truth.labels.copy()
        tested[tuple(split.test.T)] = 0
        assert not tested[image.window].any()
    with pytest.raises(SplitError, match=re.escape("split.folds = 4: only 3 images contain labelled pixels; use at")):
        make_split(truth, settings.model_copy(update={"folds": 4, "fold": 1}))


def test_a_named_image_is_tested(save: Save) -> None:
    save((6, 5), (7, 4), low=1)
    truth = load_ground_truth(load_two())
    split = make_split(truth, ImagesSplit(kind="images", test=("b",), validation=0))
    assert (len(split.train), len(split.test)) == (30, 28)
    with pytest.raises(SplitError, match=r"split.test = bb: no such image; did you mean b\? choose from a, b"):
        make_split(truth, ImagesSplit(kind="images", test=("bb",)))
    with pytest.raises(SplitError, match=r"split.test = b: the scene is a single image"):
        make_split(make_truth("one", [[1]], {1: "corn"}), ImagesSplit(kind="images", test=("b",)))
