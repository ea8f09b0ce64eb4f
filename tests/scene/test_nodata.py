"""Pixels where nothing was measured: masked, unlabelled, and never part of a number."""

import json

import numpy as np
import pytest
import scipy.io
from sklearn.decomposition import PCA

import hsi_se
from hsi_se.config.experiment import PcaReduction
from hsi_se.config.scene import SceneFiles
from hsi_se.config.split import MasksSplit, RandomSplit
from hsi_se.config.yaml_file import load_config
from hsi_se.errors import SceneError
from hsi_se.sampling.reduction import fit_reduction
from hsi_se.sampling.splits import make_split
from hsi_se.scene.loading import load_ground_truth, load_scene
from hsi_se.scene.scene import Scene
from hsi_se.scene.synthetic import make_synthetic_scene
from hsi_se.workflows.preview import audit_config
from tests.conftest import CPU, ROOT, TINY

HOLE = (slice(3, 9), slice(2, 12))


def write_scene(folder, *, fill=-9999, value=-9999, dtype=np.float32):
    """A scene with a hole of `fill` in some bands, one lost band, and labels right through both."""
    scene = make_synthetic_scene(seed=0, rows=24, cols=24, bands=16)
    cube = scene.cube.astype(dtype)
    cube[HOLE] = fill
    cube[HOLE[0], 2, 5:] = scene.cube[HOLE[0], 2, 5:]  # nodata in one band is enough
    cube[..., 7] = fill
    np.save(folder / "cube.npy", cube)
    np.save(folder / "labels.npy", scene.labels)
    files = SceneFiles(cube=str(folder / "cube.npy"), labels=str(folder / "labels.npy"), nodata=value, name="mine")
    return files, scene


@pytest.fixture
def files(tmp_path):
    return write_scene(tmp_path)[0]


def mask_of_hole(shape):
    mask = np.zeros(shape, dtype=bool)
    mask[HOLE] = True
    return mask


@pytest.mark.parametrize(
    ("fill", "value", "dtype"),
    [
        (-9999, -9999, np.float32),
        (-9999, -9999, np.int32),
        (np.nan, np.nan, np.float32),
        (-3.4028234663852886e38, -3.4028234663852886e38, np.float32),
    ],
)
def test_pixels_of_nodata_are_masked_and_lose_their_labels_with_the_count_said(tmp_path, fill, value, dtype):
    files, whole = write_scene(tmp_path, fill=fill, value=value, dtype=dtype)
    scene = load_scene(files)
    hole = mask_of_hole(scene.shape)
    np.testing.assert_array_equal(scene.valid, ~hole)
    np.testing.assert_array_equal(scene.labels, np.where(hole, 0, whole.labels))
    lost = int((whole.labels[hole] > 0).sum())
    assert lost > 0
    assert f"60 pixels are nodata; {lost} of them are labelled and were excluded" in scene.notes
    assert scene.dropped_bands == {8: "nodata in every pixel"}
    np.testing.assert_array_equal(scene.cube[~hole], np.delete(whole.cube, 7, axis=2)[~hole])
    assert not scene.cube[hole].any()


def test_a_nodata_value_that_the_type_cannot_hold_is_in_no_pixel(tmp_path):
    whole = make_synthetic_scene(seed=0, rows=24, cols=24, bands=16)
    np.save(tmp_path / "cube.npy", whole.cube)
    np.save(tmp_path / "labels.npy", whole.labels)
    files = SceneFiles(cube=str(tmp_path / "cube.npy"), labels=str(tmp_path / "labels.npy"), nodata=-9999)
    scene = load_scene(files)
    assert scene.valid.all()
    assert scene.digest == whole.digest


def test_nan_that_nodata_does_not_explain_is_refused(tmp_path):
    files, _ = write_scene(tmp_path, fill=np.nan, value=-9999)
    with pytest.raises(SceneError, match="are NaN or infinite, the first at row 0, col 0, band 7"):
        load_scene(files)


def test_the_labels_alone_lose_the_same_pixels(files):
    np.testing.assert_array_equal(load_ground_truth(files).labels, load_scene(files).labels)


@pytest.mark.parametrize("fit_on", ["train", "scene"])
def test_no_nodata_pixel_enters_the_principal_components(files, fit_on):
    scene = load_scene(files)
    split = make_split(scene, RandomSplit(kind="random", train=0.5))
    settings = PcaReduction(kind="pca", components=4, fit_on=fit_on)
    reduction = fit_reduction(scene.cube, settings, train_pixels=split.train, nodata=scene.nodata)
    pixels = np.argwhere(scene.valid) if fit_on == "scene" else split.train
    expected = PCA(4).fit(scene.cube[pixels[:, 0], pixels[:, 1]].astype(np.float64))
    np.testing.assert_allclose(reduction.mean, expected.mean_)
    np.testing.assert_allclose(reduction.scale, np.sqrt(expected.explained_variance_), rtol=1e-6)
    components = reduction.apply(scene.cube, nodata=scene.nodata)
    assert not components[~scene.valid].any()
    assert np.abs(components[scene.valid]).min() > 0


def test_a_mask_from_a_file_does_not_bring_nodata_pixels_back(files, tmp_path):
    scene = load_scene(files)
    whole = np.load(files.labels)
    train = np.where(np.arange(whole.size).reshape(whole.shape) % 2, whole, 0)
    scipy.io.savemat(tmp_path / "train.mat", {"train": train})
    scipy.io.savemat(tmp_path / "test.mat", {"test": np.where(train > 0, 0, whole)})
    settings = MasksSplit(kind="masks", train=str(tmp_path / "train.mat"), test=str(tmp_path / "test.mat"))
    split = make_split(scene, settings)
    for side in (split.train, split.val, split.test):
        assert scene.valid[side[:, 0], side[:, 1]].all()
    assert len(split.train) + len(split.val) + len(split.test) == (scene.labels > 0).sum()


def test_what_a_nodata_pixel_holds_changes_neither_the_weights_nor_a_number_of_the_report(tmp_path):
    reports, bundles = [], []
    for fill in (-9999, 30000):
        folder = tmp_path / str(fill)
        folder.mkdir()
        files, _ = write_scene(folder, fill=fill, value=fill)
        override = f"scene={{cube: {files.cube}, labels: {files.labels}, nodata: {fill}, name: mine}}"
        config = load_config(ROOT / "configs" / "demo.yaml", [*TINY, override, "reduction.fit_on=scene"])
        run = hsi_se.train(config, out=folder / "run", session=CPU)
        evaluation = hsi_se.evaluate(run)
        reports.append(json.loads(run.report.read_text()))
        bundles.append(run.bundle_arrays.read_bytes())
        bundle = hsi_se.load_bundle(run)
        assert bundle.facts.dropped_bands == {8: "nodata in every pixel"}
        assert "60 pixels are nodata" in " ".join(run.read_record().notes)
        valid = load_scene(config.scene).valid
        test = run.read_split().test
        assert valid[test[:, 0], test[:, 1]].all()
        assert evaluation.num_test == len(test)
        assert sum(row["mapped_pixels"] for row in reports[-1]["area"]) == valid.sum()
        assert audit_config(config)[1].digest == run.read_split().digest
    assert bundles[0] == bundles[1]
    for report in reports:
        del report["config_digest"], report["training_s"]
    assert reports[0] == reports[1]


def test_the_digest_tells_a_measured_zero_from_nodata(small_scene):
    hole = np.zeros(small_scene.shape, dtype=bool)
    hole[small_scene.labels == 0] = True
    masked = Scene("x", small_scene.labels, small_scene.class_names, small_scene.cube, nodata=hole)
    assert masked.digest != small_scene.digest
