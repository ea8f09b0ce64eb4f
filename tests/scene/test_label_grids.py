"""Labels and masks that lie on another grid than the cube: aligned by where both lie, or refused."""

import numpy as np
import pytest
import rasterio
import rasterio.warp
import spectral.io.envi
from affine import Affine
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS

from hsi_se.config.scene import SceneFiles
from hsi_se.config.split import MasksSplit
from hsi_se.config.yaml_file import load_config
from hsi_se.errors import SceneError, SplitError
from hsi_se.sampling.splits import make_split
from hsi_se.scene.georeference import Georeference
from hsi_se.scene.loading import load_ground_truth, load_scene
from hsi_se.workflows.evaluate import evaluate_on
from hsi_se.workflows.train import train
from tests.conftest import CPU, ROOT

ROWS, COLS = 24, 26
GRID = Affine(30, 0, 365055, 0, -30, 5806125)
LABELS = np.random.default_rng(1).integers(0, 4, (ROWS // 2, COLS // 2)).repeat(2, axis=0).repeat(2, axis=1)
CUBE = np.random.default_rng(0).normal(size=(ROWS, COLS, 5)).astype(np.float32) + 9 * LABELS[..., None]


@pytest.fixture(autouse=True)
def _in_a_folder_with_a_cube(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_tif("cube.tif", CUBE, GRID)


def write_tif(path, array, transform, crs="EPSG:32633", **profile):
    array = array if array.ndim == 3 else array[..., None].astype(np.uint8)
    rows, cols, bands = array.shape
    with rasterio.open(
        path, "w", driver="GTiff", height=rows, width=cols, count=bands, dtype=array.dtype,
        crs=crs and CRS.from_user_input(crs), transform=transform, **profile,
    ) as image:  # fmt: skip
        image.write(np.moveaxis(array, 2, 0))
    return path


def read(labels="labels.tif"):
    return load_scene(SceneFiles(cube="cube.tif", labels=labels))


def pad(labels, top, bottom, left, right):
    return np.pad(labels, ((top, bottom), (left, right)), constant_values=3)


# Each is written at `transform` and is to be read as LABELS, or its part on the cube.
GRIDS = {
    "as it is": (LABELS, GRID, None),
    "a twentieth off": (LABELS, GRID @ Affine.translation(0.05, -0.05), None),
    "rounded": (LABELS, GRID @ Affine.scale(1 + 1e-6), None),
    "larger": (pad(LABELS, 3, 1, 2, 4), GRID @ Affine.translation(-2, -3), "by -3 rows and -2 columns (-60 m in"),
    "smaller": (LABELS[5:20, 7:], GRID @ Affine.translation(7, 5), "by +5 rows and +7 columns (+210 m in x"),
    "from the south": (LABELS[::-1], Affine(30, 0, 365055, 0, 30, 5806125 - 30 * ROWS), "opposite direction"),
    "finer": (np.kron(LABELS, np.ones((3, 3))), GRID @ Affine.scale(1 / 3), "pixels of 10 × -10, not 30 × -30"),
    "coarser": (LABELS[::2, ::2], GRID @ Affine.scale(2), "with pixels of 60 × -60, not 30 × -30"),
    "turned": (LABELS.T[::-1], GRID @ Affine.translation(COLS, 0) @ Affine.rotation(90), "with pixels"),
}  # fmt: skip


@pytest.mark.parametrize("name", GRIDS)
def test_labels_that_say_where_they_lie_are_put_onto_the_cubes_grid(name):
    labels, transform, what = GRIDS[name]
    write_tif("labels.tif", labels, transform)
    wanted = LABELS.copy()
    if name == "smaller":
        wanted = np.zeros_like(LABELS)
        wanted[5:20, 7:] = LABELS[5:20, 7:]
    for load in (load_scene, load_ground_truth):
        truth = load(SceneFiles(cube="cube.tif", labels="labels.tif"))
        np.testing.assert_array_equal(truth.labels, wanted)
        assert truth.georeference.transform == tuple(GRID)[:6]
        assert len(truth.notes) == (what is not None)
        for note in truth.notes:
            assert note.startswith(
                "labels.tif: resampled onto the scene's grid by nearest neighbour, as it is offset by "
            )
            assert what in note


@pytest.mark.filterwarnings("ignore:Use `@` matmul")  # by rasterio
def test_labels_in_another_coordinate_system_are_resampled():
    transform, cols, rows = rasterio.warp.calculate_default_transform(
        "EPSG:32633", "EPSG:4326", COLS * 4, ROWS * 4, *rasterio.transform.array_bounds(ROWS, COLS, GRID)
    )
    fine = np.zeros((rows, cols), dtype=np.uint8)
    rasterio.warp.reproject(
        LABELS.astype(np.uint8), fine, src_transform=GRID, src_crs="EPSG:32633", dst_transform=transform,
        dst_crs="EPSG:4326",
    )  # fmt: skip
    write_tif("labels.tif", fine, transform, "EPSG:4326")
    scene = read()
    inside = np.s_[1:-1, 1:-1]
    np.testing.assert_array_equal(scene.labels[inside], LABELS[inside])
    assert "and is in EPSG:4326, not EPSG:32633" in scene.notes[0]


def test_labels_without_a_system_or_in_the_same_one_by_another_name_are_not_resampled():
    for crs in (None, CRS.from_epsg(32633).to_wkt(version="WKT1_ESRI")):
        write_tif("labels.tif", LABELS, GRID, crs)
        assert read().notes == ()


def test_labels_elsewhere_are_refused_with_the_offset():
    write_tif("labels.tif", LABELS, GRID @ Affine.translation(100, 3))
    with pytest.raises(SceneError) as caught:
        read()
    assert str(caught.value) == (
        "labels.tif: lies nowhere on the scene: it is offset by +3 rows and +100 columns (+3000 m in x, -90 m in y); "
        "give a file of the same ground"
    )


@pytest.mark.parametrize("turn", [0, 30])
def test_the_map_info_of_envi_is_understood_with_its_rotation(turn):
    place = Affine.translation(365055, 5806125) @ Affine.rotation(turn) @ Affine.scale(10, -10)
    on_turned = np.zeros((250, 250), dtype=np.uint8)
    rasterio.warp.reproject(LABELS.astype(np.uint8), on_turned, src_transform=GRID, src_crs="EPSG:32633",
                            dst_transform=place, dst_crs="EPSG:32633")  # fmt: skip
    info = ["UTM", 1, 1, 365055, 5806125, 10, 10, 33, "North", "WGS-84", "units=Meters", f"rotation={turn}"]
    spectral.io.envi.save_image("labels.hdr", on_turned[..., None], metadata={"map info": info})
    with rasterio.open("labels.img") as image:  # GDAL reads the header in the same way
        place = Affine(*image.transform[:6])
        ours = load_ground_truth(SceneFiles(cube="absent", labels="labels.hdr")).georeference
        np.testing.assert_allclose(ours.transform, tuple(place)[:6])
    scene = read("labels.hdr")
    labelled = scene.labels > 0
    assert labelled.sum() > 100
    assert (scene.labels == LABELS)[labelled].mean() > 0.97  # at the edges of classes, twice resampled


def test_ground_control_points_on_a_regular_grid_are_a_place_and_others_a_note():
    points = [GroundControlPoint(row, col, *(GRID @ (col, row))) for row in (0, 24) for col in (0, 13, 26)]
    shifted = np.roll(LABELS, 2, axis=0)
    moved = [GroundControlPoint(point.row + 2, point.col, point.x, point.y) for point in points]
    write_tif("labels.tif", shifted, None, "EPSG:32633", gcps=moved)
    scene = read()
    np.testing.assert_array_equal(scene.labels[: ROWS - 2], LABELS[: ROWS - 2])
    assert "offset by -2 rows" in scene.notes[0]
    moved[1] = GroundControlPoint(moved[1].row + 8, moved[1].col, moved[1].x, moved[1].y)
    write_tif("labels.tif", LABELS, None, "EPSG:32633", gcps=moved)
    scene = read()
    np.testing.assert_array_equal(scene.labels, LABELS)
    assert "labels.tif: its ground control points are up to " in scene.notes[0]


def test_a_cube_without_a_place_takes_labels_of_its_size_and_refuses_others():
    np.save("cube.npy", CUBE)
    write_tif("labels.tif", LABELS, GRID)
    scene = load_scene(SceneFiles(cube="cube.npy", labels="labels.tif"))
    assert scene.georeference.transform == tuple(GRID)[:6]
    assert scene.notes == ("the cube has no georeference, so that the labels are taken to have its rows and columns",)
    write_tif("labels.tif", LABELS[1:], GRID)
    with pytest.raises(
        SceneError, match=r"labels\.tif: the labels lie on the ground, but the cube has no georeference"
    ):
        load_scene(SceneFiles(cube="cube.npy", labels="labels.tif"))


def test_pixels_without_an_area_are_not_compared(tmp_path):
    flat = Georeference("EPSG:32633", (0.0, 0.0, 1.0, 0.0, 0.0, 1.0))
    ones, other = np.ones((3, 3), dtype=np.int32), Georeference(None, (1.0, 0.0, 9.0, 0.0, 1.0, 9.0))
    assert flat.align(ones, other, shape=(3, 3), path=tmp_path)[0] is ones


# ----------------------------------------------------------------------------------- masks of splits


def test_masks_of_a_split_are_put_onto_the_cubes_grid():
    write_tif("labels.tif", LABELS, GRID)
    is_train = np.arange(LABELS.size).reshape(LABELS.shape) % 2 == 0
    write_tif("train.tif", np.where(is_train, LABELS, 0), GRID)
    write_tif("test.tif", pad(np.where(is_train, 0, LABELS), 2, 0, 0, 0)[:ROWS], GRID @ Affine.translation(0, -2))
    split = make_split(read(), MasksSplit(kind="masks", train="train.tif", test="test.tif", validation=0))
    wanted = np.argwhere(~is_train & (LABELS > 0))
    np.testing.assert_array_equal(split.test, wanted[wanted[:, 0] < ROWS - 2])
    write_tif("test.tif", LABELS, GRID @ Affine.translation(0, 99))
    with pytest.raises(SceneError, match=r"test\.tif: lies nowhere on the scene: it is offset by \+99 rows"):
        make_split(read(), MasksSplit(kind="masks", train="train.tif", test="test.tif"))


def test_masks_with_names_are_matched_by_name():
    rows, _ = np.indices(LABELS.shape)
    names = np.array(["", "beet", "maize", "soil"])[LABELS]
    np.save("labels.npy", names)
    np.save("train.npy", np.where((rows < 9) & (names != "beet"), names, ""))
    np.save("test.npy", np.where(rows > 12, names, ""))
    split = make_split(read("labels.npy"), MasksSplit(kind="masks", train="train.npy", test="test.npy", validation=0))
    assert split.labels is None  # so that none disagrees
    np.testing.assert_array_equal(split.train, np.argwhere((rows < 9) & (LABELS > 1)))
    np.save("train.npy", np.where(rows < 9, np.where(names == "beet", "rye", names), ""))
    with pytest.raises(
        SplitError, match=r"split\.train = train\.npy: classes rye are not in the scene \(beet, maize, so"
    ):
        make_split(read("labels.npy"), MasksSplit(kind="masks", train="train.npy", test="test.npy"))


def test_another_scene_with_names_is_evaluated_by_name():
    names = np.array(["", "beet", "maize", "soil"])[LABELS]
    np.save("labels.npy", names)
    settings = ("scene={cube: cube.tif, labels: labels.npy}", "model={name: svm}", "patch.size=3", "split.train=0.5",
                "reduction.components=2")  # fmt: skip
    train(load_config(ROOT / "configs" / "demo.yaml", settings), out="run", session=CPU)
    np.save("others.npy", np.where(names == "beet", "alfalfa", np.where(names == "maize", "", names)))
    result = evaluate_on("run", "{cube: cube.tif, labels: others.npy}", session=CPU)
    assert result.evaluation.overall_accuracy == 1
    assert any("pixels of labels 4 are excluded: the network does not know them" in note for note in result.notes)
