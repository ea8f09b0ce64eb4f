"""Blocks and networks of plugins inside the package: shapes, initial weights, costs, exact maps, mistakes."""

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from ruamel.yaml import YAML
from torch import nn

import hsi_se
from hsi_se import build_model, predict_logits
from hsi_se.config.model import ModelSettings
from hsi_se.config.registry import load_plugin, register_attention, register_network
from hsi_se.errors import ConfigError
from hsi_se.models.cost import compare_blocks, count_parameters, count_stage_costs
from hsi_se.prediction.dense import DenseEngine
from hsi_se.prediction.logits import RowPredictor
from tests.docs.pages import list_blocks
from tests.plugins import PAGE, SOURCE, forgetting

SIZES = {"num_bands": 13, "patch_size": 9, "num_classes": 4}


@pytest.fixture(autouse=True)
def _with_the_plugin_of_the_docs(tmp_path):
    with forgetting():
        (tmp_path / "my_blocks.py").write_text(SOURCE)
        load_plugin(tmp_path / "my_blocks.py")
        yield


def build(name: str, seed: int = 0, **changes):
    settings = TypeAdapter(ModelSettings).validate_python({"name": name, **changes})
    return build_model(settings, **SIZES, seed=seed)


def recompute_peak(weight: torch.Tensor, slope: float, x: torch.Tensor) -> torch.Tensor:
    gates = 1 / (1 + torch.exp(-slope * weight * x.flatten(2).max(2).values))
    return torch.einsum("nc...,nc->nc...", x, gates)


@pytest.mark.parametrize("point", ["conv3d_2", "fold", "conv2d"])
def test_a_block_acts_at_its_point_with_its_setting(point):
    model = build("hybridsn", width=0.25, attention={point: {"kind": "peak", "slope": 3}}).eval()
    block = model.attention[point]
    x = torch.randn(2, *model.shapes[point])
    torch.testing.assert_close(block(x), recompute_peak(block.block.weight, 3, x))


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("hybridsn", {"width": 0.25, "attention": {"fold": {"kind": "peak"}}}),
        ("hybridsn", {"width": 0.25, "attention": {"fold": {"kind": "se"}, "conv2d": {"kind": "peak"}}}),
        ("hybridsn", {"width": 0.25, "attention": {"conv3d_1": {"kind": "peak"}}}),
        ("se_resnet", {"attention": {"layer1": {"kind": "peak"}}}),
        ("spectrum_first", {"features": 8, "attention": {"bands": {"kind": "peak"}, "space": {"kind": "peak"}}}),
        ("two_layers", {"attention": {"early": {"kind": "peak"}}}),
        ("two_layers", {"attention": {"early": {"kind": "se"}}}),
    ],
)
def test_maps_have_the_logits_of_the_network_patch_by_patch(name, changes):
    model = build(name, **changes).eval()
    cube = np.random.default_rng(0).normal(size=(6, 7, 13)).astype(np.float32)
    padded = np.pad(cube, ((4, 4), (4, 4), (0, 0)), mode="reflect")
    found = predict_logits(model, cube, padding="reflect")
    with torch.inference_mode():
        for row, col in ((0, 0), (3, 5), (5, 6)):
            patch = torch.from_numpy(padded[row : row + 9, col : col + 9].transpose(2, 0, 1).copy())[None, None]
            np.testing.assert_allclose(found[row, col], model(patch)[0].numpy(), rtol=1e-4, atol=1e-4)


def test_a_hybridsn_keeps_the_dense_engine_and_a_network_of_a_plugin_runs_patch_by_patch():
    of_plugin = RowPredictor(build("two_layers"), engine="dense")
    hybrid = RowPredictor(build("hybridsn", attention={"fold": {"kind": "peak"}}), engine="dense")
    assert of_plugin.choose_tile_rows(20) is None
    assert isinstance(hybrid._dense, DenseEngine)


def test_initial_weights_are_the_plugins_own_seeded_and_free_of_the_rest():
    def state(seed: int, **attention: str) -> dict[str, torch.Tensor]:
        blocks = {point: {"kind": kind} for point, kind in attention.items()}
        return build("hybridsn", seed, width=0.25, attention=blocks).state_dict()

    one, other = state(3, fold="peak"), state(3, conv3d_1="se", fold="peak")
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    weight = one["attention.fold.block.weight"]
    assert not torch.equal(weight, state(4, fold="peak")["attention.fold.block.weight"])
    assert (weight < -0.5).any()  # drawn from a normal distribution, as the block says
    bare, gated = build("two_layers", 3).state_dict(), build("two_layers", 3, attention={"early": {"kind": "peak"}})
    again = gated.state_dict()
    assert all(torch.equal(value, again[name]) for name, value in bare.items())
    dense = "stages.network.late.2.weight"
    assert not torch.equal(bare[dense], build("two_layers", 4).state_dict()[dense])


def test_building_leaves_torchs_generator_as_it_was():
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    build("two_layers", attention={"early": {"kind": "peak"}})
    assert torch.equal(torch.random.get_rng_state(), before)


def test_costs_count_a_network_and_the_blocks_at_its_points_apart():
    model = build("two_layers", width=6, attention={"early": {"kind": "peak"}})
    network, block = count_stage_costs(model)
    conv, dense = 13 * 9 * 6, 6 * 81 * 4
    assert (network.name, network.contents, network.shape) == ("network", "TwoLayers", (4,))
    assert network.num_parameters == conv + 6 + dense + 4
    assert network.macs == conv * 81 + dense
    # The maximum reads each value; slope, weight and sigmoid for each channel; a product for each value.
    assert (block.name, block.num_parameters, block.shape) == ("attention.early", 6, (6, 9, 9))
    assert block.macs == 6 * 81 + 3 * 6 + 6 * 81 - 6 + 6 - 6 + 6
    assert count_parameters(model) == network.num_parameters + 6
    settings = TypeAdapter(ModelSettings).validate_python({"name": "two_layers"})
    rows = list(compare_blocks(settings, **SIZES))
    (peak,) = [row for row in rows if row.kind == "peak"]
    assert (peak.point, peak.num_parameters, peak.misfit) == ("early", 16, "")


# ------------------------------------------------------------------------------------------- mistakes


class Wrong(nn.Module):
    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.dense = nn.Linear(1, num_classes)

    def forward(self, x):
        return self.dense(x.flatten(1)[:, :1])


@pytest.mark.parametrize(
    ("forward", "problem"),
    [
        (lambda x: x[:, :1], "returns (2, 1, 3, 3) for an input (2, 32, 3, 3), not (2, 32, 3, 3); correct the plugin"),
        (lambda x: (x, x), "returns a tuple for an input (2, 32, 3, 3), not (2, 32, 3, 3); correct the plugin"),
        (lambda x: x.double(), "returns (2, 32, 3, 3) of torch.float64 for an input"),
        (lambda x: x + x.new_ones(4), "fails for an input (2, 32, 3, 3) (RuntimeError: The size of tensor a (3) must"),
    ],
)
def test_a_block_that_does_not_keep_the_shape_is_refused_by_name_with_both_shapes(forward, problem):
    def make(shape: tuple[int, ...]) -> nn.Module:
        module = nn.Identity(shape)
        module.forward = forward
        return module

    register_attention("wrong")(make)
    with pytest.raises(ConfigError) as refused:
        build("hybridsn", attention={"fold": {"kind": "wrong"}})
    assert str(refused.value).startswith(f"kind = wrong: {problem}")


@pytest.mark.parametrize(
    ("make", "options", "problem"),
    [
        (lambda: nn.Flatten(), {}, "returns (2, 1053) for an input (2, 13, 9, 9), not (2, 4); correct"),
        (lambda: "x", {}, "its factory returns a str; return a torch.nn.Module"),
        (lambda num_classes: Wrong(num_classes), {"points": {"a": "late"}}, "has no submodule 'late', which is one of"),
        (lambda num_classes: nn.LazyLinear(num_classes), {}, "returns (2, 13, 9, 4) for an input"),
        (lambda num_classes: Wrong(num_classes).requires_grad_(False), {}, "has no parameters to train; correct"),
        (lambda: 1 / 0, {}, "fails for an input (2, 13, 9, 9) (ZeroDivisionError: division by zero)"),
    ],
)
def test_a_network_that_does_not_return_logits_is_refused_by_name(make, options, problem):
    register_network("wrong", **options)(make)
    with pytest.raises(ConfigError) as refused:
        build("wrong")
    assert str(refused.value).startswith(f"model.name = wrong: {problem}")


def test_a_network_of_3d_input_has_3d_points():
    @register_network("deep", input="3d", points={"first": "0"}, points_3d=["first"])
    def make(num_classes: int) -> nn.Module:
        layers = nn.Conv3d(1, 3, 3, padding=1), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(3, num_classes)
        return nn.Sequential(*layers)

    model = build("deep", attention={"first": {"kind": "se", "axis": "band", "reduction": 1}})
    assert model.list_blocks()["first"].reduce.in_features == 13  # one gate per depth
    with pytest.raises(ValidationError, match="needs 2-D features, and this point has a spectral axis"):
        TypeAdapter(ModelSettings).validate_python({"name": "deep", "attention": {"first": {"kind": "coordinate"}}})


def test_a_block_enters_a_detector_by_one_row_of_its_config():
    rows = YAML(typ="safe").load(list_blocks(PAGE, "text")[1])
    space = {}
    exec(list_blocks(PAGE, "python")[1], space)
    detector = space["Detector"](rows).eval()
    block = detector.layers[2][0]
    assert isinstance(block, space["SqueezeExcite"])
    x = torch.randn(2, 3, 8, 8)
    before = detector.layers[1](detector.layers[0](x))
    torch.testing.assert_close(detector(x), before + block(before))
    with pytest.raises(ConfigError, match=r"SqueezeExcite\(32, 16\): keeps its channels; write "):
        space["Detector"]([*rows[:2], [-1, 1, "SqueezeExcite", [32, 16]]])
    inserted = hsi_se.insert_attention(space["Detector"](rows[:2]), {"layers.1": {"kind": "peak"}}, example=x)
    assert inserted(x).shape == (2, 32, 8, 8)
