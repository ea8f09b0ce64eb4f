"""What files say of themselves is compared with what they contain, before anything is trained."""

import os
import re
import shutil

import numpy as np
import pytest
import rasterio
import scipy.io
import spectral.io.envi
from affine import Affine
from rasterio.crs import CRS

import hsi_se
from hsi_se.config.scene import SceneFiles
from hsi_se.config.yaml_file import load_config
from hsi_se.errors import SceneError
from hsi_se.prediction.target import open_target
from hsi_se.scene.catalogue import digest_labels, find_known_scene, list_known_scenes, recognise_labels
from hsi_se.scene.formats import open_file
from hsi_se.scene.inspection import FillFinder
from hsi_se.scene.loading import load_ground_truth, load_scene
from hsi_se.scene.raster import chunk_rows, make_image
from hsi_se.scene.synthetic import make_synthetic_scene
from hsi_se.scene.wavelengths import to_nanometres
from hsi_se.workflows.inspect_scene import suggest_config, survey_files
from tests.conftest import CPU, REAL_SCENES, ROOT, needs_real_scenes

CASES = ROOT.parent / "shared" / "cases"
needs_cases = pytest.mark.skipif(
    not CASES.is_dir() and not os.environ.get("CI"), reason="the small inputs are not here"
)
ROWS, COLS, BANDS = 24, 26, 20
GRID = Affine(30, 0, 365055, 0, -30, 5806125)


@pytest.fixture(scope="module")
def whole():
    return make_synthetic_scene(seed=0, rows=ROWS, cols=COLS, bands=BANDS)


def save(folder, cube, labels, **settings):
    np.save(folder / "cube.npy", cube)
    np.save(folder / "labels.npy", labels)
    return SceneFiles(cube=str(folder / "cube.npy"), labels=str(folder / "labels.npy"), **settings)


def refuse(call, *arguments):
    """Runs a command that must be refused, in one line, and returns this line."""
    code, _, err = call(*arguments)
    assert code == 2, err
    assert err.count("\n") == 1
    assert "Traceback" not in err
    return err


# ------------------------------------------------------------------------- names of known scenes


def test_a_scene_of_a_known_size_takes_no_names_and_the_config_suggests_them(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    labels = np.resize([1, 2, 3, 0], (145, 145)).astype(np.uint8)
    save(tmp_path, rng.random((145, 145, 50)).astype(np.float32), labels)
    code, out, err = call("scene", "inspect", "cube.npy", "labels.npy", "--write-config", "my.yaml")
    assert code == 0, err
    assert "Alfalfa" not in out + (tmp_path / "my.yaml").read_text()
    assert "note: the size is that of Indian Pines" in out
    assert load_scene(load_config("my.yaml").scene).class_names == {n: f"class {n}" for n in (1, 2, 3)}
    text = (tmp_path / "my.yaml").read_text()
    assert "\n  # class_names: indian-pines  # the size is that of Indian Pines" in text
    (tmp_path / "mine.yaml").write_text(text.replace("  # class_names", "  class_names"))
    assert load_scene(load_config("mine.yaml").scene).class_names[2] == "Corn-notill"


@needs_real_scenes
@pytest.mark.parametrize("kind", ["npy", "mat", "tif"])
def test_published_labels_are_known_in_any_format(tmp_path, kind):
    labels = scipy.io.loadmat(REAL_SCENES / "salinas" / "Salinas_gt.mat")["salinas_gt"]
    path = tmp_path / f"drawn.{kind}"
    match kind:
        case "npy":
            np.save(path, labels.astype(np.int64))
        case "mat":
            scipy.io.savemat(path, {"classes": labels.astype(float)}, do_compression=True)
        case "tif":
            with rasterio.open(
                path, "w", driver="GTiff", height=512, width=217, count=1, dtype="int16", transform=GRID
            ) as file:
                file.write(labels.astype(np.int16), 1)
    survey = survey_files([path])
    assert survey.scene.class_names == "salinas"
    assert survey.truth is not None
    assert survey.truth.class_names[16] == "Vinyard_vertical_trellis"
    assert "these are the labels of Salinas (AVIRIS, 1998), a known scene: salinas" in survey.truth.notes


@needs_real_scenes
def test_other_labels_of_the_same_size_are_not_known(tmp_path):
    labels = scipy.io.loadmat(REAL_SCENES / "salinas" / "Salinas_gt.mat")["salinas_gt"]
    drawn = labels.copy()
    drawn[0, 0] = 1 if labels[0, 0] != 1 else 2
    for others in (drawn, labels[::-1], labels.T):
        likely = find_known_scene("salinas") if others.shape == labels.shape else None
        assert recognise_labels(others) == (None, likely)
    np.save(tmp_path / "drawn.npy", drawn)
    survey = survey_files([tmp_path / "drawn.npy"])
    assert survey.scene.class_names is None
    assert survey.likely is find_known_scene("salinas")


@needs_real_scenes
def test_the_catalogues_digests_are_those_of_the_published_labels():
    known_digests = 0
    for known in list_known_scenes():
        for path in REAL_SCENES.rglob("*.mat"):
            if path.name in known.labels.names:
                labels = sum(scipy.io.loadmat(path)[key].astype(np.int32) for key in known.labels.keys)
                assert digest_labels(labels) == known.labels_digest
                known_digests += 1
    assert known_digests == sum(known.labels_digest is not None for known in list_known_scenes()) == 8


def test_a_known_scene_that_lacks_a_label_cannot_name_them(tmp_path, whole):
    labels = np.where(whole.labels == 2, 40, whole.labels)
    with pytest.raises(SceneError, match=r"scene\.class_names = IP: has no names for the labels 40 of"):
        load_scene(save(tmp_path, whole.cube, labels, class_names="IP"))


def test_other_labels_under_a_known_name_are_said(tmp_path):
    labels = np.resize([1, 10, 0], (6, 5))
    scipy.io.savemat(tmp_path / "SalinasA_gt.mat", {"salinasA_gt": labels})
    truth = load_ground_truth("salinas-a", tmp_path)
    assert truth.notes == ("SalinasA_gt.mat differs from the published labels of SalinasA (AVIRIS, 1998)",)


# --------------------------------------------------------------- more bytes than the header says


def write_raw(folder, cube, *, interleave="bil", before=b"", frame=(0, 0), after=b"", **changes):
    """An ENVI image with bytes before it, around each major frame and after it; `changes` to its header."""
    spectral.io.envi.save_image(str(folder / "cube.hdr"), cube, dtype=cube.dtype, interleave=interleave, force=True)
    frames = cube.shape[2] if interleave == "bsq" else cube.shape[0]
    stored = np.frombuffer((folder / "cube.img").read_bytes(), np.uint8).reshape(frames, -1)
    pad = [np.full((frames, size), 7, np.uint8) for size in frame]
    (folder / "cube.img").write_bytes(before + np.hstack([pad[0], stored, pad[1]]).tobytes() + after)
    change_header(folder / "cube.hdr", **changes)
    return folder / "cube.hdr"


def change_header(path, **changes):
    kept = [
        line
        for line in path.read_text().splitlines()
        if line.partition("=")[0].strip().replace(" ", "_") not in changes
    ]
    added = [f"{key.replace('_', ' ')} = {value}" for key, value in changes.items()]
    path.write_text("\n".join([*kept, *added]) + "\n")


def read(path):
    raster = open_file(path).rasters[""]
    np.testing.assert_array_equal(raster.read_rows(3, 9), raster.read_rows(0, raster.shape[0])[3:9])
    return raster.read_rows(0, raster.shape[0])


@needs_cases
def test_the_96_bytes_of_pci_on_each_line_are_refused_and_read_once_declared(call, tmp_path):
    folder = shutil.copytree(CASES / "04-longer-than-header", tmp_path / "pci", copy_function=shutil.copyfile)
    command = ("train", folder / "run.yaml", "--set", "model={name: svm}", "--data", folder)
    command = (*command, "--out", tmp_path / "run")
    for refused in (command, ("scene", "inspect", folder / "flight.pix", folder / "labels.npy")):
        err = refuse(call, *refused)
        assert "contains 158,208 bytes of data, but an array of 48×40×40 has 153,600 bytes" in err
        assert "major frame offsets = {96, 0} or {0, 96} for 96 bytes around each line" in err
    assert not (tmp_path / "run").exists()
    change_header(folder / "flight.hdr", major_frame_offsets="{0, 96}")
    assert call(*command)[0] == 0
    assert hsi_se.evaluate(tmp_path / "run", session=CPU).overall_accuracy > 0.99


@pytest.mark.parametrize("interleave", ["bsq", "bil", "bip"])
def test_bytes_around_each_frame_are_found_by_arithmetic(tmp_path, interleave, whole):
    cube = whole.cube.astype(np.int16)
    path = write_raw(tmp_path, cube, interleave=interleave, frame=(6, 10))
    what = "band" if interleave == "bsq" else "line"
    with pytest.raises(SceneError, match=rf"\{{16, 0\}} or \{{0, 16\}} for 16 bytes around each {what}"):
        open_file(path)
    change_header(path, major_frame_offsets="{6, 10}")
    np.testing.assert_array_equal(read(path), cube)


@pytest.mark.parametrize("interleave", ["bsq", "bil", "bip"])
@pytest.mark.parametrize("wide", ["float32", "int32", "float64"])
def test_a_wider_data_type_than_declared_is_found_by_arithmetic(tmp_path, interleave, wide, whole):
    cube = whole.cube.astype(wide)
    path = write_raw(tmp_path, cube, interleave=interleave, data_type=12)
    code = {"float32": r"4 \(float32\)", "int32": "3 or 13", "float64": r"5 \(float64\)"}[wide]
    with pytest.raises(SceneError, match=rf"write in the header, whichever is true, data type = .*{code}"):
        open_file(path)
    change_header(path, data_type={"float32": 4, "int32": 3, "float64": 5}[wide])
    np.testing.assert_array_equal(read(path), cube)


def test_a_narrower_data_type_than_declared_is_found_by_arithmetic(tmp_path, whole):
    path = write_raw(tmp_path, whole.cube, data_type=4)
    with pytest.raises(SceneError, match=r"24,960 bytes of data; write in the header data type = 2 or 12"):
        open_file(path)
    change_header(path, data_type=12)
    np.testing.assert_array_equal(read(path), whole.cube)
    (tmp_path / "cube.img").write_bytes((tmp_path / "cube.img").read_bytes()[:-1])
    with pytest.raises(SceneError, match="contains only 24,959 bytes of data; get the file again"):
        open_file(path)


@pytest.mark.parametrize("frame", ["{4}", "{-1, 0}", "{1, 2, 3}", "{a, b}"])
def test_frame_offsets_that_are_not_two_numbers_are_one_line(tmp_path, whole, frame):
    with pytest.raises(SceneError, match="not a readable ENVI header"):
        open_file(write_raw(tmp_path, whole.cube, major_frame_offsets=frame))


def test_bytes_before_or_after_the_image_are_found_by_arithmetic(tmp_path, whole):
    cube = whole.cube.astype(np.int16)
    path = write_raw(tmp_path, cube, before=bytes(517))
    with pytest.raises(SceneError, match="header offset = 517 for data at the end of the file"):
        open_file(path)
    change_header(path, header_offset=517)
    np.testing.assert_array_equal(read(path), cube)
    path = write_raw(tmp_path, cube, after=bytes(517))
    with pytest.raises(SceneError, match="or cut off the last 517 bytes"):
        open_file(path)
    (tmp_path / "cube.img").write_bytes((tmp_path / "cube.img").read_bytes()[:-517])
    np.testing.assert_array_equal(read(path), cube)


@pytest.mark.parametrize(("interleave", "key"), [("bsq", "bands"), ("bil", "lines"), ("bip", "lines")])
def test_more_lines_or_bands_than_declared_are_found_by_arithmetic(tmp_path, interleave, key, whole):
    cube = whole.cube.astype(np.int16)
    num = cube.shape[2] if key == "bands" else cube.shape[0]
    path = write_raw(tmp_path, cube, interleave=interleave, **{key: num - 3})
    with pytest.raises(SceneError, match=f"{key} = {num}, or header offset"):
        open_file(path)
    change_header(path, **{key: num})
    np.testing.assert_array_equal(read(path), cube)


def test_a_longer_numpy_file_is_refused_with_both_sizes(tmp_path):
    np.save(tmp_path / "cube.npy", np.ones((4, 3, 5), np.float32))
    with (tmp_path / "cube.npy").open("ab") as stream:
        stream.write(bytes(12))
    match = r"contains 252 bytes of data, but an array of 4×3×5 has 240 bytes; if the last 12 are padding"
    with pytest.raises(SceneError, match=match):
        open_file(tmp_path / "cube.npy")


# ---------------------------------------------------------------------------------- fill and nodata


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


# --------------------------------------------------------------------------- grids of two rasters


def write_tif(path, array, transform, crs="EPSG:32633"):
    array = array if array.ndim == 3 else array[..., None].astype(np.uint8)
    rows, cols, bands = array.shape
    with rasterio.open(
        path, "w", driver="GTiff", height=rows, width=cols, count=bands, dtype=array.dtype,
        crs=crs and CRS.from_user_input(crs), transform=transform,
    ) as image:  # fmt: skip
        image.write(np.moveaxis(array, 2, 0))
    return path


def test_a_known_scene_with_two_label_maps_keeps_the_georeference_of_its_cube(tmp_path):
    known = find_known_scene("houston-2013")
    cube = np.random.default_rng(0).random((6, 8, 5)).astype(np.float32)
    write_tif(tmp_path / known.cube.names[0], cube, GRID)
    train = np.resize([0, 1, 2], (6, 8))
    maps = dict(zip(known.labels.keys, (train, np.where(train == 0, 3, 0)), strict=True))
    scipy.io.savemat(tmp_path / known.labels.names[0], maps)
    assert load_scene("houston-2013", tmp_path).georeference.transform == tuple(GRID)[:6]


# --------------------------------------------------------------------------- what else is compared


@pytest.mark.parametrize("dtype", [np.int16, np.uint16, np.float32])
@pytest.mark.parametrize("is_wrong", [False, True])
def test_a_byte_order_that_makes_noise_of_smooth_spectra_is_said(tmp_path, dtype, is_wrong):
    cube = make_synthetic_scene(seed=0, rows=ROWS, cols=COLS, bands=64).cube.astype(dtype)
    path = write_raw(tmp_path, cube, **({"byte_order": 1} if is_wrong else {}))
    notes = open_file(path).rasters[""].notes
    assert bool(notes) == is_wrong
    assert all("check byte order in header or config" in note for note in notes)


@pytest.mark.parametrize(
    ("values", "unit"), [((0.4, 2.5), "nanometers"), ((400, 2500), "micrometers"), ((400, 2500), "mm")]
)
def test_wavelengths_that_their_unit_makes_impossible_are_not_used(values, unit):
    found, notes = to_nanometres(values, unit=unit, bands=2)
    assert found is None
    assert f"{values[0]:g} to {values[1]:g}, cannot be in {unit}; set scene.wavelengths" in notes[0]


def test_reflectances_that_are_divided_once_more_are_said(tmp_path, whole):
    path = write_raw(tmp_path, (whole.cube / 1e4).astype(np.float32), reflectance_scale_factor=10000)
    np.save(tmp_path / "labels.npy", whole.labels)
    files = SceneFiles(cube=str(path), labels=str(tmp_path / "labels.npy"))
    assert any("are divided by 10000; if they are reflectances already" in n for n in load_scene(files).notes)
    np.testing.assert_allclose(load_scene(files.model_copy(update={"scale": 1})).cube, whole.cube / 1e4, rtol=1e-6)


def test_a_header_with_more_classes_than_names_is_said(tmp_path, whole):
    np.save(tmp_path / "cube.npy", whole.cube)
    facts = {"classes": 9, "class names": ["Unclassified", "Corn"]}
    labels = whole.labels.astype(np.uint8)[..., None]
    spectral.io.envi.save_image(str(tmp_path / "labels.hdr"), labels, metadata=facts)
    files = SceneFiles(cube=str(tmp_path / "cube.npy"), labels=str(tmp_path / "labels.hdr"))
    assert load_scene(files).notes == ("labels.hdr: the header declares 9 classes, but names 2",)


def test_an_unlabelled_value_that_occurs_nowhere_is_refused(tmp_path, whole):
    files = save(tmp_path, whole.cube, whole.labels, unlabelled=255)
    with pytest.raises(SceneError, match=r"scene\.unlabelled = 255: no pixel has this value"):
        load_scene(files)
    np.save(files.labels, np.where(whole.labels == 0, 255, whole.labels))
    assert load_scene(files).notes == ()


def test_a_map_info_that_contradicts_the_coordinate_system_is_said(tmp_path, whole):
    wkt = CRS.from_epsg(32632).to_wkt()
    path = write_raw(tmp_path, whole.cube.astype(np.float32))
    info = "{UTM, 1, 1, 365055, 5806125, 30, 30, %d, North, WGS-84}"
    change_header(path, map_info=info % 33, coordinate_system_string=f"{{{wkt}}}")
    assert "the header's map info is EPSG:32633" in open_file(path).rasters[""].notes[0]
    change_header(path, map_info=info % 32)
    assert open_file(path).rasters[""].notes == ()


def test_the_suggested_names_are_only_a_comment(tmp_path):
    labels = np.resize(np.arange(3), (83, 86))
    save(tmp_path, np.random.default_rng(0).random((83, 86, 30)), labels)
    survey = survey_files([tmp_path / "cube.npy", tmp_path / "labels.npy"])
    assert survey.likely is None  # SalinasA has no class 2
    assert "class_names" not in suggest_config(survey)
