"""The dense engine: the logits of the network patch by patch, whatever the network and the scene."""

from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from hsi_se import build_model, predict_logits
from hsi_se.attention.channel_gate import ChannelGate
from hsi_se.config.model import HybridSN, list_blocks
from hsi_se.errors import ConfigError
from hsi_se.models.hybridsn import HybridSN as Network
from hsi_se.prediction import dense, dense_head
from hsi_se.prediction.dense import DenseEngine, TileEngine
from hsi_se.prediction.shared_features import slide
from hsi_se.sampling.patches import pad_cube

SE = {"kind": "se", "reduction": 4}


def make_network(*, bands: int = 14, patch: int = 15, classes: int = 4, seed: int = 0, **changes: Any) -> Network:
    """A network in which nothing is trivially 0 or 1: not the biases, not the running statistics."""
    model = build_model(
        HybridSN.model_validate({"name": "hybridsn", "width": 0.5, **changes}),
        num_bands=bands,
        patch_size=patch,
        num_classes=classes,
        seed=seed,
    )
    return randomize(model, seed=seed)


def randomize(model: Network, *, seed: int) -> Network:
    """Draws what is 0 or 1 in a new network, and returns it in evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
                module.running_mean.normal_(0, 0.3, generator=generator)
                module.running_var.uniform_(0.5, 2, generator=generator)
                module.weight.uniform_(0.5, 1.5, generator=generator)
            if getattr(module, "strength", None) is not None:
                module.strength.normal_(0, 2, generator=generator)
            if getattr(module, "scores", None) is not None:
                module.scores.normal_(0, 1, generator=generator)
            if getattr(module, "bias", None) is not None:
                module.bias.normal_(0, 0.3, generator=generator)
    return model.eval()


def make_cube(rows: int, cols: int, *, bands: int = 14, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(rows, cols, bands)).astype(np.float32)


def assert_agrees(logits: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
    """The demand: 1e-4 of the largest logit, and the same class but for ties."""
    assert logits.shape == expected.shape
    assert logits.dtype == np.float32
    tolerance = 1e-4 * np.abs(expected).max()
    assert np.abs(logits - expected).max() <= tolerance
    best = np.take_along_axis(expected, logits.argmax(2)[..., None], axis=2)[..., 0]
    assert (expected.max(2) - best <= 2 * tolerance).all()


def assert_exact(model: Network, cube: NDArray[np.float32], **options: Any) -> None:
    expected = predict_logits(model, cube, engine="patches", padding=options.get("padding", "zero"))
    assert_agrees(predict_logits(model, cube, **options), expected)


GATES = st.fixed_dictionaries(
    {
        "kind": st.just("se"),
        "reduction": st.sampled_from([1, 4, 64]),
        "bias": st.booleans(),
        "form": st.sampled_from(["linear", "conv"]),
        "squeeze": st.sampled_from(["mean", "max"]),
        "start": st.sampled_from(["drawn", "identity"]),
    }
)
BAND_GATES = GATES.map(lambda gate: {**gate, "axis": "band"})


@st.composite
def draw_attention(draw: st.DrawFn) -> dict[str, object]:
    points = draw(st.sets(st.sampled_from(HybridSN.points)))
    attention: dict[str, object] = {}
    for point in sorted(points):
        is_3d = point in HybridSN.points_3d
        others = [block for block in list_blocks() if block.explain_misfit(is_3d=is_3d) is None]
        gates = st.one_of(GATES, BAND_GATES) if is_3d else GATES
        attention[point] = draw(st.one_of(gates, st.sampled_from(others)))
    return attention


@settings(deadline=None, max_examples=120)
@given(
    changes=st.fixed_dictionaries(
        {
            "order": st.sampled_from(["3d-2d", "2d-3d"]),
            "norm": st.sampled_from(["batch", "none"]),
            "pool": st.sampled_from(["none", "mean"]),
            "dense_relu": st.booleans(),
            "width": st.sampled_from([0.25, 0.3, 0.5]),
            "attention": draw_attention(),
        }
    ),
    bands=st.integers(13, 17),
    patch=st.sampled_from([9, 11, 13, 17, 21]),
    classes=st.integers(2, 6),
    rows=st.integers(1, 26),
    cols=st.integers(1, 26),
    padding=st.sampled_from(["zero", "reflect"]),
    tile_rows=st.none() | st.integers(1, 30),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_network_on_any_scene_gives_the_logits_of_its_patches(
    changes, bands, patch, classes, rows, cols, padding, tile_rows, seed
):
    model = make_network(bands=bands, patch=patch, classes=classes, seed=seed, **changes)
    cube = make_cube(rows, cols, bands=bands, seed=seed)
    assert_exact(model, cube, padding=padding, tile_rows=tile_rows)


@pytest.mark.parametrize("axis", ["feature", "band"])
@pytest.mark.parametrize(("bands", "width"), [(13, 0.5), (15, 0.03), (13, 0.03)])
def test_a_gate_over_a_single_depth_or_feature_is_exact(axis, bands, width):
    gates = {"conv3d_3": {**SE, "axis": axis}, "conv2d": SE}
    for attention in (gates, {**gates, "fold": SE}):
        assert_exact(make_network(bands=bands, width=width, attention=attention), make_cube(9, 8, bands=bands))


class Product(nn.Module):
    """Attention of no known kind: features times a map over the patch that depends on all of them."""

    def forward(self, x: Tensor) -> Tensor:
        place = torch.linspace(0.5, 1.5, x.shape[-1])
        return x * (place * place[:, None]) * x.mean(dim=1, keepdim=True).sigmoid()


class Neighbours(ChannelGate):
    """A gate of another kind: from each channel and the next."""

    def __init__(self, squeeze: str) -> None:
        super().__init__(axis="feature", squeeze=squeeze)

    def gate(self, squeezed: Tensor) -> Tensor:
        return (squeezed - squeezed.roll(1, dims=1)).sigmoid()


@pytest.mark.parametrize("order", ["3d-2d", "2d-3d"])
@pytest.mark.parametrize("point", HybridSN.points)
@pytest.mark.parametrize("others", [{}, {"fold": SE}, {"conv3d_3": SE, "conv2d": SE}], ids=str)
def test_a_block_of_unknown_kind_is_run_window_by_window(order, point, others):
    model = make_network(order=order, attention=others)
    model.attention[point] = Product()
    assert_exact(model, make_cube(11, 18))


@pytest.mark.parametrize("squeeze", ["mean", "max"])
def test_a_gate_of_another_kind_takes_the_fast_way(squeeze, monkeypatch):
    monkeypatch.delattr(TileEngine, "_run_windows")
    for points in (("fold",), ("conv2d",), ("conv3d_3", "fold", "conv2d")):
        model = make_network()
        for point in points:
            model.attention[point] = Neighbours(squeeze)
        assert_exact(model, make_cube(20, 19))


@pytest.mark.parametrize(
    ("attention", "share"),
    [
        ({}, 1 / 30),
        ({"conv2d": SE}, 1 / 4),
        ({"fold": SE}, 1 / 3),
        ({"conv3d_3": SE, "conv2d": SE}, 1 / 3),
        ({"conv3d_2": SE}, 0.95),
    ],
    ids=str,
)
def test_overlapping_patches_share_their_products(attention, share, monkeypatch):
    model, cube = make_network(patch=25, attention=attention), make_cube(24, 24)
    monkeypatch.setattr(dense, "_MAX_WORKERS", 1)  # the counter sees one thread
    macs = []
    for engine in ("dense", "patches"):
        with FlopCounterMode(display=False) as counter:
            predict_logits(model, cube, engine=engine)
        macs.append(counter.get_total_flops())
    assert macs[0] < share * macs[1]


def test_rows_follow_from_their_own_padded_rows_alone():
    model, cube = make_network(attention={"fold": SE, "conv2d": SE}), make_cube(30, 20)
    padded = pad_cube(cube, patch_size=15, padding="reflect")
    expected = predict_logits(model, cube, engine="patches", padding="reflect")
    rows = DenseEngine(model).predict_rows(padded[7 : 19 + 14].clone())
    assert_agrees(rows.numpy(), expected[7:19])


@pytest.mark.parametrize("attention", [{}, {"fold": SE}, {"conv2d": SE}, {"conv3d_1": SE}], ids=str)
def test_many_threads_give_what_one_gives(attention):
    model, cube = make_network(attention=attention), make_cube(12, 70)
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            results.append(predict_logits(model, cube))
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(threads)
    assert_agrees(results[1], results[0])


@pytest.mark.parametrize("attention", [{}, {"fold": SE}, {"conv3d_1": SE}], ids=str)
def test_a_small_budget_narrows_the_tiles_and_changes_nothing(attention, monkeypatch):
    model, cube = make_network(attention=attention), make_cube(9, 70)
    expected = predict_logits(model, cube)
    small = dense.Budget.choose(torch.device("cpu")).resize(2**19)
    monkeypatch.setattr(dense.Budget, "choose", lambda _: small)
    widths = []
    predict_tile = DenseEngine._predict_tile

    def record(engine: DenseEngine, padded: Tensor) -> Tensor:
        widths.append(padded.shape[1] - 14)
        return predict_tile(engine, padded)

    monkeypatch.setattr(DenseEngine, "_predict_tile", record)
    assert_agrees(predict_logits(model, cube, tile_rows=9), expected)
    assert sum(widths) == 70
    assert max(widths) < 35


@pytest.mark.parametrize("free", [2**30, 2**37])
def test_a_gpu_gives_a_quarter_of_its_free_memory(free, monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (free, 2**38))
    budget = dense.Budget.choose(torch.device("cuda"))
    assert budget.tile_bytes == free // 4
    assert budget.batch_bytes < budget.tile_bytes
    assert dense.Budget.choose(torch.device("cpu")).tile_bytes == 320 * 2**20


@pytest.mark.parametrize("attention", [{"fold": SE, "conv2d": SE}, {"conv3d_2": SE}, {}], ids=str)
def test_out_of_memory_halves_the_tile_and_goes_on(attention, monkeypatch):
    model, cube = make_network(attention=attention), make_cube(9, 40)
    expected = predict_logits(model, cube)
    monkeypatch.setattr(dense, "_SMALLEST_TILE", 2**18)
    predict_tile, widths = DenseEngine._predict_tile, []

    def run_out(engine: DenseEngine, padded: Tensor) -> Tensor:
        widths.append(padded.shape[1] - 14)
        if padded.shape[1] - 14 > 15:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return predict_tile(engine, padded)

    monkeypatch.setattr(DenseEngine, "_predict_tile", run_out)
    assert_agrees(predict_logits(model, cube, tile_rows=9), expected)
    assert max(widths) > 15
    monkeypatch.setattr(DenseEngine, "_predict_tile", lambda engine, padded: run_out(engine, padded.repeat(1, 9, 1)))
    with pytest.raises(torch.OutOfMemoryError):
        predict_logits(model, cube)


@pytest.mark.parametrize("after", [None, SE, {"kind": "cbam", "reduction": 4}], ids=str)
@pytest.mark.parametrize("before", ["conv3d_3", "fold"])
def test_the_way_of_a_gpu_agrees_with_patches(before, after, monkeypatch):
    attention = {before: SE} | ({"conv2d": after} if after else {})
    model, cube = make_network(attention=attention), make_cube(9, 20)
    predict_tile = DenseEngine._predict_tile

    def be_gpu(engine: DenseEngine, padded: Tensor) -> Tensor:
        engine._device = torch.device("meta")
        return predict_tile(engine, padded)

    monkeypatch.setattr(DenseEngine, "_predict_tile", be_gpu)
    assert_agrees(predict_logits(model, cube), predict_logits(model, cube, engine="patches"))


@pytest.mark.parametrize("attention", [{"fold": SE}, {"fold": SE, "conv2d": SE}], ids=str)
@pytest.mark.parametrize("patch", [9, 11])
def test_a_tile_of_one_row_gives_what_the_scene_gives(attention, patch):
    model, cube = make_network(attention=attention, patch=patch), make_cube(4, 9)
    assert_agrees(predict_logits(model, cube, tile_rows=1), predict_logits(model, cube, engine="patches"))


def test_without_room_for_the_transformed_weights_the_head_runs_on_patches(monkeypatch):
    monkeypatch.setattr(dense_head, "_SPECTRUM_BYTES", 0)
    assert_exact(make_network(), make_cube(20, 20))


@pytest.mark.parametrize("attention", [{"conv2d": SE}, {"fold": SE, "conv2d": SE}], ids=str)
def test_without_weights_in_the_order_of_onednn_the_head_gives_the_same(attention, monkeypatch):
    monkeypatch.setattr(dense_head, "_can_pack", lambda: False)
    assert_exact(make_network(attention=attention), make_cube(20, 20))


@pytest.mark.parametrize("patch", [9, 13])
def test_a_tile_taller_than_two_patches_is_exact(patch):
    model = make_network(attention={"fold": SE, "conv2d": SE}, patch=patch)
    assert_exact(model, make_cube(40, 7))


@pytest.mark.parametrize("attention", [{}, {"fold": SE}], ids=str)
def test_a_value_that_is_not_finite_reaches_only_the_patches_that_hold_it(attention):
    model, cube = make_network(attention=attention), make_cube(30, 31)
    cube[12, 9, 3] = np.nan
    cube[0, 30, 0] = np.inf
    logits = predict_logits(model, cube)
    holds = np.zeros((30, 31), bool)
    holds[5:20, 2:17] = holds[:8, 23:] = True
    assert np.array_equal(np.isnan(logits).all(2), holds)
    cube[~np.isfinite(cube)] = 0
    expected = predict_logits(model, cube, engine="patches", padding="zero")
    np.testing.assert_allclose(logits[~holds], expected[~holds], atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("engine", ["dense", "patches"])
@pytest.mark.parametrize("points", [(), ("fold",), ("conv2d",)], ids=str)
@pytest.mark.parametrize("shape", [(5, 6), (1, 1)])
def test_the_model_is_used_in_evaluation_mode_and_left_as_it_was(engine, points, shape):
    model, cube = make_network(attention=dict.fromkeys(points, SE), patch=9), make_cube(*shape)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    expected = predict_logits(model, cube, engine=engine)
    model.train()
    model.stages["conv2d"].eval()
    np.testing.assert_array_equal(predict_logits(model, cube, engine=engine), expected)
    assert model.training
    assert not model.stages["conv2d"].training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_another_architecture_runs_patch_by_patch():
    class Centre(nn.Module):
        """Logits: two components of the centre pixel."""

        patch_size = 5

        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(2.0))

        def forward(self, x: Tensor) -> Tensor:
            return self.scale * x[:, 0, :2, 2, 2]

    cube = make_cube(6, 7)
    np.testing.assert_array_equal(predict_logits(Centre(), cube), 2 * cube[:, :, :2])


def test_an_unknown_engine_is_refused():
    with pytest.raises(ConfigError, match=r"engine = 'fast': choose from dense, patches"):
        predict_logits(make_network(), make_cube(3, 3), engine="fast")


def test_every_pixel_is_reported_once():
    steps: list[int] = []
    predict_logits(make_network(), make_cube(10, 7), tile_rows=4, on_batch=steps.append)
    assert steps == [28, 28, 14]


@pytest.mark.parametrize("statistic", ["mean", "max"])
def test_sliding_statistics_are_those_of_each_window(statistic):
    channels = torch.randn(3, 9, 11)
    windows = channels.unfold(1, 4, 1).unfold(2, 4, 1)
    expected = windows.mean((3, 4)) if statistic == "mean" else windows.amax((3, 4))
    torch.testing.assert_close(slide(channels, window=4, statistic=statistic), expected)


def test_a_scene_one_pixel_wide_leaves_the_weights_as_they_were():
    settings = HybridSN(name="hybridsn", width=0.25, dense_relu=False)
    model = build_model(settings, num_bands=13, patch_size=9, num_classes=2)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    cube = np.random.default_rng(0).normal(size=(2, 1, 13)).astype(np.float32)
    logits = [predict_logits(model, cube, padding="zero", tile_rows=rows) for rows in (1, 2, None)]
    expected = predict_logits(model, cube, padding="zero", engine="patches")
    for result in logits:
        assert_agrees(result, expected)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
