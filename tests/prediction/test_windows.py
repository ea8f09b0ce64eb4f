"""The dense engine of the other networks: the logits of their patches, and which of them share what."""

from typing import Any

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import hsi_se
from hsi_se import build_model, predict_logits
from hsi_se.attention.squeeze_excite import SqueezeExcite
from hsi_se.config.model import HybridSN, ModelSettings, Network, list_blocks, list_models
from hsi_se.models.inference import predict_patches
from hsi_se.models.spectrum_first import WeightedMean
from hsi_se.models.ssrn import Ssrn
from hsi_se.prediction import dense, windows
from hsi_se.prediction.logits import RowPredictor
from hsi_se.prediction.windows import WindowEngine, can_share
from hsi_se.sampling.patches import PatchDataset, pad_cube
from tests.prediction.test_dense import assert_agrees, make_cube, randomize

SE = {"kind": "se", "reduction": 4}
OTHERS = [name for name, kind in list_models().items() if issubclass(kind, Network) and kind is not HybridSN]
PADDED = ("se_resnet", "res2net", "se_inception", "spectralformer", "dbda", "s2mamba")  # they share next to nothing
PATCHWISE = {
    ("ssftt", "conv3d"),
    ("ssrn", "spectral_stem"),
    ("cnn3d", "conv3d_1"),
    ("spectrum_first", "bands"),
}  # little comes before


def make(name: str, *, bands: int = 14, patch: int = 9, seed: int = 0, **changes: Any) -> Any:
    settings = TypeAdapter(ModelSettings).validate_python({"name": name, "attention": {}, **changes})
    model = build_model(settings, num_bands=bands, patch_size=patch, num_classes=4, seed=seed)
    return randomize(model, seed=seed)


def list_attention(name: str) -> list[dict[str, object]]:
    """No block, and every kind of block that fits at every point, with both axes of a gate."""
    kind = list_models()[name]
    attention: list[dict[str, object]] = [{}]
    for point in kind.points:
        is_3d = point in kind.points_3d
        attention += [
            {point: TypeAdapter(type(block)).dump_python(block)}
            for block in list_blocks()
            if block.explain_misfit(is_3d=is_3d) is None
        ]
        attention += [{point: {**SE, "squeeze": "max"}}, {point: {**SE, "start": "identity"}}]
        attention += [{point: {**SE, "axis": "band", "squeeze": squeeze}} for squeeze in ("mean", "max") if is_3d]
    return attention


def predict_double(model: Any, cube: np.ndarray, *, padding: str) -> tuple[Tensor, Tensor]:
    """Returns the logits of both engines in float64."""
    model = model.double()
    padded = pad_cube(cube.astype(np.float64), patch_size=model.patch_size, padding=padding)
    pixels = np.argwhere(np.ones(cube.shape[:2], bool))
    expected = predict_patches(model, PatchDataset(padded, pixels, patch_size=model.patch_size))
    return WindowEngine(model).predict_rows(padded), expected.view(*cube.shape[:2], -1)


@pytest.mark.parametrize(
    ("name", "attention"), [(name, each) for name in OTHERS if name not in PADDED for each in list_attention(name)]
)
def test_shared_stages_give_the_logits_of_the_patches(name, attention):
    for padding, patch, shape in (("zero", 9, (3, 7)), ("reflect", 7, (5, 2))):
        model = make(name, attention=attention, patch=patch)
        logits, expected = predict_double(model, make_cube(*shape), padding=padding)
        torch.testing.assert_close(logits, expected, rtol=1e-9, atol=1e-9 * float(expected.abs().max()))


@pytest.mark.parametrize("padding", ["zero", "reflect"])
@pytest.mark.parametrize("tile_rows", [None, 1, 4])
@pytest.mark.parametrize(
    ("name", "attention"),
    [
        ("cnn3d", {}),
        ("cnn3d", {"conv3d_2": SE}),
        ("cnn3d", {"conv3d_3": {**SE, "axis": "band"}}),
        ("ssrn", {}),
        ("ssrn", {"spatial_1": SE}),
        ("spectrum_first", {"space": SE}),
    ],
)
def test_tiles_of_any_height_agree_with_patches_in_float32(name, attention, tile_rows, padding):
    model, cube = make(name, attention=attention, patch=11), make_cube(9, 21)
    assert RowPredictor(model, engine="dense").choose_tile_rows(21) is not None
    logits = predict_logits(model, cube, padding=padding, tile_rows=tile_rows)
    expected = predict_logits(model, cube, padding=padding, engine="patches")
    assert np.abs(logits - expected).max() <= 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("name", OTHERS)
def test_every_network_shares_what_the_docs_say(name):
    points = [None, *list_models()[name].points]
    for point in points[:2] if name in PADDED else points:
        model = make(name, attention={point: SE} if point else {})
        is_shared = RowPredictor(model, engine="dense").choose_tile_rows(50) is not None
        few = {(name, point)} <= PATCHWISE | {("spectrum_first", "spectral_1")}
        assert is_shared == (name not in PADDED and not few), point
        if not is_shared:
            cube = make_cube(3, 2)
            np.testing.assert_array_equal(predict_logits(model, cube), predict_logits(model, cube, engine="patches"))


@pytest.mark.parametrize(
    ("name", "attention", "share"),
    [
        ("cnn3d", {}, 1 / 50),
        ("cnn3d", {"conv3d_3": SE}, 1 / 50),
        ("cnn3d", {"conv3d_2": SE}, 0.8),
        ("ssrn", {}, 1 / 4),
        ("spectrum_first", {}, 1 / 8),
        ("spectrum_first", {"space": SE}, 1 / 8),
    ],
)
def test_overlapping_patches_share_their_products(name, attention, share, monkeypatch):
    model, cube = make(name, patch=15, attention=attention), make_cube(24, 24)
    engine = WindowEngine(model)
    monkeypatch.setattr(dense, "_MAX_WORKERS", 1)  # the counter sees one thread
    macs = []
    padded = torch.as_tensor(pad_cube(cube, patch_size=15, padding="zero"))
    for run in (lambda: engine.predict_rows(padded), lambda: predict_logits(model, cube, engine="patches")):
        with FlopCounterMode(display=False) as counter:
            run()
        macs.append(counter.get_total_flops())
    assert macs[0] < share * macs[1]


class Fading(nn.Module):
    """A layer that knows where in the patch a pixel is."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.linspace(0, 1, x.shape[-1], dtype=x.dtype)


def start_as_identity() -> nn.Module:
    gate = SqueezeExcite(3, reduction=1)
    gate.strength = nn.Parameter(torch.zeros(1))
    return gate


@pytest.mark.parametrize(
    ("stage", "is_shared"),
    [
        (nn.Conv2d(3, 4, 1), True),
        (nn.Conv2d(3, 4, 3), True),
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(3, stride=1)), True),
        (WeightedMean(3, patch_size=7), True),
        (nn.Conv2d(3, 4, 7), True),
        (nn.Conv2d(3, 4, 3, padding=1), False),
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3, padding=1)), False),
        (nn.Conv2d(3, 4, 3, stride=2), False),
        (nn.MaxPool2d(2), False),
        (nn.Conv2d(3, 4, (1, 3)), False),
        (nn.Upsample(scale_factor=2), False),
        (nn.AdaptiveAvgPool2d(1), False),
        (nn.AdaptiveAvgPool2d(7), False),
        (nn.Sequential(nn.Flatten(), nn.Linear(3 * 49, 3), nn.Unflatten(1, (3, 1, 1))), False),
        (SqueezeExcite(3, reduction=1), False),
        (start_as_identity(), False),  # its output is that of an identity, but depends on the whole patch
        (Fading(), False),
    ],
)
def test_a_stage_is_shared_only_if_windows_of_its_output_are_outputs_of_windows(stage, is_shared):
    assert can_share(stage, (3, 7, 7)) == is_shared


@pytest.mark.parametrize("name", ["cnn3d", "ssrn", "spectrum_first"])
def test_a_value_that_is_not_finite_reaches_only_the_patches_that_hold_it(name):
    model, cube = make(name), make_cube(14, 15)
    cube[9, 6, 3], cube[0, 14, 0] = np.nan, np.inf
    logits = predict_logits(model, cube)
    holds = np.zeros((14, 15), bool)
    holds[5:14, 2:11] = holds[:5, 10:] = True
    assert np.array_equal(np.isnan(logits).all(2), holds)
    cube[~np.isfinite(cube)] = 0
    expected = predict_logits(model, cube, engine="patches")
    np.testing.assert_allclose(logits[~holds], expected[~holds], atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("name", ["cnn3d", "ssrn"])
def test_a_small_budget_and_many_threads_change_nothing(name, monkeypatch):
    model, cube = make(name), make_cube(9, 70)
    expected = predict_logits(model, cube)
    small = dense.Budget.choose(torch.device("cpu")).resize(2**19)
    monkeypatch.setattr(dense.Budget, "choose", lambda _: small)
    widths: list[int] = []
    predict_tile = WindowEngine._predict_tile

    def record(engine: WindowEngine, padded: Tensor) -> Tensor:
        widths.append(padded.shape[1] - 8)
        return predict_tile(engine, padded)

    monkeypatch.setattr(WindowEngine, "_predict_tile", record)
    threads = torch.get_num_threads()
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            assert_agrees(predict_logits(model, cube, tile_rows=9), expected)
    finally:
        torch.set_num_threads(threads)
    assert max(widths) < 35


def test_out_of_memory_halves_the_tile_and_goes_on(monkeypatch):
    model, cube = make("ssrn"), make_cube(9, 40)
    expected = predict_logits(model, cube, engine="patches")
    monkeypatch.setattr(dense, "_SMALLEST_TILE", 2**18)
    predict_tile, widths = WindowEngine._predict_tile, []

    def run_out(engine: WindowEngine, padded: Tensor) -> Tensor:
        widths.append(padded.shape[1] - 8)
        if widths[-1] > 15:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return predict_tile(engine, padded)

    monkeypatch.setattr(WindowEngine, "_predict_tile", run_out)
    assert_agrees(predict_logits(model, cube, tile_rows=9), expected)
    assert max(widths) > 15


def test_slow_windows_come_in_short_tiles(monkeypatch):
    predictor = RowPredictor(make("cnn3d", attention={"conv3d_2": SE}), engine="dense")
    assert predictor.choose_tile_rows(100) > 5
    monkeypatch.setattr(windows, "_TILE_MACS", 1e8)
    assert predictor.choose_tile_rows(100) <= 5
    assert RowPredictor(make("cnn3d"), engine="dense").choose_tile_rows(100) > 5


class OtherHead(Ssrn):
    """SSRN with a head that sees more than the mean over the patch."""

    def classify(self, x: Tensor) -> Tensor:
        return super().classify(x * x.amax((2, 3), keepdim=True))


def test_a_head_of_another_kind_sees_the_whole_patch():
    model, cube = make("ssrn"), make_cube(5, 6)
    plain = predict_logits(model, cube)
    model.__class__ = OtherHead
    assert_agrees(predict_logits(model, cube), predict_logits(model, cube, engine="patches"))
    assert np.abs(predict_logits(model, cube) - plain).max() > 1e-2


@pytest.mark.parametrize("pool", [nn.AdaptiveMaxPool3d(1), nn.Sequential(nn.AdaptiveAvgPool3d(2), nn.MaxPool3d(2))])
def test_a_pooling_of_another_kind_is_in_the_map(pool):
    model, cube = make("cnn3d", patch=11), make_cube(5, 6)
    plain = predict_logits(model, cube)
    model.head[0] = pool
    assert_agrees(predict_logits(model, cube), predict_logits(model, cube, engine="patches"))
    assert np.abs(predict_logits(model, cube) - plain).max() > 1e-2


@pytest.mark.parametrize("name", ["cnn3d", "ssrn", "spectrum_first"])
def test_an_altered_network_is_mapped_patch_by_patch(name):
    point = list_models()[name].points[1]
    plain, cube = make(name), make_cube(3, 4)
    before = predict_logits(plain, cube)
    model = hsi_se.insert_attention(plain, {f"stages.{point}": SE}, example=torch.zeros(1, 1, 14, 9, 9))
    logits = predict_logits(model, cube)
    np.testing.assert_array_equal(logits, predict_logits(model, cube, engine="patches"))
    assert np.abs(logits - before).max() > 1e-3


def test_a_hook_is_in_the_map():
    model, cube = make("cnn3d"), make_cube(3, 4)
    model.register_forward_hook(lambda _, __, output: 2 * output)
    np.testing.assert_array_equal(predict_logits(model, cube), predict_logits(model, cube, engine="patches"))


@pytest.mark.parametrize("name", ["cnn3d", "ssrn", "spectrum_first"])
def test_the_model_is_left_as_it_was(name):
    model, cube = make(name), make_cube(5, 6)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    expected = predict_logits(model, cube)
    model.train()
    np.testing.assert_array_equal(predict_logits(model, cube), expected)
    assert all(module.training for module in model.modules())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("shape", [(11, 5), (5, 11), (8, 9)])
def test_a_weighted_mean_of_larger_features_is_that_of_each_patch(shape):
    mean = WeightedMean(3, patch_size=5)
    nn.init.normal_(mean.scores)
    x = torch.randn(2, 3, *shape)
    weight = mean.scores.softmax(1).view(3, 5, 5)
    expected = (x.unfold(2, 5, 1).unfold(3, 5, 1) * weight[:, None, None]).sum((-1, -2))
    torch.testing.assert_close(mean(x), expected)
