"""How training patches are varied: each variation alone, against plain numpy on the same cube."""

import numpy as np
import pytest
import torch

from hsi_se.config.training import TrainSettings
from hsi_se.config.yaml_file import load_config
from hsi_se.sampling.patches import PatchDataset, pad_cube
from hsi_se.training.step import cut_patches, draw_places
from tests.conftest import ROOT, TINY

DEMO = ROOT / "configs" / "demo.yaml"
SIZE = 5
CUBE = np.random.default_rng(0).normal(3.0, 1.0, size=(20, 21, 6)).astype(np.float32)
PIXELS = np.argwhere(np.ones(CUBE.shape[:2], dtype=bool))
PATCHES = PatchDataset(pad_cube(CUBE, patch_size=SIZE, padding="reflect"), PIXELS, patch_size=SIZE)
INDEX = torch.arange(len(PIXELS))


def draw(*, seed: int = 0, flips: bool = False, **changes: float) -> torch.Tensor:
    settings = TrainSettings.model_validate({"epochs": 1, "flips": flips, **changes})
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    places, symmetries = draw_places(PATCHES, INDEX, settings=settings, generator=generator)
    return cut_patches(PATCHES, places, symmetries=symmetries, settings=settings)


def test_without_variation_the_patches_are_the_scenes_own():
    assert torch.equal(draw(), PATCHES.gather(INDEX))


@pytest.mark.parametrize(
    "change", [{"flips": True}, {"shift": 1}, {"noise": 0.5}, {"spectral_jitter": 0.1}, {"band_dropout": 0.2}], ids=str
)
def test_each_variation_depends_on_the_seed_alone(change):
    assert torch.equal(draw(seed=1, **change), draw(seed=1, **change))
    assert not torch.equal(draw(seed=1, **change), draw(seed=2, **change))


def test_shifts_reach_every_neighbour_and_no_farther():
    centres = draw(shift=1)[:, 0, :, SIZE // 2, SIZE // 2].numpy()
    found = set()
    for (row, col), spectrum in zip(PIXELS, centres, strict=True):
        if 0 < row < 19 and 0 < col < 20:
            around = CUBE[row - 1 : row + 2, col - 1 : col + 2]
            found |= {tuple(place) for place in np.argwhere((around == spectrum).all(2))}
            assert (around == spectrum).all(2).any()
    assert len(found) == 9


def test_jitter_scales_each_component_of_a_patch_as_one():
    gains = (draw(spectral_jitter=0.1) / PATCHES.gather(INDEX))[:, 0].flatten(2)  # (n, k, p²)
    assert torch.allclose(gains, gains[:, :, :1].expand_as(gains), atol=1e-4)
    gains = gains[:, :, 0]
    assert float(gains.mean()) == pytest.approx(1, abs=0.01)
    assert float(gains.std()) == pytest.approx(0.1, abs=0.01)
    assert float(torch.corrcoef(gains.T).fill_diagonal_(0).abs().max()) < 0.2


def test_noise_has_the_standard_deviation_that_is_asked_for():
    noise = draw(noise=0.5) - PATCHES.gather(INDEX)
    assert float(noise.mean()) == pytest.approx(0, abs=0.01)
    assert float(noise.std()) == pytest.approx(0.5, abs=0.01)


def test_band_dropout_clears_whole_components_and_leaves_the_others():
    dropped = draw(band_dropout=0.2)
    is_zero = (dropped == 0)[:, 0].flatten(2)
    assert torch.equal(is_zero.all(2), is_zero.any(2))
    assert float(is_zero.all(2).float().mean()) == pytest.approx(0.2, abs=0.02)
    kept = ~is_zero.view(len(INDEX), 1, 6, SIZE, SIZE)
    assert torch.equal(dropped[kept], PATCHES.gather(INDEX)[kept])


@pytest.mark.parametrize(("shift", "buffer"), [(0, 9), (2, 11)])
def test_the_default_buffer_keeps_shifted_patches_apart_too(shift, buffer):
    config = load_config(DEMO, (*TINY, "split={kind: blocks, train: 0.2}", f"train.shift={shift}"))
    assert config.split.buffer == buffer
