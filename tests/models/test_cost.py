"""The cost of attention is counted whole: by hand for every block, and as the paper counts SE-ResNet-50."""

import pytest
import torch
from torch import nn

from hsi_se.attention import AttentionBlock
from hsi_se.config.model import list_blocks, list_models
from hsi_se.models.cost import count_macs, count_stage_costs
from tests.models.test_networks import BLOCK_CHANNELS, NETWORKS, SE, build, build_imagenet

C, SIDE = 64, 17  # of HybridSN's last point for the paper's patches
M = SIDE**2
X = C * M  # values of the features
POOLED = 9 * 9  # maxima of 17 × 17 pixels, two by two

# Operations by hand: what is read by a pooling, each product, then what is written value by value.
BY_HAND = {
    "se": ({}, X + 2 * C * 4 + 4 + C + X),
    "eca": ({}, X + 3 * C + C + X),
    "cbam": (
        {},
        # mean and maximum, the shared layers twice, their ReLUs, a sum and a sigmoid, the scaling
        (2 * X + 2 * (2 * C * 4) + 2 * 4 + C + C + X)
        # mean and maximum over channels, a 7 × 7 convolution of two maps, a sigmoid, the scaling
        + (2 * X + 2 * 49 * M + M + X),
    ),
    "nonlocal": (
        {},
        # θ, φ, g and the last convolution, two products of all pairs, a softmax, a norm, the sum
        4 * C * 32 * M + 2 * M * M * 32 + 3 * M * M + X + X,
    ),
    "nonlocal, keys sub-sampled": (
        {"kind": "nonlocal", "sub_sample": True},
        4 * C * 32 * M + 2 * 32 * M + 2 * M * POOLED * 32 + 3 * M * POOLED + X + X,
    ),
    "strip_pooling": ({}, 2 * X + 2 * (3 * C * C * SIDE) + X + X + C * C * M + X + X),
    "coordinate": (
        {},
        2 * X + C * 8 * 2 * SIDE + 8 * 2 * SIDE + 8 * 2 * SIDE + 2 * (8 * C * SIDE) + 2 * C * SIDE + 2 * X,
    ),
    "gather_excite": ({}, X + C + X),
    "gather_excite, extent 4": (  # 7 × 7 pixels at stride 4: five by five means
        {"kind": "gather_excite", "extent": 4},
        25 * C * 49 + X + X,
    ),
    "gather_excite, learned, extent 4": (  # two depth-wise convolutions to 9 × 9 and 5 × 5, with norms, and a ReLU
        {"kind": "gather_excite", "extent": 4, "learned": True},
        9 * C * 81 + 2 * C * 81 + 9 * C * 25 + C * 25 + X + X,
    ),
    "gather_excite, learned": ({"kind": "gather_excite", "learned": True}, X + C + C + X),
    # the channel means, two dense layers and a ReLU, a convolution to one map, both sigmoids, their sum, the scaling
    "scse": ({}, X + 2 * C * 32 + 32 + C * M + C + M + X + X),
    "em": (
        {},
        # two 1 × 1 convolutions, a norm and a ReLU, the reconstruction, the sum
        2 * C * C * M
        + X
        + X
        + C * C * M
        + X
        # three times: products with 64 bases, a softmax, its sums over positions, means, and their lengths
        + 3 * (C * C * M + 3 * C * M + C * M + C + C * M + C * C * M + C * C + C + C * C),
    ),
    "se, start identity": ({"kind": "se", "start": "identity"}, X + 2 * C * 4 + 4 + 3 * C + X),
    "simam": ({}, X + X + X + X + 3 * C + X + X + X + X),
}


def test_every_kind_of_block_is_counted_by_hand():
    assert {block.kind for block in list_blocks()} == {name.partition(",")[0] for name in BY_HAND}


@pytest.mark.parametrize("name", BY_HAND)
def test_the_operations_of_a_block_are_those_counted_by_hand(name):
    options, expected = BY_HAND[name]
    attention = {"conv2d": options or {"kind": name}}
    rows = count_stage_costs(build("hybridsn", bands=30, patch=25, classes=16, attention=attention))
    assert {row.name: row.macs for row in rows}["attention.conv2d"] == expected


@pytest.mark.parametrize("axis", ["feature", "band"])
def test_at_a_3d_point_every_value_is_read_and_scaled_once(axis):
    attention = {"conv3d_3": {"kind": "se", "axis": axis}}
    rows = count_stage_costs(build("hybridsn", bands=30, patch=25, classes=16, attention=attention))
    hidden, channels = {"feature": (2, 32), "band": (1, 18)}[axis]
    values = 32 * 18 * 19 * 19
    expected = 2 * values + 2 * channels * hidden + hidden + channels
    assert {row.name: row.macs for row in rows}["attention.conv3d_3"] == expected


def test_se_resnet_50_costs_0_26_per_cent_more_as_the_paper_counts():
    # Hu et al. 2020, section 3.2: 3.86 and 3.87 GFLOPs (MACs) at 224 × 224, "a 0.26% relative increase". That
    # is the ratio of the two rounded numbers; by the unrounded ones it is 0.35 %.
    gated, plain = (count_macs(build_imagenet("se_resnet", depth=50, **more)) for more in ({}, {"attention": {}}))
    sides = (56, 28, 14, 7)
    by_hand = sum(
        count * (2 * channels * side**2 + 2 * channels * channels // 16 + channels // 16 + channels)
        for (channels, count), side in zip(BLOCK_CHANNELS[50], sides, strict=True)
    )
    assert gated - plain == by_hand
    of_paper = [round(macs / 1e9, 2) for macs in (plain, gated)]
    assert of_paper == [3.86, 3.87]
    assert f"{100 * (of_paper[1] / of_paper[0] - 1):.2f}" == "0.26"
    assert gated / plain - 1 == pytest.approx(0.0035, abs=5e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_without_values_costs_what_one_with_values_costs(name):
    kind = list_models()[name]
    attention = {}
    for place, point in enumerate(kind.points):
        is_3d = point in kind.points_3d
        fitting = [block for block in list_blocks() if block.explain_misfit(is_3d=is_3d) is None]
        attention[point] = fitting[(place + 3) % len(fitting)].model_dump()  # from the non-local block on
    with torch.device("meta"):
        empty = build(name, attention=attention)
    assert count_stage_costs(empty) == count_stage_costs(build(name, attention=attention))


def test_what_is_behind_a_block_and_no_part_of_it_is_not_counted_twice():
    plain, gated = (build("se_resnet", patch=17, attention=changes) for changes in ({}, {"layer1": SE}))
    rows = [{row.name: row.macs for row in count_stage_costs(network)} for network in (plain, gated)]
    assert [name for name in rows[0] if rows[0][name] != rows[1][name]] == ["layer1"]


class Doubling(AttentionBlock):
    """What a plugin may do: a statistic, some arithmetic, a copy."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (2 * x - x.mean((2, 3), keepdim=True)).clone().relu()


def test_a_block_of_a_plugin_is_counted_by_its_operations():
    network = build("hybridsn", bands=15, patch=9, attention={"conv2d": SE})
    network.attention["conv2d"] = Doubling()
    assert isinstance(network.attention["conv2d"], nn.Module)
    values = 64 * 1 * 1
    assert {row.name: row.macs for row in count_stage_costs(network)}["attention.conv2d"] == 4 * values
