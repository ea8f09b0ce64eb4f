"""One model on another scene: the training's reduction, the same bands, and no split."""

import re

import numpy as np
import pytest

import hsi_se
from hsi_se.config.scene import SceneFiles
from hsi_se.config.yaml_file import load_config
from hsi_se.errors import HsiError
from hsi_se.prediction.bundled import build_bundled_model
from hsi_se.prediction.patchwise import predict_logits
from hsi_se.scene.loading import load_scene
from hsi_se.scene.synthetic import make_synthetic_scene
from hsi_se.workflows.cross_scene import evaluate_on, parse_scene
from tests.conftest import ROOT, TINY

ROWS, COLS, BANDS = 24, 26, 16
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
    settings = (
        f"cube: {files['cube']}, labels: {files['labels']}, drop_bands: [3], wavelengths: {NM.tolist()}"
    )
    config = load_config(ROOT / "configs" / "demo.yaml", [*TINY, f"scene={{{settings}}}"])
    return hsi_se.train(config, run=folder / "run", device="cpu")


def test_every_labelled_pixel_counts_under_the_trainings_reduction(run, folder):
    files = SceneFiles(**write(folder, "second", seed=1), wavelengths=tuple(NM))
    found = evaluate_on(run, files)
    scene = make_synthetic_scene(seed=1, rows=ROWS, cols=COLS, bands=BANDS)
    bundle = run.read_bundle()
    kept = np.delete(scene.cube, 2, axis=2).astype(np.float64)
    reduction = bundle.reduction
    components = ((kept - reduction.mean) @ reduction.components.T / reduction.scale).astype(np.float32)
    logits = predict_logits(build_bundled_model(bundle), components, padding=bundle.facts.padding)
    labelled = scene.labels > 0
    predicted = bundle.class_ids[logits.argmax(axis=2)]
    assert found.evaluation.num_test == labelled.sum()
    assert found.evaluation.overall_accuracy == (predicted == scene.labels)[labelled].mean()


def test_a_scene_that_has_lost_the_same_bands_already_is_taken_as_it_is(run, folder):
    whole = evaluate_on(run, SceneFiles(**write(folder, "second", seed=1), wavelengths=tuple(NM)))
    cube = np.delete(np.load(folder / "second.npy"), 2, axis=2)
    files = SceneFiles(**write(folder, "cut", seed=1, cube=cube), wavelengths=tuple(np.delete(NM, 2)))
    np.testing.assert_array_equal(evaluate_on(run, files).evaluation.confusion, whole.evaluation.confusion)


def test_another_number_of_bands_is_refused_with_both(run, folder):
    cube = np.load(folder / "first.npy")[..., :12]
    with pytest.raises(HsiError) as caught:
        evaluate_on(run, SceneFiles(**write(folder, "few", seed=1, cube=cube)))
    assert str(caught.value) == (
        "--scene few: has 12 bands and the network was trained on 15 (16 with 3, which it leaves out); "
        "give a scene with the same bands"
    )


@pytest.mark.parametrize(("shift", "is_refused"), [(19.9, False), (20.1, True), (-20.1, True)])
def test_wavelengths_more_than_half_a_band_apart_are_refused_side_by_side(run, folder, shift, is_refused):
    files = SceneFiles(**write(folder, "second", seed=1), wavelengths=tuple(NM + shift))
    if not is_refused:
        evaluate_on(run, files)
        return
    with pytest.raises(HsiError) as caught:
        evaluate_on(run, files)
    assert str(caught.value).startswith(
        "second: 15 of 15 bands differ by more than half a band from the training scene's "
        f"(trained and given: band 1: 400.0 and {400 + shift:.1f} nm, "
    )


def test_unknown_wavelengths_are_said(run, folder):
    found = evaluate_on(run, SceneFiles(**write(folder, "second", seed=1)))
    assert (
        "the wavelengths of second are unknown, so the bands were matched by their numbers only"
        in found.notes
    )


def test_labels_that_the_network_does_not_know_are_left_out_and_counted(run, folder):
    labels = make_synthetic_scene(seed=1, rows=ROWS, cols=COLS, bands=BANDS).labels.copy()
    labels[labels == 2] = 77
    found = evaluate_on(run, SceneFiles(**write(folder, "odd", seed=1, labels=labels)))
    count = (labels == 77).sum()
    assert found.evaluation.num_test == (labels > 0).sum() - count
    assert f"{count:,} pixels of labels 77 are left out: the network does not know them" in found.notes
    with pytest.raises(HsiError, match=r"its labels \(77\) are none of the network's \(1, 2, 3"):
        evaluate_on(run, SceneFiles(**write(folder, "alien", seed=1, labels=np.where(labels > 0, 77, 0))))


def test_another_scale_is_noticed(run, folder):
    cube = np.load(folder / "first.npy") / 10000
    found = evaluate_on(run, SceneFiles(**write(folder, "scaled", seed=0, cube=cube)))
    assert any("check that both scenes have one scale" in note for note in found.notes)
    same = evaluate_on(run, SceneFiles(**write(folder, "same", seed=0)))
    assert not any("scale" in note for note in same.notes)


def test_a_pixel_of_nodata_is_no_part_of_the_score(run, folder):
    cube = np.load(folder / "first.npy").astype(np.int32)
    cube[:5] = -1
    files = SceneFiles(**write(folder, "hole", seed=0, cube=cube), nodata=-1)
    assert evaluate_on(run, files).evaluation.num_test == (load_scene(files).labels[5:] > 0).sum()


def test_a_scene_may_be_named_in_four_ways(folder, tmp_path):
    files = write(folder, "second", seed=1)
    np.savez(tmp_path / "both.npz", cube=np.load(files["cube"]), labels=np.load(files["labels"]))
    assert parse_scene("IP") == "IP"
    assert parse_scene(f"{{cube: {files['cube']}, labels: {files['labels']}}}") == SceneFiles(**files)
    assert load_scene(parse_scene(str(tmp_path / "both.npz"))).num_bands == BANDS
    config = (ROOT / "configs" / "salinas_a_se.yaml").read_text()
    (tmp_path / "a.yaml").write_text(config)
    assert parse_scene(str(tmp_path / "a.yaml")) == "salinas-a"


def test_eval_prints_the_accuracies_as_cross_scene_and_that_no_split_is_involved(call, run, folder):
    files = write(folder, "second", seed=1)
    code, out, err = call("eval", run, "--scene", f"{{cube: {files['cube']}, labels: {files['labels']}}}")
    assert code == 0, err
    assert re.search(r"cross-scene: trained on first, [\d,]+ pixels of second", out)
    assert re.search(r"^cross-scene:  OA +[\d.]+ %   AA +[\d.]+ %   κ -?[\d.]+$", out, re.MULTILINE)
    assert "No split is involved" in out
    assert not run.report.exists()


def test_a_scene_that_is_none_is_one_line(call, run):
    for scene in ("nowhere", "{cube: absent.npy, labels: absent.npy}", "{cuba: a}"):
        code, out, err = call("eval", run, "--scene", scene)
        assert (code, out) == (2, "")
        assert err.startswith("hsi-se: ")
        assert err.count("\n") == 1
