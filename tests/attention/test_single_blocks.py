"""What one block does that others do not: worked limits, counts by hand, papers' choices."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from hsi_se.attention.cbam import Cbam
from hsi_se.attention.coordinate import Coordinate
from hsi_se.attention.eca import EfficientChannel, eca_kernel_size
from hsi_se.attention.expectation_maximization import ExpectationMaximization
from hsi_se.attention.gather_excite import GatherExcite
from hsi_se.attention.nonlocal_block import NonLocal
from hsi_se.attention.simam import SimAm
from hsi_se.attention.squeeze_excite import SqueezeExcite
from hsi_se.attention.strip_pooling import StripPooling
from hsi_se.errors import ConfigError
from hsi_se.models import initialize
from hsi_se.workflows.explain import Gate
from tests.attention.conftest import DEEP, FLAT, make


def test_the_channel_half_of_scse_is_what_explain_reports():
    x, block = torch.randn(3, *FLAT), make("scse", FLAT)
    of_places = torch.sigmoid(F.conv2d(x, block.places.weight, block.places.bias))
    assert isinstance(block, Gate)
    torch.testing.assert_close(block(x), x * block.excitation(x)[..., None, None] + x * of_places)


@pytest.mark.parametrize("axis", ["feature", "band"])
@pytest.mark.parametrize("squeeze", ["mean", "max"])
@pytest.mark.parametrize("bias", [True, False])
def test_squeeze_excite_gates_features_or_bands_at_a_3d_point(axis, squeeze, bias):
    x = torch.randn(3, *DEEP)
    channels = {"feature": 12, "band": 7}[axis]
    block = SqueezeExcite(channels, reduction=3, squeeze=squeeze, bias=bias, axis=axis)

    moved = x if axis == "feature" else x.transpose(1, 2)  # the gated axis first
    rows = moved.flatten(2)
    z = rows.mean(2) if squeeze == "mean" else rows.max(2).values
    one = F.relu(F.linear(z, block.reduce.weight, block.reduce.bias))
    gate = 1 / (1 + torch.exp(-F.linear(one, block.expand.weight, block.expand.bias)))
    expected = moved * gate[:, :, None, None, None]
    expected = expected if axis == "feature" else expected.transpose(1, 2)

    torch.testing.assert_close(block(x), expected)


@pytest.mark.parametrize("shape", [FLAT, DEEP])
@pytest.mark.parametrize("bias", [True, False])
def test_linear_and_convolutional_forms_are_twins(shape, bias):
    x = torch.randn(3, *shape)
    linear = SqueezeExcite(12, reduction=4, bias=bias, form="linear")
    conv = SqueezeExcite(12, reduction=4, bias=bias, form="conv")
    conv.load_state_dict(
        {name: value[:, :, None, None] if value.ndim == 2 else value for name, value in linear.state_dict().items()}
    )
    assert (conv(x) - linear(x)).abs().max() <= 1e-6


@pytest.mark.parametrize(
    ("channels", "reduction", "hidden"),
    [(576, 16, 36), (64, 16, 4), (8, 16, 1), (8, 1000, 1), (24, 16, 2), (30, 16, 2), (64, 1, 64)],
)
def test_hidden_width_is_the_rounded_quotient_and_never_zero(channels, reduction, hidden):
    assert SqueezeExcite(channels, reduction=reduction).reduce.weight.shape == (hidden, channels)


@pytest.mark.parametrize("form", ["linear", "conv"])
@pytest.mark.parametrize("axis", ["feature", "band"])
def test_every_parameter_of_squeeze_excite_gets_a_gradient_in_either_form(form, axis):
    block = SqueezeExcite({"feature": 12, "band": 7}[axis], reduction=1, form=form, axis=axis)
    with torch.no_grad():  # a hidden unit that is dead by chance would have none
        block.reduce.weight.abs_()
        block.reduce.bias.abs_()
    block(torch.rand(3, *DEEP)).square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in block.parameters())


def test_excitation_lies_between_zero_and_one():
    block = SqueezeExcite(12)
    gates = block.excitation(10 * torch.randn(3, *DEEP))
    assert gates.shape == (3, 12)
    assert ((gates > 0) & (gates < 1)).all()


@pytest.mark.parametrize("is_3d", [False, True])
@pytest.mark.parametrize("sub_sample", [False, True])
def test_a_new_non_local_block_is_the_identity(is_3d, sub_sample):
    x = torch.randn(2, *(DEEP if is_3d else FLAT))
    block = NonLocal(12, is_3d=is_3d, sub_sample=sub_sample)
    initialize(block, seed=3)
    assert torch.equal(block.train()(x), x)
    assert torch.equal(block.eval()(x), x)


def test_sub_sampled_keys_are_the_2_by_2_maxima():
    block = make("nonlocal", FLAT, sub_sample=True).eval()
    x = torch.randn(2, *FLAT)
    keys = F.pad(block.phi(x), (0, 0, 0, 1), value=-math.inf).unflatten(3, (2, 2)).unflatten(2, (3, 2))
    values = F.pad(block.g(x), (0, 0, 0, 1), value=-math.inf).unflatten(3, (2, 2)).unflatten(2, (3, 2))
    keys, values = keys.amax((3, 5)).flatten(2), values.amax((3, 5)).flatten(2)  # (n, c/2, 6)
    weights = torch.softmax(block.theta(x).flatten(2).transpose(1, 2) @ keys, 2)
    gathered = (weights @ values.transpose(1, 2)).transpose(1, 2).reshape(2, 6, 5, 4)
    torch.testing.assert_close(block(x), x + block.norm(block.out(gathered)))


def test_sub_sampling_at_a_3d_point_keeps_the_spectral_depth():
    block = make("nonlocal", DEEP, sub_sample=True).eval()
    x = torch.randn(2, *DEEP)
    keys, values = (
        torch.stack([F.max_pool2d(each[:, :, d], 2, ceil_mode=True) for d in range(7)], 2).flatten(2)
        for each in (block.phi(x), block.g(x))
    )
    weights = torch.einsum("ncq,ncs->nqs", block.theta(x).flatten(2), keys).softmax(2)
    gathered = torch.einsum("nqs,ncs->ncq", weights, values).reshape(2, 6, *DEEP[1:])
    torch.testing.assert_close(block(x), x + block.norm(block.out(gathered)))


def test_non_local_attention_over_equal_places_returns_their_value():
    block = make("nonlocal", FLAT).eval()
    x = torch.randn(2, 12, 1, 1).expand(2, 12, 5, 4)
    expected = x + block.norm(block.out(block.g(x)))
    torch.testing.assert_close(block(x), expected)


@pytest.mark.parametrize("kind", ["strip_pooling", "gather_excite", "simam"])
def test_a_constant_map_stays_constant(kind):
    x = torch.randn(2, 12, 1, 1).expand(2, 12, 5, 4)
    out = make(kind, FLAT).eval()(x)
    torch.testing.assert_close(out, out[:, :, :1, :1].expand_as(out))


def test_strip_pooling_gives_a_place_the_gate_of_its_row_and_col():
    # Only row 3 and col 1 carry a signal; with identity convolutions the gate is sigmoid of their sum.
    block = StripPooling(1)
    for conv, centre in ((block.along_rows, (1, 0)), (block.along_cols, (0, 1)), (block.fuse, (0, 0))):
        nn.init.zeros_(conv.weight)
        nn.init.zeros_(conv.bias)
        conv.weight.data[0, 0][centre] = 1.0
    x = torch.zeros(1, 1, 5, 4)
    x[0, 0, 3, 1] = 20.0
    gates = torch.sigmoid(x.mean(3)[0, 0][:, None] + x.mean(2)[0, 0][None, :])
    torch.testing.assert_close(block(x)[0, 0], x[0, 0] * gates)


@pytest.mark.parametrize(
    ("channels", "size"), [(1, 1), (8, 3), (16, 3), (32, 3), (64, 3), (128, 5), (256, 5), (512, 5), (576, 5)]
)
def test_ecas_kernel_is_the_papers(channels, size):
    assert eca_kernel_size(channels) == size
    assert EfficientChannel(channels).conv.weight.shape == (1, 1, size)


@pytest.mark.parametrize(
    ("block", "num_gates"),
    [
        (SqueezeExcite(12), 1), (EfficientChannel(12), 1), (Cbam(12), 2), (Cbam(12, spatial_kernel=0), 1),
        (Coordinate(12).eval(), 2), (StripPooling(12), 1),
    ],
    ids=lambda part: type(part).__name__,
)  # fmt: skip
def test_zero_weights_halve_the_input_once_a_gate(block, num_gates):
    for parameter in block.parameters():
        nn.init.zeros_(parameter)
    x = torch.randn(2, *FLAT)
    torch.testing.assert_close(block(x), x / 2**num_gates)


def test_gather_excite_takes_the_mean_of_the_neighbourhood():
    x = torch.randn(1, 1, 8, 8)
    block = GatherExcite(extent=2)  # means of 3 × 3 places around every second one
    padded = F.pad(x, (1, 1, 1, 1), value=math.nan)
    for row, col in ((0, 0), (3, 5), (7, 7)):
        at = (row // 2 * 2, col // 2 * 2)
        mean = padded[0, 0, at[0] : at[0] + 3, at[1] : at[1] + 3].nanmean()
        torch.testing.assert_close(block(x)[0, 0, row, col], x[0, 0, row, col] * mean.sigmoid())


def test_simam_favours_the_value_that_stands_out():
    x = torch.ones(1, 1, 4, 4)
    x[0, 0, 2, 2] = 5.0
    gates = SimAm()(x) / x
    assert gates.argmax() == 10
    # By hand: the mean is 1.25, the sum of squares 15, the variance 1.
    assert float(gates[0, 0, 2, 2]) == pytest.approx(1 / (1 + math.exp(-(3.75**2 / (4 * 1.0001) + 0.5))), rel=1e-5)


def test_a_single_place_is_no_division_by_zero():
    assert SimAm()(torch.ones(2, 3, 1, 1)).isfinite().all()


@pytest.mark.parametrize(("channels", "reduction"), [(12, 2), (8, 8)])  # the second has an inner width of one
@pytest.mark.parametrize("is_3d", [False, True])
def test_a_non_local_block_never_holds_the_similarity_of_all_pairs(is_3d, channels, reduction):
    """Only torch's fused attention may run here; with another layout it would refuse to."""
    block = NonLocal(channels, is_3d=is_3d, reduction=reduction)
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION), torch.no_grad():
        block(torch.randn(2, channels, *(3,) * is_3d, 5, 5))


@pytest.mark.parametrize(("shape", "sub_sample"), [((2, 6, 4, 5), False), ((2, 6, 3, 4, 5), True)])
def test_non_local_is_the_softmax_of_every_pair_of_places(shape, sub_sample):
    torch.manual_seed(0)
    block = NonLocal(shape[1], is_3d=len(shape) == 5, sub_sample=sub_sample).double().eval()
    nn.init.ones_(block.norm.weight)
    x = torch.randn(shape, dtype=torch.float64)
    q, k, v = (conv(x) for conv in (block.theta, block.phi, block.g))
    if sub_sample:
        k, v = (F.max_pool3d(each, (1, 2, 2), ceil_mode=True) for each in (k, v))
    weights = torch.einsum("ncq,ncs->nqs", q.flatten(2), k.flatten(2)).softmax(2)
    gathered = torch.einsum("nqs,ncs->ncq", weights, v.flatten(2)).view(q.shape)
    torch.testing.assert_close(block(x), x + block.norm(block.out(gathered)))


@pytest.mark.parametrize(
    ("kind", "changes", "count"),
    [
        # Two layers from C to C/2 and back with biases, and C weights and a bias for the positions.
        ("scse", {}, (64 * 32 + 32) + (32 * 64 + 64) + (64 + 1)),
        # Two C × C convolutions, the first with a bias, and a norm; the bases are no parameters.
        ("em", {}, (64 * 64 + 64) + 64 * 64 + 2 * 64),
        # A kernel of one map or of 3 × 3 per channel, and a norm; as many as there are halvings.
        ("gather_excite", {"learned": True}, 64 * 17 * 17 + 2 * 64),
        ("gather_excite", {"learned": True, "extent": 2}, 64 * 9 + 2 * 64),
        ("gather_excite", {"learned": True, "extent": 8}, 3 * (64 * 9 + 2 * 64)),
        ("gather_excite", {}, 0),
    ],
)
def test_parameters_of_the_blocks_are_those_counted_by_hand(kind, changes, count):
    assert sum(each.numel() for each in make(kind, (64, 17, 17), **changes).parameters()) == count


def test_learned_gathering_halves_the_map_with_depthwise_convolutions():
    x = torch.randn(2, 3, 7, 6)
    block = make("gather_excite", (3, 7, 6), learned=True, extent=4).eval()
    conv, norm, relu, second, last = block.gather

    def convolve(y: Tensor, layer: Any) -> Tensor:
        padded = F.pad(y, (1, 1, 1, 1))
        windows = padded.unfold(2, 3, 2).unfold(3, 3, 2)  # (n, c, h/2, w/2, 3, 3)
        return torch.einsum("nchwij,cij->nchw", windows, layer.weight[:, 0])

    expected = last(convolve(relu(norm(convolve(x, conv))), second))
    assert expected.shape[2:] == (2, 2)
    rows, cols = (torch.arange(7) * 2 // 7, torch.arange(6) * 2 // 6)
    torch.testing.assert_close(block(x), x * expected[:, :, rows][..., cols].sigmoid())


def test_learned_gathering_of_the_whole_map_is_a_product_with_it_and_refuses_another_size():
    x = torch.randn(2, 12, 5, 4)
    block = make("gather_excite", FLAT, learned=True).eval()
    conv, norm = block.gather
    gates = norm(torch.einsum("nchw,chw->nc", x, conv.weight[:, 0])[..., None, None]).sigmoid()
    torch.testing.assert_close(block(x), x * gates)
    with pytest.raises(ConfigError, match="learned over another map, 6 × 4 and 5 × 4; write extent: 2, 4"):
        block(torch.randn(2, 12, 6, 4))


def test_the_bases_follow_the_training_batches_and_reconstruct_few_groups_exactly():
    torch.manual_seed(0)
    block = ExpectationMaximization(6, bases=2, steps=10)
    nn.init.eye_(block.embed.weight[:, :, 0, 0].data)
    nn.init.zeros_(block.embed.bias)
    nn.init.eye_(block.out.weight[:, :, 0, 0].data)
    one, other = torch.eye(6)[0], torch.eye(6)[3]  # two groups of positions, of different features
    block.bases = torch.stack([one + 0.1, other + 0.1], 1)
    x = (20 * torch.stack([one] * 8 + [other] * 8, 1)).view(1, 6, 4, 4)
    for _ in range(100):
        block.train()(x)
    torch.testing.assert_close(block.bases, torch.stack([one, other], 1), atol=1e-3, rtol=0)
    saved = block.bases.clone()
    block.eval()(x)
    assert torch.equal(block.bases, saved)


def test_scse_and_em_at_a_3d_point_take_the_depth_as_positions():
    x = torch.randn(2, 12, 7, 5, 4)
    for kind in ("scse", "em"):
        deep, flat = make(kind, DEEP).eval(), make(kind, FLAT).eval()
        flat.load_state_dict(
            {name: value.squeeze(-1) if value.ndim == 5 else value for name, value in deep.state_dict().items()}
        )
        torch.testing.assert_close(deep(x).flatten(2), flat(x.flatten(2)[..., None]).flatten(2))


def test_squeeze_excite_equals_plain_tensor_code_at_a_2d_point():
    x = torch.randn(3, *FLAT)
    block = SqueezeExcite(12, reduction=4)
    z = x.sum((2, 3)) / 20
    hidden = (z @ block.reduce.weight.T + block.reduce.bias).clamp(min=0)
    gate = torch.sigmoid(hidden @ block.expand.weight.T + block.expand.bias)
    torch.testing.assert_close(block(x), torch.einsum("nchw,nc->nchw", x, gate))
