"""Fill values that nobody declared are found before training, and none is suspected in real scenes."""

import re

import numpy as np
import pytest

import hsi_se
from hsi_se.config.scene import SceneFiles
from hsi_se.config.yaml_file import load_config
from hsi_se.errors import SceneError
from hsi_se.prediction.target import open_target
from hsi_se.scene.formats import open_file
from hsi_se.scene.inspection import FillFinder
from hsi_se.scene.loading import load_scene
from hsi_se.scene.raster import chunk_rows, make_image
from tests.conftest import CASES, CPU, REAL_SCENES, ROOT, needs_cases, needs_real_scenes
from tests.scene.conftest import BANDS, COLS, read, refuse, save


def put_border(cube, value):
    """Fills a slanted border, as of a flight line, and returns the filled pixels."""
    rows, cols = np.indices(cube.shape[:2])
    border = cols < (rows + 3) // 4
    cube[border] = value
    return border


@pytest.mark.parametrize(
    ("value", "dtype", "is_sure"),
    [
        (-9999, np.float32, True),
        (-9999, np.int16, True),
        (-50, np.int16, True),
        (65535, np.uint16, True),
        (-3.4028234663852886e38, np.float32, True),
        (1e20, np.float64, True),
        (0, np.int16, True),
        (4000, np.int16, False),  # inside the range of the others: may be data
    ],
)
def test_a_value_in_every_band_of_a_border_is_refused_or_said_with_the_setting(tmp_path, whole, value, dtype, is_sure):
    cube = whole.cube.astype(dtype)
    if not is_sure:
        cube[-1, -1], cube[-1, -3] = np.arange(BANDS), 9000 + np.arange(BANDS)
    border = put_border(cube, value)
    files = save(tmp_path, cube, whole.labels)
    num_labelled = int((whole.labels[border] > 0).sum())
    match = f"fills {border.sum()} pixels \\({num_labelled} of them labelled\\) in every band; set scene"
    if is_sure:
        with pytest.raises(SceneError, match=match) as refused:
            load_scene(files)
        text = str(refused.value)
    else:
        text = next(note for note in load_scene(files).notes if re.search(match, note))
    named = re.search(r"set scene\.nodata: (\S+) to exclude them", text)[1]
    scene = load_scene(load_config(ROOT / "configs" / "demo.yaml", [
        f"scene={{cube: {files.cube}, labels: {files.labels}, nodata: {named}}}"
    ]).scene)  # fmt: skip
    np.testing.assert_array_equal(scene.valid, ~border)
    assert not any("in every band" in note for note in scene.notes)
    np.testing.assert_array_equal(load_scene(files.model_copy(update={"nodata": "none"})).cube, cube)


@needs_cases
def test_the_border_of_minus_9999_is_refused_before_training_and_excluded_as_nodata(call, tmp_path):
    folder = CASES / "13-undeclared-fill"
    command = ("train", folder / "run.yaml", "--set", "model={name: svm}", "--data", folder, "--out")
    for refused in (
        (*command, tmp_path / "bad"),
        ("scene", "inspect", folder / "f9999.img", folder / "labels.npy", "--out", tmp_path / "pictures"),
    ):
        err = refuse(call, *refused)
        assert "-9999 fills 341 pixels (26 of them labelled) in every band; set scene.nodata: -9999" in err
    assert list(tmp_path.iterdir()) == []
    assert call(*command, tmp_path / "run", "--set", "scene.nodata=-9999")[0] == 0
    assert hsi_se.evaluate(tmp_path / "run", session=CPU).overall_accuracy > 0.99
    config = load_config(tmp_path / "run" / "config.yaml", [f"scene.cube={folder / 'f9999.img'}"])
    mapped = hsi_se.map_scene(tmp_path / "run", config.scene, session=CPU).labels
    assert (mapped == 0).sum() == 341


@needs_cases
def test_zeros_that_may_be_dark_are_a_note_with_what_the_setting_excludes(call, tmp_path):
    folder = CASES / "13-undeclared-fill"
    code, out, _ = call("scene", "inspect", folder / "zero.img", folder / "labels.npy", "--out", tmp_path)
    assert code == 0
    cube = read(folder / "zero.hdr")
    others = ((cube == 0).any(axis=2) & ~(cube == 0).all(axis=2)).sum()
    assert (
        "note: zero.img: 0 fills 341 pixels (26 of them labelled) in every band; set scene.nodata: 0 to "
        f"exclude them (and {others} with 0 in some bands), or scene.nodata: none if they are data" in out
    )


@needs_cases
def test_fill_with_another_value_in_each_band_is_found():
    folder = CASES / "13-undeclared-fill"
    files = SceneFiles(cube=str(folder / "bandwise.img"), labels=str(folder / "labels.npy"))
    match = r"one spectrum, with -10499 in band 40, fills 341 pixels .* labelled\); set scene\.nodata: -10499 to"
    with pytest.raises(SceneError, match=match):
        load_scene(files)
    scene = load_scene(files.model_copy(update={"nodata": -10499}))
    assert (~scene.valid).sum() == 341
    assert scene.cube[scene.valid].min() == 0


@needs_cases
def test_not_a_number_is_said_by_inspect(call, tmp_path):
    folder = CASES / "13-undeclared-fill"
    _, out, _ = call("scene", "inspect", folder / "nan.img", "--out", tmp_path)
    assert "13,652 values are not finite; if they are missing data, set scene.nodata: nan" in out


def test_fill_in_scaled_values_is_named_as_it_is_stored(tmp_path, whole):
    cube = whole.cube.astype(np.int16)
    put_border(cube, -9999)
    with pytest.raises(SceneError, match=r"-9999 fills .* in every band; set scene\.nodata: -9999 to"):
        load_scene(save(tmp_path, cube, whole.labels, scale=10000))


def test_pixels_that_are_filled_in_some_bands_do_not_hide_those_filled_in_all(tmp_path, whole):
    cube = whole.cube.astype(np.float32)
    border = put_border(cube, -9999)
    cube[5, 20:, :3] = -9999
    with pytest.raises(SceneError, match=rf"-9999 fills {border.sum()} pixels .*\(and 6 with -9999 in some"):
        load_scene(save(tmp_path, cube, whole.labels))


def test_fill_is_named_where_a_dead_band_has_another_value(tmp_path, whole):
    cube = whole.cube.astype(np.int16)
    border = put_border(cube, -9999)
    cube[..., 0] = 0
    match = f"one spectrum, with -9999 in band 2, fills {border.sum()} pixels"
    with pytest.raises(SceneError, match=match):
        load_scene(save(tmp_path, cube, whole.labels))


def test_a_second_fill_beside_the_declared_one_is_refused_with_another_remedy(tmp_path, whole):
    cube = whole.cube.astype(np.float32)
    put_border(cube, -9999)
    cube[-4:, -4:] = -1234
    with pytest.raises(
        SceneError, match=r"-1234 fills 16 pixels .* in every band; replace -1234 by the nodata value -9999"
    ):
        load_scene(save(tmp_path, cube, whole.labels, nodata=-9999))


def test_fill_among_repeated_pixels_of_an_orthorectified_image_is_found(tmp_path, whole):
    cube = np.repeat(whole.cube.astype(np.float32), 2, axis=1)[:, :COLS]  # every pixel twice
    rng = np.random.default_rng(0)
    once = rng.random(cube.shape[:2]) < 0.9
    cube[once] += rng.normal(0, 1e-3, cube.shape)[once].astype(np.float32)
    border = put_border(cube, -9999)
    with pytest.raises(SceneError, match=f"-9999 fills {border.sum()} pixels .* in every band"):
        load_scene(save(tmp_path, cube, whole.labels))


def test_an_image_without_noise_is_not_taken_for_fill(tmp_path):
    labels = np.repeat([1, 2, 3, 4], 6)[:, None] * np.ones((1, 20), dtype=int)
    spectra = np.array([[1, 2, 3, 4], [5, 6, 7, 8], [9, 9, 9, 9], [0, 0, 0, 0], [2, 4, 2, 4]], float)
    assert load_scene(save(tmp_path, spectra[labels], labels)).notes == ()


def test_a_map_of_another_scene_refuses_its_fill(call, tmp_path, whole):
    files = save(tmp_path, whole.cube.astype(np.float32), whole.labels)
    config = load_config(
        ROOT / "configs" / "demo.yaml",
        [
            f"scene={{cube: {files.cube}, labels: {files.labels}}}",
            "model={name: svm}",
            "reduction={kind: pca, components: 8, fit_on: train}",
            "patch.size=9",
        ],
    )
    run = hsi_se.train(config, out=tmp_path / "run", session=CPU)
    cube = whole.cube.astype(np.float32)
    border = put_border(cube, -9999)
    np.save(tmp_path / "other.npy", cube)
    err = refuse(call, "map", run, "--scene", tmp_path / "other.npy")
    assert f"-9999 fills {border.sum()} pixels in every band; set scene.nodata: -9999" in err
    other = SceneFiles(cube=str(tmp_path / "other.npy"), labels="none", nodata=-9999)
    assert open_target(run.read_bundle(), other).num_missing == border.sum()


def test_a_nodata_value_that_occurs_nowhere_is_said(call, tmp_path, whole):
    files = save(tmp_path, whole.cube.astype(np.int16), whole.labels, nodata=-9999)
    low, high = np.load(files.cube).min(), np.load(files.cube).max()
    note = (
        f"cube.npy: no pixel contains the nodata value -9999; the stored values range from {low} to {high}; "
        "if one of them marks missing data, set scene.nodata to it; otherwise set scene.nodata: none"
    )
    assert note in load_scene(files).notes
    _, out, _ = call("scene", "inspect", files.cube, files.labels, "--set", "scene.nodata=-9999", "--out", tmp_path)
    assert f"note: {note}" in out
    assert load_scene(files.model_copy(update={"nodata": "none"})).notes == ()


def test_a_nodata_value_that_is_off_by_rounding_is_said_with_the_stored_one(tmp_path, whole):
    cube = whole.cube.astype(np.float32)
    cube[2, 3] = -9999.01
    match = r"-9999.009765625 fills 1 pixel .* in every band; set scene\.nodata: -9999.009765625 to"
    with pytest.raises(SceneError, match=match):
        load_scene(save(tmp_path, cube, whole.labels, nodata=-9999))
    scene = load_scene(save(tmp_path, cube, whole.labels, nodata=-9999.009765625))
    assert (~scene.valid).sum() == 1


@needs_real_scenes
def test_no_real_scene_is_suspected():
    """All but one: it declares -9999, and contains none."""
    notes, num_cubes = [], 0
    for path in sorted(REAL_SCENES.rglob("*")):
        if path.suffix not in (".mat", ".tif", ".img") and not path.name.endswith("_img"):
            continue
        for raster in open_file(path).rasters.values():
            if raster.is_map:
                continue
            image, fill = make_image(raster, drop={}), FillFinder()
            for part in chunk_rows(image.shape[0]):
                cube, missing = image.read_rows(part.start, part.stop)
                fill.add(cube, first_row=part.start, missing=missing)
            notes += fill.check(image)
            notes += raster.notes
            num_cubes += 1
    assert num_cubes == 19
    assert len(notes) == 1
    assert notes[0].startswith("isofit_ang20160910t185702_2rdn_img: no pixel contains the nodata value -9999")
