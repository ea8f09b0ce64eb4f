"""A scene whose components are too many for the memory is trained on and evaluated like one in memory."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch

from hsi_se.config.experiment import Config
from hsi_se.config.yaml_file import load_config
from hsi_se.reports import explorer
from hsi_se.reports.explorer import Explorer
from hsi_se.sampling.patches import PatchSource, pad_cube
from hsi_se.scene import cube as cubes
from hsi_se.scene.cube import StoredCube
from hsi_se.workflows.evaluate import assess_run
from hsi_se.workflows.train import train
from tests.conftest import ROOT, TINY, set_options

RNG = np.random.default_rng(0)
IMAGES = ((slice(0, 70), slice(0, 50)), (slice(110, 114), slice(5, 60)))


@pytest.mark.parametrize("patch_size", [1, 5])
@pytest.mark.parametrize("windows", [IMAGES, [(slice(0, 114), slice(0, 60))]], ids=["images", "scene"])
@pytest.mark.parametrize("padding", ["zero", "reflect"])
@pytest.mark.parametrize("share", [0.001, 0.05, 1])
def test_patches_are_those_of_the_padded_scene(padding: str, windows: list, share: float, patch_size: int) -> None:
    values = RNG.normal(size=(114, 60, 3)).astype(np.float32)
    stored = StoredCube(values.shape, values.dtype, lambda first, last: values[first:last])
    is_inside = np.zeros(values.shape[:2], bool)
    for window in windows:
        is_inside[window] = True
    pixels = np.argwhere(is_inside & (RNG.random(is_inside.shape) < share))
    pixels = np.r_[pixels, np.argwhere(is_inside)[[0, -1]]]  # at the edges
    sizes = {
        "patch_size": patch_size,
        "padding": padding,
        "windows": windows,
        "device": torch.device("cpu"),
        "reach": 3,
    }
    expected, found = (PatchSource(cube, **sizes).cut(pixels) for cube in (values, stored))
    none = PatchSource(stored, **sizes).cut(pixels[:0])
    assert len(none) == 0
    index = torch.from_numpy(RNG.permutation(len(pixels)))
    shifts = torch.from_numpy(RNG.integers(-3, 4, (len(pixels), 2)))
    symmetries = torch.from_numpy(RNG.integers(8, size=len(pixels)))
    for options in ({}, {"shifts": shifts}, {"shifts": shifts, "symmetries": symmetries}):
        assert torch.equal(expected.gather(index, **options), found.gather(index, **options))
    if share < 0.05:
        assert found.padded.numel() < pad_cube(values, patch_size=patch_size, padding=padding).numel()


SETTINGS = {
    "network": (
        "model={name: hybridsn, width: 0.125, attention: {conv2d: {kind: se}}}",
        "train={epochs: 2, batch_size: 32, shift: 1, norm_statistics: scene}",
        "prediction={smoothing: {spatial: 1.0}, calibration: validation}",
        "split.validation=0.3",
    ),
    "classifier": ("model={name: lda}", "prediction={symmetries: true, calibration: cross-fit}"),
}


@pytest.mark.parametrize("kind", SETTINGS)
def test_a_run_is_the_same_as_in_memory(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_config(ROOT / "configs" / "demo.yaml", set_options(*TINY, *SETTINGS[kind])[1::2])
    runs = []
    for name, most in (("memory", 2**28), ("stored", 0)):
        monkeypatch.setattr(cubes, "_MOST_IN_MEMORY", most)
        run = train(config, out=tmp_path / name)
        runs.append((run.read_bundle(), assess_run(run, draw=False), run.read_arrays(Explorer, run.explorer)))
    (bundle, assessment, maps), (other, again, stored) = runs
    assert all(np.array_equal(bundle.weights[name], value) for name, value in other.weights.items())
    np.testing.assert_allclose(other.facts.guide_scale, bundle.facts.guide_scale, rtol=1e-6)
    assert other.facts.scaling.temperature == pytest.approx(bundle.facts.scaling.temperature, rel=1e-3)
    np.testing.assert_allclose(again.tested.logits, assessment.tested.logits, rtol=1e-3, atol=1e-3)
    np.testing.assert_array_equal(again.area.mapped_pixels, assessment.area.mapped_pixels)
    for name, values in vars(maps).items():
        np.testing.assert_allclose(getattr(stored, name), values, rtol=1e-3, atol=70 if "probab" in name else 1e-3)


def write_scene(folder: Path, side: int) -> Config:
    """A scene whose labelled pixels are as many at every size."""
    rng = np.random.default_rng(0)
    cube, labels = rng.integers(1, 200, (side, side, 6)).astype(np.uint8), np.zeros((side, side), np.uint8)
    at = (np.arange(20) * side // 20)[:, None], np.arange(20) * side // 20
    labels[at] = rng.integers(1, 5, (20, 20))
    cube[at] += labels[at][..., None] * np.arange(6, dtype=np.uint8)
    np.save(folder / "cube.npy", cube)
    np.save(folder / "labels.npy", labels)
    files = f"{{cube: {folder}/cube.npy, labels: {folder}/labels.npy, nodata: 3, drop_bands: [2]}}"
    split = "{kind: folds, by: blocks, folds: 3, fold: 1, block_size: 20, buffer: 1}"
    reduction = "{kind: mnf, components: 4, fit_on: scene}"
    others = ("patch.size=5", "model={name: lda}", "prediction.calibration=none")
    return load_config(
        ROOT / "configs" / "demo.yaml", (f"scene={files}", f"split={split}", f"reduction={reduction}", *others)
    )


@pytest.mark.slow
def test_the_memory_grows_by_few_bytes_a_pixel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cubes, "_MOST_IN_MEMORY", 0)
    monkeypatch.setattr(explorer, "_MOST_VALUES", 60_000)  # of spectra, however large the scene is
    peaks = []
    for side in (200, 400):
        (folder := tmp_path / str(side)).mkdir()
        config = write_scene(folder, side)
        tracemalloc.start()
        train(config, out=folder / "run")
        trained = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        assess_run(folder / "run", draw=False)
        peaks.append((trained, tracemalloc.get_traced_memory()[1]))
        tracemalloc.stop()
    grown = (np.array(peaks[1]) - peaks[0]) / (400**2 - 200**2)
    assert (grown < 60).all(), f"{grown} bytes a pixel"
