"""Smoothing and symmetries: what becomes of the logits before a class is picked."""

import json
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax

import hsi_se
from hsi_se.config.experiment import MnfReduction
from hsi_se.config.training import PredictionSettings, Smoothing
from hsi_se.config.yaml_file import load_config
from hsi_se.errors import ConfigError
from hsi_se.evaluation.audit import audit_split
from hsi_se.prediction.bundled import TilePredictor, TileSource, _work_ahead
from hsi_se.prediction.logits import average_symmetries, list_tiles
from hsi_se.prediction.smoothing import smooth_logits
from hsi_se.sampling.reduction import fit_reduction
from hsi_se.scene.loading import load_scene, open_scene_image
from tests.conftest import ROOT, TINY

DEMO = ROOT / "configs" / "demo.yaml"
SMOOTHING = "prediction={symmetries: true, smoothing: {spatial: 0.6, range: 0.5, passes: 2}}"


def smooth(logits, cube, missing=None, *, scale=None, **options) -> np.ndarray:
    missing = np.zeros(logits.shape[:2], bool) if missing is None else missing
    scale = np.ones(cube.shape[2]) if scale is None else scale
    return smooth_logits(logits, components=cube, missing=missing, settings=Smoothing(**options), scale=scale)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 99),
    rows=st.integers(1, 7),
    cols=st.integers(1, 7),
    spatial=st.sampled_from([0.4, 1.0, 2.3]),
    spread=st.sampled_from([0.2, 1.0, 50.0]),
    num_guides=st.integers(1, 5),
    passes=st.integers(1, 3),
)
def test_smoothing_is_the_weighted_mean_that_a_loop_over_pixels_finds(
    seed, rows, cols, spatial, spread, num_guides, passes
):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(rows, cols, 3)).astype(np.float32)
    components = rng.normal(size=(rows, cols, 4)).astype(np.float32)
    missing = rng.random((rows, cols)) < 0.2
    scale = rng.uniform(0.5, 2, 4)
    logits[missing] = np.nan
    options = {"spatial": spatial, "range": spread, "components": num_guides, "passes": passes}
    found = smooth(logits, components, missing, scale=scale, **options)
    shares, radius = softmax(logits, axis=2), int(np.ceil(2 * spatial))
    for _ in range(passes):
        before = shares.copy()
        for row, col in np.argwhere(~missing):
            total, weights = np.zeros(3), 0.0
            for other_row, other_col in np.argwhere(~missing):
                if max(abs(row - other_row), abs(col - other_col)) > radius:
                    continue
                steps = ((components[row, col] - components[other_row, other_col]) / scale)[:num_guides]
                apart = (row - other_row) ** 2 + (col - other_col) ** 2
                weight = np.exp(-apart / (2 * spatial**2) - (steps**2).mean() / (2 * spread**2))
                total, weights = total + weight * before[other_row, other_col], weights + weight
            shares[row, col] = total / weights
    np.testing.assert_allclose(np.exp(found[~missing]), shares[~missing], rtol=2e-4, atol=1e-6)
    np.testing.assert_array_equal(found[missing], logits[missing])


def test_a_speckle_goes_and_a_field_one_pixel_wide_stays():
    truth = np.zeros((12, 12), int)
    truth[:, 6] = 1  # a strip of another spectrum
    called = truth.copy()
    called[5, 2] = 1
    logits = np.where(np.arange(2) == called[..., None], 2.0, 0.0).astype(np.float32)
    guided = smooth(logits, truth[..., None].astype(np.float32), spatial=2, range=0.2)
    blurred = smooth(logits, np.zeros((12, 12, 1), np.float32), spatial=2, range=0.2)
    np.testing.assert_array_equal(guided.argmax(2), truth)
    assert not blurred.argmax(2).any()


def test_equal_probabilities_stay_as_they_are():
    rng = np.random.default_rng(0)
    logits = np.broadcast_to(rng.normal(size=3), (5, 6, 3)).astype(np.float32)
    found = smooth(logits, rng.normal(size=(5, 6, 2)).astype(np.float32))
    np.testing.assert_allclose(softmax(found, axis=2), softmax(logits, axis=2), rtol=1e-5)


def test_the_eight_symmetries_are_all_different_and_turned_back():
    seen = []
    cube = np.random.default_rng(0).normal(size=(4, 5, 2)).astype(np.float32)

    def remember(turned: np.ndarray) -> np.ndarray:
        seen.append(turned)
        return turned

    np.testing.assert_allclose(average_symmetries(remember, cube, num_passes=8), cube, rtol=1e-6)
    group = [np.rot90(base, turns) for base in (cube, cube[::-1]) for turns in range(4)]
    assert {turned.tobytes() for turned in seen} == {np.ascontiguousarray(turned).tobytes() for turned in group}


def test_a_prediction_over_symmetries_turns_with_the_scene():
    kernel = np.random.default_rng(1).normal(size=(3, 3))
    cube = np.random.default_rng(0).normal(size=(6, 7, 1)).astype(np.float32)

    def predict(padded: np.ndarray) -> np.ndarray:
        windows = np.lib.stride_tricks.sliding_window_view(padded[..., 0], (3, 3))
        return (windows * kernel).sum((2, 3))[..., None].astype(np.float32)

    plain = average_symmetries(predict, cube, num_passes=8)
    turned = average_symmetries(predict, np.ascontiguousarray(cube.transpose(1, 0, 2)[::-1]), num_passes=8)
    np.testing.assert_allclose(turned, plain.transpose(1, 0, 2)[::-1], rtol=1e-5, atol=1e-6)
    assert not np.allclose(predict(cube), plain)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("smoothed") / "run"
    return hsi_se.train(load_config(DEMO, (*TINY, SMOOTHING, "train.epochs=8")), out=folder)


def test_a_report_gives_the_accuracies_before_smoothing_too(run):
    hsi_se.evaluate(run)
    report = json.loads(run.report.read_text())
    assert report["unsmoothed"]["overall_accuracy"] != report["overall_accuracy"]
    assert "network, not smoothed" in run.report_text.read_text()


@pytest.mark.parametrize("height", [1, 5, 24])
def test_tiles_of_any_height_give_the_smoothed_scene(run, height):
    config, bundle = run.read_config(), run.read_bundle()
    scene = load_scene(config.scene)
    source = TileSource(open_scene_image(scene), bundle)
    predictor = TilePredictor(bundle, engine="dense")
    tiles = [predictor.predict(source.read(rows))[0] for rows in list_tiles(24, height)]
    hsi_se.evaluate(run)
    whole = hsi_se.map_scene(run, config.scene)
    np.testing.assert_array_equal(bundle.class_ids[np.concatenate(tiles).argmax(2)], whole.labels)
    unguided = TilePredictor(bundle, engine="dense")
    unguided._facts = bundle.facts.model_copy(update={"prediction": PredictionSettings()})
    assert not np.allclose(unguided.predict(source.read(range(24)))[0], np.concatenate(tiles), atol=0.1)


@pytest.mark.parametrize("fit_on", ["train", "scene"])
def test_tiles_of_noise_fractions_give_the_scene(tmp_path, fit_on):
    reduction = f"reduction={{kind: mnf, components: 13, fit_on: {fit_on}}}"
    run = hsi_se.train(load_config(DEMO, (*TINY, SMOOTHING, "train.epochs=1", reduction)), out=tmp_path / "run")
    scene, bundle = load_scene(run.read_config().scene), run.read_bundle()
    setting = MnfReduction(kind="mnf", components=13, fit_on=fit_on)
    fitted = fit_reduction(scene.cube, setting, train_pixels=run.read_split().train)
    for part in ("mean", "components", "scale"):
        np.testing.assert_array_equal(getattr(bundle.reduction, part), getattr(fitted, part))
    whole = hsi_se.map_scene(run, run.read_config().scene)
    predictor = TilePredictor(bundle, engine="dense")
    for height in (1, 7):
        source = TileSource(open_scene_image(scene), bundle)
        tiles = [predictor.predict(source.read(rows))[0] for rows in list_tiles(24, height)]
        np.testing.assert_array_equal(bundle.class_ids[np.concatenate(tiles).argmax(2)], whole.labels)
    hsi_se.evaluate(run)
    assert json.loads(run.report.read_text())["leakage"]["reduction_saw_test"] is True


def test_what_smoothing_reaches_counts_as_the_patch_in_audit_and_buffer():
    settings = (*TINY, SMOOTHING, "split={kind: blocks, train: 0.3, block_size: 6}")
    config = load_config(DEMO, settings)
    assert config.prediction.reach == 4
    assert (config.window_size, config.split.buffer) == (17, 13)
    scene = load_scene(config.scene)
    split = hsi_se.make_split(scene, load_config(DEMO, TINY).split, seed=0)
    assert audit_split(split.relabel(scene), split, config).leakage.patch_size == 17


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("prediction.smoothing={spatial: 0}", "prediction.smoothing.spatial"),
        ("prediction.smoothing={spatial: 21}", "prediction.smoothing.spatial"),
        ("prediction.smoothing={passes: 0}", "prediction.smoothing.passes"),
        ("prediction.smoothing={rnage: 1}", "did you mean 'range'"),
        ("prediction={smooth: {}}", "did you mean 'smoothing'"),
    ],
)
def test_a_wrong_setting_is_named(setting, message):
    with pytest.raises(ConfigError, match=message):
        load_config(DEMO, (*TINY, setting))


def test_a_component_that_never_varies_guides_nothing():
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((6, 7, 3)).astype(np.float32)
    components = rng.standard_normal((6, 7, 2)).astype(np.float32)
    missing, settings = np.zeros((6, 7), bool), Smoothing(spatial=1, range=0.3, components=2)
    scale = np.array([1.0, 0.0])
    flat = components.copy()
    flat[..., 1] = 0
    found, expected = (
        smooth_logits(logits, components=each, missing=missing, settings=settings, scale=unit)
        for each, unit in ((components, scale), (flat, np.ones(2)))
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5)


# ------------------------------------------------------------------------------------- ahead of the work


def test_work_ahead_is_one_item_ahead_and_in_order():
    events = []

    def work(item: int) -> int:
        events.append(f"done {item}")
        return 10 * item

    for result in _work_ahead(work, _work_ahead(work, range(1, 4))):
        time.sleep(0.05)  # in which the thread finishes what it may begin
        events.append(f"used {result}")
    used = [event for event in events if event.startswith("used")]
    assert used == ["used 100", "used 200", "used 300"]
    assert events.index("done 20") < events.index("used 100")
    assert "done 3" in events[: events.index("used 200")]


def test_an_error_in_work_ahead_is_raised_where_its_result_is_asked_for():
    def work(item: int) -> float:
        return 1 / item

    results = _work_ahead(work, [1, 2, 0, 4])
    assert next(results) == 1
    assert next(results) == 0.5
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_nothing_is_done_ahead_of_nothing():
    assert list(_work_ahead(abs, [])) == []
