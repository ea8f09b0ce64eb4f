"""HybridSN: counts and shapes of the paper, seeded weights, and what each setting changes."""

import pytest
import torch
from torch import nn

from hsi_se import build_model
from hsi_se.config.model import HybridSN
from hsi_se.errors import ConfigError
from hsi_se.models.cost import count_parameters, count_stage_costs

PAPER = {"num_bands": 30, "patch_size": 25, "num_classes": 16}
SMALL = {"num_bands": 15, "patch_size": 11, "num_classes": 5}
SE = {"kind": "se", "reduction": 16}


def settings(**changes: object) -> HybridSN:
    return HybridSN.model_validate({"name": "hybridsn", **changes})


@pytest.mark.parametrize(
    ("changes", "num_bands", "num_classes", "expected"),
    [
        ({"norm": "none"}, 30, 16, 5_122_176),  # the paper's Table 1
        ({"norm": "none"}, 15, 9, 4_844_793),
        ({"norm": "none"}, 15, 16, 4_845_696),
        ({}, 30, 16, 5_122_416),
        ({"attention": {"fold": SE}}, 30, 16, 5_122_416 + 42_084),
        ({"attention": {"conv2d": SE}}, 30, 16, 5_122_416 + 580),
        ({"attention": {"fold": SE, "conv2d": SE}}, 30, 16, 5_122_416 + 42_084 + 580),
    ],
)
def test_parameter_counts_are_golden(changes, num_bands, num_classes, expected):
    model = build_model(settings(**changes), num_bands=num_bands, patch_size=25, num_classes=num_classes)
    assert count_parameters(model) == expected


def test_2d_first_network_has_480896_features_before_its_first_dense_layer():
    model = build_model(settings(order="2d-3d"), **PAPER)
    assert model.head[0].in_features == 480_896


def test_the_2d_first_network_takes_its_features_as_depth():
    model = build_model(settings(order="2d-3d"), **SMALL).eval()
    assert model.shapes == {
        "fold": (15, 11, 11),
        "conv2d": (64, 9, 9),
        "conv3d_1": (8, 58, 7, 7),
        "conv3d_2": (16, 54, 5, 5),
        "conv3d_3": (32, 52, 3, 3),
    }
    assert model(torch.randn(2, 1, 15, 11, 11)).shape == (2, 5)


def test_shapes_of_the_paper():
    assert build_model(settings(), **PAPER).shapes == {
        "conv3d_1": (8, 24, 23, 23),
        "conv3d_2": (16, 20, 21, 21),
        "conv3d_3": (32, 18, 19, 19),
        "fold": (576, 19, 19),
        "conv2d": (64, 17, 17),
    }


@pytest.mark.parametrize("order", ["3d-2d", "2d-3d"])
def test_width_scales_the_features_of_every_layer_but_the_last(order):
    half = build_model(settings(order=order, width=0.5), **SMALL)
    convolutions = [half.stages[f"conv3d_{number}"].conv.out_channels for number in (1, 2, 3)]
    assert convolutions == [4, 8, 16]
    assert half.stages["conv2d"].conv.out_channels == 32
    assert [layer.out_features for layer in half.head if isinstance(layer, nn.Linear)] == [128, 64, 5]
    assert half(torch.randn(2, 1, 15, 11, 11)).shape == (2, 5)


@pytest.mark.parametrize("order", ["3d-2d", "2d-3d"])
def test_pooled_features_are_the_means_over_the_last_map(order):
    model = build_model(settings(order=order, pool="mean"), **SMALL).eval()
    x = torch.randn(2, 1, 15, 11, 11)
    features = x
    for stage in model.stages.values():
        features = stage(features)
    torch.testing.assert_close(model(x), model.head(features.mean((-2, -1)).flatten(1)))


def test_macs_match_a_count_by_hand():
    rows = {row.name: row.macs for row in count_stage_costs(build_model(settings(attention={"fold": SE}), **PAPER))}
    assert rows == {
        "conv3d_1": 8 * (7 * 3 * 3) * (24 * 23 * 23),
        "conv3d_2": 16 * (8 * 5 * 3 * 3) * (20 * 21 * 21),
        "conv3d_3": 32 * (16 * 3 * 3 * 3) * (18 * 19 * 19),
        "fold": 0,
        # Squeeze and scaling of 576 maps, two products, and the nonlinearities behind each.
        "attention.fold": 2 * 576 * 19 * 19 + 2 * 576 * 36 + 36 + 576,
        "conv2d": 64 * (576 * 3 * 3) * (17 * 17),
        "head": 64 * 17 * 17 * 256 + 256 * 128 + 128 * 16,
    }


def test_forward_equals_the_paper_written_out():
    model = build_model(settings(norm="none", attention={"conv2d": SE}), **SMALL).eval()
    x = torch.randn(3, 1, 15, 11, 11)
    stages, head = model.stages, model.head
    y = x
    for name in ("conv3d_1", "conv3d_2", "conv3d_3"):
        y = nn.functional.conv3d(y, stages[name].conv.weight, stages[name].conv.bias).relu()
    y = y.reshape(3, 32 * 3, 5, 5)
    y = nn.functional.conv2d(y, stages.conv2d.conv.weight, stages.conv2d.conv.bias).relu()
    y = model.attention.conv2d(y).reshape(3, -1)
    y = (y @ head[0].weight.T + head[0].bias).relu()
    y = (y @ head[3].weight.T + head[3].bias).relu()
    torch.testing.assert_close(model(x), y @ head[6].weight.T + head[6].bias)


@pytest.mark.parametrize("order", ["3d-2d", "2d-3d"])
@pytest.mark.parametrize(
    ("point", "axis"),
    [(point, "feature") for point in HybridSN.points] + [(point, "band") for point in HybridSN.points_3d],
)
def test_a_gate_fits_every_point_and_changes_the_output(order, point, axis):
    gated = build_model(settings(order=order, attention={point: {**SE, "axis": axis}}), **SMALL).eval()
    plain = build_model(settings(order=order), **SMALL).eval()
    x = torch.randn(2, 1, 15, 11, 11)
    assert not torch.allclose(gated(x), plain(x))
    gated(x).sum().backward()
    assert all(parameter.grad is not None for parameter in gated.parameters())


def test_base_weights_do_not_depend_on_the_attention():
    plain = build_model(settings(), **SMALL, seed=3).state_dict()
    everywhere = build_model(settings(attention=dict.fromkeys(HybridSN.points, SE)), **SMALL, seed=3).state_dict()
    for name, value in plain.items():
        torch.testing.assert_close(everywhere[name], value, rtol=0, atol=0)


def test_a_baselines_weights_load_into_an_attention_variant():
    plain = build_model(settings(), **SMALL, seed=1)
    gated = build_model(settings(attention={"fold": SE}), **SMALL, seed=2)
    missing, unexpected = gated.load_state_dict(plain.state_dict(), strict=False)
    assert unexpected == []
    assert all(name.startswith("attention.fold.") for name in missing)


def test_weights_depend_on_the_seed_and_on_nothing_else():
    torch.manual_seed(1)
    one = build_model(settings(), **SMALL, seed=7).state_dict()
    torch.manual_seed(2)
    same = build_model(settings(), **SMALL, seed=7).state_dict()
    other = build_model(settings(), **SMALL, seed=8).state_dict()
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["head.0.weight"], other["head.0.weight"])


def test_building_leaves_the_global_generator_alone():
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    build_model(settings(), **SMALL)
    assert torch.equal(torch.rand(1), expected)


def train_step_output(changes: dict[str, object]) -> torch.Tensor:
    """Logits in training mode, where batch norm and dropout act, on fixed data with fixed randomness."""
    model = build_model(settings(**changes), **SMALL).train()
    patches = torch.randn(4, 1, 15, 11, 11, generator=torch.Generator().manual_seed(0))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return model(patches)


@pytest.mark.parametrize(
    ("base", "change"),
    [
        ({}, {"norm": "none"}),
        ({}, {"pool": "mean"}),
        ({}, {"dense_relu": False}),
        ({}, {"order": "2d-3d"}),
        ({}, {"dropout": 0.1}),
        ({}, {"attention": {"fold": SE}}),
        ({"attention": {"fold": SE}}, {"attention": {"conv2d": SE}}),
        ({"attention": {"fold": SE}}, {"attention": {"fold": {**SE, "reduction": 4}}}),
        ({"attention": {"fold": SE}}, {"attention": {"fold": {**SE, "squeeze": "max"}}}),
        ({"attention": {"conv3d_1": SE}}, {"attention": {"conv3d_1": {**SE, "axis": "band"}}}),
    ],
    ids=str,
)
def test_every_model_setting_changes_the_output(base, change):
    assert torch.equal(train_step_output(base), train_step_output(base))
    assert not torch.allclose(train_step_output(base), train_step_output(change))


def test_bias_and_form_change_the_gates_layers():
    def gate(**changes: object) -> nn.Module:
        return build_model(settings(attention={"fold": {**SE, **changes}}), **SMALL).attention["fold"]

    assert gate(bias=False).expand.bias is None
    assert gate(bias=True).expand.bias is not None
    assert isinstance(gate(form="conv").reduce, nn.Conv2d)
    assert isinstance(gate(form="linear").reduce, nn.Linear)


@pytest.mark.parametrize("order", ["3d-2d", "2d-3d"])
def test_a_patch_smaller_than_the_kernels_is_refused(order):
    with pytest.raises(ConfigError, match=r"patch\.size = 7: .*at least 9"):
        build_model(settings(order=order), num_bands=15, patch_size=7, num_classes=3)
    build_model(settings(order=order), num_bands=13, patch_size=9, num_classes=3)
