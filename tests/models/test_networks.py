"""Every network that a config can name: the literature's counts, points, patches of every size."""

from typing import Any

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from hsi_se import build_model
from hsi_se.config.model import ModelSettings, Network, list_blocks, list_models
from hsi_se.errors import ConfigError
from hsi_se.models import residual
from hsi_se.models.cost import count_macs, count_parameters, count_stage_costs
from hsi_se.models.residual import Hierarchy, ResidualBlock

NETWORKS = [name for name, kind in list_models().items() if issubclass(kind, Network)]
SE = {"kind": "se"}
# With gates with biases, and without gates: https://arxiv.org/abs/1709.01507 and torchvision's ResNets.
PARAMETERS = {
    18: (11_778_592, 11_689_512),
    34: (21_958_868, 21_797_672),
    50: (28_088_024, 25_557_032),
    101: (49_326_872, 44_549_160),
    152: (66_821_848, 60_192_808),
}
BLOCK_CHANNELS = {  # C of every gate, by stage, and how many blocks a stage has
    18: ((64, 2), (128, 2), (256, 2), (512, 2)),
    34: ((64, 3), (128, 4), (256, 6), (512, 3)),
    50: ((256, 3), (512, 4), (1024, 6), (2048, 3)),
    101: ((256, 3), (512, 4), (1024, 23), (2048, 3)),
    152: ((256, 3), (512, 8), (1024, 36), (2048, 3)),
}


def settings(name: str, **changes: Any) -> Any:
    return TypeAdapter(ModelSettings).validate_python({"name": name, **changes})


def build(name: str, *, bands: int = 15, patch: int = 9, classes: int = 5, seed: int = 0, **changes: Any) -> Any:
    return build_model(settings(name, **changes), num_bands=bands, patch_size=patch, num_classes=classes, seed=seed)


def build_imagenet(name: str, **changes: Any) -> Any:
    return build(name, bands=3, patch=224, classes=1000, stem="imagenet", **changes)


# ----------------------------------------------------------------------------- counts of the literature


@pytest.mark.parametrize("depth", PARAMETERS)
def test_se_resnets_have_the_parameters_of_the_literature(depth):
    assert count_parameters(build_imagenet("se_resnet", depth=depth)) == PARAMETERS[depth][0]
    assert count_parameters(build_imagenet("se_resnet", depth=depth, attention={})) == PARAMETERS[depth][1]


@pytest.mark.parametrize("depth", PARAMETERS)
def test_gates_without_biases_add_two_over_r_times_the_squares_of_the_channels(depth):
    attention = {point: {"kind": "se", "bias": False} for point in ("layer1", "layer2", "layer3", "layer4")}
    gated = build_imagenet("se_resnet", depth=depth, attention=attention)
    surplus = 2 / 16 * sum(count * channels**2 for channels, count in BLOCK_CHANNELS[depth])
    assert count_parameters(gated) - PARAMETERS[depth][1] == surplus


def test_without_the_last_stages_gates_the_surplus_falls_to_four_per_cent():
    base = PARAMETERS[50][1]
    assert PARAMETERS[50][0] / base - 1 == pytest.approx(0.099, abs=0.001)
    kept = dict.fromkeys(("layer1", "layer2", "layer3"), SE)
    surplus = count_parameters(build_imagenet("se_resnet", depth=50, attention=kept)) / base - 1
    assert surplus == pytest.approx(0.04, abs=0.003)


def test_res2net_50_has_the_25_7_million_parameters_of_the_paper():
    without = build_imagenet("res2net", depth=50, attention={})
    assert count_parameters(without) == pytest.approx(25.70e6, rel=1e-3)


def test_googlenets_modules_have_the_parameters_of_the_papers_table():
    # In thousands, Szegedy et al., table 1; its number for 4c (463) does not follow from its row (509).
    network = build_imagenet("se_inception")
    thousands = {"3a": 159, "3b": 380, "4a": 364, "4b": 437, "4d": 580, "4e": 840, "5a": 1072, "5b": 1388}
    for name, expected in thousands.items():
        convs = [m for m in network.stages[f"inception_{name}"].modules() if isinstance(m, nn.Conv2d)]
        assert sum(conv.weight.numel() for conv in convs) / 1000 == pytest.approx(expected, rel=0.045), name


def test_ssrn_has_the_papers_shapes_and_the_364_thousand_parameters_quoted_for_it():
    network = build("ssrn", bands=200, patch=7, classes=16)
    shapes = {row.name: row.shape for row in count_stage_costs(network)}
    assert shapes["spectral_stem"] == (24, 97, 7, 7)
    assert shapes["spatial_2"] == (24, 5, 5)
    assert count_parameters(network) == pytest.approx(364_168, rel=0.005)


# ------------------------------------------------------------------------------------------ patches


SMALLEST_PATCH = {"hybridsn": 9, "cnn3d": 7}  # three by three kernels without padding; 5 for the others


@pytest.mark.parametrize(
    ("name", "patch"), [(name, patch) for name in NETWORKS for patch in (SMALLEST_PATCH.get(name, 5), 15, 27)]
)
def test_networks_take_patches_of_every_size_that_fits_them(name, patch):
    network = build(name, patch=patch).eval()
    assert network(torch.randn(2, 1, 15, patch, patch)).shape == (2, 5)


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_every_point_takes_every_block_that_fits_and_changes_the_output(name):
    bare = settings(name, attention={})
    sizes = {"num_bands": 15, "patch_size": 9, "num_classes": 5}
    x = torch.randn(2, 1, 15, 9, 9, generator=torch.Generator().manual_seed(0))
    plain = build_model(bare, **sizes).eval()(x)
    for point in bare.points:
        for block in list_blocks():
            if block.explain_misfit(is_3d=point in bare.points_3d) is None:
                network = build_model(bare.model_copy(update={"attention": {point: block}}), **sizes).eval()
                out = network(x)
                assert out.shape == (2, 5)
                is_identity = block.kind == "nonlocal"  # until it is trained
                assert torch.equal(out, plain) == is_identity, (point, block.kind)


@pytest.mark.parametrize("name", NETWORKS)
def test_base_weights_of_every_network_do_not_depend_on_its_attention(name):
    points = list_models()[name].points
    plain = build(name, attention={}, seed=3).state_dict()
    gated = build(name, attention=dict.fromkeys(points, SE), seed=3).state_dict()
    assert len(gated) > len(plain)
    for key, value in plain.items():
        assert torch.equal(gated[key], value), key


@pytest.mark.parametrize("name", NETWORKS)
def test_costs_of_the_stages_sum_to_the_networks(name):
    network = build(name, attention={})
    rows = count_stage_costs(network)
    assert sum(row.num_parameters for row in rows) == count_parameters(network)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.eval()(torch.zeros(1, 1, 15, 9, 9))
    assert count_macs(network) == sum(row.macs for row in rows) == counter.get_total_flops() // 2
    assert all(row.contents for row in rows)


def test_the_two_conventions_of_the_counts_agree_with_numpy():
    network = build("se_resnet", attention={})
    weights = sum(np.prod(parameter.shape, dtype=int) for parameter in network.parameters())
    assert weights == count_parameters(network)


def test_what_a_stage_is_is_said_in_words():
    words = {row.name: row.contents for row in count_stage_costs(build("hybridsn", attention={"fold": SE}))}
    assert words["conv3d_1"] == "Conv3d 1→8 7×3×3, BN, ReLU"
    assert words["fold"] == "depth into features"
    assert words["attention.fold"] == "se feature 96→6→96, mean, linear"


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("se_resnet", {"depth": 34}), ("se_resnet", {"stem": "imagenet"}), ("se_resnet", {"gate": "pre"}),
        ("se_resnet", {"gate": "post"}), ("se_resnet", {"gate": "identity"}), ("se_resnet", {"dropout": 0.5}),
        ("se_resnet", {"attention": {}}),
        ("res2net", {"depth": 101}), ("res2net", {"scale": 2}), ("res2net", {"base_width": 14}),
        ("se_resnet", {"depth": 50, "stride_on": "3x3"}), ("res2net", {"stride_on": "1x1"}),
        ("res2net", {"stem": "imagenet"}), ("res2net", {"dropout": 0.5}), ("res2net", {"attention": {}}),
        ("se_inception", {"stem": "imagenet"}), ("se_inception", {"dropout": 0.5}),
        ("se_inception", {"attention": {}}),
        ("ssrn", {"features": 8}), ("ssrn", {"dropout": 0.1}), ("ssrn", {"attention": {"spatial_2": SE}}),
        ("cnn3d", {"dropout": 0.1}), ("cnn3d", {"attention": {"conv3d_2": SE}}),
        ("ssftt", {"tokens": 5}), ("ssftt", {"dropout": 0.5}), ("ssftt", {"attention": {"tokens": SE}}),
        ("spectralformer", {"mode": "pixel"}), ("spectralformer", {"group": 5}), ("spectralformer", {"fusion": False}),
        ("spectralformer", {"dropout": 0.5}), ("spectralformer", {"attention": {"embedding": SE}}),
        ("dbda", {"dropout": 0.1}), ("dbda", {"attention": {"branches": SE}}),
        ("s2mamba", {"states": 8}), ("s2mamba", {"dropout": 0.5}), ("s2mamba", {"attention": {"mixture": SE}}),
    ],
    ids=str,
)  # fmt: skip
def test_every_setting_of_a_network_changes_its_output(name, changes):
    base = {key: value for key, value in changes.items() if key == "depth" and len(changes) > 1}

    def step(**changed: Any) -> torch.Tensor:
        network = build(name, **changed).train()
        torch.manual_seed(0)
        return network(torch.randn(4, 1, 15, 9, 9))

    assert torch.equal(step(**base), step(**base))
    assert not torch.allclose(step(**base), step(**changes))


# ------------------------------------------------------------------------------------- building blocks


@pytest.mark.parametrize("gate", ["standard", "pre", "post", "identity"])
def test_the_gate_sits_where_the_figure_of_hu_et_al_has_it(gate):
    half = settings("se_resnet").attention["layer1"]
    branch = nn.Conv2d(4, 4, 3, padding=1)
    block = ResidualBlock(branch, num_in=4, num_out=4, stride=1, attention=half, gate=gate)
    for parameter in block.attention.parameters():
        nn.init.zeros_(parameter)  # the gate is 1/2
    x = torch.randn(2, 4, 5, 5)
    expected = {
        "standard": (x + branch(x) / 2).relu(),
        "pre": (x + branch(x / 2)).relu(),
        "post": (x + branch(x)).relu() / 2,
        "identity": (x / 2 + branch(x)).relu(),
    }[gate]
    torch.testing.assert_close(block(x), expected)


def test_a_res2net_group_sees_the_groups_before_it():
    branch = Hierarchy(8, 2, group_width=2, scale=4, strides=(1, 1)).eval()
    x = torch.randn(1, 8, 6, 6)
    one, two, three, four = branch.reduce(x).split(2, 1)
    first = branch.convs[0](one)
    second = branch.convs[1](two + first)
    third = branch.convs[2](three + second)
    torch.testing.assert_close(branch(x), branch.expand(torch.cat([first, second, third, four], 1)))


class Bottleneck(nn.Module):
    """The block of torchvision and of public SE-ResNets: stride on the 3 × 3 convolution, gate without biases."""

    def __init__(self, num_in: int, width: int, stride: int) -> None:
        super().__init__()
        num_out = 4 * width
        self.conv1, self.bn1 = nn.Conv2d(num_in, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, num_out, 1, bias=False), nn.BatchNorm2d(num_out)
        self.downsample = None
        if stride > 1 or num_in != num_out:
            conv = nn.Conv2d(num_in, num_out, 1, stride, bias=False)
            self.downsample = nn.Sequential(conv, nn.BatchNorm2d(num_out))
        hidden = num_out // 16
        self.fc = nn.Sequential(nn.Linear(num_out, hidden, bias=False), nn.Linear(hidden, num_out, bias=False))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn1(self.conv1(x)).relu()
        y = self.bn2(self.conv2(y)).relu()
        y = self.bn3(self.conv3(y))
        y = y * self.fc[1](self.fc[0](y.mean((2, 3))).relu()).sigmoid()[..., None, None]
        return (y + (x if self.downsample is None else self.downsample(x))).relu()


def make_public_se_resnet(numbers: tuple[int, ...]) -> nn.Sequential:
    """SE-ResNet in plain torch, for images of three channels."""
    layers = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    num_in = 64
    for layer, number in enumerate(numbers):
        for block in range(number):
            layers.append(Bottleneck(num_in, 64 * 2**layer, 2 if block == 0 and layer else 1))
            num_in = 4 * 64 * 2**layer
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(num_in, 7))


PUBLIC = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


@pytest.mark.parametrize(
    "numbers", [(1, 1, 1, 1), *(pytest.param(numbers, marks=pytest.mark.exhaustive) for numbers in PUBLIC.values())]
)
def test_public_se_resnets_weights_give_their_outputs_with_the_stride_on_3x3(numbers, monkeypatch):
    monkeypatch.setitem(residual.DEPTHS, 50, numbers)
    torch.manual_seed(0)
    public = make_public_se_resnet(numbers).double().eval()
    gates = {point: {"kind": "se", "bias": False} for point in ("layer1", "layer2", "layer3", "layer4")}
    changes = {"depth": 50, "stem": "imagenet", "attention": gates}
    x = torch.randn(2, 3, 65, 70, dtype=torch.float64)

    def load(network: nn.Module) -> nn.Module:
        order = ("conv1", "bn1", "conv2", "bn2", "conv3", "bn3", "downsample.0", "downsample.1", "fc.0", "fc.1")
        names = ("branch.0.conv", "branch.0.norm", "branch.1.conv", "branch.1.norm", "branch.2.conv", "branch.2.norm")
        names = (*names, "shortcut.conv", "shortcut.norm", "attention.reduce", "attention.expand")
        pairs = [(public[0], network.stages.stem[1].conv), (public[1], network.stages.stem[1].norm)]
        ours = [block for point in gates for block in network.stages[point]]
        for theirs, own in zip((each for each in public if isinstance(each, Bottleneck)), ours, strict=True):
            parts = dict(theirs.named_modules())
            pairs += [(parts[a], own.get_submodule(b)) for a, b in zip(order, names, strict=True) if a in parts]
        for source, target in [*pairs, (public[-1], network.head[-1])]:
            target.load_state_dict(source.state_dict())
        assert count_parameters(network) == count_parameters(public)
        return network.double().eval()

    with torch.no_grad():
        expected = public(x)
        sizes = {"bands": 3, "patch": 65, "classes": 7}
        outputs = {on: load(build("se_resnet", **sizes, **changes, stride_on=on))(x) for on in ("3x3", "1x1")}
    assert (outputs["3x3"] - expected).abs().max() <= 1e-13 * expected.abs().max()
    assert (outputs["1x1"] - expected).abs().max() > 1e-3 * expected.abs().max()


@pytest.mark.parametrize(("changes", "strides"), [({}, (2, 1, 1)), ({"stride_on": "3x3"}, (1, 2, 1))], ids=str)
def test_a_bottlenecks_stride_is_on_its_first_convolution_or_its_second(changes, strides):
    first = build("se_resnet", depth=50, **changes).stages["layer2"][0]
    assert [conv.conv.stride for conv in first.branch] == [(stride, stride) for stride in strides]


@pytest.mark.parametrize(("changes", "strides"), [({}, (1, 2)), ({"stride_on": "1x1"}, (2, 1))], ids=str)
def test_a_res2net_blocks_stride_is_on_its_groups_or_before_them(changes, strides):
    branch = build("res2net", **changes).stages["layer3"][0].branch
    assert branch.reduce.conv.stride == (strides[0], strides[0])
    assert {conv.conv.stride for conv in branch.convs} == {(strides[1], strides[1])}
    assert branch.rest.stride == strides[1]


@pytest.mark.parametrize("depth", [18, 34])
def test_a_stride_that_basic_blocks_do_not_have_is_refused(depth):
    with pytest.raises(ValueError, match="only bottlenecks have both; leave it out, or"):
        settings("se_resnet", depth=depth, stride_on="1x1")


@pytest.mark.parametrize(("stem", "patch"), [("small", 9), ("imagenet", 27)])
@pytest.mark.parametrize("gate", ["standard", "pre"])
@pytest.mark.parametrize("stride_on", ["1x1", "3x3"])
def test_gathering_over_the_whole_map_knows_the_size_of_every_block(stem, patch, gate, stride_on):
    points = {point: {"kind": "gather_excite", "learned": True} for point in ("layer1", "layer2", "layer3", "layer4")}
    changes = {"depth": 50, "attention": points, "stem": stem, "gate": gate, "stride_on": stride_on}
    assert build("se_resnet", patch=patch, **changes).eval()(torch.randn(1, 1, 15, patch, patch)).shape == (1, 5)


@pytest.mark.parametrize("depth", [18, 50])
def test_small_stem_keeps_a_patchs_size_and_the_imagenet_stem_quarters_it(depth):
    for stem, side in (("small", 27), ("imagenet", 7)):
        rows = count_stage_costs(build("se_resnet", depth=depth, stem=stem, patch=27))
        assert rows[0].shape[1:] == (side, side)


# ------------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize("name", NETWORKS)
def test_a_wrong_point_is_answered_with_the_networks_points(name):
    with pytest.raises(ValueError, match="unknown point") as caught:
        settings(name, attention={"layer9": SE})
    for point in list_models()[name].points:
        assert point in str(caught.value)


@pytest.mark.parametrize("kind", ["strip_pooling", "coordinate", "gather_excite"])
def test_a_2d_block_is_refused_at_a_3d_point(kind):
    with pytest.raises(ValueError, match="needs 2-D features"):
        settings("hybridsn", attention={"conv3d_2": {"kind": kind}})


def test_cbams_spatial_half_is_refused_at_a_3d_point():
    with pytest.raises(ValueError, match="the spatial gate needs a 2-D point"):
        settings("hybridsn", attention={"conv3d_2": {"kind": "cbam", "spatial_kernel": 7}})
    assert build("hybridsn", attention={"conv3d_2": {"kind": "cbam"}}).attention["conv3d_2"].places is None


@pytest.mark.parametrize(
    ("name", "bands", "patch", "message"),
    [
        ("hybridsn", 12, 9, r"input bands = 12: .* at least 13"),
        ("hybridsn", 15, 7, r"patch\.size = 7: .* at least 9"),
        ("ssrn", 6, 9, r"input bands = 6: .* keep 7 components or more"),
        ("ssrn", 15, 1, r"patch\.size = 1: .* 3 or more"),
        ("cnn3d", 12, 9, r"input bands = 12: .* at least 13"),
        ("cnn3d", 15, 5, r"patch\.size = 5: .* 7 or more"),
        ("ssftt", 2, 9, r"input bands = 2: .* keep 3 components or more"),
        ("ssftt", 15, 3, r"patch\.size = 3: .* 5 or more"),
        ("dbda", 6, 9, r"input bands = 6: .* keep 7 components or more"),
        ("svm", 15, 9, r"model\.name = svm: is fitted, not built"),
    ],
)
def test_an_input_that_does_not_fit_is_refused_by_name(name, bands, patch, message):
    with pytest.raises(ConfigError, match=message):
        build(name, bands=bands, patch=patch)
