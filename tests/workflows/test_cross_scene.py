"""One model on another scene: the training's reduction, the same bands, and no split."""

import json
import re
import subprocess
import sys
import warnings

import numpy as np
import pytest
import rasterio
import rasterio.errors

import hsi_se
from hsi_se.config.scene import SceneFiles
from hsi_se.config.yaml_file import load_config
from hsi_se.errors import HsiError
from hsi_se.prediction.bundled import build_bundled_model
from hsi_se.prediction.logits import predict_logits
from hsi_se.prediction.target import find_scene
from hsi_se.scene.loading import load_scene
from hsi_se.scene.synthetic import make_synthetic_scene
from hsi_se.workflows.evaluate import evaluate_on
from tests.conftest import CPU, ROOT, TINY

ROWS, COLS, BANDS = 24, 26, 16
MEASURE = """
import sys, torch
from hsi_se.prediction.bundled import TilePredictor
from hsi_se.system.session import Session
from hsi_se.workflows.evaluate import evaluate_on
torch.set_num_threads(1)
TilePredictor.choose_tile_rows = lambda self, cols: 64
evaluate_on(sys.argv[1], sys.argv[2], session=Session(device="cpu"))
status = open("/proc/self/status").read()  # ru_maxrss would count the process that forked this one
print(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")))
"""
NM = np.linspace(400, 1000, BANDS)


def write(folder, name, *, seed, cube=None, labels=None):
    scene = make_synthetic_scene(seed=seed, rows=ROWS, cols=COLS, bands=BANDS)
    np.save(folder / f"{name}.npy", scene.cube if cube is None else cube)
    np.save(folder / f"{name}_gt.npy", scene.labels if labels is None else labels)
    return {"cube": str(folder / f"{name}.npy"), "labels": str(folder / f"{name}_gt.npy")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("cross")


@pytest.fixture(scope="module")
def run(folder):
    files = write(folder, "first", seed=0)
    settings = f"cube: {files['cube']}, labels: {files['labels']}, drop_bands: [3], wavelengths: {NM.tolist()}"
    config = load_config(ROOT / "configs" / "demo.yaml", [*TINY, f"scene={{{settings}}}"])
    return hsi_se.train(config, out=folder / "run", session=CPU)


def name(files: dict[str, str], **settings: object) -> str:
    """A scene as `--scene` takes it."""
    return json.dumps({**files, **settings})


def test_every_labelled_pixel_counts_under_the_trainings_reduction(run, folder):
    files = name(write(folder, "second", seed=1), wavelengths=(NM).tolist())
    found = evaluate_on(run, files)
    scene = make_synthetic_scene(seed=1, rows=ROWS, cols=COLS, bands=BANDS)
    bundle = run.read_bundle()
    kept = np.delete(scene.cube, 2, axis=2).astype(np.float64)
    reduction = bundle.reduction
    components = ((kept - reduction.mean) @ reduction.components.T / reduction.scale).astype(np.float32)
    logits = predict_logits(build_bundled_model(bundle), components, engine="patches", padding=bundle.facts.padding)
    labelled = scene.labels > 0
    predicted = bundle.class_ids[logits.argmax(axis=2)]
    assert found.evaluation.num_test == labelled.sum()
    assert found.evaluation.overall_accuracy == (predicted == scene.labels)[labelled].mean()


def test_a_scene_that_has_lost_the_same_bands_already_is_taken_as_it_is(run, folder):
    whole = evaluate_on(run, name(write(folder, "second", seed=1), wavelengths=(NM).tolist()))
    cube = np.delete(np.load(folder / "second.npy"), 2, axis=2)
    files = name(write(folder, "cut", seed=1, cube=cube), wavelengths=(np.delete(NM, 2)).tolist())
    np.testing.assert_array_equal(evaluate_on(run, files).evaluation.confusion, whole.evaluation.confusion)


def test_another_number_of_bands_is_refused_with_both(run, folder):
    cube = np.load(folder / "first.npy")[..., :12]
    with pytest.raises(HsiError) as caught:
        evaluate_on(run, name(write(folder, "few", seed=1, cube=cube)))
    assert str(caught.value) == (
        f"{folder}/few.npy: the scene has 12 bands, but the model was trained on 15 of 16, without 3; "
        "give a scene of the same sensor"
    )


@pytest.mark.parametrize(("shift", "is_refused"), [(19.9, False), (20.1, True), (-20.1, True)])
def test_wavelengths_more_than_half_a_band_apart_are_refused(run, folder, shift, is_refused):
    files = name(write(folder, "second", seed=1), wavelengths=(NM + shift).tolist())
    if not is_refused:
        evaluate_on(run, files)
        return
    with pytest.raises(HsiError) as caught:
        evaluate_on(run, files)
    lost, nearest = (400.0, 420.1) if shift > 0 else (1000.0, 979.9)  # the others have a neighbour that is near
    assert str(caught.value) == (
        f"{folder}/second.npy: has no band for 1 of the model's 15 within half a band ({lost:.1f} nm, nearest "
        f"{nearest:.1f}); give a scene of the same sensor, or resample it"
    )


@pytest.mark.parametrize("order", ["more", "reversed", "shuffled"])
def test_bands_are_picked_by_wavelength_whatever_their_number_and_order(run, folder, order):
    expected = evaluate_on(run, name(write(folder, "second", seed=1), wavelengths=NM.tolist()))
    cube, rng = np.load(folder / "second.npy"), np.random.default_rng(0)
    bands = {"more": np.arange(BANDS), "reversed": np.arange(BANDS)[::-1], "shuffled": rng.permutation(BANDS)}[order]
    cube, nm = cube[..., bands], NM[bands] + 0.2
    cube = np.concatenate([rng.integers(0, 9, (ROWS, COLS, 2)), cube, rng.integers(0, 9, (ROWS, COLS, 1))], axis=2)
    files = name(write(folder, order, seed=1, cube=cube), wavelengths=[300.0, 412.0, *nm, 1100.0])
    found = evaluate_on(run, files)
    np.testing.assert_array_equal(found.evaluation.confusion, expected.evaluation.confusion)
    said = f"the bands of {order}.npy are in another order than in training, and used by wavelength"
    assert (said in found.notes) == (order != "more")
    assert f"of {order}.npy are excluded, as in training" in " ".join(found.notes)


def test_a_band_that_the_user_drops_is_not_picked(run, folder):
    files = name(write(folder, "second", seed=1), wavelengths=NM.tolist(), drop_bands=[5])
    with pytest.raises(HsiError, match=r"has no band for 1 of the model's 15 within half a band \(560\.0 nm"):
        evaluate_on(run, files)


def test_more_bands_without_wavelengths_ask_for_these_or_for_the_bands_to_drop(run, folder):
    cube = np.concatenate([np.load(folder / "first.npy")] * 2, axis=2)
    with pytest.raises(
        HsiError, match=r"; set scene\.wavelengths, or leave out 17 bands with --set scene\.drop_bands=\[…\]"
    ):
        evaluate_on(run, name(write(folder, "many", seed=1, cube=cube)))
    files = name(write(folder, "many", seed=1, cube=cube), wavelengths=[*NM.tolist(), *(NM + 3000).tolist()])
    evaluate_on(run, files)


def test_unknown_wavelengths_are_said(run, folder):
    found = evaluate_on(run, name(write(folder, "second", seed=1)))
    unknown = f"the wavelengths of {folder / 'second.npy'} are unknown"
    assert f"{unknown}, so the bands were matched by their numbers only" in found.notes


def test_labels_that_the_network_does_not_know_are_left_out_and_counted(run, folder):
    labels = make_synthetic_scene(seed=1, rows=ROWS, cols=COLS, bands=BANDS).labels.copy()
    labels[labels == 2] = 77
    found = evaluate_on(run, name(write(folder, "odd", seed=1, labels=labels)))
    count = (labels == 77).sum()
    assert found.evaluation.num_test == (labels > 0).sum() - count
    assert f"{count:,} pixels of labels 77 are excluded: the network does not know them" in found.notes
    with pytest.raises(HsiError, match=r"its labels \(77\) are not among the network's \(1, 2, 3"):
        evaluate_on(run, name(write(folder, "alien", seed=1, labels=np.where(labels > 0, 77, 0))))


def test_another_scale_is_refused_and_may_be_set_right(run, folder, call):
    cube = np.load(folder / "first.npy") / 10000
    scene = name(write(folder, "scaled", seed=0, cube=cube))
    with pytest.raises(HsiError, match=r"its values range from .* bring them to one scale with --set scene.scale=…"):
        evaluate_on(run, scene)
    same = evaluate_on(run, name(write(folder, "same", seed=0)))
    found = evaluate_on(run, scene, overrides=["scene.scale=1e-4"])
    np.testing.assert_array_equal(found.evaluation.confusion, same.evaluation.confusion)
    code, out, err = call("eval", run, "--scene", scene, "--set", "scene.scale=1e-4")
    assert (code, err.count("Traceback")) == (0, 0)
    assert f"overall accuracy {100 * same.evaluation.overall_accuracy:.2f} %" in out


def test_settings_of_a_scene_need_a_scene(call, run):
    code, _, err = call("eval", run, "--set", "scene.scale=2")
    assert code == 2
    assert err == "hsi-se: --set scene.scale=2: has no effect without --scene; leave it out\n"


@pytest.mark.parametrize("command", ["eval", "map"])
def test_only_settings_of_the_scene_apply(call, run, folder, command):
    scene = name(write(folder, "second", seed=1))
    code, _, err = call(command, run, "--scene", scene, "--set", "patch.size=3")
    assert code == 2
    assert err == "hsi-se: --set patch.size=3: only settings of the scene apply here; use scene.key=value\n"


def test_labels_of_another_size_are_refused(run, folder):
    labels = make_synthetic_scene(seed=1, rows=ROWS, cols=COLS, bands=BANDS).labels[:-1]
    with pytest.raises(HsiError, match="give two files of the same scene"):
        evaluate_on(run, name(write(folder, "short", seed=1, labels=labels)))


def test_a_scene_without_labels_cannot_be_evaluated_on(run, folder):
    with pytest.raises(HsiError, match="all 624 labels are 0, which means unlabelled"):
        evaluate_on(run, name(write(folder, "bare", seed=1, labels=np.zeros((ROWS, COLS), np.uint8))))


@pytest.mark.slow
def test_memory_of_an_evaluation_depends_on_the_tile_and_not_on_the_scene(run, tmp_path):
    short = make_synthetic_scene(seed=0, rows=ROWS, cols=COLS, bands=BANDS)
    peaks = []
    for times in (20, 300):
        cube, labels = tmp_path / f"{times}.tif", tmp_path / f"{times}_gt.npy"
        rows = np.tile(short.cube.astype(np.float32), (times, 1, 1)).transpose(2, 0, 1)
        facts = {"height": rows.shape[1], "width": COLS, "count": BANDS, "dtype": "float32"}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
            with rasterio.open(cube, "w", driver="GTiff", **facts) as file:
                file.write(rows)
        np.save(labels, np.tile(short.labels, (times, 1)).astype(np.uint8))
        command = [sys.executable, "-c", MEASURE, run.path, name({"cube": str(cube), "labels": str(labels)})]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        peaks.append(int(done.stdout.splitlines()[-1]))
    cube_kb = rows.nbytes / 1024
    assert peaks[1] - peaks[0] < cube_kb / 2  # only labels and classes grow with the scene


def test_a_scene_may_be_named_in_five_ways(run, folder, tmp_path, monkeypatch):
    files = write(folder, "second", seed=1)
    np.savez(tmp_path / "both.npz", cube=np.load(files["cube"]), labels=np.load(files["labels"]))
    assert find_scene(run, None) == run.read_config().scene
    assert find_scene(run, "IP") == "indian-pines"
    assert find_scene(run, name(files)) == SceneFiles(**files)
    both = find_scene(run, tmp_path / "both.npz", ["scene.labels_key=labels", "scene.cube_key=cube"])
    assert load_scene(both).num_bands == BANDS
    config = (ROOT / "configs" / "salinas_a_se.yaml").read_text()
    (tmp_path / "a.yaml").write_text(config)
    assert find_scene(run, str(tmp_path / "a.yaml")) == "salinas-a"
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "flight").touch()  # ENVI data often have no ending
    assert find_scene(run, "flight", data=tmp_path / "data") == SceneFiles(cube="flight", labels="flight")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "IP").touch()  # a file of a known scene's alias is the file
    assert find_scene(run, "IP") == SceneFiles(cube="IP", labels="IP")


def test_eval_prints_the_accuracies_as_cross_scene_and_that_no_split_is_involved(call, run, folder):
    files = write(folder, "second", seed=1)
    code, out, err = call("eval", run, "--scene", f"{{cube: {files['cube']}, labels: {files['labels']}}}")
    assert code == 0, err
    assert re.search(r"cross-scene: trained on first, [\d,]+ pixels of second", out)
    assert re.search(
        r"^cross-scene: overall accuracy [\d.]+ %, average accuracy [\d.]+ %, kappa -?[\d.]+$", out, re.MULTILINE
    )
    assert "No split is involved" in out
    assert not run.report.exists()


def test_a_scene_that_is_none_is_one_line(call, run):
    for scene in ("nowhere", "{cube: absent.npy, labels: absent.npy}", "{cuba: a}"):
        code, out, err = call("eval", run, "--scene", scene)
        assert (code, out) == (2, "")
        assert err.startswith("hsi-se: ")
        assert err.count("\n") == 1
